//! What a repair has given up: a small file beside a journal file.

use millpond_types::Commit;

use super::{Bad, Fields};

const MAGIC: u64 = u64::from_le_bytes(*b"MPSKIPS\0");
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 24;
const ENTRY_BYTES: usize = 40;

/// Bytes of a journal file that are damaged, and left out by whoever reads it.
///
/// ```text
///  0 magic "MPSKIPS\0"  8 version u32  12 crc of the journal file's header, or 0 if that is damaged, u32
/// 16 entries u32       20 zero u32
/// 24 per entry: from u64, to u64, first lost commit u64, next commit u64, crc u32, zero u32
///    crc32c of all before, u32, and zero u32
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Skip {
    /// Where the damaged group begins.
    pub from: u64,
    /// Where the next sound one begins, or the end of the file.
    pub to: u64,
    pub lost: Commit,
    /// Of the next sound group.
    pub next: Commit,
    /// What the next sound header names as the crc of the header before it.
    pub previous: u32,
}

pub(crate) fn encode_skips(of: u32, skips: &[Skip]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + skips.len() * ENTRY_BYTES + 8);
    bytes.extend(MAGIC.to_le_bytes());
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(of.to_le_bytes());
    bytes.extend((skips.len() as u32).to_le_bytes());
    bytes.extend(0u32.to_le_bytes());
    for skip in skips {
        for number in [skip.from, skip.to, skip.lost.0, skip.next.0, u64::from(skip.previous)] {
            bytes.extend(number.to_le_bytes());
        }
    }
    let crc = crc32c::crc32c(&bytes);
    bytes.extend(u64::from(crc).to_le_bytes());
    debug_assert_eq!(decode_skips(&bytes), Ok((of, skips.to_vec())));
    bytes
}

/// The crc of the journal file's header, and its skips in order.
pub(crate) fn decode_skips(bytes: &[u8]) -> Result<(u32, Vec<Skip>), Bad> {
    let (body, crc) = bytes.split_last_chunk::<8>().ok_or("the list of skips is cut off")?;
    let mut fields = Fields(body);
    if fields.u64()? != MAGIC {
        return Err("it is not a list of skips".to_owned());
    }
    if u64::from(crc32c::crc32c(body)) != u64::from_le_bytes(*crc) {
        return Err("the checksum of the list of skips does not match".to_owned());
    }
    let version = fields.u32()?;
    if version != VERSION {
        return Err(format!("the list of skips has version {version}, this program reads {VERSION}"));
    }
    let (of, entries) = (fields.u32()?, fields.u32()? as usize);
    fields.u32()?;
    if fields.0.len() != entries.checked_mul(ENTRY_BYTES).ok_or("the list of skips is too long")? {
        return Err("the list of skips does not have its length".to_owned());
    }
    let mut skips: Vec<Skip> = Vec::with_capacity(entries);
    for _ in 0..entries {
        let (from, to) = (fields.u64()?, fields.u64()?);
        let (lost, next) = (fields.commit()?, fields.commit()?);
        let previous = u32::try_from(fields.u64()?).map_err(|_| "a skip has an impossible checksum")?;
        if from >= to || lost > next || skips.last().is_some_and(|last| last.to > from || last.next > lost) {
            return Err("the skips are not in order".to_owned());
        }
        skips.push(Skip { from, to, lost, next, previous });
    }
    Ok((of, skips))
}
