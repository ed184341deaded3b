//! COPY's binary format (PostgreSQL 15, COPY, "Binary Format"): a signature, then rows of sized fields.

use bytes::Buf;
use millpond_types::SqlError;

use super::Read;
use super::fields::{Fields, bad_format};
use crate::error::Failure;

pub(super) const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";
/// A flag of the header that says that rows have OIDs, which no PostgreSQL writes since version 12.
const HAS_OIDS: u32 = 1 << 16;
/// Flags from here on change the format.
const CRITICAL: u32 = 0xffff_0000;

#[derive(Default)]
pub(super) struct BinaryRecords {
    header_read: bool,
    row: u64,
}

impl BinaryRecords {
    pub fn read(&mut self, input: &[u8], end: bool, fields: &mut Fields) -> Result<(usize, Read), Failure> {
        let mut at = 0;
        if !self.header_read {
            match header(input).map_err(|e| fields.failure(e))? {
                Some(length) => at = length,
                None if end => return Err(fields.failure(bad_format("COPY file signature not recognized"))),
                None => return Ok((0, Read::Hungry)),
            }
            self.header_read = true;
        }
        loop {
            if fields.is_full() {
                return Ok((at, Read::Full));
            }
            let mut rest = &input[at..];
            fields.begin(self.row + 1);
            if rest.len() >= 2 {
                match rest.get_i16() {
                    -1 => return Ok((at + 2, Read::End)),
                    count if usize::try_from(count) != Ok(fields.width()) => {
                        let message = format!("row field count is {count}, expected {}", fields.width());
                        return Err(fields.failure(bad_format(message)));
                    }
                    count => {
                        if let Some(length) =
                            row_length(rest, count as usize).map_err(|e| fields.failure(e))?
                        {
                            self.row += 1;
                            let cut = cut(rest, count as usize, fields);
                            fields.end(cut, &rest[..length])?;
                            at += 2 + length;
                            continue;
                        }
                    }
                }
            }
            return match end {
                true => Err(fields.failure(bad_format("unexpected EOF in COPY data"))),
                false => Ok((at, Read::Hungry)),
            };
        }
    }
}

/// The length of the header, once it is all there.
fn header(mut input: &[u8]) -> Result<Option<usize>, SqlError> {
    let known = input.len().min(SIGNATURE.len());
    if input[..known] != SIGNATURE[..known] {
        return Err(bad_format("COPY file signature not recognized"));
    }
    if input.len() < 19 {
        return Ok(None);
    }
    let length = input.len();
    input.advance(11);
    let (flags, extension) = (input.get_u32(), input.get_i32());
    if flags & HAS_OIDS != 0 {
        return Err(bad_format("invalid COPY file header (WITH OIDS)"));
    }
    if flags & CRITICAL != 0 {
        return Err(bad_format("unrecognized critical flags in COPY file header"));
    }
    match usize::try_from(extension) {
        Ok(extension) => Ok((length >= 19 + extension).then_some(19 + extension)),
        Err(_) => Err(bad_format("invalid COPY file header (missing length)")),
    }
}

/// The bytes of the row's fields, once they are all there.
fn row_length(mut rest: &[u8], count: usize) -> Result<Option<usize>, SqlError> {
    let whole = rest.len();
    for _ in 0..count {
        if rest.len() < 4 {
            return Ok(None);
        }
        match rest.get_i32() {
            -1 => {}
            length => {
                let length = usize::try_from(length).map_err(|_| bad_format("invalid field size"))?;
                if rest.len() < length {
                    return Ok(None);
                }
                rest.advance(length);
            }
        }
    }
    Ok(Some(whole - rest.len()))
}

/// Of a row that is all there.
fn cut(mut rest: &[u8], count: usize, fields: &mut Fields) -> Result<(), SqlError> {
    for _ in 0..count {
        match usize::try_from(rest.get_i32()) {
            Ok(length) => {
                fields.push(Some(&rest[..length]))?;
                rest.advance(length);
            }
            Err(_) => fields.push(None)?,
        }
    }
    Ok(())
}
