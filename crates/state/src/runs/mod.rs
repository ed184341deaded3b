//! What has changed between two checkpoints, as immutable files.
//!
//! A [`HeapRun`] holds rows by id, a [`KeyedRun`] the newest value per key. Both are Arrow IPC streams with LZ4 buffers
//! in one [`envelope`] with checksums, and both merge: the merged run has the effect of its inputs in their order.

pub mod envelope;
mod heap_run;
mod ipc;
mod keyed_run;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use self::heap_run::HeapRun;
pub(crate) use self::heap_run::RunPart;
pub use self::keyed_run::{KeyedPart, KeyedRun};
use crate::{CorruptRun, StateFault};

/// Who reads a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunKind {
    Heap,
    Keyed,
}

/// A run as bytes, ready for upload.
#[derive(Clone, Debug)]
pub struct EncodedRun {
    pub kind: RunKind,
    /// Rows, deleted keys included; deleted ids of a heap are not counted.
    pub rows: u64,
    pub bytes: Bytes,
}

/// Any run, as read back.
#[derive(Clone, Debug)]
pub enum Run {
    Heap(HeapRun),
    Keyed(KeyedRun),
}

impl Run {
    pub fn kind(&self) -> RunKind {
        match self {
            Self::Heap(_) => RunKind::Heap,
            Self::Keyed(_) => RunKind::Keyed,
        }
    }

    pub fn decode(bytes: &Bytes) -> Result<Self, CorruptRun> {
        match envelope::open(bytes)?.kind {
            RunKind::Heap => HeapRun::decode(bytes).map(Self::Heap),
            RunKind::Keyed => KeyedRun::decode(bytes).map(Self::Keyed),
        }
    }

    pub fn encode(&self) -> Result<EncodedRun, StateFault> {
        match self {
            Self::Heap(run) => run.encode(),
            Self::Keyed(run) => run.encode(),
        }
    }

    /// One run with the effect of `runs`, oldest first. `bottom`: no older run exists, so deleted keys need not be kept.
    ///
    /// # Errors
    /// If there are none, or they are not of one kind, schema and unbroken sequence.
    pub fn merge(runs: Vec<Run>, bottom: bool) -> Result<Run, StateFault> {
        let mixed = || StateFault::Runs("they are of several kinds".to_owned());
        if let Some(Run::Heap(_)) = runs.first() {
            let heaps =
                runs.into_iter().map(|run| if let Run::Heap(run) = run { Ok(run) } else { Err(mixed()) });
            return HeapRun::merge(heaps.collect::<Result<_, _>>()?).map(Run::Heap);
        }
        let keyed =
            runs.into_iter().map(|run| if let Run::Keyed(run) = run { Ok(run) } else { Err(mixed()) });
        KeyedRun::merge(keyed.collect::<Result<_, _>>()?, bottom).map(Run::Keyed)
    }
}
