//! The first 64 bytes of a file.

use millpond_types::Commit;

use super::{Bad, Fields};

const MAGIC: u64 = u64::from_le_bytes(*b"MPJOURNL");
const VERSION: u32 = 1;

/// ```text
///  0 magic "MPJOURNL"   8 version u32     12 crc of the last header of the file before, or 0, u32
/// 16 first commit u64  24 created i64, microseconds
/// 32 zeros             60 crc32c of 0..60
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileHeader {
    /// The commit of the first group; also the name of the file.
    pub first: Commit,
    /// Continues the chain from the file before.
    pub previous: u32,
    pub created_micros: i64,
}

impl FileHeader {
    pub const BYTES: usize = 64;

    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0..8].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.previous.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.first.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.created_micros.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        debug_assert_eq!(Self::decode(&bytes), Ok(*self));
        bytes
    }

    /// The crc, which the chain of the file's items begins with.
    pub fn crc(bytes: &[u8; Self::BYTES]) -> u32 {
        u32::from_le_bytes(bytes[60..].try_into().expect("four bytes"))
    }

    pub fn decode(bytes: &[u8; Self::BYTES]) -> Result<Self, Bad> {
        let mut fields = Fields(bytes);
        if fields.u64()? != MAGIC {
            return Err("it is not a journal file".to_owned());
        }
        if crc32c::crc32c(&bytes[..60]) != Self::crc(bytes) {
            return Err("the checksum of the file header does not match".to_owned());
        }
        let version = fields.u32()?;
        if version != VERSION {
            return Err(format!("the file has version {version}, this program reads {VERSION}"));
        }
        let previous = fields.u32()?;
        let first = fields.commit()?;
        let created_micros = fields.i64()?;
        Ok(Self { first, previous, created_micros })
    }
}
