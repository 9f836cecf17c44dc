//! Table of the measured figures.

/// One figure over all rounds.
#[derive(Debug)]
struct Row {
    what: String,
    values: Vec<f64>,
    unit: &'static str,
    wanted: &'static str,
}

/// All figures.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

/// A number with three significant digits.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 1e6 => format!("{:.2} M", value / 1e6),
        size if size >= 1e4 => format!("{:.0} k", value / 1e3),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

impl Row {
    /// Median, and the least and greatest value.
    fn figure(&self) -> String {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        let median = sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN);
        let spread = match (sorted.first(), sorted.last()) {
            (Some(least), Some(greatest)) if sorted.len() > 1 => {
                format!(" ({}–{})", short(*least), short(*greatest))
            }
            _ => String::new(),
        };
        format!("{}{spread} {}", short(median), self.unit)
    }
}

impl Report {
    /// Adds a figure of all rounds, and prints it.
    pub(crate) fn add(
        &mut self,
        what: impl Into<String>,
        values: Vec<f64>,
        unit: &'static str,
        wanted: &'static str,
    ) {
        let row = Row {
            what: what.into(),
            values,
            unit,
            wanted,
        };
        println!("  {:<62}{:>34}  {}", row.what, row.figure(), row.wanted);
        self.rows.push(row);
    }

    pub(crate) fn markdown(&self) -> String {
        let head = "| What | Measured: median (least–greatest) | Target |\n|---|---|---|\n";
        let row = |row: &Row| format!("| {} | {} | {} |\n", row.what, row.figure(), row.wanted);
        let rows = self.rows.iter().map(row);
        rows.fold(head.to_owned(), |text, row| text + &row)
    }
}
