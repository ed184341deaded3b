//! Placeholder.
use arrow::array::RecordBatch;
use millpond_types::SqlError;
pub(crate) struct PendingWrite;
impl PendingWrite {
    pub async fn push(&mut self, _batch: RecordBatch) -> Result<(), SqlError> { unimplemented!() }
    pub async fn reject(&mut self, _line: u64, _text: &str, _error: SqlError) -> Result<(), SqlError> { unimplemented!() }
    pub async fn finish(self) -> Result<u64, SqlError> { unimplemented!() }
}
