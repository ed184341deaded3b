//! A path of the user as an object store and a pattern of names in it.

use std::path::Path as FsPath;
use std::sync::Arc;

use futures::TryStreamExt;
use millpond_env::{Env, ObjectStore, os};
use millpond_types::{SqlError, SqlState};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};

use crate::ConnectError;
use crate::options::invalid;

/// Where files are: a store, and which of its objects.
#[derive(Clone, Debug)]
pub(crate) struct Location {
    pub store: Arc<dyn ObjectStore>,
    /// What stands before a name when it is shown; ends with a slash.
    pub root: String,
    pub pattern: Pattern,
}

/// Which objects of a store are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// All of them.
    All,
    /// The object of that name, or if there is none, all in the folder of that name.
    Name(String),
    /// Those that match: `*` and `?` within a name, `[a-z]`, `**` across folders.
    Glob(String),
}

impl Location {
    /// Opens the path of a source.
    ///
    /// # Errors
    /// 22023 for a path that is not one, 58P01 for a folder that does not exist.
    pub fn of_source(path: &str, env: &Env) -> Result<Self, SqlError> {
        let (root, pattern) = split(path)?;
        if let Some(folder) = local_folder(&root) {
            // Opening a store creates its folder, which must not happen for a misspelt path.
            let exists = env.disk.exists(FsPath::new(&folder)).map_err(|e| unreachable(path, &e))?;
            if !exists {
                return Err(SqlError::new(
                    SqlState::UNDEFINED_FILE,
                    format!("could not open \"{path}\": there is no folder \"{folder}\""),
                )
                .hint("The path is one of the server, not of the client."));
            }
        }
        let store = open(&root)?;
        Ok(Self { store, root, pattern })
    }

    /// Opens the folder of a sink, creating it.
    pub fn of_sink(path: &str) -> Result<Self, SqlError> {
        check_path(path)?;
        let root = format!("{}/", path.trim_end_matches('/'));
        Ok(Self { store: open(&root)?, root, pattern: Pattern::All })
    }

    pub fn show(&self, name: &str) -> String {
        format!("{}{name}", self.root)
    }

    /// All files that are meant, sorted by name. Names that begin with a dot or an underscore are not: by custom these
    /// are markers and half-written files.
    pub async fn list(&self) -> Result<Vec<ObjectMeta>, ConnectError> {
        let unavailable = |e| ConnectError::unavailable(format!("list the files of \"{}\"", self.root), e);
        let folder = match &self.pattern {
            Pattern::Name(name) => {
                let path = parse(name)?;
                match self.store.head(&path).await {
                    Ok(meta) => return Ok(vec![meta]),
                    Err(object_store::Error::NotFound { .. }) => Some(path),
                    // A folder is not an object, and local stores say so in their own way: the list will tell.
                    Err(object_store::Error::Generic { .. }) => Some(path),
                    Err(error) => return Err(unavailable(error)),
                }
            }
            Pattern::All | Pattern::Glob(_) => None,
        };
        let is_meant = |meta: &ObjectMeta| match &self.pattern {
            Pattern::Glob(glob) => matches(glob.as_bytes(), meta.location.as_ref().as_bytes()),
            _ => !meta.location.parts().any(|part| part.as_ref().starts_with(['.', '_'])),
        };
        let listed: Vec<ObjectMeta> =
            self.store.list(folder.as_ref()).try_collect().await.map_err(unavailable)?;
        let mut files: Vec<ObjectMeta> = listed.into_iter().filter(is_meant).collect();
        files.sort_by(|a, b| a.location.cmp(&b.location));
        Ok(files)
    }
}

pub(crate) fn parse(name: &str) -> Result<Path, SqlError> {
    Path::parse(name).map_err(|e| invalid(format!("\"{name}\" is not the name of a file: {e}")))
}

/// # Errors
/// 22023 for an empty path.
pub(crate) fn check_path(path: &str) -> Result<(), SqlError> {
    if path.trim().is_empty() {
        return Err(invalid("option \"path\" of connector \"file\" is empty")
            .hint("Give a path of the server, file:///…, or s3://bucket/…."));
    }
    Ok(())
}

/// The folder above the first wildcard, or above the last name, and what is meant in it.
fn split(path: &str) -> Result<(String, Pattern), SqlError> {
    check_path(path)?;
    let scheme = path.find("://").map_or(0, |at| at + 3);
    let wildcard = path[scheme..].find(['*', '?', '[']).map(|at| scheme + at);
    let slash = path[scheme..wildcard.unwrap_or(path.len())].rfind('/').map(|at| scheme + at);
    let (root, rest) = match slash {
        Some(at) => (path[..=at].to_owned(), &path[at + 1..]),
        // A bucket alone, or a name in the server's own folder.
        None if scheme > 0 => (format!("{path}/"), ""),
        None => ("./".to_owned(), path),
    };
    let pattern = match rest {
        "" => Pattern::All,
        glob if wildcard.is_some() => Pattern::Glob(glob.to_owned()),
        name => Pattern::Name(name.to_owned()),
    };
    Ok((root, pattern))
}

fn local_folder(root: &str) -> Option<String> {
    match root.split_once("://") {
        None => Some(root.to_owned()),
        Some(("file", _)) => url::Url::parse(root).ok()?.to_file_path().ok()?.to_str().map(str::to_owned),
        Some(_) => None,
    }
}

fn open(root: &str) -> Result<Arc<dyn ObjectStore>, SqlError> {
    os::object_store(root).map_err(|error| match error {
        os::StoreError::Open { .. } => unreachable(root, &error),
        other => invalid(other.to_string()),
    })
}

fn unreachable(path: &str, error: &dyn std::error::Error) -> SqlError {
    SqlError::new(SqlState::IO_ERROR, format!("could not open \"{path}\"")).detail(format!("{error}."))
}

/// Whether a name matches a glob. Linear in practice: a star tries again only from where it last stood.
fn matches(glob: &[u8], name: &[u8]) -> bool {
    match glob {
        [] => name.is_empty(),
        [b'*', b'*', b'/', rest @ ..] => {
            // Also no folder at all.
            matches(rest, name)
                || name.iter().enumerate().any(|(i, b)| *b == b'/' && matches(rest, &name[i + 1..]))
        }
        [b'*', b'*', rest @ ..] => (0..=name.len()).any(|i| matches(rest, &name[i..])),
        [b'*', rest @ ..] => {
            let reach = name.iter().position(|b| *b == b'/').unwrap_or(name.len());
            (0..=reach).any(|i| matches(rest, &name[i..]))
        }
        [b'?', rest @ ..] => matches!(name, [b, tail @ ..] if *b != b'/' && matches(rest, tail)),
        [b'[', rest @ ..] => {
            let Some(end) = rest.iter().position(|b| *b == b']') else { return name == glob };
            let [byte, tail @ ..] = name else { return false };
            in_class(&rest[..end], *byte) && matches(&rest[end + 1..], tail)
        }
        [byte, rest @ ..] => matches!(name, [b, tail @ ..] if b == byte && matches(rest, tail)),
    }
}

/// `a-z0`, or with `!` or `^` first, none of these.
fn in_class(class: &[u8], byte: u8) -> bool {
    let (class, wanted) = match class {
        [b'!' | b'^', rest @ ..] => (rest, false),
        class => (class, true),
    };
    let mut rest = class;
    let mut found = false;
    loop {
        rest = match rest {
            [low, b'-', high, tail @ ..] => {
                found |= (low..=high).contains(&&byte);
                tail
            }
            [one, tail @ ..] => {
                found |= *one == byte;
                tail
            }
            [] => return found == wanted && byte != b'/',
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_as_in_a_shell() {
        let cases = [
            ("*.csv", "a.csv", true),
            ("*.csv", "b/a.csv", false),
            ("*/a?.csv", "b/a1.csv", true),
            ("**/*.csv", "a.csv", true),
            ("**/*.csv", "x/y/a.csv", true),
            ("**", "x/y", true),
            ("a[0-9].csv", "a7.csv", true),
            ("a[!0-9].csv", "a7.csv", false),
            ("a[0-9].csv", "ab.csv", false),
            ("day=*/part-*.parquet", "day=1/part-0.parquet", true),
            ("", "", true),
        ];
        for (glob, name, expected) in cases {
            assert_eq!(matches(glob.as_bytes(), name.as_bytes()), expected, "{glob} {name}");
        }
    }

    #[test]
    fn paths_have_a_root_and_a_pattern() {
        let name = |n: &str| Pattern::Name(n.to_owned());
        let glob = |n: &str| Pattern::Glob(n.to_owned());
        let cases = [
            ("/data/in/", "/data/in/", Pattern::All),
            ("/data/in", "/data/", name("in")),
            ("bids.csv", "./", name("bids.csv")),
            ("/data/*/x?.csv", "/data/", glob("*/x?.csv")),
            ("s3://bucket", "s3://bucket/", Pattern::All),
            ("s3://bucket/a/b*.csv", "s3://bucket/a/", glob("b*.csv")),
            ("file:///tmp/a.csv", "file:///tmp/", name("a.csv")),
        ];
        for (path, root, pattern) in cases {
            assert_eq!(split(path).unwrap(), (root.to_owned(), pattern), "{path}");
        }
        assert!(split(" ").is_err());
    }
}
