/// Outcome of an append that was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendFault {
    /// The log contains another record at this place.
    Refused,
    /// Unknown whether the log contains the record.
    Unknown,
}
