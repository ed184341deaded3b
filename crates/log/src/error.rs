//! What can go wrong with the journal.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::error::ArrowError;
use millpond_types::{PartitionId, RelationId};

/// Cheap to clone: all tickets of a failed group get the same one.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    /// Another process, or another [`crate::Log`] of this one, has the directory.
    #[error("data directory \"{}\" is in use by another process", dir.display())]
    Locked { dir: PathBuf },
    /// Bytes that were once acknowledged are not what they were. Nothing is skipped: somebody must decide.
    #[error("journal file \"{}\" is damaged at offset {offset}: {what}", file.display())]
    Corrupt { file: PathBuf, offset: u64, what: String },
    /// The disk is full (SQLSTATE 53100); the log takes no more appends until [`crate::Log::heal`] finds space.
    #[error("could not write to \"{}\": no space left on device", path.display())]
    DiskFull { path: PathBuf, source: Arc<io::Error> },
    /// The machine failed (58030). After a failed write or sync the log takes no more appends until [`crate::Log::heal`].
    #[error("could not {action} \"{}\": {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: Arc<io::Error> },
    /// An earlier failure stopped the log; what was submitted since is not in it. Sure not to turn up later.
    #[error("the log has stopped: {cause}")]
    Stopped { cause: Arc<LogError> },
    /// The log has failed and gone on since the transaction read what it builds on; nothing of it was written.
    #[error("the log has failed and gone on since the transaction began")]
    Interrupted,
    /// The log was closed before the transaction was written.
    #[error("the log is closed")]
    Closed,
    /// The transaction breaks a rule of this interface; nothing of it was written.
    #[error("cannot append to topic {topic}: {reason}")]
    Refused { topic: RelationId, reason: String },
    /// A producer with an older epoch than one seen before; nothing of the transaction was written.
    #[error(
        "producer {id} of topic {topic}, partition {partition}, has epoch {epoch}, but epoch {newest} was seen"
    )]
    Fenced { topic: RelationId, partition: PartitionId, id: u64, epoch: u32, newest: u32 },
    /// Arrow could not encode a batch.
    #[error("could not encode a frame of topic {topic}: {source}")]
    Encode { topic: RelationId, source: Arc<ArrowError> },
}

impl LogError {
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let (path, full) = (path.to_owned(), millpond_env::is_full(&source));
        let source = Arc::new(source);
        if full { Self::DiskFull { path, source } } else { Self::Io { action, path, source } }
    }

    /// What later callers are told.
    pub(crate) fn stopped(&self) -> Self {
        match self {
            Self::Stopped { .. } | Self::Closed => self.clone(),
            cause => Self::Stopped { cause: Arc::new(cause.clone()) },
        }
    }

    /// Whether stored bytes are not what they were, and no retry will help.
    pub fn is_corrupt(&self) -> bool {
        matches!(self, Self::Corrupt { .. })
    }

    /// Whether the disk was full, now or when the log stopped.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::DiskFull { .. } => true,
            Self::Stopped { cause } => cause.is_disk_full(),
            _ => false,
        }
    }
}
