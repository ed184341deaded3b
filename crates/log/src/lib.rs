//! The journal: one durable, totally ordered log of all topics.
//!
//! A [`Transaction`] holds [`Write`]s to any topics and control [`Record`]s. [`Log::submit`] queues it; everything that
//! waits becomes one *commit group*: frames (Arrow IPC, writes merged per partition) and one commit record, written with one
//! write and one `fdatasync`, and only then acknowledged by the [`Ticket`]s. A frame without its commit record does not
//! exist. The number of the commit record is the one global order ([`millpond_types::Commit`]).
//!
//! ```text
//! 00000000000000000001.log, named by its first commit
//! ┌────────┬────────┬───────┬───────┬────────┬────────┬───────┬────────┬──────
//! │ header │ schema │ frame │ frame │ commit │ record │ frame │ commit │ ...
//! └────────┴────────┴───────┴───────┴────────┴────────┴───────┴────────┴──────
//!           ╰────────── group 1 ───────────╯ ╰──── group 2 ────────────╯
//! ```
//!
//! Each item's header holds the checksum of the header before it and of its own payload, so that the chain of headers
//! vouches for every byte (module `format`). A crash leaves at most one torn group, which [`Log::open`] cuts; bad bytes before
//! that are an error with file and offset (module `recovery`). Keeps I1 and I7.
//!
//! A write or sync that fails is told to all who wait; [`Log::heal`] goes on without a restart, in a new file (module `heal`).
//!
//! Journal files that are full become segments, Parquet files per partition, in the background (module `segment`); readers
//! see one log.
//!
//! Watermarks are data: each frame records W of its topic *before* itself (module `topic`).
//!
//! Not here: what a DDL record means, how a watermark expression is evaluated, SQL. Begin at [`Log`].

mod error;
mod format;
#[doc(hidden)]
pub mod fuzz;
mod group;
mod heal;
mod index;
mod log;
mod payload;
mod queue;
mod ranges;
mod recovery;
mod replay;
mod scan;
mod segment;
mod survey;
mod ticket;
mod topic;
mod transaction;
mod writer;

pub use error::LogError;
pub use index::FrameRef;
pub use log::{ColdTier, Log, LogOptions, PartitionStorage, TierStatus};
pub use ranges::ColumnRange;
pub use recovery::{Recovered, TornTail};
pub use replay::Replay;
pub use segment::{SegmentSurvey, SpineSurvey, TopicPolicy};
pub use survey::{
    Damage, FileSurvey, Offline, SeenBody, SeenGroup, SeenItem, SeenPlace, Survey, TopicSurvey,
};
pub use ticket::Ticket;
pub use topic::{PartitionFacts, TopicSpec};
pub use transaction::{CommittedFrame, CommittedGroup, Producer, Record, Transaction, Write, WriteKind};

#[cfg(test)]
mod tests;
