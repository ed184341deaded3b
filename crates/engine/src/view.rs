//! A materialized view while it lives: its graph, its contents, and how an epoch passes through.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use millpond_catalog::{Catalog, Relation, RelationKind};
use millpond_dataflow::{EpochInput, Graph, InputId, Late, NodeId, OutputId, Rejected, Sink};
use millpond_plan::incremental::{LowerOptions, Plan, lower};
use millpond_plan::{PlanSettings, Planner, QueryPlan};
use millpond_sql::statement::ColumnName;
use millpond_state::{Identity, Relation as Stored};
use millpond_types::{Delta, EventTime, RelationId, SqlError};

use crate::changes::{Changes, Piece, input_deltas, join};
use crate::prune::Conditions;
use crate::reject::{ErrorRow, LateRow, row_text};
use crate::relation::identity;
use crate::render::{RenderedInput, render};

pub(crate) const MAX_STATE: &str = "max_state";

/// Rows applied to a heap between two rounds of its upkeep.
const UPKEEP_ROWS: usize = 16_384;

pub(crate) struct View {
    pub relation: Arc<Relation>,
    pub fingerprint: String,
    pub graph: Graph,
    pub inputs: Vec<RenderedInput>,
    /// Nodes of the graph as EXPLAIN names them, in the order of the plan.
    pub named: Arc<[(NodeId, String)]>,
    /// What it asks of its inputs' rows: history that cannot answer is not read.
    pub conditions: Conditions,
    pub contents: Stored,
    identity: Identity,
    /// Leave out the n-th retraction: see `EngineConfig::skip_retraction`.
    pub skip_retraction: Option<u64>,
    /// No checkpoint has it yet, or only an earlier life of it.
    pub fresh: bool,
    /// `max_state` of its definition.
    pub max_state: Option<usize>,
    /// What it may hold at all.
    pub bytes_max: usize,
    /// It would hold more than it may.
    pub full: bool,
    /// An epoch that was begun and has not passed.
    passing: Option<Passing>,
}

/// An epoch on its way through a view, in parts that the graph takes one after the other.
struct Passing {
    parts: VecDeque<Vec<(InputId, Delta)>>,
    watermarks: Vec<(InputId, EventTime)>,
    /// The graph has begun a part.
    begun: bool,
    gathered: Gathered,
    stepped: Stepped,
}

/// What a graph has given of a part.
#[derive(Default)]
struct Gathered {
    output: Vec<Delta>,
    /// Of the output.
    bytes: Arc<AtomicUsize>,
    rejected: Vec<Rejected>,
    late: Vec<Late>,
}

impl Sink for Gathered {
    fn output(&mut self, _output: OutputId, delta: Delta) {
        if !delta.is_empty() {
            self.bytes.fetch_add(delta.memory_bytes(), Ordering::Relaxed);
            self.output.push(delta);
        }
    }
    fn reject(&mut self, row: Rejected) {
        self.rejected.push(row);
    }
    fn late(&mut self, rows: Late) {
        self.late.push(rows);
    }
}

/// What an epoch did to a view.
#[derive(Default)]
pub(crate) struct Stepped {
    pub deltas: Vec<Delta>,
    pub errors: Vec<(ErrorRow, i64)>,
    pub late: Vec<(LateRow, i64)>,
}

/// The query of a view, planned as it was meant when the view was created.
///
/// # Errors
/// Those of planning; the same query was planned at CREATE.
pub(crate) fn plan_query(catalog: &Arc<Catalog>, relation: &Relation) -> Result<(QueryPlan, i64), SqlError> {
    let RelationKind::MaterializedView(view) = &relation.kind else {
        return Err(SqlError::internal(format!("{} is no materialized view", relation.name)));
    };
    let settings = PlanSettings {
        search_path: view.frozen.search_path.clone(),
        time_zone: view.frozen.time_zone.clone(),
        // now() of a view is that of the log.
        now: EventTime(0),
        database: "millpond".into(),
        user: relation.owner.clone(),
    };
    let planner = Planner::new(catalog.as_of(relation.created_at), settings, None);
    let query = millpond_sql::parse_query(&view.query)?;
    // The query's own names may repeat where the view has others.
    let columns: Vec<ColumnName> =
        relation.columns.iter().map(|c| ColumnName { name: c.name.clone(), position: 0 }).collect();
    Ok((planner.plan_view(&query, &columns)?, view.allowed_lateness))
}

/// # Errors
/// 0A000 for what cannot be kept up to date.
pub(crate) fn plan_incremental(
    query: &QueryPlan,
    lateness: i64,
    emit: millpond_catalog::Emit,
    rows: BTreeMap<RelationId, u64>,
) -> Result<Plan, SqlError> {
    let emit_on_close = emit == millpond_catalog::Emit::OnWindowClose;
    lower(&query.logical, LowerOptions { allowed_lateness_us: lateness, emit_on_close, rows })
        .map_err(|error| query.placed(error))
}

impl View {
    /// A view that has seen nothing yet.
    pub fn new(catalog: &Arc<Catalog>, relation: Arc<Relation>, graph: Graph) -> Result<Self, SqlError> {
        let (query, lateness) = plan_query(catalog, &relation)?;
        let RelationKind::MaterializedView(definition) = &relation.kind else {
            return Err(SqlError::internal("not a materialized view"));
        };
        let rows = definition.rows.iter().copied().collect();
        let plan = plan_incremental(&query, lateness, definition.emit, rows)?;
        let mut graph = graph;
        let rendered = render(&plan, &mut graph)?;
        let max_state = relation.options.get(MAX_STATE).and_then(|text| millpond_sql::parse_bytes(text));
        let max_state = max_state.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        let identity = if plan.root().append_only { Identity::AppendOnly } else { identity(&relation) };
        let contents = Stored::new(&relation.name, relation.arrow_schema(), identity.clone());
        Ok(Self {
            relation,
            fingerprint: plan.fingerprint(),
            graph,
            inputs: rendered.inputs,
            named: rendered.nodes.into_iter().enumerate().map(|(at, id)| (id, plan.describe(at))).collect(),
            conditions: Conditions::of(&query.logical)?,
            contents,
            identity,
            skip_retraction: None,
            fresh: true,
            max_state,
            bytes_max: usize::MAX,
            full: false,
            passing: None,
        })
    }

    /// The contents as a checkpoint has them.
    pub fn restore_rows(
        &mut self,
        runs: Vec<millpond_state::HeapRun>,
    ) -> Result<(), millpond_state::StateFault> {
        let schema = Arc::clone(self.contents.schema());
        self.contents = Stored::restore(&self.relation.name, schema, self.identity.clone(), runs)?;
        Ok(())
    }

    pub fn id(&self) -> RelationId {
        self.relation.id
    }

    /// The relations that it reads.
    pub fn reads(&self) -> Vec<RelationId> {
        let mut relations: Vec<RelationId> = self.inputs.iter().map(|input| input.relation).collect();
        relations.sort();
        relations.dedup();
        relations
    }

    pub fn bytes(&self) -> usize {
        let graph: u64 = self.graph.node_stats().iter().map(|node| node.memory_bytes).sum();
        self.contents.bytes() + graph as usize
    }

    /// The first epoch, without any input: an aggregate without GROUP BY has a row before anything comes.
    ///
    /// # Errors
    /// As [`View::begin`].
    pub fn start(&mut self) -> Result<(), String> {
        self.passing = Some(Passing::new(Vec::new(), Vec::new(), 1));
        self.resume(&mut || true).map(|_| ())
    }

    /// Takes in the changes of an epoch, for [`View::resume`] to pass them through, at most `rows_max` rows at a time: no
    /// result depends on it.
    ///
    /// # Errors
    /// A sentence about the fault; the view must be discarded.
    pub fn begin(&mut self, changes: &Changes, rows_max: usize) -> Result<(), String> {
        assert!(self.passing.is_none(), "an epoch passes before the next begins (I4)");
        let mut deltas = Vec::new();
        for input in &self.inputs {
            let Some(pieces) = changes.relations.get(&input.relation) else { continue };
            let pieces = input_deltas(pieces, &input.columns, &input.schema).map_err(|e| e.to_string())?;
            deltas.extend(pieces.into_iter().map(|delta| (input.id, delta)));
        }
        let watermarks: Vec<_> = self
            .inputs
            .iter()
            .filter_map(|input| changes.watermarks.get(&input.relation).map(|w| (input.id, *w)))
            .collect();
        if !deltas.is_empty() || !watermarks.is_empty() {
            self.passing = Some(Passing::new(deltas, watermarks, rows_max));
        }
        Ok(())
    }

    /// Goes on with the epoch that was begun until it has passed, or until `more`, which is asked between pieces of work,
    /// says no: then `None`, and it can be resumed by another thread. Nothing if none was begun.
    ///
    /// # Errors
    /// As [`View::begin`].
    pub fn resume(&mut self, more: &mut dyn FnMut() -> bool) -> Result<Option<Stepped>, String> {
        let Some(mut passing) = self.passing.take() else { return Ok(Some(Stepped::default())) };
        loop {
            if !passing.begun {
                let part = passing.parts.pop_front().unwrap_or_default();
                let mut deltas: BTreeMap<_, Vec<Delta>> = BTreeMap::new();
                for (input, delta) in part {
                    deltas.entry(input).or_default().push(delta);
                }
                // Windows close when everything that the epoch brings is in.
                let last = passing.parts.is_empty();
                let watermarks = if last { std::mem::take(&mut passing.watermarks) } else { Vec::new() };
                self.graph.begin(EpochInput { deltas: deltas.into_iter().collect(), watermarks });
                passing.begun = true;
            }
            // A huge output must not end the process.
            let limit = self.bytes_max.min(self.max_state.unwrap_or(usize::MAX));
            let room = limit.saturating_sub(self.contents.bytes());
            let bytes = Arc::clone(&passing.gathered.bytes);
            let mut more = || more() && bytes.load(Ordering::Relaxed) <= room;
            let passed =
                self.graph.resume(&mut passing.gathered, &mut more).map_err(|fault| fault.to_string())?;
            if passed.is_none() && bytes.load(Ordering::Relaxed) > room {
                self.full = true;
                return Err(format!("an epoch would take it beyond {limit} bytes"));
            }
            if passed.is_none() {
                self.passing = Some(passing);
                return Ok(None);
            }
            passing.begun = false;
            let gathered = std::mem::take(&mut passing.gathered);
            self.take(gathered, &mut passing.stepped)?;
            if passing.parts.is_empty() {
                return Ok(Some(passing.stepped));
            }
        }
    }

    /// Why it must stop, if its state has passed `max_state`.
    pub fn beyond(&self) -> Option<String> {
        let max = self.max_state?;
        let bytes = self.bytes();
        (bytes > max).then(|| format!("its state has {bytes} bytes, and max_state is {max}"))
    }

    /// Whether an epoch has begun and not passed: the view is no function of a prefix of its inputs then.
    pub fn is_passing(&self) -> bool {
        self.passing.is_some()
    }

    fn take(&mut self, gathered: Gathered, stepped: &mut Stepped) -> Result<(), String> {
        for rejected in gathered.rejected {
            let row = row_text(&rejected.row, 0).map_err(|e| e.to_string())?;
            let error = ErrorRow {
                operator: rejected.operator.to_owned(),
                line: None,
                row,
                sqlstate: rejected.error.state().to_string(),
                message: rejected.error.message().to_owned(),
            };
            stepped.errors.push((error, rejected.weight));
        }
        for late in gathered.late {
            for row in 0..late.rows.rows() {
                let text = row_text(&visible(&late.rows.batch), row).map_err(|e| e.to_string())?;
                let entry =
                    LateRow { window_end: late.window_ends[row], watermark: late.watermarks[row], row: text };
                stepped.late.push((entry, late.rows.weight(row)));
            }
        }
        let mut deltas = gathered.output;
        if deltas.is_empty() {
            return Ok(());
        }
        self.plant_bug(&mut deltas);
        let schema = Arc::clone(self.contents.schema());
        // A retraction and its insertion may come from different shards or branches: the heap takes the step as a whole.
        let delta = join(&as_schema(&deltas, &schema).map_err(|e| e.to_string())?, &schema)
            .map_err(|e| e.to_string())?;
        drop(deltas);
        self.contents.apply(&delta).map_err(|fault| fault.to_string())?;
        self.contents.maintain(delta.rows().max(UPKEEP_ROWS)).map_err(|fault| fault.to_string())?;
        stepped.deltas.push(delta);
        Ok(())
    }

    fn plant_bug(&mut self, deltas: &mut [Delta]) {
        let Some(left) = &mut self.skip_retraction else { return };
        for delta in deltas {
            let Some(row) = (0..delta.rows()).find(|row| delta.weight(*row) < 0) else { continue };
            if *left > 0 {
                *left -= 1;
                continue;
            }
            let keep = (0..delta.rows()).map(|r| Some(r != row)).collect();
            *delta = delta.filter(&keep).expect("a mask of the same length");
            self.skip_retraction = None;
            return;
        }
    }
}

impl Passing {
    fn new(deltas: Vec<(InputId, Delta)>, watermarks: Vec<(InputId, EventTime)>, rows_max: usize) -> Self {
        Self {
            parts: split(deltas, rows_max).into(),
            watermarks,
            begun: false,
            gathered: Gathered::default(),
            stepped: Stepped::default(),
        }
    }
}

/// Output columns under the view's own names and marks; types are equal.
fn as_schema(deltas: &[Delta], schema: &arrow::datatypes::SchemaRef) -> Result<Vec<Delta>, SqlError> {
    let rename = |delta: &Delta| {
        let batch = arrow::array::RecordBatch::try_new(Arc::clone(schema), delta.batch.columns().to_vec());
        batch.map(|batch| delta.with_batch(batch)).map_err(crate::target::internal)
    };
    deltas.iter().map(rename).collect()
}

/// Without the columns that the log adds.
fn visible(batch: &arrow::array::RecordBatch) -> arrow::array::RecordBatch {
    let schema = batch.schema();
    let shown: Vec<usize> = (0..schema.fields().len())
        .filter(|n| millpond_plan::Metadata::of(schema.field(*n).name()).is_none())
        .collect();
    batch.project(&shown).unwrap_or_else(|_| batch.clone())
}

/// Cuts deltas into parts of at most `rows_max` rows.
fn split<I: Copy>(deltas: Vec<(I, Delta)>, rows_max: usize) -> Vec<Vec<(I, Delta)>> {
    let mut parts = Vec::new();
    let mut part = Vec::new();
    let mut room = rows_max;
    for (input, delta) in deltas {
        let mut at = 0;
        while at < delta.rows() {
            let length = room.min(delta.rows() - at);
            part.push((input, delta.slice(at, length)));
            at += length;
            room -= length;
            if room == 0 {
                parts.push(std::mem::take(&mut part));
                room = rows_max;
            }
        }
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}

/// The declared columns of a heap's rows, as changes of a relation.
pub(crate) fn history_piece(batch: arrow::array::RecordBatch, declared: usize) -> Result<Piece, SqlError> {
    let columns: Vec<usize> = (0..declared).collect();
    let batch = batch.project(&columns).map_err(crate::target::internal)?;
    Ok(Piece { delta: Delta::insert(batch), facts: None })
}
