//! The file system.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::{DiskFile, DiskLock, Open};

/// The file that is locked in place of its directory.
const LOCK: &str = "LOCK";

/// The file system of the machine.
#[derive(Clone, Copy, Debug)]
pub struct Disk;

impl crate::Disk for Disk {
    fn open(&self, path: &Path, mode: Open) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(mode != Open::Read).create_new(mode == Open::Create);
        Ok(Box::new(OsFile(options.open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                names.push(PathBuf::from(entry.file_name()));
            }
        }
        names.sort();
        Ok(names)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        create_dir_durably(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn lock(&self, dir: &Path) -> io::Result<Box<dyn DiskLock>> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(dir.join(LOCK))?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(OsLock { _file: file })),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// Creates `dir` and syncs the directory above each that was missing.
pub(super) fn create_dir_durably(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    create_dir_durably(parent)?;
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !dir.is_dir() => return Err(error),
        _ => {}
    }
    File::open(parent)?.sync_all()
}

#[derive(Debug)]
struct OsFile(File);

impl DiskFile for OsFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            match self.0.read_at(bytes, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn reserve(&self, len: u64) -> io::Result<()> {
        use rustix::fs::{FallocateFlags, fallocate};
        use rustix::io::Errno;
        loop {
            return match fallocate(&self.0, FallocateFlags::KEEP_SIZE, 0, len) {
                Err(Errno::INTR) => continue,
                // ENOSYS on old kernels, EOPNOTSUPP where the file system cannot.
                Err(Errno::NOSYS | Errno::OPNOTSUPP) => Err(io::ErrorKind::Unsupported.into()),
                other => other.map_err(Into::into),
            };
        }
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn reserve(&self, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// The kernel releases the lock when the file is closed, however the process ends.
#[derive(Debug)]
struct OsLock {
    _file: File,
}

impl DiskLock for OsLock {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Disk as _;

    #[test]
    fn a_second_lock_is_refused_until_the_first_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let first = Disk.lock(dir.path()).unwrap();
        assert_eq!(Disk.lock(dir.path()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(first);
        Disk.lock(dir.path()).unwrap();
    }

    #[test]
    fn files_are_written_read_and_cut() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        Disk.create_dir_all(&deep).unwrap();
        Disk.create_dir_all(&deep).unwrap();
        let path = deep.join("f");
        let file = Disk.open(&path, Open::Create).unwrap();
        assert_eq!(Disk.open(&path, Open::Create).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        file.write_at(b"hello", 3).unwrap();
        file.sync_data().unwrap();
        match file.reserve(1 << 20) {
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::Unsupported),
            Ok(()) => assert_eq!(file.len().unwrap(), 8, "reserving does not change the length"),
        }
        file.set_len(6).unwrap();
        let mut bytes = [9; 8];
        assert_eq!(file.read_at(&mut bytes, 0).unwrap(), 6);
        assert_eq!(&bytes[..6], b"\0\0\0hel");
        assert_eq!(file.read_exact_at(&mut bytes, 0).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        Disk.rename(&path, &deep.join("g")).unwrap();
        Disk.sync_dir(&deep).unwrap();
        assert_eq!(Disk.list(&deep).unwrap(), [PathBuf::from("g")]);
        assert_eq!(Disk.list(&dir.path().join("a")).unwrap(), Vec::<PathBuf>::new());
        assert!(!Disk.exists(&path).unwrap());
        Disk.remove(&deep.join("g")).unwrap();
        assert_eq!(Disk.open(&path, Open::Read).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
