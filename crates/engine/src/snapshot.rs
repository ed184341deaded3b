//! What readers see: everything at one cut.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::common::DataFusionError;
use datafusion::logical_expr::Expr;
use millpond_catalog::{Catalog, Relation};
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
    /// Rows that each source has received.
    pub source_rows: HashMap<RelationId, u64>,
    pub errors: Refused<ErrorRow>,
    pub late: Refused<LateRow>,
}

#[derive(Clone)]
pub(crate) struct Contents {
    /// With the stored columns; of a table without a key, the row's number is the last.
    pub heap: Arc<HeapSnapshot>,
    pub state: RelationState,
    pub state_bytes: usize,
    pub busy_seconds: f64,
    /// The cut that the heap reflects: the snapshot's own while the view runs.
    pub epoch: Commit,
}

impl Snapshot {
    /// The contents of a view or table that can be read.
    ///
    /// # Errors
    /// 55000 for a view that is being built or has failed.
    pub fn readable(&self, relation: &Relation) -> Result<&Contents, SqlError> {
        let name = &relation.name;
        let not_ready = |message: String| SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message);
        let contents = self
            .contents
            .get(&relation.id)
            .ok_or_else(|| SqlError::internal(format!("relation \"{name}\" has no contents")))?;
        match &contents.state {
            RelationState::Running => Ok(contents),
            RelationState::Building { rows_done } => {
                Err(not_ready(format!("materialized view \"{name}\" is being built"))
                    .detail(format!("{rows_done} rows are done."))
                    .hint("Try again; millpond.views shows its progress."))
            }
            RelationState::Failed(why) => Err(not_ready(format!("materialized view \"{name}\" has failed"))
                .detail(format!("{why}."))
                .hint("Drop it and create it again.")),
        }
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
