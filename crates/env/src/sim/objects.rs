//! An object store in memory whose calls can fail.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;

use super::fault::{Fault, Faults, Gate};

/// Objects in memory; clones share them. Every call of the trait is numbered from 0; an object is there from the moment
/// its `put` has happened, whatever crashes.
#[derive(Clone, Debug)]
pub struct SimObjects {
    inner: Arc<InMemory>,
    faults: Arc<Mutex<(Faults, bool)>>,
}

impl SimObjects {
    pub(super) fn new() -> Self {
        Self { inner: Arc::new(InMemory::new()), faults: Arc::default() }
    }

    /// How many calls were made.
    pub fn calls(&self) -> u64 {
        self.faults.lock().0.calls()
    }

    /// Plans what happens to the call of this number.
    pub fn fault_at(&self, call: u64, fault: Fault) {
        self.faults.lock().0.plan(call, fault);
    }

    /// Plans what happens to the next call.
    pub fn fault_next(&self, fault: Fault) {
        let mut faults = self.faults.lock();
        let next = faults.0.calls();
        faults.0.plan(next, fault);
    }

    /// The network is back; planned faults are forgotten.
    pub fn heal(&self) {
        let mut faults = self.faults.lock();
        faults.0.clear();
        faults.1 = false;
    }

    /// `Ok(true)`: do it, then say that it failed.
    async fn call(&self) -> Result<bool> {
        let fault = {
            let mut faults = self.faults.lock();
            let fault = faults.0.next();
            faults.1 |= matches!(fault, Some(Fault::PowerOff));
            if faults.1 {
                return Err(failure());
            }
            fault
        };
        match fault {
            None => Ok(false),
            Some(Fault::LostAnswer) => Ok(true),
            Some(Fault::Hold(gate)) => passed(gate).await.map(|()| false),
            Some(Fault::HeldError(gate, _)) => passed(gate).await.and(Err(failure())),
            Some(Fault::Error(_) | Fault::Torn(..) | Fault::PowerOff) => Err(failure()),
        }
    }
}

/// Waits at a gate without holding up the runtime.
async fn passed(gate: Gate) -> Result<()> {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => runtime.spawn_blocking(move || gate.pass()).await.map_err(|_| failure()),
        Err(_) => {
            gate.pass();
            Ok(())
        }
    }
}

fn failure() -> Error {
    Error::Generic { store: "sim", source: "simulated failure".into() }
}

fn answer<T>(lost: bool, result: T) -> Result<T> {
    if lost { Err(failure()) } else { Ok(result) }
}

impl fmt::Display for SimObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimObjects")
    }
}

#[async_trait]
impl ObjectStore for SimObjects {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let lost = self.call().await?;
        answer(lost, self.inner.put_opts(location, payload, options).await?)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let lost = self.call().await?;
        answer(lost, self.inner.put_multipart_opts(location, options).await?)
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let lost = self.call().await?;
        answer(lost, self.inner.get_opts(location, options).await?)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let lost = self.call().await?;
        answer(lost, self.inner.get_ranges(location, ranges).await?)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        locations
            .then(move |location| {
                let this = this.clone();
                async move {
                    let lost = this.call().await?;
                    let mut deleted = this.inner.delete_stream(stream::iter([location]).boxed());
                    answer(lost, deleted.next().await.unwrap_or_else(|| Err(failure()))?)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (this, prefix) = (self.clone(), prefix.cloned());
        stream::once(async move {
            match this.call().await {
                Ok(false) => this.inner.list(prefix.as_ref()),
                Ok(true) => stream::iter([Err(failure())]).boxed(),
                Err(error) => stream::iter([Err(error)]).boxed(),
            }
        })
        .flatten()
        .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let lost = self.call().await?;
        answer(lost, self.inner.list_with_delimiter(prefix).await?)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let lost = self.call().await?;
        answer(lost, self.inner.copy_opts(from, to, options).await?)
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt as _;
    use object_store::{ObjectStoreExt as _, PutMode};

    use super::super::{Gate, Sim, Survivors};
    use super::*;

    #[tokio::test]
    async fn calls_fail_lose_their_answer_or_wait() {
        let sim = Sim::new(1);
        let store = &sim.objects;
        let path = Path::from("a/b");
        let create = || PutOptions { mode: PutMode::Create, ..Default::default() };
        store.fault_next(Fault::Error(std::io::ErrorKind::Other));
        store.put_opts(&path, PutPayload::from_static(b"1"), create()).await.unwrap_err();
        assert!(matches!(store.head(&path).await, Err(Error::NotFound { .. })));
        store.fault_next(Fault::LostAnswer);
        store.put_opts(&path, PutPayload::from_static(b"2"), create()).await.unwrap_err();
        let again = store.put_opts(&path, PutPayload::from_static(b"3"), create()).await.unwrap_err();
        assert!(matches!(again, Error::AlreadyExists { .. }));
        let gate = Gate::new();
        store.fault_next(Fault::Hold(gate.clone()));
        let (held, read) = (store.clone(), path.clone());
        let reader = tokio::spawn(async move { held.get(&read).await?.bytes().await });
        tokio::task::spawn_blocking(move || {
            gate.wait_until_reached();
            gate.open();
        })
        .await
        .unwrap();
        assert_eq!(reader.await.unwrap().unwrap(), "2");
        store.fault_next(Fault::PowerOff);
        store.delete(&path).await.unwrap_err();
        store.head(&path).await.unwrap_err();
        let next = sim.crash(Survivors::None);
        let all: Vec<_> = next.objects.list(None).try_collect().await.unwrap();
        assert_eq!(all.len(), 1);
    }
}
