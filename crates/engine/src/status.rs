//! What a health check, the metrics page or the demo shows of a running engine: plain numbers, read at one moment.

use millpond_types::{Commit, EventTime, RelationId};

/// Everything is counted since the process started, unless it says otherwise.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// `false` once the log refuses writes; `failure` says why.
    pub healthy: bool,
    pub failure: Option<String>,
    pub uptime_seconds: f64,
    pub connections: usize,
    /// Newest commit that is on disk.
    pub durable: Commit,
    /// Newest cut that readers see.
    pub published: Commit,
    /// Rows that were committed to the log.
    pub rows_in: u64,
    pub epochs: u64,
    /// Sum of the durations of all epochs, and the longest of the last 1,000.
    pub epoch_seconds: f64,
    pub epoch_seconds_max: f64,
    pub checkpoint: Option<CheckpointStatus>,
    pub checkpoint_failures: u64,
    /// Bytes of all live state: view contents, table images, operator state.
    pub state_bytes: usize,
    pub memory_limit_bytes: usize,
    pub relations: Vec<RelationStatus>,
}

#[derive(Clone, Debug)]
pub struct CheckpointStatus {
    pub number: u64,
    pub cut: Commit,
    pub bytes: u64,
    pub seconds: f64,
    /// How long the epoch driver stood still for it.
    pub pause_seconds: f64,
}

/// A source, table or materialized view.
#[derive(Clone, Debug)]
pub struct RelationStatus {
    pub id: RelationId,
    pub schema: String,
    pub name: String,
    pub kind: &'static str,
    pub state: RelationState,
    /// Rows that it holds now (views and tables) or has received (sources).
    pub rows: u64,
    pub state_bytes: usize,
    pub watermark: Option<EventTime>,
    /// Rows refused because they came after their window had closed, counted without the cap of `millpond.late_rows`.
    pub late_rows: u64,
    /// Rows in error, counted without the cap of `millpond.errors`.
    pub error_rows: u64,
    /// The cut that its contents reflect.
    pub epoch: Commit,
    pub busy_seconds: f64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RelationState {
    Running,
    /// Being filled from history: rows done so far.
    Building {
        rows_done: u64,
    },
    /// It goes its own way behind the others, because it is large or slow; `epoch` says how far it is.
    Following,
    /// It stands still until it is resumed; the text says why.
    Paused(String),
    /// Stopped alone; the text says why.
    Failed(String),
}

impl RelationState {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Building { .. } => "building",
            Self::Following => "following",
            Self::Paused(_) => "paused",
            Self::Failed(_) => "failed",
        }
    }
}
