//! Object stores by URL.

use std::path::Path as FsPath;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::aws::AmazonS3Builder;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use url::Url;

use super::folder::Folder;

/// Why a URL does not lead to an object store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("object store URL \"{url}\" is not valid: {reason}")]
    Invalid { url: String, reason: String },
    #[error("object store scheme \"{scheme}\" is not supported; use a folder, file://, s3:// or memory:")]
    Scheme { scheme: String },
    #[error("could not open the object store \"{url}\"")]
    Open { url: String, source: object_store::Error },
}

/// Opens an object store, rooted at the path of `url`:
///
/// - a plain path or `file:///path`: a folder, created if missing, whose writes are synced;
/// - `s3://bucket/prefix`: credentials, region and endpoint come from the `AWS_*` variables (`AWS_ENDPOINT_URL` and
///   `AWS_ALLOW_HTTP=true` lead to compatible servers);
/// - `memory:`: empty, and gone with the process.
///
/// # Errors
/// For a URL that is not one, another scheme, a folder that cannot be created, a bucket that the settings do not fit. It
/// does not reach out: whether a bucket answers shows at the first use.
pub fn object_store(url: &str) -> Result<Arc<dyn ObjectStore>, StoreError> {
    let invalid = |reason: String| StoreError::Invalid { url: url.to_owned(), reason };
    let open = |source| StoreError::Open { url: url.to_owned(), source };
    // A drive letter or a name with a colon in it is nothing we promise; a scheme has at least two letters.
    let Some((scheme, _)) = url.split_once(':').filter(|(s, _)| s.len() > 1 && s.bytes().all(is_scheme_byte))
    else {
        if url.is_empty() {
            return Err(invalid("it is empty".to_owned()));
        }
        return Ok(Arc::new(Folder::open(FsPath::new(url)).map_err(open)?));
    };
    let parsed = Url::parse(url).map_err(|error| invalid(error.to_string()))?;
    match scheme {
        "file" => {
            let path = parsed.to_file_path().map_err(|()| invalid("it needs an absolute path".to_owned()))?;
            Ok(Arc::new(Folder::open(&path).map_err(open)?))
        }
        "memory" => Ok(Arc::new(InMemory::new())),
        "s3" | "s3a" => {
            let s3 = AmazonS3Builder::from_env().with_url(url).build().map_err(open)?;
            let prefix = Path::from_url_path(parsed.path()).map_err(|error| invalid(error.to_string()))?;
            if prefix.as_ref().is_empty() {
                Ok(Arc::new(s3))
            } else {
                Ok(Arc::new(PrefixStore::new(s3, prefix)))
            }
        }
        _ => Err(StoreError::Scheme { scheme: scheme.to_owned() }),
    }
}

fn is_scheme_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt as _;
    use object_store::{ObjectStoreExt as _, PutMode, PutOptions, PutPayload};

    use super::*;

    #[tokio::test]
    async fn a_folder_creates_lists_and_refuses_what_exists() {
        let dir = tempfile::tempdir().unwrap();
        for scheme in ["", "file://"] {
            let root = dir.path().join(format!("deep/{}", scheme.len()));
            let url = format!("{scheme}{}", root.display());
            let store = object_store(&url).unwrap();
            let path = Path::from("manifest/1");
            store.put(&path, PutPayload::from_static(b"one")).await.unwrap();
            store.put(&path, PutPayload::from_static(b"two")).await.unwrap();
            let create = PutOptions { mode: PutMode::Create, ..Default::default() };
            let refused =
                store.put_opts(&path, PutPayload::from_static(b"three"), create.clone()).await.unwrap_err();
            assert!(matches!(refused, object_store::Error::AlreadyExists { .. }), "{refused}");
            let other = Path::from("manifest/2");
            store.put_opts(&other, PutPayload::from_static(b"x"), create).await.unwrap();
            assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "two");
            let names: Vec<_> = store.list(None).map_ok(|meta| meta.location).try_collect().await.unwrap();
            assert_eq!(names.len(), 2, "staged files are gone or hidden: {names:?}");
            let mut upload = store.put_multipart(&Path::from("big/one")).await.unwrap();
            upload.put_part(PutPayload::from_static(b"part")).await.unwrap();
            upload.complete().await.unwrap();
            assert_eq!(store.get(&Path::from("big/one")).await.unwrap().bytes().await.unwrap(), "part");
            store.copy(&other, &Path::from("copy/of/2")).await.unwrap();
            store.delete(&Path::from("copy/of/2")).await.unwrap();
            store.delete(&other).await.unwrap();
            assert!(store.get(&other).await.is_err());
            assert_eq!(std::fs::read_dir(root.join("manifest")).unwrap().count(), 1);
        }
    }

    #[test]
    fn urls_that_lead_nowhere_say_why() {
        let text = |url| object_store(url).unwrap_err().to_string();
        assert_eq!(text(""), "object store URL \"\" is not valid: it is empty");
        assert!(text("gs://bucket/x").contains("scheme \"gs\" is not supported"));
        assert!(text("file://host/x").contains("absolute path"));
        object_store("memory:").unwrap();
    }
}
