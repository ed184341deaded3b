//! Files, as far as a log needs them.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// An existing file, for reading.
    Read,
    /// An existing file, for reading and writing.
    Write,
    /// A file that must not exist yet (`AlreadyExists`), for reading and writing.
    Create,
}

/// A file system with the promises of POSIX, and no more:
///
/// - what was written is on the medium after [`DiskFile::sync_data`]; before that, a crash keeps any part of it;
/// - a created, renamed or removed name is on the medium after [`Disk::sync_dir`] of its directory; before that, a crash
///   keeps any prefix of such changes;
/// - after a failed sync nothing that it should have covered can be trusted, though reads still show it.
///
/// Errors are `std::io::Error`; a full disk is `StorageFull` or `QuotaExceeded`, which [`is_full`] tells.
pub trait Disk: Send + Sync + fmt::Debug {
    fn open(&self, path: &Path, mode: Open) -> io::Result<Box<dyn DiskFile>>;

    /// Renames within one directory, replacing what was there.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// The names in a directory, sorted, without those of directories.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;

    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Creates a directory and what is missing above it, durably: no `sync_dir` is needed afterwards.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Takes the exclusive lock on a directory, until the answer is dropped or the process ends. `WouldBlock` while
    /// somebody else holds it, in this process or another.
    fn lock(&self, dir: &Path) -> io::Result<Box<dyn DiskLock>>;
}

/// An open file. Reads and writes name their place, so that threads can share it.
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// Reads up to `bytes.len()` bytes; 0 at the end of the file.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all bytes, making the file longer where needed. After an error any part may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes contents and length durable (`fdatasync`).
    fn sync_data(&self) -> io::Result<()>;

    fn len(&self) -> io::Result<u64>;

    /// Also gives back what was reserved beyond `len`.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes sure that the file can grow to `len` bytes without running out of space; its length stays what it is.
    /// `Unsupported` where the file system knows no such promise: then any write may find the disk full.
    fn reserve(&self, len: u64) -> io::Result<()>;

    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `bytes`, or fails with `UnexpectedEof`.
    fn read_exact_at(&self, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.read_at(bytes, offset)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => {
                    bytes = &mut bytes[n..];
                    offset += n as u64;
                }
            }
        }
        Ok(())
    }
}

/// Holds a directory's lock; dropping it releases.
pub trait DiskLock: Send + Sync + fmt::Debug {}

/// Whether an error says that the disk, or the user's share of it, is full.
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}
