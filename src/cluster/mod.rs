//! Several servers with one log: a publisher appends its batches to a stream of NATS,
//! and gateways read it and serve clients. Clients see only records that the stream has committed,
//! with the same epochs and sequence numbers on every gateway.
//!
//! Each [`record`] contains the checksum of the one before it, so that a log that was replaced or
//! rolled back is noticed. Each append names the record that it follows: of two publishers only
//! one can go on.

mod append_fault;
mod bucket;
mod checkpoint;
mod checkpoints;
mod command;
mod commits;
mod control;
mod control_service;
mod follower;
mod forms;
mod inputs;
mod items;
mod log_store;
mod node_report;
mod push;
mod record;
mod repair;
mod settings;
mod start;
mod status;
mod store;
mod survey;
#[cfg(test)]
mod tests;
mod uplink;
mod verify;

pub use append_fault::AppendFault;
pub use bucket::{Bucket, Stored};
#[cfg(feature = "internals")]
pub use checkpoint::seal as seal_checkpoint;
pub use checkpoint::{CheckpointFault, LogCheckpoint, Place, decode_checkpoint, encode_checkpoint};
pub use checkpoints::{Asker, WrittenCheckpoint};
pub use command::{Command, Leave, NewOrigin};
pub use commits::Leadership;
pub use control::{
    ControlError, Done, Handover, request_checkpoint, request_handover, request_new_epoch,
};
pub use control_service::{HandoverRequest, answer_as_standby, answer_operators, answer_reports};
pub use follower::{Claimed, FollowError, Follower};
pub use items::{ItemFault, Lead, Packer, Unpacker, lead_body, read_lead};
pub use log_store::{Acknowledgement, LogStore, NewRecords};
pub use node_report::{NodeReport, REPORT_INTERVAL, report_node};
pub use push::{ForwardError, PushAnswer, PushHead, PushLink, PushRequest, PushRequests};
pub use record::{
    Author, BODY_BYTES_MAX, ChainFault, Kind, Position, Record, RecordFault, short_sum,
};
pub use repair::KeptRecords;
pub use settings::{CheckpointSettings, ClusterSettings, NatsLogin, Role};
pub use start::{NoStart, Start, find_start};
pub use status::ClusterStatus;
pub use store::{Extent, Last, PendingAppend, Store, StoreError};
pub use survey::{Leader, Survey, survey};
pub use uplink::{LeadError, Uplink, UplinkParts};
pub use verify::{RecordFlaw, Verified, VerifyError, verify};
