//! State out of the graph and back.

use millpond_state::KeyedRun;
use millpond_types::EventTime;

use super::node::Kind;
use super::{Graph, InputId, NodeId};
use crate::aggregate::Changes;
use crate::fault::Cause;
use crate::{Fault, Frozen};

impl Graph {
    /// What has changed in every operator's state since the last freeze, at an epoch boundary. Copies rows but encodes and
    /// sorts nothing: [`Frozen::into_run`] does, on another thread. A state that has not changed is left out.
    pub fn freeze(&mut self) -> Vec<Frozen> {
        let mut frozen = Vec::new();
        for (id, node) in &mut self.nodes {
            if let Kind::Keyed(keyed) = &mut node.kind {
                let mut changes = Changes::default();
                keyed.shards.iter_mut().for_each(|operator| operator.freeze(&mut changes));
                frozen.extend(changes.into_frozen(*id));
            }
        }
        frozen
    }

    /// Fills a state of a freshly built node from all of its runs merged into one ([`KeyedRun::merge`] at the bottom). For
    /// each node the states come in the order of [`crate::NodeStats::states`]. The number of shards may be another.
    ///
    /// # Errors
    /// If the node has no such state, or the run does not fit it.
    pub fn restore(&mut self, node: NodeId, state: &str, run: &KeyedRun) -> Result<(), Fault> {
        let Some(Kind::Keyed(keyed)) = self.nodes.get_mut(&node).map(|node| &mut node.kind) else {
            return Err(Cause::NoSuchNode.at(node, "restored"));
        };
        let shards = keyed.shards.len();
        for (shard, operator) in keyed.shards.iter_mut().enumerate() {
            operator.restore(state, run, shard, shards).map_err(|cause| cause.at(node, keyed.name))?;
        }
        Ok(())
    }

    /// Sets the watermarks of the cut that the saved state belongs to, before or after [`Graph::restore`]: always, also if
    /// there are none.
    ///
    /// # Errors
    /// If a node is no input, or its watermark would go back.
    pub fn restore_watermarks(&mut self, watermarks: &[(InputId, EventTime)]) -> Result<(), Fault> {
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for id in ids {
            let given = watermarks.iter().find(|(input, _)| input.0 == id).map(|(_, mark)| *mark);
            self.advance(id, given)?;
            if let Some(Kind::Keyed(keyed)) = self.nodes.get_mut(&id).map(|node| &mut node.kind) {
                keyed.shards.iter_mut().for_each(|operator| operator.resume());
            }
        }
        Ok(())
    }
}
