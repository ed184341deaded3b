//! Nodes, and the epochs that pass through them.

mod build;
mod checkpoint;
mod node;
mod step;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use arrow::array::RecordBatch;
use millpond_types::{Delta, EventTime, SqlError};
use node::Node;
pub use step::Sink;

/// A node of a graph. Ids ascend from sources to users and are never given twice, also over graphs that are
/// [`Graph::sibling`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

/// Where deltas come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InputId(pub NodeId);

/// Where deltas come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutputId(pub NodeId);

impl From<InputId> for NodeId {
    fn from(input: InputId) -> Self {
        input.0
    }
}

impl From<OutputId> for NodeId {
    fn from(output: OutputId) -> Self {
        output.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Gives nanoseconds from any origin.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// A graph of operators, stepped from outside by one thread.
///
/// Large deltas are worked on by the threads of the pool, one shard each; small ones on the calling thread, because waking
/// a thread costs more than the work.
pub struct Graph {
    shards: usize,
    pool: Arc<rayon::ThreadPool>,
    ids: Arc<AtomicU32>,
    /// In order of ids, which is an order of dependence.
    nodes: BTreeMap<NodeId, Node>,
    clock: Option<Clock>,
    /// An epoch that has been interrupted.
    on_its_way: Option<Box<step::Step>>,
}

/// What one epoch brings.
#[derive(Clone, Debug, Default)]
pub struct EpochInput {
    pub deltas: Vec<(InputId, Vec<Delta>)>,
    /// The watermarks after this epoch; those that did not move may be left out.
    pub watermarks: Vec<(InputId, EventTime)>,
}

/// What one epoch changes.
#[derive(Debug, Default)]
pub struct EpochOutput {
    /// In batches of bounded size, retractions before the insertions that replace them within a batch.
    pub outputs: Vec<(OutputId, Vec<Delta>)>,
    pub rejected: Vec<Rejected>,
    pub late: Vec<Late>,
    pub stats: EpochStats,
}

/// A row that an expression refused, or a group whose result is out of range.
#[derive(Clone, Debug)]
pub struct Rejected {
    pub node: NodeId,
    pub operator: &'static str,
    pub error: SqlError,
    /// One row: of the operator's source, or the key of the group that is withheld.
    pub row: RecordBatch,
    /// Negative when a row that was refused is retracted, or a withheld group fits again.
    pub weight: i64,
}

/// Rows that came after their window had closed.
#[derive(Clone, Debug)]
pub struct Late {
    pub node: NodeId,
    pub operator: &'static str,
    /// Rows of the operator's source; of a hop a row stands here once for each window that refuses it.
    pub rows: Delta,
    /// Of each row, the end of the window that refuses it.
    pub window_ends: Vec<i64>,
    /// Of each row, the watermark that it came after.
    pub watermarks: Vec<i64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EpochStats {
    pub rows_in: u64,
    pub rows_out: u64,
}

/// What a node has done and holds.
#[derive(Clone, Debug)]
pub struct NodeStats {
    pub node: NodeId,
    pub operator: &'static str,
    pub rows_in: u64,
    pub rows_out: u64,
    /// Groups or rows held.
    pub state_rows: u64,
    pub memory_bytes: u64,
    /// As the stepping thread sees it; 0 without a clock.
    pub busy_nanos: u64,
    /// The names of its states in a checkpoint, in the order in which they are restored.
    pub states: &'static [&'static str],
    pub watermark: Option<EventTime>,
}
