//! State that outlives an epoch, and its checkpoints.
//!
//! A [`Heap`] holds rows in immutable Arrow chunks of up to 64 Ki rows with copy-on-write deletion bitmaps; a [`RowId`]
//! names a row for as long as it lives. A [`HeapSnapshot`] is what readers hold: it never changes and blocks nobody. A
//! [`Relation`] is a heap with an index from row identity to ids, and applies [`millpond_types::Delta`]s.
//!
//! What has changed since the last checkpoint leaves a heap as a [`HeapRun`] and an operator's key table as a
//! [`KeyedRun`]: immutable, encoded as Arrow IPC in an envelope with checksums. [`Checkpoints`] writes runs to an object
//! store and publishes them by a [`Manifest`], the only root: what no manifest names does not exist.
//!
//! Not here: SQL, plans, operators, the log, and when to take a checkpoint. Keeps I5 (one manifest publishes everything
//! or nothing) and I7 (no byte from a store causes a panic). Begin at [`heap`], then [`relation`], [`runs`], [`checkpoint`].

pub mod checkpoint;
mod columns;
pub mod error;
pub mod heap;
pub mod relation;
pub mod runs;

pub use checkpoint::{
    Change, CheckpointOptions, Checkpoints, Manifest, ManifestDraft, MergeJob, Merged, NewRun, RunRef,
    StateEntry,
};
pub use columns::same_rows;
pub use error::{CheckpointError, CorruptRun, StateFault};
pub use heap::{Heap, HeapSnapshot, RowId};
pub use relation::{Identity, Relation};
pub use runs::{EncodedRun, HeapRun, KeyedPart, KeyedRun, Run, RunKind};
