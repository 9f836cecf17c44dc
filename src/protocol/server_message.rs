use super::{Control, DataEvent};

/// Message of the server, as a client receives it.
#[derive(Debug, Clone, PartialEq)]
pub enum ServerMessage {
    /// Control message: a map.
    Control(Control),
    /// Data message: an array of events; events of unknown channels are omitted.
    Events(Vec<DataEvent>),
}
