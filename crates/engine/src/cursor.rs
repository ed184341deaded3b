//! Cursors of a session: DECLARE, FETCH, CLOSE.

use std::collections::VecDeque;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use millpond_functions::error::from_datafusion;
use millpond_types::SqlError;
use parking_lot::Mutex;

use crate::outcome::Column;
use crate::target::internal;

/// A query whose rows are asked for piece by piece. It reads the snapshot that was there when it was declared.
pub(crate) struct Cursor {
    pub columns: Vec<Column>,
    /// Lives on after its transaction.
    pub hold: bool,
    /// In a mutex only because a session is shared by reference between threads, and a stream cannot be.
    stream: Mutex<SendableRecordBatchStream>,
    buffered: VecDeque<RecordBatch>,
}

impl Cursor {
    pub fn new(columns: Vec<Column>, hold: bool, stream: SendableRecordBatchStream) -> Self {
        Self { columns, hold, stream: Mutex::new(stream), buffered: VecDeque::new() }
    }

    /// The next rows, at most `wanted`.
    pub async fn forward(&mut self, wanted: usize) -> Result<RecordBatch, SqlError> {
        let schema: SchemaRef = self.stream.get_mut().schema();
        let mut taken: Vec<RecordBatch> = Vec::new();
        let mut rows = 0;
        while rows < wanted {
            let batch = match self.buffered.pop_front() {
                Some(batch) => batch,
                None => match self.stream.get_mut().next().await {
                    Some(batch) => batch.map_err(from_datafusion)?,
                    None => break,
                },
            };
            let room = wanted - rows;
            if batch.num_rows() > room {
                self.buffered.push_front(batch.slice(room, batch.num_rows() - room));
                taken.push(batch.slice(0, room));
                rows = wanted;
            } else {
                rows += batch.num_rows();
                taken.push(batch);
            }
        }
        concat_batches(&schema, &taken).map_err(internal)
    }
}
