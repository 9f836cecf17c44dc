//! The log: all events in a single total order, and the state of every topic as a function of it.
//!
//! The bus is the only writer. It appends a [`Batch`] of [`LogItem`]s to the [`Log`], a bounded
//! ring with one cursor per reader, and never waits for a reader. A [`Replica`] folds the items
//! into the state of all topics: the bus uses one to number events, and each shard uses one to
//! serve clients. An overrun reader resumes from a [`Checkpoint`].

mod batch;
mod catalog;
mod conflation;
mod demand;
mod event;
mod foreign;
mod item;
mod pace;
mod replica;
mod ring;
mod saved_topic;
mod shared_list;
mod source_gap;
mod source_input;
mod topic_state;

pub use batch::{Batch, Encoded};
pub use catalog::{Catalog, InstrumentId, InstrumentInfo, NotAdded, SourceId, TopicId, TopicInfo};
pub use conflation::{
    CatchUp, SNAPSHOT_TRADES, is_snapshot_sized, snapshot_events, snapshot_replaces_all,
};
pub use demand::DemandSignal;
pub use event::Event;
pub use foreign::{Announcement, ForeignFault};
pub use item::{LogItem, SourceCondition};
pub use pace::Pace;
pub use replica::{CLOSED_BARS_KEPT, Checkpoint, Replica};
pub use ring::{Log, Next};
pub use saved_topic::SavedTopic;
pub use source_gap::{SOURCE_GAPS_KEPT, SourceGap};
pub use source_input::SourceInput;
pub use topic_state::{ENDED_EPOCHS_KEPT, RestoredTopic};
