//! The order of a file's rows in time: newest-first files are sorted, and rows far from those around them are refused.

use super::account::RowFault;
use super::reader::{Mark, Placed};

/// Rows by which the order of a file is judged.
const JUDGED_BY: usize = 1000;
/// The most rows of a newest-first file, because all of them are held to be sorted.
pub(super) const SORTED_ROWS_MAX: usize = 250_000;

/// What comes of a row, now or later: the row, or the line and why it is skipped.
pub(super) type Ordered = Vec<Result<Placed, (u64, RowFault)>>;

/// Decides about a file's order by its first rows.
#[derive(Debug)]
enum State {
    /// The first rows are gathered.
    Judging(Vec<Placed>),
    /// The file is in order, or nearly.
    Passing,
    /// It stands newest first; all of it is gathered.
    Sorting(Vec<Placed>),
}

/// Puts rows in order.
#[derive(Debug)]
pub(super) struct Sequencer {
    state: State,
}

impl Sequencer {
    /// `was_sorted`: it was found to be newest first before.
    pub(super) const fn new(was_sorted: bool) -> Self {
        Self {
            state: if was_sorted {
                State::Sorting(Vec::new())
            } else {
                State::Judging(Vec::new())
            },
        }
    }

    pub(super) const fn is_sorted(&self) -> bool {
        matches!(self.state, State::Sorting(_))
    }

    /// How many rows are held until the end of the file.
    pub(super) const fn held(&self) -> usize {
        match &self.state {
            State::Sorting(rows) => rows.len(),
            State::Judging(_) | State::Passing => 0,
        }
    }

    /// Takes a row; returns what has its place now.
    pub(super) fn push(&mut self, _line: u64, placed: Placed) -> Ordered {
        match &mut self.state {
            State::Passing => vec![Ok(placed)],
            State::Judging(rows) => {
                rows.push(placed);
                if rows.len() < JUDGED_BY {
                    return Vec::new();
                }
                self.judge()
            }
            State::Sorting(rows) => {
                rows.push(placed);
                Vec::new()
            }
        }
    }

    fn judge(&mut self) -> Ordered {
        let State::Judging(rows) = &mut self.state else {
            return Vec::new();
        };
        let rows = std::mem::take(rows);
        if is_newest_first(&rows) {
            self.state = State::Sorting(rows);
            return Vec::new();
        }
        self.state = State::Passing;
        rows.into_iter().map(Ok).collect()
    }

    /// The rows that are left. `fingerprint`: that of the whole file.
    pub(super) fn finish(&mut self, fingerprint: u32) -> Ordered {
        let mut ordered = self.judge();
        if let State::Sorting(rows) = &mut self.state {
            let mut rows = std::mem::take(rows);
            // Rows of one time stand newest first as well.
            rows.reverse();
            rows.sort_by_key(|placed| placed.row.ts());
            for (at, placed) in rows.iter_mut().enumerate() {
                placed.mark = Mark {
                    rows: at as u64 + 1,
                    fingerprint,
                };
            }
            ordered.extend(rows.into_iter().map(Ok));
        }
        ordered
    }
}

/// True if nearly every change of time in these rows is backwards.
fn is_newest_first(rows: &[Placed]) -> bool {
    let pairs = rows
        .windows(2)
        .map(|pair| (pair[0].row.ts(), pair[1].row.ts()));
    let (back, forth) = pairs.fold((0, 0), |(back, forth), (before, after)| {
        (
            back + usize::from(after < before),
            forth + usize::from(after > before),
        )
    });
    rows.len() >= 3 && back > 9 * forth
}
