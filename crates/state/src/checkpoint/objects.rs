//! Objects of one prefix: their names, and how they are read and written.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::{Path, PathPart};
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, WriteMultipart};

use super::manifest::{Manifest, Read, RunRef, Unreadable};
use crate::CheckpointError;

/// Parts of large objects that are on their way at a time.
const PARTS_IN_FLIGHT: usize = 4;

#[derive(Clone, Debug)]
pub(super) struct Objects {
    pub store: Arc<dyn ObjectStore>,
    pub prefix: Path,
    /// Larger runs travel in parts of this size.
    pub part_bytes: usize,
}

/// What became of a creation.
#[derive(Debug)]
pub(super) enum Created {
    Yes,
    /// Something was there before.
    Taken,
}

impl Objects {
    fn path<'a>(&'a self, parts: impl IntoIterator<Item = PathPart<'a>>) -> Path {
        self.prefix.parts().chain(parts).collect()
    }

    fn manifest_path(&self, number: u64) -> Path {
        let name = format!("{number:020}.json");
        self.path([PathPart::from("manifest"), PathPart::from(name.as_str())])
    }

    pub fn run_path(&self, run: &RunRef) -> Result<Path, CheckpointError> {
        let below = Path::parse(&run.path).map_err(|source| store_error(&run.path, source.into()))?;
        Ok(self.path(below.parts()))
    }

    /// Names no two writers share, because no two have one epoch.
    pub fn run_name(state: &str, writer_epoch: u64, sequence: u64) -> String {
        let name = format!("{writer_epoch:010}-{sequence:010}.run");
        Path::from_iter(["state", state, &name]).to_string()
    }

    /// Writer epoch and sequence of a run's name.
    pub fn parse_run_name(path: &Path) -> Option<(u64, u64)> {
        let (epoch, sequence) = path.filename()?.strip_suffix(".run")?.split_once('-')?;
        Some((epoch.parse().ok()?, sequence.parse().ok()?))
    }

    pub async fn create_manifest(&self, number: u64, bytes: &Bytes) -> Result<Created, CheckpointError> {
        let path = self.manifest_path(number);
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.store.put_opts(&path, PutPayload::from_bytes(bytes.clone()), options).await {
            Ok(_) => Ok(Created::Yes),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(Created::Taken),
            Err(Error::NotImplemented { .. } | Error::NotSupported { .. }) => {
                Err(CheckpointError::NoConditionalPut)
            }
            Err(source) => Err(store_error(path, source)),
        }
    }

    /// The numbers of all manifests, ascending.
    pub async fn manifests(&self) -> Result<Vec<u64>, CheckpointError> {
        let folder = self.path([PathPart::from("manifest")]);
        let number = |path: &Path| path.filename()?.strip_suffix(".json")?.parse().ok();
        let all: Vec<_> = self
            .store
            .list(Some(&folder))
            .try_collect()
            .await
            .map_err(|source| store_error(&folder, source))?;
        let mut numbers: Vec<u64> = all.iter().filter_map(|object| number(&object.location)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The manifest of that number; `None` if there is none.
    pub async fn read_manifest(&self, number: u64) -> Result<Option<Read>, CheckpointError> {
        let path = self.manifest_path(number);
        let bytes = match self.get(&path).await {
            Ok(bytes) => bytes,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(source) => return Err(store_error(path, source)),
        };
        let path = path.to_string();
        match Manifest::decode(&bytes) {
            Ok(Read::Whole(manifest)) if manifest.number != number => {
                Err(CheckpointError::Corrupt { path, what: format!("it is manifest {}", manifest.number) })
            }
            Ok(read) => Ok(Some(read)),
            Err(Unreadable::Damaged(what)) => Err(CheckpointError::Corrupt { path, what }),
            Err(Unreadable::Format(format)) => {
                let what = format!("its format is {format}, which this program does not read");
                Err(CheckpointError::Incompatible { path, what })
            }
        }
    }

    /// The newest whole manifest and the highest number that is taken. One that was only begun is passed over: it was never
    /// acknowledged. One that is damaged is an error: going back silently could lose what it held.
    pub async fn newest(&self) -> Result<(Option<Manifest>, u64), CheckpointError> {
        for _ in 0..NEWEST_TRIES {
            let numbers = self.manifests().await?;
            let highest = numbers.last().copied().unwrap_or(0);
            let mut gone = false;
            for &number in numbers.iter().rev() {
                match self.read_manifest(number).await? {
                    Some(Read::Whole(manifest)) => {
                        self.check_hash_version(&manifest)?;
                        return Ok((Some(*manifest), highest));
                    }
                    Some(Read::Begun) => {
                        tracing::warn!(number, "a manifest was never finished; using the one before");
                    }
                    // Its writer has swept meanwhile, so there are newer ones.
                    None => gone = true,
                }
            }
            match numbers.first() {
                _ if gone => {}
                Some(&first) if first > 1 => {
                    let what = "it was never finished, and the ones before are gone".to_owned();
                    return Err(CheckpointError::Corrupt {
                        path: self.manifest_path(first).to_string(),
                        what,
                    });
                }
                _ => return Ok((None, highest)),
            }
        }
        Err(CheckpointError::Missing { path: self.path([PathPart::from("manifest")]).to_string() })
    }

    fn check_hash_version(&self, manifest: &Manifest) -> Result<(), CheckpointError> {
        let (found, ours) = (manifest.hash_version, millpond_types::hash::VERSION);
        if found == ours {
            return Ok(());
        }
        let path = self.manifest_path(manifest.number).to_string();
        let what = format!("its hash has version {found}, this program's has version {ours}");
        Err(CheckpointError::Incompatible { path, what })
    }

    pub async fn delete_manifest(&self, number: u64) -> Result<(), CheckpointError> {
        self.delete(&self.manifest_path(number)).await
    }

    /// No error if it is gone already.
    pub async fn delete(&self, path: &Path) -> Result<(), CheckpointError> {
        match self.store.delete(path).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(store_error(path, source)),
        }
    }

    /// All objects below `state/`.
    pub async fn run_objects(&self) -> Result<Vec<Path>, CheckpointError> {
        let folder = self.path([PathPart::from("state")]);
        let paths = self.store.list(Some(&folder)).map_ok(|object| object.location);
        paths.try_collect().await.map_err(|source| store_error(&folder, source))
    }

    pub async fn put_run(&self, run: &RunRef, bytes: &Bytes) -> Result<(), CheckpointError> {
        let path = self.run_path(run)?;
        let put = async {
            if bytes.len() <= self.part_bytes {
                self.store.put(&path, PutPayload::from_bytes(bytes.clone())).await?;
                return Ok(());
            }
            let upload = self.store.put_multipart(&path).await?;
            let mut upload = WriteMultipart::new_with_chunk_size(upload, self.part_bytes);
            for start in (0..bytes.len()).step_by(self.part_bytes) {
                upload.wait_for_capacity(PARTS_IN_FLIGHT).await?;
                upload.put(bytes.slice(start..bytes.len().min(start + self.part_bytes)));
            }
            upload.finish().await.map(|_| ())
        };
        put.await.map_err(|source| store_error(path.clone(), source))
    }

    /// The bytes of a run, which are those that were written.
    pub async fn get_run(&self, run: &RunRef) -> Result<Bytes, CheckpointError> {
        let path = self.run_path(run)?;
        let get = async {
            if run.bytes <= self.part_bytes as u64 {
                return self.get(&path).await;
            }
            let part = self.part_bytes as u64;
            let starts = stream::iter((0..run.bytes).step_by(self.part_bytes));
            let mut parts = starts
                .map(|start| self.store.get_range(&path, start..run.bytes.min(start + part)))
                .buffered(PARTS_IN_FLIGHT);
            let mut bytes = BytesMut::new();
            while let Some(part) = parts.try_next().await? {
                bytes.extend_from_slice(&part);
            }
            Ok(bytes.freeze())
        };
        let bytes = match get.await {
            Ok(bytes) => bytes,
            Err(Error::NotFound { .. }) => return Err(CheckpointError::Missing { path: path.to_string() }),
            Err(source) => return Err(store_error(path, source)),
        };
        let what = if bytes.len() as u64 != run.bytes {
            format!("it has {} bytes, but its manifest says {}", bytes.len(), run.bytes)
        } else {
            let found = crc32c::crc32c(&bytes);
            if found == run.crc32c {
                return Ok(bytes);
            }
            format!("its checksum is {found:08x}, but its manifest says {:08x}", run.crc32c)
        };
        Err(CheckpointError::Corrupt { path: path.to_string(), what })
    }

    async fn get(&self, path: &Path) -> object_store::Result<Bytes> {
        self.store.get(path).await?.bytes().await
    }
}

/// A reader that loses every race against a sweep this often has met something else.
const NEWEST_TRIES: usize = 8;

fn store_error(path: impl ToString, source: Error) -> CheckpointError {
    CheckpointError::Store { path: path.to_string(), source }
}
