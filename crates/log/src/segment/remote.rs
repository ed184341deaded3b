//! The object store, for threads that wait.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::path::Path as ObjectPath;
use object_store::{Error, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload};
use tokio::runtime::{Builder, Runtime};

use crate::LogError;

/// How often a call looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(50);

/// An object store below a prefix. Its calls block the thread that makes them; their I/O is done by a thread of its own, so
/// they may be made from anywhere.
pub(crate) struct Remote {
    objects: Arc<dyn ObjectStore>,
    prefix: ObjectPath,
    /// Nobody waits for an answer any more.
    closing: AtomicBool,
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
}

/// What became of a creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Created {
    Yes,
    /// Something was there before.
    Taken,
}

impl Remote {
    pub fn new(objects: Arc<dyn ObjectStore>, prefix: ObjectPath) -> io::Result<Self> {
        let runtime =
            Builder::new_multi_thread().worker_threads(1).thread_name("log objects").enable_all().build()?;
        Ok(Self { objects, prefix, closing: AtomicBool::new(false), runtime: Some(runtime) })
    }

    fn path(&self, name: &str) -> ObjectPath {
        let below = ObjectPath::from(name);
        self.prefix.parts().chain(below.parts()).collect()
    }

    /// Runs a call on the store's own thread and waits for it.
    fn run<T: Send + 'static>(&self, call: impl Future<Output = T> + Send + 'static) -> io::Result<T> {
        let (answer, answered) = std::sync::mpsc::sync_channel(1);
        let runtime = self.runtime.as_ref().expect("it is there until it is dropped");
        runtime.spawn(async move { drop(answer.send(call.await)) });
        loop {
            match answered.recv_timeout(LOOK) {
                Ok(answer) => return Ok(answer),
                // A store that does not answer must not keep a server from stopping.
                Err(RecvTimeoutError::Timeout) if !self.closing.load(Ordering::Relaxed) => {}
                Err(_) => return Err(io::Error::other("the call of the object store was given up")),
            }
        }
    }

    /// Calls that wait, and those to come, are given up soon.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    fn call<T: Send + 'static>(
        &self,
        action: &'static str,
        name: &str,
        call: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, LogError> {
        let failed = |error: io::Error| LogError::io(action, Path::new(name), error);
        self.run(call).map_err(failed)?.map_err(|error| failed(as_io(error)))
    }

    pub fn corrupt(&self, name: &str, offset: u64, what: String) -> LogError {
        LogError::Corrupt { file: self.path(name).to_string().into(), offset, what }
    }

    pub fn get(&self, name: &str) -> Result<Bytes, LogError> {
        let (objects, path) = (Arc::clone(&self.objects), self.path(name));
        self.call("read", name, async move { objects.get(&path).await?.bytes().await })
    }

    /// The size of an object; `None` if there is none.
    pub fn size(&self, name: &str) -> Result<Option<u64>, LogError> {
        let (objects, path) = (Arc::clone(&self.objects), self.path(name));
        self.call("look for", name, async move {
            match objects.head(&path).await {
                Ok(meta) => Ok(Some(meta.size)),
                Err(Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        })
    }

    pub fn get_ranges(&self, name: &str, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, LogError> {
        let (objects, path, ranges) = (Arc::clone(&self.objects), self.path(name), ranges.to_vec());
        let lengths: Vec<u64> = ranges.iter().map(|range| range.end - range.start).collect();
        let read = self.call("read", name, async move { objects.get_ranges(&path, &ranges).await })?;
        if read.len() != lengths.len() || read.iter().zip(&lengths).any(|(bytes, n)| bytes.len() as u64 != *n)
        {
            return Err(self.corrupt(name, 0, "it is shorter than it was".to_owned()));
        }
        Ok(read)
    }

    /// Puts an object where there is none.
    pub fn create(&self, name: &str, bytes: Bytes) -> Result<Created, LogError> {
        let (objects, path) = (Arc::clone(&self.objects), self.path(name));
        self.call("upload", name, async move {
            let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            match objects.put_opts(&path, PutPayload::from_bytes(bytes), options).await {
                Ok(_) => Ok(Created::Yes),
                Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(Created::Taken),
                Err(error) => Err(error),
            }
        })
    }

    /// Deletes an object, if it is there.
    pub fn delete(&self, name: &str) -> Result<(), LogError> {
        let (objects, path) = (Arc::clone(&self.objects), self.path(name));
        self.call("delete", name, async move {
            match objects.delete(&path).await {
                Err(Error::NotFound { .. }) => Ok(()),
                other => other,
            }
        })
    }

    /// The names below `folder`, without the prefix, sorted.
    pub fn list(&self, folder: &str) -> Result<Vec<String>, LogError> {
        let (objects, path) = (Arc::clone(&self.objects), self.path(folder));
        let listed = self.call("list", folder, async move {
            objects.list(Some(&path)).map_ok(|meta| meta.location).try_collect::<Vec<_>>().await
        })?;
        let below = |path: &ObjectPath| {
            let parts: Vec<_> =
                path.prefix_match(&self.prefix)?.map(|part| part.as_ref().to_owned()).collect();
            Some(parts.join("/"))
        };
        let mut names: Vec<String> = listed.iter().filter_map(below).collect();
        names.sort();
        Ok(names)
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Whoever drops it may be a task, which must not wait.
            runtime.shutdown_background();
        }
    }
}

fn as_io(error: Error) -> io::Error {
    let kind = match &error {
        Error::NotFound { .. } => io::ErrorKind::NotFound,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => io::ErrorKind::PermissionDenied,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}
