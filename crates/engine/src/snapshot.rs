//! What readers see: everything at one cut.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::common::DataFusionError;
use datafusion::logical_expr::Expr;
use millpond_catalog::{Catalog, Relation};
use millpond_dataflow::{NodeId, NodeStats};
use millpond_functions::error::into_datafusion;
use millpond_log::{FrameRef, Log};
use millpond_plan::Metadata;
use millpond_state::HeapSnapshot;
use millpond_types::{Commit, EventTime, RelationId, SqlError, SqlState};

use crate::inner::log_read_error;
use crate::prune::may_match;
use crate::reject::{ErrorRow, LateRow, Refused};
use crate::scan::{Batches, Readable};
use crate::shape::Shape;
use crate::status::RelationState;

/// A published epoch.
#[derive(Clone)]
pub(crate) struct Snapshot {
    pub cut: Commit,
    pub catalog: Arc<Catalog>,
    /// Tables and materialized views.
    pub contents: HashMap<RelationId, Contents>,
    pub watermarks: BTreeMap<RelationId, EventTime>,
    /// Some view asks for the time.
    pub follows_clock: bool,
    /// Rows that each source has received.
    pub source_rows: HashMap<RelationId, u64>,
    pub errors: Refused<ErrorRow>,
    pub late: Refused<LateRow>,
    /// Every view is at the cut.
    pub whole: bool,
    /// For who wants to read what is there, old or not.
    pub lenient: bool,
}

#[derive(Clone)]
pub(crate) struct Contents {
    /// With the stored columns; of a table without a key, the row's number is the last.
    pub heap: Arc<HeapSnapshot>,
    pub state: RelationState,
    pub state_bytes: usize,
    pub busy_seconds: f64,
    /// The cut that the heap reflects: the snapshot's own while the view runs. 0 if there has been nothing to see yet.
    pub epoch: Commit,
    /// Of a view.
    pub operators: Option<Operators>,
    /// Of a view that is behind: what else was published with the cut that it has reached.
    pub beside: Option<Arc<Snapshot>>,
}

/// What the operators of a view have done since it was put together, and hold.
#[derive(Clone)]
pub(crate) struct Operators {
    /// As EXPLAIN names them, in the order of the plan.
    pub named: Arc<[(NodeId, String)]>,
    /// In order of ids.
    pub stats: Arc<[NodeStats]>,
}

impl Operators {
    pub fn of(&self, id: NodeId) -> Option<&NodeStats> {
        let at = self.stats.binary_search_by_key(&id, |node| node.node).ok()?;
        Some(&self.stats[at])
    }
}

impl Snapshot {
    /// The contents of a view or table that can be read.
    ///
    /// # Errors
    /// 55000 for a view that is being built, is behind, is paused or has failed.
    pub fn readable(&self, relation: &Relation) -> Result<&Contents, SqlError> {
        let name = &relation.name;
        let contents = self
            .contents
            .get(&relation.id)
            .ok_or_else(|| SqlError::internal(format!("relation \"{name}\" has no contents")))?;
        if self.is_current(contents) || (self.lenient && contents.epoch > Commit(0)) {
            return Ok(contents);
        }
        Err(self.not_ready(name, contents))
    }

    /// How many rows relations have.
    pub fn rows(&self) -> BTreeMap<RelationId, u64> {
        let heaps = self.contents.iter().map(|(id, contents)| (*id, contents.heap.rows() as u64));
        heaps.chain(self.source_rows.iter().map(|(id, rows)| (*id, *rows))).collect()
    }

    /// Whether something new can be kept over a relation: it may be behind, and is waited for.
    ///
    /// # Errors
    /// 55000 for a view that is paused or has failed.
    pub fn usable(&self, relation: &Relation) -> Result<(), SqlError> {
        match self.contents.get(&relation.id) {
            Some(contents)
                if matches!(contents.state, RelationState::Paused(_) | RelationState::Failed(_)) =>
            {
                Err(self.not_ready(&relation.name, contents))
            }
            _ => Ok(()),
        }
    }

    /// Whether contents are those of the cut.
    pub fn is_current(&self, contents: &Contents) -> bool {
        match contents.state {
            RelationState::Running => true,
            RelationState::Following => contents.epoch == self.cut,
            _ => false,
        }
    }

    fn not_ready(&self, name: &str, contents: &Contents) -> SqlError {
        let error = |what: &str| {
            let message = format!("materialized view \"{name}\" {what}");
            SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message)
        };
        match &contents.state {
            RelationState::Building { rows_done } => error("is being built")
                .detail(format!("{rows_done} rows are done."))
                .hint("Try again; millpond.views shows its progress."),
            RelationState::Failed(why) => error("has failed").detail(format!("{why}.")).hint(
                "ALTER MATERIALIZED VIEW … RESUME builds it again; SET millpond.read = 'latest' reads its last contents.",
            ),
            RelationState::Paused(why) => error("is paused").detail(format!("{why}.")).hint(
                "ALTER MATERIALIZED VIEW … RESUME builds it again; SET millpond.read = 'latest' reads its last contents.",
            ),
            RelationState::Running | RelationState::Following => {
                error(&format!("is {} commits behind", self.cut.0.saturating_sub(contents.epoch.0)))
                    .detail(format!(
                        "It follows alone and has reached commit {}; the newest that is published is {}.",
                        contents.epoch, self.cut
                    ))
                    .hint("Try again, or SET millpond.read = 'latest' to read what is there.")
            }
        }
    }

    /// The first of some relations that is not at the cut and may get there.
    pub fn behind(&self, ids: &[RelationId]) -> Option<SqlError> {
        let late = |id: &RelationId| {
            let contents = self.contents.get(id)?;
            let late = contents.state == RelationState::Following && contents.epoch != self.cut;
            let name = &self.catalog.relation(*id)?.name;
            late.then(|| self.not_ready(name, contents))
        };
        if self.whole { None } else { ids.iter().find_map(late) }
    }

    /// What can be read of some relations at one cut: everything at this one, or as it was when those that are behind were
    /// published last. `None` if they were never all at one cut, or not since the catalog changed.
    pub fn at_one_cut(self: &Arc<Self>, ids: &[RelationId]) -> Option<Arc<Self>> {
        let late = |id: &&RelationId| {
            self.contents.get(id).is_some_and(|c| c.state == RelationState::Following && c.epoch != self.cut)
        };
        if self.whole {
            return Some(Arc::clone(self));
        }
        let behind: Vec<RelationId> = ids.iter().filter(late).copied().collect();
        let Some(first) = behind.first() else { return Some(Arc::clone(self)) };
        let beside = self.contents[first].beside.as_ref()?;
        let mut then = Self::clone(beside);
        if then.catalog.version() != self.catalog.version() {
            return None;
        }
        for id in &behind {
            let contents = &self.contents[id];
            if contents.epoch != then.cut {
                return None;
            }
            then.contents.insert(*id, Contents { beside: None, ..contents.clone() });
        }
        let readable = |id: &RelationId| then.contents.get(id).is_none_or(|c| then.is_current(c));
        if !ids.iter().all(readable) {
            return None;
        }
        (then.errors, then.late) = (self.errors.clone(), self.late.clone());
        Some(Arc::new(then))
    }

    /// Without what contents were published beside.
    pub fn without_besides(&self) -> Self {
        let mut bare = self.clone();
        bare.contents.values_mut().for_each(|contents| contents.beside = None);
        bare
    }
}

/// The live rows of a heap.
pub(crate) struct HeapScan {
    pub heap: Arc<HeapSnapshot>,
    /// The first columns of the heap's schema.
    pub schema: SchemaRef,
}

impl fmt::Debug for HeapScan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HeapScan({} rows)", self.heap.rows())
    }
}

impl Readable for HeapScan {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn narrowed(self: Arc<Self>, _conditions: &[Expr]) -> Arc<Self> {
        self
    }

    fn parts(&self, wanted: usize) -> usize {
        wanted.min(self.heap.chunks()).max(1)
    }

    fn read(&self, part: usize, parts: usize, projection: &[usize]) -> Batches {
        let heap = Arc::clone(&self.heap);
        let projection = projection.to_vec();
        let chunks = (part..heap.chunks()).step_by(parts);
        Box::new(chunks.filter_map(move |chunk| {
            let batch = heap.chunk(chunk, Some(&projection)).transpose()?;
            Some(batch.map_err(|fault| DataFusionError::External(Box::new(fault))))
        }))
    }
}

/// The rows of a topic up to a cut, with the metadata columns that the statement names.
pub(crate) struct LogScan {
    pub log: Log,
    pub frames: Arc<Vec<FrameRef>>,
    /// Declared columns, then metadata.
    pub schema: SchemaRef,
    pub declared: usize,
    pub metadata: Vec<Metadata>,
    /// For frames that were written before a column was added.
    pub shape: Arc<Shape>,
}

impl fmt::Debug for LogScan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogScan({} frames)", self.frames.len())
    }
}

impl Readable for LogScan {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn narrowed(self: Arc<Self>, conditions: &[Expr]) -> Arc<Self> {
        let Some(keep) = may_match(&self.frames, &self.schema, self.declared, &self.metadata, conditions)
        else {
            return self;
        };
        let frames = self.frames.iter().zip(keep).filter(|(_, keep)| *keep).map(|(frame, _)| frame.clone());
        Arc::new(Self {
            log: self.log.clone(),
            frames: Arc::new(frames.collect()),
            schema: Arc::clone(&self.schema),
            declared: self.declared,
            metadata: self.metadata.clone(),
            shape: Arc::clone(&self.shape),
        })
    }

    fn parts(&self, wanted: usize) -> usize {
        wanted.min(self.frames.len()).max(1)
    }

    fn read(&self, part: usize, parts: usize, projection: &[usize]) -> Batches {
        // Contiguous ranges, so that each part reads the files in order.
        let (from, to) = (self.frames.len() * part / parts, self.frames.len() * (part + 1) / parts);
        let (log, frames) = (self.log.clone(), Arc::clone(&self.frames));
        let (projection, declared) = (projection.to_vec(), self.declared);
        let (metadata, shape) = (self.metadata.clone(), Arc::clone(&self.shape));
        let schema = Arc::new(self.schema.project(&projection).expect("the projection is of this schema"));
        let stored: Vec<usize> = projection.iter().copied().filter(|c| *c < declared).collect();
        Box::new((from..to).map(move |at| {
            let frame = &frames[at];
            let external = |e: millpond_log::LogError| into_datafusion(log_read_error(&e));
            let facts = FrameFacts::of(frame);
            let width = frame.schema.fields().len();
            let stored: Vec<usize> = stored.iter().copied().filter(|column| *column < width).collect();
            // Who asks for metadata only, or counts, needs no rows.
            let read = match stored.len() {
                0 => Vec::new(),
                _ => log.read(frame, Some(&stored)).map_err(external)?.columns().to_vec(),
            };
            let mut columns = Vec::with_capacity(projection.len());
            let mut read = read.into_iter();
            for (column, field) in projection.iter().zip(schema.fields()) {
                columns.push(if *column >= declared {
                    facts.column(metadata[*column - declared], field.data_type())?
                } else if *column >= width {
                    shape.column(*column, facts.rows).map_err(into_datafusion)?
                } else {
                    read.next().expect("one column was read per stored one")
                });
            }
            let options = arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(facts.rows));
            Ok(RecordBatch::try_new_with_options(Arc::clone(&schema), columns, &options)?)
        }))
    }
}

/// What a frame says of all of its rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameFacts {
    pub partition: u32,
    pub base_offset: u64,
    pub rows: usize,
    pub commit: Commit,
    pub ingest_time: EventTime,
    pub watermark: Option<EventTime>,
}

impl FrameFacts {
    pub fn of(frame: &FrameRef) -> Self {
        Self {
            partition: frame.partition.0,
            base_offset: frame.base_offset.0,
            rows: frame.rows as usize,
            commit: frame.commit,
            ingest_time: frame.ingest_time,
            watermark: frame.watermark,
        }
    }

    /// A metadata column for the frame's rows, of the given Arrow type.
    pub fn column(
        &self,
        metadata: Metadata,
        data_type: &arrow::datatypes::DataType,
    ) -> datafusion::common::Result<arrow::array::ArrayRef> {
        use arrow::array::{Int32Array, Int64Array};
        let constant = |value: Option<i64>| Int64Array::from(vec![value; self.rows]);
        let array: arrow::array::ArrayRef = match metadata {
            Metadata::Partition => Arc::new(Int32Array::from_value(self.partition as i32, self.rows)),
            Metadata::Offset => {
                let first = self.base_offset as i64;
                Arc::new(Int64Array::from_iter_values(first..first + self.rows as i64))
            }
            Metadata::Commit => Arc::new(constant(Some(self.commit.0 as i64))),
            Metadata::IngestTime => Arc::new(constant(Some(self.ingest_time.0))),
            Metadata::Watermark => Arc::new(constant(self.watermark.map(|w| w.0))),
        };
        Ok(arrow::compute::cast(&array, data_type)?)
    }
}
