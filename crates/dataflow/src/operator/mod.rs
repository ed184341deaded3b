//! What a node does with deltas.
//!
//! A [`Linear`] operator has no state: it may be called from many threads with pieces of one delta. An [`Operator`] has
//! state and one instance per shard; a [`Router`] prepares deltas for it once, before they are split by hash.

pub(crate) mod flat_map;
pub(crate) mod map;
pub(crate) mod repeat;
pub(crate) mod window;

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use millpond_state::KeyedRun;
use millpond_types::{Delta, EventTime, SqlError};

use crate::aggregate::Changes;
use crate::fault::Cause;

/// What an operator gives besides its state.
#[derive(Default)]
pub(crate) struct Output {
    pub(crate) deltas: Vec<Delta>,
    pub(crate) rejected: Vec<RejectedRow>,
    pub(crate) late: Vec<LateRows>,
}

/// As [`crate::Rejected`], before it is known of which node.
pub(crate) struct RejectedRow {
    pub(crate) error: SqlError,
    pub(crate) row: RecordBatch,
    pub(crate) weight: i64,
}

/// As [`crate::Late`], before it is known of which node.
pub(crate) struct LateRows {
    pub(crate) rows: Delta,
    pub(crate) window_ends: Vec<i64>,
    pub(crate) watermarks: Vec<i64>,
}

impl Output {
    pub(crate) fn append(&mut self, mut other: Self) {
        self.deltas.append(&mut other.deltas);
        self.rejected.append(&mut other.rejected);
        self.late.append(&mut other.late);
    }
}

/// Whether an epoch is drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    More,
    Done,
}

/// An operator without state: its output is the sum of its outputs over the rows.
pub(crate) trait Linear: Send + Sync {
    fn name(&self) -> &'static str;
    fn apply(&self, delta: &Delta, out: &mut Output) -> Result<(), Cause>;
    /// Output columns that hold the start and the end of one window; the end determines the start.
    fn window_columns(&self) -> Option<(usize, usize)> {
        None
    }
}

/// Rows for one shard of an operator: the columns it needs, weights, and the hash of each row's key.
pub(crate) struct Piece {
    /// Which of the operator's sources the rows come from.
    pub(crate) port: usize,
    pub(crate) columns: Vec<ArrayRef>,
    pub(crate) weights: Option<Arc<[i64]>>,
    pub(crate) hashes: Vec<u64>,
}

/// The stateless half of an [`Operator`]: refuses late rows, drops columns that are not needed, hashes keys.
pub(crate) trait Router: Send + Sync {
    fn route(&self, delta: &Delta, out: &mut Output) -> Result<Piece, Cause>;
}

/// One shard of a node with state. Pieces of an epoch come in any number, then `poll` drains it (I4).
pub(crate) trait Operator: Send {
    fn push(&mut self, piece: Piece) -> Result<(), Cause>;
    /// Emits what is due, a bounded batch at a time; `Done` closes the epoch, so a huge output never piles up.
    fn poll(&mut self, out: &mut Output) -> Result<Progress, Cause>;
    /// Event time has passed `mark`: close windows and free state with the polls that follow.
    fn watermark(&mut self, mark: EventTime);
    /// Adds what has changed since the last freeze.
    fn freeze(&mut self, changes: &mut Changes);
    /// Takes the rows of a saved state whose keys belong to this shard.
    fn restore(&mut self, state: &str, run: &KeyedRun, shard: usize, shards: usize) -> Result<(), Cause>;
    /// State and watermarks of a checkpoint are there: what they say was published before it.
    fn resume(&mut self) {}
    /// Groups or rows held.
    fn rows(&self) -> usize;
    fn memory_bytes(&self) -> usize;
}

/// The parts of a node with state.
pub(crate) struct Built {
    /// One per source.
    pub(crate) routers: Vec<Arc<dyn Router>>,
    pub(crate) shards: Vec<Box<dyn Operator>>,
    pub(crate) states: &'static [&'static str],
}
