//! A folder as an object store whose `put` is durable.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::ops::Range;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt as _, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions,
    Result, UploadPart,
};

use super::disk::create_dir_durably;

const STORE: &str = "folder";

/// `object_store`'s local store does not sync: after a power failure a manifest could name runs that are empty. This one
/// writes beside the target, syncs the file, then links or renames it, then syncs the directory. An object is never
/// seen half written, and is there after any crash once `put` has returned.
#[derive(Debug)]
pub(super) struct Folder {
    inner: LocalFileSystem,
    staged: AtomicU64,
}

impl Folder {
    /// The folder is created if it is missing.
    pub(super) fn open(root: &FsPath) -> Result<Self> {
        create_dir_durably(root).map_err(|source| generic(source, root))?;
        Ok(Self { inner: LocalFileSystem::new_with_prefix(root)?, staged: AtomicU64::new(0) })
    }

    /// A name beside `target` that the local store hides from readers and lists: it ends in `#` and digits.
    fn staging(&self, target: &FsPath) -> PathBuf {
        let number = self.staged.fetch_add(1, Ordering::Relaxed);
        let mut name = target.as_os_str().to_owned();
        name.push(format!("#{}{number:06}", std::process::id()));
        PathBuf::from(name)
    }
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Folder({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Folder {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if matches!(options.mode, PutMode::Update(_)) || !options.attributes.is_empty() {
            // Let it say what it cannot do.
            return self.inner.put_opts(location, payload, options).await;
        }
        let target = self.inner.path_to_filesystem(location)?;
        let staging = self.staging(&target);
        let create = matches!(options.mode, PutMode::Create);
        blocking(move || put(&target, &staging, &payload, create)).await?;
        let meta = self.inner.head(location).await?;
        Ok(PutResult { e_tag: meta.e_tag, version: None })
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let target = self.inner.path_to_filesystem(location)?;
        let parent = parent(&target).to_owned();
        blocking(move || create_dir_durably(&parent).map_err(|source| generic(source, &parent))).await?;
        let inner = self.inner.put_multipart_opts(location, options).await?;
        Ok(Box::new(Upload { inner, target }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        // Not synced: an object that comes back after a crash is unreferenced, and swept again.
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await?;
        self.sync(to).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await?;
        self.sync(to).await
    }
}

impl Folder {
    async fn sync(&self, location: &Path) -> Result<()> {
        let target = self.inner.path_to_filesystem(location)?;
        let root = self.inner.path_to_filesystem(&Path::from("x"))?;
        blocking(move || sync_with_directories(&target, parent(&root))).await
    }
}

fn put(target: &FsPath, staging: &FsPath, payload: &PutPayload, create: bool) -> Result<()> {
    let written = create_dir_durably(parent(target)).and_then(|()| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(staging)?;
        payload.iter().try_for_each(|part| file.write_all(part))?;
        file.sync_all()
    });
    let published = written
        .and_then(|()| if create { fs::hard_link(staging, target) } else { fs::rename(staging, target) });
    if create || published.is_err() {
        // Already gone is as good; a staged file that stays is hidden.
        let _ = fs::remove_file(staging);
    }
    published.and_then(|()| File::open(parent(target))?.sync_all()).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists if create => {
            Error::AlreadyExists { path: target.display().to_string(), source: source.into() }
        }
        _ => generic(source, target),
    })
}

/// Makes a file durable, its name, and the names of the directories up to `root`, any of which may be new.
fn sync_with_directories(target: &FsPath, root: &FsPath) -> Result<()> {
    let sync = || {
        File::open(target)?.sync_all()?;
        for dir in target.ancestors().skip(1) {
            File::open(dir)?.sync_all()?;
            if dir == root {
                break;
            }
        }
        Ok(())
    };
    sync().map_err(|source| generic(source, target))
}

fn parent(path: &FsPath) -> &FsPath {
    path.parent().unwrap_or(path)
}

fn generic(source: io::Error, path: &FsPath) -> Error {
    let source = io::Error::new(source.kind(), format!("{}: {source}", path.display()));
    Error::Generic { store: STORE, source: Box::new(source) }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => runtime
            .spawn_blocking(work)
            .await
            .map_err(|source| Error::Generic { store: STORE, source: Box::new(source) })?,
        Err(_) => work(),
    }
}

/// Parts go to a hidden file; `complete` gives it its name and returns once both are durable.
#[derive(Debug)]
struct Upload {
    inner: Box<dyn MultipartUpload>,
    target: PathBuf,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let result = self.inner.complete().await?;
        let target: Arc<FsPath> = Arc::from(self.target.as_path());
        blocking(move || sync_with_directories(&target, parent(&target))).await?;
        Ok(result)
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}
