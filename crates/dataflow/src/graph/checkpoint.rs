//! State out of the graph and back.

use millpond_state::KeyedRun;
use millpond_types::EventTime;

use super::{Graph, InputId, NodeId};
use crate::{Fault, Frozen};

impl Graph {
    /// What has changed in every operator's state since the last freeze, at an epoch boundary. Copies rows but encodes and
    /// sorts nothing: [`Frozen::into_run`] does, on another thread. A state that has not changed is left out.
    pub fn freeze(&mut self) -> Vec<Frozen> {
        unimplemented!()
    }

    /// Fills a state of a freshly built node from all of its runs merged into one ([`KeyedRun::merge`] at the bottom). For
    /// each node [`crate::STATE_GROUPS`] comes before [`crate::STATE_VALUES`]. The number of shards may be another.
    ///
    /// # Errors
    /// If the node has no such state, or the run does not fit it.
    pub fn restore(&mut self, node: NodeId, state: &str, run: &KeyedRun) -> Result<(), Fault> {
        let _ = (node, state, run);
        unimplemented!()
    }

    /// Sets the watermarks of the cut that the restored state belongs to.
    pub fn restore_watermarks(&mut self, watermarks: &[(InputId, EventTime)]) {
        let _ = watermarks;
        unimplemented!()
    }
}
