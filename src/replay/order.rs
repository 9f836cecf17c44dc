//! Time order of a file's rows: newest-first files are sorted.

use super::located::{Item, LocatedRow, Mark};

/// Number of rows that decide about the order of a file.
const JUDGED_BY: usize = 1000;
/// Maximum number of rows of a newest-first file, all of which are held for sorting.
pub(super) const SORTED_ROWS_MAX: usize = 250_000;

/// Detects the order of a file from its first rows.
#[derive(Debug)]
enum State {
    /// The first rows are collected.
    Judging(Vec<Item>),
    /// The file is in order, or nearly.
    Passing,
    /// Newest first: all rows are collected before they are replayed.
    Sorting(Vec<LocatedRow>),
}

/// Orders the rows of a file.
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

    /// Number of rows held until the end of the file.
    pub(super) const fn held(&self) -> usize {
        match &self.state {
            State::Sorting(rows) => rows.len(),
            State::Judging(_) | State::Passing => 0,
        }
    }

    /// Adds a row or a rejected line; appends the rows whose order is known.
    pub(super) fn push(&mut self, item: Item, out: &mut Vec<Item>) {
        match (&mut self.state, item) {
            (State::Passing, item) => out.push(item),
            (State::Judging(items), item) => {
                items.push(item);
                if items.len() >= JUDGED_BY {
                    self.judge(out);
                }
            }
            (State::Sorting(rows), Ok(located)) => rows.push(located),
            (State::Sorting(_), refused) => out.push(refused),
        }
    }

    fn judge(&mut self, out: &mut Vec<Item>) {
        let State::Judging(items) = &mut self.state else {
            return;
        };
        let items = std::mem::take(items);
        if is_newest_first(&items) {
            let (rows, refused): (Vec<Item>, Vec<Item>) =
                items.into_iter().partition(Result::is_ok);
            self.state = State::Sorting(rows.into_iter().flatten().collect());
            out.extend(refused);
        } else {
            self.state = State::Passing;
            out.extend(items);
        }
    }

    /// Appends the remaining rows. `fingerprint` is that of the whole file.
    pub(super) fn finish(&mut self, fingerprint: u32, out: &mut Vec<Item>) {
        self.judge(out);
        if let State::Sorting(rows) = &mut self.state {
            let mut rows = std::mem::take(rows);
            // Rows of equal times are newest first as well.
            rows.reverse();
            rows.sort_by_key(|located| located.row.ts());
            for (at, located) in rows.iter_mut().enumerate() {
                located.mark = Mark {
                    rows: at as u64 + 1,
                    fingerprint,
                };
            }
            out.extend(rows.into_iter().map(Ok));
        }
    }
}

/// True if nearly every change of time in these rows is backwards.
fn is_newest_first(items: &[Item]) -> bool {
    let rows: Vec<&LocatedRow> = items.iter().flatten().collect();
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
