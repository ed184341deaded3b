//! The bytes of a journal file.
//!
//! A file is a [`FileHeader`] and items; numbers are little-endian, everything is padded with zeros to 8 bytes. An item is
//! a header and a payload. All headers begin alike ([`Prelude`]):
//!
//! ```text
//!  0 magic "MPJI"      4 kind u8      5 version u8      6 flags u16
//!  8 header bytes u32  12 crc of the header before u32
//! 16 payload bytes u64 24 crc of payload and padding u32
//! 28 crc of this header, without these four bytes, u32
//! 32 commit u64       40 ingest time i64, microseconds
//! 48 what the kind adds
//! ```
//!
//! The crc of a header covers the crc of its payload and that of the header before, so a chain of valid headers vouches
//! for every byte, and payloads can be skipped. crc32c throughout. Decoders check the header's crc before they believe any
//! length, bound every length by the bytes that are there, and refuse flags, kinds and versions that they do not know.

use millpond_types::Commit;

mod file_header;
mod frame;
mod item;
mod record;
mod skip;

pub(crate) use file_header::FileHeader;
pub(crate) use frame::{FrameHeader, WriteEntry};
pub(crate) use item::{
    Body, CommitRecord, ItemHeader, MAGIC, PRELUDE_BYTES, Prelude, header_bytes_claimed, pad8,
};
pub(crate) use record::{decode_record, encode_record};
pub(crate) use skip::{Skip, decode_skips, encode_skips};

/// No log comes so far.
pub(crate) const COMMITS_END: u64 = 1 << 63;

/// What is wrong with some bytes; the caller knows where they are.
pub(crate) type Bad = String;

/// Reads numbers off the front of a slice.
pub(crate) struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    pub fn bytes(&mut self, n: usize) -> Result<&'a [u8], Bad> {
        let (head, tail) = self.0.split_at_checked(n).ok_or("it is too short for its fields")?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Bad> {
        Ok(self.bytes(N)?.try_into().expect("N bytes were taken"))
    }

    pub fn u8(&mut self) -> Result<u8, Bad> {
        self.array().map(u8::from_le_bytes)
    }

    pub fn u16(&mut self) -> Result<u16, Bad> {
        self.array().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, Bad> {
        self.array().map(u32::from_le_bytes)
    }

    /// A commit number, far enough from the end of numbers that nobody has to ask whether there is a next one.
    pub fn commit(&mut self) -> Result<Commit, Bad> {
        match self.u64()? {
            number if number < COMMITS_END => Ok(Commit(number)),
            number => Err(format!("there can be no commit {number}")),
        }
    }

    pub fn u64(&mut self) -> Result<u64, Bad> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn i64(&mut self) -> Result<i64, Bad> {
        self.array().map(i64::from_le_bytes)
    }

    /// What is left must be padding.
    pub fn end(self) -> Result<(), Bad> {
        if self.0.len() < 8 && self.0.iter().all(|byte| *byte == 0) {
            Ok(())
        } else {
            Err("it has bytes after its last field".to_owned())
        }
    }
}
