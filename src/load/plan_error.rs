/// Invalid argument, with the expected form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {right}; got \"{text}\"")]
pub struct PlanError {
    pub(super) text: String,
    pub(super) right: &'static str,
}

impl PlanError {
    pub(super) fn new(text: &str, right: &'static str) -> Self {
        Self {
            text: text.escape_debug().take(60).collect(),
            right,
        }
    }
}
