//! What can go wrong, as three small enums: a fault of live state, bytes that are not a run, a checkpoint that failed.

use arrow::error::ArrowError;
use millpond_types::Commit;

/// Live state contradicts its input, or the machine failed. The state that reported it is half changed: it must be
/// discarded and rebuilt from its checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum StateFault {
    #[error("a row is retracted from \"{relation}\" that is not there: {row}")]
    NotThere { relation: String, row: String },
    #[error("\"{relation}\" gets a second row with the unique key {key}")]
    DuplicateKey { relation: String, key: String },
    #[error("a row is retracted from \"{relation}\", which is append-only: {row}")]
    AppendOnly { relation: String, row: String },
    #[error("row {0} is not in the heap")]
    UnknownRow(u64),
    #[error("a batch of {found} does not fit rows of {expected}")]
    Schema { expected: String, found: String },
    #[error("runs do not follow each other: {0}")]
    Runs(String),
    #[error("state kernel failed")]
    Arrow(#[from] ArrowError),
}

/// Bytes that should be a run, and are not. It names what is wrong; whoever read the bytes adds from where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CorruptRun {
    #[error("it has {found} bytes, a run has at least {needed}")]
    Short { found: usize, needed: usize },
    #[error("it does not begin with the magic of a run")]
    Magic,
    #[error("its version is {0}, which this program does not read")]
    Version(u16),
    #[error("the checksum of its header is {found:08x}, not {expected:08x}")]
    HeaderChecksum { expected: u32, found: u32 },
    #[error("its kind is {0}, which this program does not know")]
    Kind(u16),
    #[error("it has {found} bytes, but its header says {expected}")]
    Length { expected: u64, found: u64 },
    #[error("the checksum of its content is {found:08x}, not {expected:08x}")]
    Checksum { expected: u32, found: u32 },
    #[error("its content is malformed: {0}")]
    Content(String),
}

/// A checkpoint could not be read or published.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Another process has claimed the writer role. This one must stop writing; retrying cannot help.
    #[error(
        "another writer (epoch {theirs}) has taken over these checkpoints from this one (epoch {ours}); only one server \
         may use an object store prefix"
    )]
    Fenced { ours: u64, theirs: u64 },
    /// The object is there, and is not what was written. `what` names the first thing that is wrong.
    #[error("object \"{path}\" is corrupt: {what}")]
    Corrupt { path: String, what: String },
    /// Written by a program that this one does not understand.
    #[error("object \"{path}\" cannot be used: {what}")]
    Incompatible { path: String, what: String },
    /// A manifest names it, and it is gone.
    #[error("object \"{path}\" is missing")]
    Missing { path: String },
    /// The store overwrites an object that should only be created: two writers could not be told apart.
    #[error("the object store does not support create-if-absent, which checkpoints need")]
    NoConditionalPut,
    /// The draft contradicts the manifest it follows; a bug of the caller.
    #[error("checkpoint draft is refused: {0}")]
    Draft(String),
    #[error("the cut {0} is before the cut {1} of the newest checkpoint")]
    CutWentBack(Commit, Commit),
    #[error("runs could not be merged")]
    Merge(#[source] StateFault),
    /// A retry may help. Nothing was published, or it will be found at the next publish.
    #[error("object store failed at \"{path}\"")]
    Store {
        path: String,
        #[source]
        source: object_store::Error,
    },
}
