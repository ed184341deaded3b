//! Adding nodes, taking them away, and moving them between graphs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arrow::datatypes::{Schema, SchemaRef};
use millpond_types::{EventTime, SqlError};

use super::node::{Keyed, Kind, Node, User};
use super::{Clock, Graph, InputId, NodeId, NodeStats, OutputId};
use crate::aggregate::{group_by, hop};
use crate::join;
use crate::operator::Built;
use crate::operator::flat_map;
use crate::operator::map::Map;
use crate::operator::repeat::Repeat;
use crate::operator::window::Windows;
use crate::order::asof::AsofSpec;
use crate::order::span::TemporalSpec;
use crate::order::spec::{OverSpec, SortedAggregateSpec, TopNSpec};
use crate::order::{asof, over, sorted, temporal, top_n};
use crate::spec::{AggregateSpec, FlatMapSpec, HopSpec, JoinSpec, MapSpec, MultiJoinSpec, WindowSpec};

impl Graph {
    /// A graph whose state is split into `shards` (at least 1), which are worked on by `pool` when there is much to do.
    pub fn new(shards: usize, pool: Arc<rayon::ThreadPool>) -> Self {
        let ids = Arc::new(AtomicU32::new(1));
        Self { shards: shards.max(1), pool, ids, nodes: BTreeMap::new(), clock: None, on_its_way: None }
    }

    /// An empty graph with the same shards, pool and clock, whose ids are different from all of this one's, before and after.
    /// It can be stepped by another thread and then given to [`Graph::absorb`].
    pub fn sibling(&self) -> Self {
        Self {
            shards: self.shards,
            pool: Arc::clone(&self.pool),
            ids: Arc::clone(&self.ids),
            nodes: BTreeMap::new(),
            clock: self.clock.clone(),
            on_its_way: None,
        }
    }

    /// Takes over all nodes of a sibling, at an epoch boundary of both. Ids stay.
    ///
    /// # Panics
    /// If `other` is no sibling.
    pub fn absorb(&mut self, mut other: Graph) {
        assert!(Arc::ptr_eq(&self.ids, &other.ids), "only siblings give each node an id of its own");
        self.nodes.append(&mut other.nodes);
    }

    /// Measures busy times of nodes with `clock` from now on.
    pub fn set_clock(&mut self, clock: Clock) {
        self.clock = Some(clock);
    }

    /// Large deltas are worked on by `pool` from now on; it needs no certain number of threads.
    pub fn set_pool(&mut self, pool: Arc<rayon::ThreadPool>) {
        self.pool = pool;
    }

    pub fn shards(&self) -> usize {
        self.shards
    }

    pub fn add_input(&mut self, schema: SchemaRef) -> InputId {
        let id = self.add(Kind::Input, Vec::new(), schema, true);
        InputId(id)
    }

    /// # Errors
    /// XX000 if `source` does not exist.
    pub fn add_map(&mut self, source: impl Into<NodeId>, spec: MapSpec) -> Result<NodeId, SqlError> {
        let source = source.into();
        self.source_schema(source)?;
        let map = Map::new(spec);
        let schema = Arc::clone(map.schema());
        Ok(self.add(Kind::Linear(Arc::new(map)), vec![source], schema, false))
    }

    /// # Errors
    /// XX000 if a column does not exist or is no timestamp.
    pub fn add_window(&mut self, source: impl Into<NodeId>, spec: WindowSpec) -> Result<NodeId, SqlError> {
        let source = source.into();
        let windows = Windows::new(&self.source_schema(source)?, spec)?;
        let schema = Arc::clone(windows.schema());
        Ok(self.add(Kind::Linear(Arc::new(windows)), vec![source], schema, false))
    }

    /// # Errors
    /// XX000 if the specification contradicts the source.
    pub fn add_flat_map(
        &mut self,
        source: impl Into<NodeId>,
        spec: &FlatMapSpec,
    ) -> Result<NodeId, SqlError> {
        let source = source.into();
        let built = flat_map::build(&self.source_schema(source)?, spec, self.shards)?;
        Ok(self.add_keyed("flat map", vec![source], built, Some(0), Arc::clone(&spec.schema)))
    }

    /// All rows of all sources, whose columns must have equal types. A source may stand here twice.
    ///
    /// # Errors
    /// XX000 if the columns' types differ.
    pub fn add_union(&mut self, sources: &[NodeId]) -> Result<NodeId, SqlError> {
        let schemas: Vec<SchemaRef> =
            sources.iter().map(|source| self.source_schema(*source)).collect::<Result<_, _>>()?;
        let Some(first) = schemas.first() else {
            return Err(SqlError::internal("a union needs a source"));
        };
        schemas.iter().try_for_each(|schema| check_types(first, schema))?;
        // A column may be NULL if it may be in any source.
        let fields = first.fields().iter().enumerate().map(|(at, field)| {
            let nullable = schemas.iter().any(|schema| schema.field(at).is_nullable());
            field.as_ref().clone().with_nullable(nullable)
        });
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Ok(self.add(Kind::Union, sources.to_vec(), schema, false))
    }

    /// # Errors
    /// 0A000 for a type that cannot be grouped by or aggregated; XX000 if the specification contradicts the source.
    pub fn add_aggregate(
        &mut self,
        source: impl Into<NodeId>,
        mut spec: AggregateSpec,
    ) -> Result<NodeId, SqlError> {
        let source = source.into();
        if let (Some(close), Some(Kind::Linear(operator))) =
            (&mut spec.close, self.nodes.get(&source).map(|node| &node.kind))
            && let Some((start, end)) = operator.window_columns()
            && close.window_end == end
        {
            close.window_start.get_or_insert(start);
        }
        let built = group_by::build(&self.source_schema(source)?, &spec, self.shards)?;
        let lateness = spec.close.map(|c| c.lateness_micros);
        Ok(self.add_keyed("aggregate", vec![source], built, lateness, spec.schema))
    }

    /// # Errors
    /// As [`Graph::add_aggregate`].
    pub fn add_hop_aggregate(
        &mut self,
        source: impl Into<NodeId>,
        spec: HopSpec,
    ) -> Result<NodeId, SqlError> {
        let source = source.into();
        let built = hop::build(&self.source_schema(source)?, &spec, self.shards)?;
        let lateness = spec.close.map(|c| c.lateness_micros);
        Ok(self.add_keyed("hop aggregate", vec![source], built, lateness, spec.schema))
    }

    /// The rows of two sources that belong together. A source may stand here twice.
    ///
    /// # Errors
    /// 0A000 for a type that cannot be a key; XX000 if the specification contradicts the sources.
    pub fn add_join(
        &mut self,
        left: impl Into<NodeId>,
        right: impl Into<NodeId>,
        spec: &JoinSpec,
    ) -> Result<NodeId, SqlError> {
        let (left, right) = (left.into(), right.into());
        let schemas = [self.source_schema(left)?, self.source_schema(right)?];
        let built = join::build(&schemas, spec, self.shards)?;
        let lateness = spec.close.map(|close| close.lateness_micros);
        let id = self.add_keyed("join", vec![left, right], built, lateness, Arc::clone(&spec.schema));
        if let Some(Kind::Keyed(keyed)) = self.nodes.get_mut(&id).map(|node| &mut node.kind) {
            keyed.ends_watermark = true;
        }
        Ok(id)
    }

    /// The rows of several sources that belong together. A source may stand here more than once.
    ///
    /// # Errors
    /// As [`Graph::add_join`].
    pub fn add_multi_join(&mut self, sources: &[NodeId], spec: &MultiJoinSpec) -> Result<NodeId, SqlError> {
        let schemas: Vec<SchemaRef> =
            sources.iter().map(|source| self.source_schema(*source)).collect::<Result<_, _>>()?;
        let built = join::multi::build(&schemas, spec, self.shards)?;
        Ok(self.add_keyed("delta join", sources.to_vec(), built, None, Arc::clone(&spec.schema)))
    }

    /// # Errors
    /// 0A000 for a type that cannot be ordered; XX000 if the specification contradicts the source.
    pub fn add_top_n(&mut self, source: impl Into<NodeId>, spec: TopNSpec) -> Result<NodeId, SqlError> {
        let source = source.into();
        let built = top_n::build(&self.source_schema(source)?, &spec, self.shards)?;
        Ok(self.add_keyed("top-n", vec![source], built, None, spec.schema))
    }

    /// # Errors
    /// 0A000 for a type that cannot be ordered or computed with; XX000 if the specification contradicts the source.
    pub fn add_over(&mut self, source: impl Into<NodeId>, spec: OverSpec) -> Result<NodeId, SqlError> {
        let source = source.into();
        let built = over::build(&self.source_schema(source)?, &spec, self.shards)?;
        Ok(self.add_keyed("over", vec![source], built, None, spec.schema))
    }

    /// Each row of the left source with the nearest one of the right.
    ///
    /// # Errors
    /// 0A000 for a type that cannot be ordered; XX000 if the specification contradicts the sources.
    pub fn add_asof(
        &mut self,
        left: impl Into<NodeId>,
        right: impl Into<NodeId>,
        spec: &AsofSpec,
    ) -> Result<NodeId, SqlError> {
        let (left, right) = (left.into(), right.into());
        let schemas = [self.source_schema(left)?, self.source_schema(right)?];
        let built = asof::build(&schemas, spec, self.shards)?;
        Ok(self.add_keyed("asof join", vec![left, right], built, None, Arc::clone(&spec.schema)))
    }

    /// Rows while they are valid by the clock: a node that gives no rows and whose watermark is the time.
    ///
    /// # Errors
    /// 0A000 for a type that cannot be ordered; XX000 if the specification contradicts the source.
    pub fn add_temporal(
        &mut self,
        source: impl Into<NodeId>,
        clock: impl Into<NodeId>,
        spec: &TemporalSpec,
    ) -> Result<NodeId, SqlError> {
        let (source, clock) = (source.into(), clock.into());
        self.source_schema(clock)?;
        let built = temporal::build(&self.source_schema(source)?, spec, self.shards)?;
        let id =
            self.add_keyed("temporal filter", vec![source, clock], built, Some(0), Arc::clone(&spec.schema));
        if let Some(Kind::Keyed(keyed)) = self.nodes.get_mut(&id).map(|node| &mut node.kind) {
            (keyed.ends_watermark, keyed.follows_clock) = (true, true);
        }
        Ok(id)
    }

    /// # Errors
    /// As [`Graph::add_aggregate`].
    pub fn add_sorted_aggregate(
        &mut self,
        source: impl Into<NodeId>,
        spec: SortedAggregateSpec,
    ) -> Result<NodeId, SqlError> {
        let source = source.into();
        let built = sorted::build(&self.source_schema(source)?, &spec, self.shards)?;
        let lateness = spec.close.map(|c| c.lateness_micros);
        Ok(self.add_keyed("sorted aggregate", vec![source], built, lateness, spec.schema))
    }

    /// # Errors
    /// XX000 if `times` is no bigint column.
    pub fn add_repeat(&mut self, source: impl Into<NodeId>, times: usize) -> Result<NodeId, SqlError> {
        let source = source.into();
        let repeat = Repeat::new(&self.source_schema(source)?, times)?;
        let schema = Arc::clone(repeat.schema());
        Ok(self.add(Kind::Linear(Arc::new(repeat)), vec![source], schema, false))
    }

    /// # Errors
    /// XX000 if `source` does not exist.
    pub fn add_output(&mut self, source: impl Into<NodeId>) -> Result<OutputId, SqlError> {
        let source = source.into();
        let schema = self.source_schema(source)?;
        Ok(OutputId(self.add(Kind::Output, vec![source], schema, true)))
    }

    /// Takes away inputs and outputs, at an epoch boundary, and with them every operator that nothing uses any more. An
    /// input that is still used stays until its last user goes.
    pub fn remove(&mut self, ids: impl IntoIterator<Item = NodeId>) {
        for id in ids {
            if let Some(node) = self.nodes.get_mut(&id) {
                node.pinned = false;
            }
            self.drop_unused(id);
        }
    }

    fn drop_unused(&mut self, id: NodeId) {
        let unused = self.nodes.get(&id).is_some_and(|node| node.users.is_empty() && !node.pinned);
        if !unused {
            return;
        }
        let node = self.nodes.remove(&id).expect("it was just seen");
        for source in node.sources {
            if let Some(node) = self.nodes.get_mut(&source) {
                node.remove_user(id);
            }
            self.drop_unused(source);
        }
    }

    pub fn contains(&self, node: impl Into<NodeId>) -> bool {
        self.nodes.contains_key(&node.into())
    }

    pub fn schema(&self, node: impl Into<NodeId>) -> Option<SchemaRef> {
        self.nodes.get(&node.into()).map(|node| Arc::clone(&node.schema))
    }

    /// No change older than this leaves `node` any more.
    pub fn watermark(&self, node: impl Into<NodeId>) -> Option<EventTime> {
        let mark = self.nodes.get(&node.into())?.watermark;
        (mark > EventTime::MIN).then_some(mark)
    }

    /// One row per node, in order of ids.
    pub fn node_stats(&self) -> Vec<NodeStats> {
        self.nodes.iter().map(|(id, node)| stats(*id, node)).collect()
    }

    fn source_schema(&self, source: NodeId) -> Result<SchemaRef, SqlError> {
        self.schema(source)
            .ok_or_else(|| SqlError::internal(format!("there is no node {source} to read from")))
    }

    fn add(&mut self, kind: Kind, sources: Vec<NodeId>, schema: SchemaRef, pinned: bool) -> NodeId {
        let id = NodeId(self.ids.fetch_add(1, Ordering::Relaxed));
        for (port, source) in sources.iter().enumerate() {
            let source = self.nodes.get_mut(source).expect("the caller has seen each source");
            source.add_user(User { node: id, port });
        }
        let node = Node {
            kind,
            sources,
            users: Arc::from([]),
            schema,
            pinned,
            watermark: EventTime::MIN,
            rows_in: 0,
            rows_out: 0,
            busy_nanos: 0,
        };
        self.nodes.insert(id, node);
        id
    }

    fn add_keyed(
        &mut self,
        name: &'static str,
        sources: Vec<NodeId>,
        built: Built,
        lateness_micros: Option<i64>,
        schema: SchemaRef,
    ) -> NodeId {
        let Built { routers, shards, states } = built;
        let mark = EventTime::MIN;
        let keyed = Keyed {
            name,
            routers,
            shards,
            lateness_micros,
            ends_watermark: false,
            follows_clock: false,
            mark,
            pending: 0,
            states,
        };
        self.add(Kind::Keyed(keyed), sources, schema, false)
    }
}

fn stats(id: NodeId, node: &Node) -> NodeStats {
    let (shards, states) = match &node.kind {
        Kind::Keyed(keyed) => (&keyed.shards[..], keyed.states),
        _ => (&[][..], &[][..]),
    };
    NodeStats {
        node: id,
        operator: node.name(),
        rows_in: node.rows_in,
        rows_out: node.rows_out,
        state_rows: shards.iter().map(|shard| shard.rows() as u64).sum(),
        memory_bytes: shards.iter().map(|shard| shard.memory_bytes() as u64).sum(),
        busy_nanos: node.busy_nanos,
        states,
        watermark: (node.watermark > EventTime::MIN).then_some(node.watermark),
    }
}

fn check_types(a: &SchemaRef, b: &SchemaRef) -> Result<(), SqlError> {
    let types = |s: &SchemaRef| s.fields().iter().map(|f| f.data_type().clone()).collect::<Vec<_>>();
    if types(a) == types(b) {
        return Ok(());
    }
    Err(SqlError::internal(format!("the sources of a union differ: {:?} and {:?}", types(a), types(b))))
}
