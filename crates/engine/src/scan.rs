//! How DataFusion reads what Millpond keeps: heaps of views and tables, topics of the log, and small system relations.
//!
//! A provider is bound to one cut when the statement is planned, so one SELECT sees one state of everything it names.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};

/// The batches of one partition of a scan, made when they are asked for.
pub(crate) type Batches = Box<dyn Iterator<Item = Result<RecordBatch>> + Send>;

/// Something that can be read in parallel parts. Implementations are snapshots: every read gives the same rows.
pub(crate) trait Readable: fmt::Debug + Send + Sync {
    fn schema(&self) -> SchemaRef;

    /// How many parts there are, at most `wanted` where they can be split freely.
    fn parts(&self, wanted: usize) -> usize;

    /// The same without what cannot hold a row for which all `conditions` are true; the conditions are still checked on
    /// every row.
    fn narrowed(self: Arc<Self>, conditions: &[Expr]) -> Arc<Self>;

    /// The batches of part `part` of `parts`, with the columns of `projection` only.
    fn read(&self, part: usize, parts: usize, projection: &[usize]) -> Batches;
}

/// A [`Readable`] as a table of DataFusion.
#[derive(Debug)]
pub(crate) struct Provider<R>(pub Arc<R>);

#[async_trait]
impl<R: Readable + 'static> TableProvider for Provider<R> {
    fn schema(&self) -> SchemaRef {
        self.0.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let full = self.0.schema();
        let projection: Vec<usize> = match projection {
            Some(columns) => columns.clone(),
            None => (0..full.fields().len()).collect(),
        };
        let schema = Arc::new(full.project(&projection)?);
        let readable = Arc::clone(&self.0).narrowed(filters);
        let parts = readable.parts(state.config().target_partitions()).max(1);
        let streams = (0..parts).map(|part| {
            let projection = projection.clone();
            Arc::new(Part {
                readable: Arc::clone(&readable),
                part,
                parts,
                projection,
                schema: Arc::clone(&schema),
            }) as Arc<dyn PartitionStream>
        });
        let streams = streams.collect();
        Ok(Arc::new(StreamingTableExec::try_new(schema, streams, None, Vec::new(), false, limit)?))
    }
}

#[derive(Debug)]
struct Part<R> {
    readable: Arc<R>,
    part: usize,
    parts: usize,
    projection: Vec<usize>,
    schema: SchemaRef,
}

impl<R: Readable + 'static> PartitionStream for Part<R> {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let batches = self.readable.read(self.part, self.parts, &self.projection);
        let stream = futures::stream::iter(batches);
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), stream))
    }
}
