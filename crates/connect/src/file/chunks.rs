//! A file, a few megabytes at a time.

use std::sync::Arc;

use millpond_env::ObjectStore;
use object_store::ObjectStoreExt;
use object_store::path::Path;

use crate::ConnectError;

/// How much is asked of the store at once.
const CHUNK_BYTES: u64 = 4 << 20;
/// A record longer than this is not looked for any further.
pub(super) const RECORD_BYTES_MAX: usize = 16 << 20;

/// The bytes of one object from some offset on. What is buffered grows by chunks, until [`Chunks::consume`] gives it back.
pub(super) struct Chunks {
    store: Arc<dyn ObjectStore>,
    path: Path,
    size: u64,
    /// Where in the file the buffer's unread part begins.
    offset: u64,
    buffer: Vec<u8>,
    read: usize,
}

impl Chunks {
    pub fn new(store: Arc<dyn ObjectStore>, path: Path, size: u64, offset: u64) -> Self {
        Self { store, path, size, offset, buffer: Vec::new(), read: 0 }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.read..]
    }

    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether all of the file up to its end is in the buffer.
    pub fn is_last(&self) -> bool {
        self.offset + self.bytes().len() as u64 >= self.size
    }

    /// Puts the next chunk behind what is buffered.
    pub async fn fill(&mut self) -> Result<(), ConnectError> {
        let start = self.offset + self.bytes().len() as u64;
        let range = start..(start + CHUNK_BYTES).min(self.size);
        if range.is_empty() {
            return Ok(());
        }
        let wanted = range.end - range.start;
        let chunk = self
            .store
            .get_range(&self.path, range)
            .await
            .map_err(|e| ConnectError::unavailable(format!("read the file \"{}\"", self.path), e))?;
        if chunk.len() as u64 != wanted {
            let short = format!("{} bytes of {wanted} came", chunk.len());
            return Err(ConnectError::unavailable(format!("read the file \"{}\"", self.path), short));
        }
        self.buffer.drain(..self.read);
        self.read = 0;
        self.buffer.extend_from_slice(&chunk);
        Ok(())
    }

    pub fn consume(&mut self, bytes: usize) {
        self.read += bytes;
        self.offset += bytes as u64;
    }
}
