//! The folder of segments, and the object store behind it.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use millpond_env::{DiskFile, Env, Open};
use parking_lot::Mutex;
use tracing::warn;

use super::remote::Remote;
use super::{Segment, Tail};
use crate::LogError;

/// Decoded tails that are kept, whoever uses them.
const TAILS_BYTES_MAX: usize = 64 << 20;

/// Where segments lie. Shared by readers and the worker.
pub(crate) struct Store {
    pub(super) env: Env,
    pub(super) dir: PathBuf,
    pub(super) remote: Option<Remote>,
    /// Newest last.
    tails: Mutex<Vec<Arc<Tail>>>,
    pub(super) rows: super::rows::Cache,
}

impl Store {
    pub fn new(env: Env, journal: &Path, remote: Option<Remote>) -> Self {
        Self {
            env,
            dir: journal.join("segments"),
            remote,
            tails: Mutex::default(),
            rows: super::rows::Cache::default(),
        }
    }

    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.join(name)
    }

    /// The names in the folder, which may not exist yet.
    pub fn list(&self) -> Result<Vec<PathBuf>, LogError> {
        match self.env.disk.list(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            other => other.map_err(|e| LogError::io("list", &self.dir, e)),
        }
    }

    pub fn create_dir(&self) -> Result<(), LogError> {
        self.env.disk.create_dir_all(&self.dir).map_err(|e| LogError::io("create", &self.dir, e))
    }

    pub fn sync_dir(&self) -> Result<(), LogError> {
        self.env.disk.sync_dir(&self.dir).map_err(|e| LogError::io("sync", &self.dir, e))
    }

    pub fn rename(&self, from: &Path, to: &Path) -> Result<(), LogError> {
        self.env.disk.rename(from, to).map_err(|e| LogError::io("rename", from, e))
    }

    pub fn remove_if_there(&self, path: &Path) -> Result<(), LogError> {
        match self.env.disk.exists(path) {
            Ok(false) => Ok(()),
            Ok(true) => self.env.disk.remove(path).map_err(|e| LogError::io("remove", path, e)),
            Err(error) => Err(LogError::io("look for", path, error)),
        }
    }

    pub fn read_file(&self, path: &Path) -> Result<Vec<u8>, LogError> {
        let read = || {
            let file = self.env.disk.open(path, Open::Read)?;
            let mut bytes = vec![0; usize::try_from(file.len()?).map_err(io::Error::other)?];
            file.read_exact_at(&mut bytes, 0)?;
            Ok(bytes)
        };
        read().map_err(|e| LogError::io("read", path, e))
    }

    /// Reads parts of a segment that `check` finds right; a local copy that is damaged or gone is passed over if there is
    /// one in the object store.
    pub(super) fn fetch<T>(
        &self,
        segment: &Segment,
        ranges: &[Range<u64>],
        check: impl Fn(Vec<Bytes>) -> Result<T, (u64, String)>,
    ) -> Result<T, LogError> {
        let entry = &segment.entry;
        let path = &segment.path;
        let corrupt = |(offset, what)| LogError::Corrupt { file: path.clone(), offset, what };
        let mut local = None;
        if entry.local {
            let read = self.read_local(segment, ranges).map_err(|e| LogError::io("read", path, e));
            match read.and_then(|bytes| check(bytes).map_err(corrupt)) {
                Ok(value) => return Ok(value),
                Err(error) if !entry.uploaded || self.remote.is_none() => return Err(error),
                Err(error) => {
                    warn!(file = %path.display(), %error, "a segment cannot be read here; reading it from the object store");
                    local = Some(error);
                }
            }
        }
        let name = entry.object_name();
        let Some(remote) = &self.remote else {
            let what =
                io::Error::new(io::ErrorKind::NotFound, "it lies in an object store that is not configured");
            return Err(LogError::io("read", Path::new(&name), what));
        };
        let bytes = remote.get_ranges(&name, ranges);
        match (
            bytes
                .and_then(|bytes| check(bytes).map_err(|(offset, what)| remote.corrupt(&name, offset, what))),
            local,
        ) {
            (Ok(value), _) => Ok(value),
            (Err(_), Some(error)) | (Err(error), None) => Err(error),
        }
    }

    fn read_local(&self, segment: &Segment, ranges: &[Range<u64>]) -> io::Result<Vec<Bytes>> {
        let file = segment.open(self)?;
        let read = |range: &Range<u64>| {
            let length = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
            let mut bytes = vec![0; length];
            file.read_exact_at(&mut bytes, range.start)?;
            Ok(Bytes::from(bytes))
        };
        ranges.iter().map(read).collect()
    }

    /// The tail of a segment, read once as long as it is in use.
    pub fn tail(&self, segment: &Segment) -> Result<Arc<Tail>, LogError> {
        if let Some(tail) = segment.tail.lock().upgrade() {
            return Ok(tail);
        }
        let entry = &segment.entry;
        let whole = entry.tail_at..entry.bytes;
        let tail = self.fetch(segment, std::slice::from_ref(&whole), |bytes| {
            let bytes = &bytes[0];
            if crc32c::crc32c(bytes) != entry.tail_crc32c {
                return Err((entry.tail_at, "the checksum of its tail does not match".to_owned()));
            }
            Tail::decode(bytes).map_err(|what| (entry.tail_at, what))
        })?;
        let tail = Arc::new(tail);
        *segment.tail.lock() = Arc::downgrade(&tail);
        let mut tails = self.tails.lock();
        tails.push(Arc::clone(&tail));
        let mut bytes: usize = tails.iter().map(|tail| tail.bytes()).sum();
        while bytes > TAILS_BYTES_MAX && tails.len() > 1 {
            bytes -= tails.remove(0).bytes();
        }
        Ok(tail)
    }

    /// The bytes of a spine.
    pub(super) fn spine(&self, cut: &super::CutEntry) -> Result<Vec<u8>, LogError> {
        let path = self.path(cut.local_name());
        let corrupt = || {
            let what = "the checksum of the spine does not match".to_owned();
            LogError::Corrupt { file: path.clone(), offset: 0, what }
        };
        let sound = |bytes: &[u8]| bytes.len() as u64 == cut.bytes && crc32c::crc32c(bytes) == cut.crc32c;
        let local = self.read_file(&path).and_then(|b| if sound(&b) { Ok(b) } else { Err(corrupt()) });
        let error = match local {
            Ok(bytes) => return Ok(bytes),
            Err(error) => error,
        };
        let Some(remote) = self.remote.as_ref().filter(|_| cut.uploaded) else { return Err(error) };
        let name = cut.object_name();
        match remote.get(&name) {
            Ok(bytes) if sound(&bytes) => Ok(bytes.to_vec()),
            Ok(_) => Err(remote.corrupt(&name, 0, "the checksum of the spine does not match".to_owned())),
            Err(error) => Err(error),
        }
    }
}

impl Segment {
    pub(super) fn open(&self, store: &Store) -> io::Result<Arc<dyn DiskFile>> {
        let mut handle = self.handle.lock();
        if let Some(open) = handle.as_ref().and_then(std::sync::Weak::upgrade) {
            return Ok(open);
        }
        let opened: Arc<dyn DiskFile> = Arc::from(store.env.disk.open(&self.path, Open::Read)?);
        *handle = Some(Arc::downgrade(&opened));
        Ok(opened)
    }
}
