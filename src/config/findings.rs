//! Problems and values found while reading a file.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::Problem;

/// Values of the keys read, including defaults, by path in the table; sections of a list are
/// omitted.
pub(super) type Values = BTreeMap<String, String>;

/// Results of reading a file, in addition to the config itself.
#[derive(Debug, Default)]
pub(super) struct Findings {
    problems: RefCell<Vec<Problem>>,
    pub(super) values: RefCell<Values>,
}

impl Findings {
    pub(super) fn new(problems: Vec<Problem>) -> Self {
        Self {
            problems: RefCell::new(problems),
            values: RefCell::default(),
        }
    }

    pub(super) fn problem(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    pub(super) fn into_parts(self) -> (Vec<Problem>, Values) {
        (self.problems.into_inner(), self.values.into_inner())
    }
}
