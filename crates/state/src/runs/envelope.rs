//! The bytes around every run.
//!
//! ```text
//!  0 magic "MPRN" | 4 version u16 | 6 kind u16 | 8 a u64 | 16 b u64 | 24 rows u64
//! 32 length of section 1 u64 | 40 length of section 2 u64
//! 48 crc32c of the sections u32 | 52 crc32c of 0..52 u32 | 56 section 1 | section 2
//! ```
//!
//! All numbers are little-endian. What `a`, `b` and the sections mean is the kind's business.

use bytes::Bytes;

use super::RunKind;
use crate::CorruptRun;

const MAGIC: &[u8; 4] = b"MPRN";
const VERSION: u16 = 1;
const HEADER: usize = 56;

impl RunKind {
    fn number(self) -> u16 {
        match self {
            Self::Heap => 1,
            Self::Keyed => 2,
        }
    }
}

/// A run's facts and content.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Envelope {
    pub kind: RunKind,
    pub a: u64,
    pub b: u64,
    pub rows: u64,
    pub sections: [Bytes; 2],
}

pub(crate) fn seal(envelope: &Envelope) -> Bytes {
    let [first, second] = &envelope.sections;
    let mut bytes = Vec::with_capacity(HEADER + first.len() + second.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&envelope.kind.number().to_le_bytes());
    for number in [envelope.a, envelope.b, envelope.rows, first.len() as u64, second.len() as u64] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    let content = crc32c::crc32c_append(crc32c::crc32c(first), second);
    bytes.extend_from_slice(&content.to_le_bytes());
    let header = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&header.to_le_bytes());
    bytes.extend_from_slice(first);
    bytes.extend_from_slice(second);
    let bytes = Bytes::from(bytes);
    debug_assert_eq!(open(&bytes).as_ref(), Ok(envelope));
    bytes
}

/// Checks everything around the content, and the content's checksum.
pub(crate) fn open(bytes: &Bytes) -> Result<Envelope, CorruptRun> {
    let Some(header) = bytes.first_chunk::<HEADER>() else {
        return Err(CorruptRun::Short { found: bytes.len(), needed: HEADER });
    };
    let u16_at = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
    let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
    if &header[..4] != MAGIC {
        return Err(CorruptRun::Magic);
    }
    // A later version may have another header, so its number is believed before the checksum.
    if u16_at(4) != VERSION {
        return Err(CorruptRun::Version(u16_at(4)));
    }
    let (expected, found) = (u32_at(52), crc32c::crc32c(&header[..52]));
    if expected != found {
        return Err(CorruptRun::HeaderChecksum { expected, found });
    }
    let kind = match u16_at(6) {
        1 => RunKind::Heap,
        2 => RunKind::Keyed,
        other => return Err(CorruptRun::Kind(other)),
    };
    let (first, second) = (u64_at(32), u64_at(40));
    let (expected, found) = (first.saturating_add(second).saturating_add(HEADER as u64), bytes.len() as u64);
    if expected != found {
        return Err(CorruptRun::Length { expected, found });
    }
    let (expected, found) = (u32_at(48), crc32c::crc32c(&bytes[HEADER..]));
    if expected != found {
        return Err(CorruptRun::Checksum { expected, found });
    }
    let middle = HEADER + first as usize;
    let sections = [bytes.slice(HEADER..middle), bytes.slice(middle..)];
    Ok(Envelope { kind, a: u64_at(8), b: u64_at(16), rows: u64_at(24), sections })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed() -> Bytes {
        let sections = [Bytes::from_static(b"first"), Bytes::from_static(b"second")];
        seal(&Envelope { kind: RunKind::Heap, a: 1, b: 2, rows: 3, sections })
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let good = sealed();
        for bit in 0..good.len() * 8 {
            let mut bad = good.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&Bytes::from(bad)).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn every_cut_is_noticed() {
        let good = sealed();
        for len in 0..good.len() {
            assert!(open(&good.slice(..len)).is_err(), "length {len}");
        }
    }

    #[test]
    fn the_error_names_what_is_wrong() {
        let good = sealed();
        let with = |at: usize, byte: u8| {
            let mut bytes = good.to_vec();
            bytes[at] = byte;
            open(&Bytes::from(bytes)).unwrap_err()
        };
        assert_eq!(with(0, b'X'), CorruptRun::Magic);
        assert_eq!(with(4, 9), CorruptRun::Version(9));
        assert!(matches!(with(8, 9), CorruptRun::HeaderChecksum { .. }));
        assert!(matches!(with(HEADER, 9), CorruptRun::Checksum { .. }));
        let short = open(&good.slice(..good.len() - 1)).unwrap_err();
        assert_eq!(short.to_string(), "it has 66 bytes, but its header says 67");
    }
}
