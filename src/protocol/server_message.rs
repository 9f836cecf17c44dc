use super::{Control, DataEvent};

/// A message of the server, as a client sees it.
#[derive(Debug, Clone, PartialEq)]
pub enum ServerMessage {
    /// A map.
    Control(Control),
    /// An array of events; those of unknown channels are left out.
    Events(Vec<DataEvent>),
}
