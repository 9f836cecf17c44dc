//! Problems and values that reading a file finds.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::Problem;

/// Values of the keys that were read, defaults included, by path in the table; sections of a list are left out.
pub(super) type Values = BTreeMap<String, String>;

/// Results of reading a file beside the config itself.
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
