//! What stops a graph.

use arrow::error::ArrowError;
use millpond_state::StateFault;

use crate::NodeId;

/// The graph contradicts its input, its specification or itself. Its state is half changed: it must be discarded and
/// rebuilt from a checkpoint. Never the user's error; those are [`crate::Rejected`] rows.
#[derive(Debug, thiserror::Error)]
#[error("operator {operator} (node {}) failed: {cause}", node.0)]
pub struct Fault {
    pub node: NodeId,
    pub operator: &'static str,
    #[source]
    pub cause: Cause,
}

/// Why a graph stopped.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    #[error(
        "a group has the weight {weight} at the end of an epoch: more rows are retracted than were inserted"
    )]
    NegativeWeight { weight: i64 },
    #[error("an input that was said to be append-only retracts rows")]
    NotAppendOnly,
    #[error("a batch with the columns {found} came where {expected} was expected")]
    Schema { expected: String, found: String },
    #[error("an Arrow kernel failed")]
    Arrow(#[from] ArrowError),
    #[error("saved state cannot be used")]
    State(#[from] StateFault),
    #[error("saved state is malformed: {0}")]
    Saved(String),
    #[error("there is no such node, or it is of another kind")]
    NoSuchNode,
    #[error("the watermark went back")]
    WatermarkWentBack,
}

impl Cause {
    pub(crate) fn at(self, node: NodeId, operator: &'static str) -> Fault {
        Fault { node, operator, cause: self }
    }
}
