//! Groups and their accumulators.
use millpond_state::{KeyedRun, StateFault};

use crate::NodeId;

/// One row per group: window (NULL without one), key columns, then accumulator columns.
pub const STATE_GROUPS: &str = "groups";
/// One row per distinct value of a min or max whose input retracts: window, key columns, call, value, then its weight.
pub const STATE_VALUES: &str = "values";

/// What changed in one state of one node since the last freeze: copied, not yet encoded.
pub struct Frozen {
    pub node: NodeId,
    /// [`STATE_GROUPS`] or [`STATE_VALUES`].
    pub state: &'static str,
}

impl Frozen {
    /// Rows, among them those of deleted keys.
    pub fn rows(&self) -> usize {
        unimplemented!()
    }

    /// Decodes, sorts and packs the rows: work for a background thread.
    ///
    /// # Errors
    /// If the rows cannot be made a run.
    pub fn into_run(self) -> Result<KeyedRun, StateFault> {
        unimplemented!()
    }
}
