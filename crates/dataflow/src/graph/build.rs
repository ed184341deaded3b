//! Adding nodes, taking them away, and moving them between graphs.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use millpond_types::{EventTime, SqlError};

use super::{Clock, Graph, InputId, NodeId, NodeStats, OutputId};
use crate::spec::{AggregateSpec, HopSpec, MapSpec, WindowSpec};

impl Graph {
    /// A graph whose state is split into `shards` (at least 1), which are worked on by `pool` when there is much to do.
    pub fn new(shards: usize, pool: Arc<rayon::ThreadPool>) -> Self {
        let _ = (shards, pool);
        unimplemented!()
    }

    /// An empty graph with the same shards and pool, whose ids are different from all of this one's, before and after. It
    /// can be stepped by another thread and then given to [`Graph::absorb`].
    pub fn sibling(&self) -> Self {
        unimplemented!()
    }

    /// Takes over all nodes of a sibling, at an epoch boundary of both. Ids stay.
    pub fn absorb(&mut self, other: Graph) {
        let _ = other;
        unimplemented!()
    }

    /// Measures busy times of nodes with `clock` from now on.
    pub fn set_clock(&mut self, clock: Clock) {
        let _ = clock;
        unimplemented!()
    }

    pub fn shards(&self) -> usize {
        self.shards
    }

    pub fn add_input(&mut self, schema: SchemaRef) -> InputId {
        let _ = schema;
        unimplemented!()
    }

    /// # Errors
    /// XX000 if `source` does not exist.
    pub fn add_map(&mut self, source: impl Into<NodeId>, spec: MapSpec) -> Result<NodeId, SqlError> {
        let _ = (source.into(), spec);
        unimplemented!()
    }

    /// # Errors
    /// XX000 if a column does not exist or is no microsecond timestamp.
    pub fn add_window(&mut self, source: impl Into<NodeId>, spec: WindowSpec) -> Result<NodeId, SqlError> {
        let _ = (source.into(), spec);
        unimplemented!()
    }

    /// All rows of all sources, whose columns must have equal types. A source may stand here twice.
    ///
    /// # Errors
    /// XX000 if the columns' types differ.
    pub fn add_union(&mut self, sources: &[NodeId]) -> Result<NodeId, SqlError> {
        let _ = sources;
        unimplemented!()
    }

    /// # Errors
    /// 0A000 for a type that cannot be grouped by or aggregated; XX000 if the specification contradicts the source.
    pub fn add_aggregate(&mut self, source: impl Into<NodeId>, spec: AggregateSpec) -> Result<NodeId, SqlError> {
        let _ = (source.into(), spec);
        unimplemented!()
    }

    /// # Errors
    /// As [`Graph::add_aggregate`].
    pub fn add_hop_aggregate(&mut self, source: impl Into<NodeId>, spec: HopSpec) -> Result<NodeId, SqlError> {
        let _ = (source.into(), spec);
        unimplemented!()
    }

    /// # Errors
    /// XX000 if `source` does not exist.
    pub fn add_output(&mut self, source: impl Into<NodeId>) -> Result<OutputId, SqlError> {
        let _ = source.into();
        unimplemented!()
    }

    /// Takes away inputs and outputs, at an epoch boundary, and with them every operator that nothing uses any more. An
    /// input that is still used stays until its last user goes.
    pub fn remove(&mut self, ids: impl IntoIterator<Item = NodeId>) {
        let _ = ids.into_iter().count();
        unimplemented!()
    }

    pub fn schema(&self, node: impl Into<NodeId>) -> Option<SchemaRef> {
        let _ = node.into();
        unimplemented!()
    }

    /// No row older than this leaves `node` any more.
    pub fn watermark(&self, node: impl Into<NodeId>) -> Option<EventTime> {
        let _ = node.into();
        unimplemented!()
    }

    /// One row per node, in order of ids.
    pub fn node_stats(&self) -> Vec<NodeStats> {
        unimplemented!()
    }
}
