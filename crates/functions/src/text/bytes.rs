//! Text forms of boolean, bytea, uuid and the character types.

use millpond_types::{SqlError, SqlState, SqlType};

use super::number::{invalid, trim};
use crate::cast::CastContext;

const HEX: &[u8; 16] = b"0123456789abcdef";

pub(crate) fn write_hex(bytes: &[u8], out: &mut Vec<u8>) {
    out.reserve(bytes.len() * 2);
    for byte in bytes {
        out.push(HEX[usize::from(byte >> 4)]);
        out.push(HEX[usize::from(byte & 15)]);
    }
}

pub(crate) fn write_bytea(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"\\x");
    write_hex(bytes, out);
}

pub(crate) fn write_uuid(bytes: &[u8], out: &mut Vec<u8>) {
    for (i, byte) in bytes.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            out.push(b'-');
        }
        write_hex(&[*byte], out);
    }
}

/// Any unambiguous beginning of true, false, yes, no, on, off; 1 and 0.
pub(crate) fn parse_boolean(text: &str) -> Result<bool, SqlError> {
    let lower = trim(text).to_ascii_lowercase();
    let is = |word: &str, least: usize| lower.len() >= least && word.starts_with(&lower);
    if is("true", 1) || is("yes", 1) || is("on", 2) || lower == "1" {
        Ok(true)
    } else if is("false", 1) || is("no", 1) || is("off", 2) || lower == "0" {
        Ok(false)
    } else {
        Err(invalid("boolean", text))
    }
}

/// `\x0a1B`, or the older escape form (`a\\b\001`).
pub(crate) fn parse_bytea(text: &str) -> Result<Vec<u8>, SqlError> {
    match text.strip_prefix("\\x") {
        Some(digits) => parse_hex(digits),
        None => parse_escaped(text),
    }
}

/// Pairs of hexadecimal digits, blanks between pairs.
pub(crate) fn parse_hex(digits: &str) -> Result<Vec<u8>, SqlError> {
    let bad = |message: String| SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message);
    let mut out = Vec::with_capacity(digits.len() / 2);
    let mut characters = digits.chars();
    while let Some(high) = characters.next() {
        if high.is_ascii_whitespace() {
            continue;
        }
        let mut value = 0;
        for c in [Some(high), characters.next()] {
            let c = c.ok_or_else(|| bad("invalid hexadecimal data: odd number of digits".into()))?;
            let digit = c.to_digit(16).ok_or_else(|| bad(format!("invalid hexadecimal digit: \"{c}\"")))?;
            value = value * 16 + digit as u8;
        }
        out.push(value);
    }
    Ok(out)
}

fn parse_escaped(text: &str) -> Result<Vec<u8>, SqlError> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    loop {
        rest = match rest {
            [] => return Ok(out),
            [b'\\', b'\\', tail @ ..] => {
                out.push(b'\\');
                tail
            }
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..] => {
                out.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                tail
            }
            [b'\\', ..] => {
                let message = "invalid input syntax for type bytea";
                return Err(SqlError::new(SqlState::INVALID_TEXT_REPRESENTATION, message));
            }
            [byte, tail @ ..] => {
                out.push(*byte);
                tail
            }
        };
    }
}

/// 32 hexadecimal digits, hyphens after any group of four, braces around.
pub(crate) fn parse_uuid(text: &str) -> Result<[u8; 16], SqlError> {
    let inner = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')).unwrap_or(text);
    let mut uuid = [0u8; 16];
    let mut digits = 0;
    let mut hyphen_allowed = false;
    for byte in inner.bytes() {
        match char::from(byte).to_digit(16) {
            Some(digit) if digits < 32 => {
                uuid[digits / 2] = uuid[digits / 2] * 16 + digit as u8;
                digits += 1;
                hyphen_allowed = digits % 4 == 0 && digits < 32;
            }
            None if byte == b'-' && hyphen_allowed => hyphen_allowed = false,
            _ => return Err(invalid("uuid", text)),
        }
    }
    if digits == 32 { Ok(uuid) } else { Err(invalid("uuid", text)) }
}

/// A text as varchar(n) or char(n) keeps it. Blanks beyond n are cut silently in any case.
pub(crate) fn fit(text: &str, ty: &SqlType, context: CastContext) -> Result<Fitted, SqlError> {
    let limit = match ty {
        SqlType::Varchar(Some(n)) | SqlType::Char(n) => *n as usize,
        SqlType::Name => return Ok(Fitted { bytes: floor_boundary(text, 63), pad: 0 }),
        SqlType::InternalChar => return Ok(Fitted { bytes: floor_boundary(text, 1), pad: 0 }),
        _ => return Ok(Fitted { bytes: text.len(), pad: 0 }),
    };
    let end = if text.len() <= limit {
        text.len()
    } else {
        text.char_indices().nth(limit).map_or(text.len(), |c| c.0)
    };
    if context == CastContext::Assignment && text[end..].bytes().any(|b| b != b' ') {
        let message = format!("value too long for type {ty}");
        return Err(SqlError::new(SqlState::STRING_DATA_RIGHT_TRUNCATION, message));
    }
    let pad = match ty {
        SqlType::Char(_) => limit - text[..end].chars().count(),
        _ => 0,
    };
    Ok(Fitted { bytes: end, pad })
}

/// How many bytes of a text stay, and how many blanks follow.
pub(crate) struct Fitted {
    pub bytes: usize,
    pub pad: usize,
}

fn floor_boundary(text: &str, limit: usize) -> usize {
    (0..=limit.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_read_as_in_postgresql() {
        for text in ["t", "TRUE", " yes ", "y", "on", "1", "tr"] {
            assert_eq!(parse_boolean(text), Ok(true), "{text}");
        }
        for text in ["f", "false", "no", "n", "off", "0", "of"] {
            assert_eq!(parse_boolean(text), Ok(false), "{text}");
        }
        for text in ["", "o", "2", "truex", "maybe"] {
            assert_eq!(
                parse_boolean(text).unwrap_err().state(),
                SqlState::INVALID_TEXT_REPRESENTATION,
                "{text}"
            );
        }
    }

    #[test]
    fn bytes_and_uuids_read() {
        assert_eq!(parse_bytea("\\x00fF 10"), Ok(vec![0, 255, 16]));
        assert_eq!(parse_bytea("a\\\\b\\001"), Ok(vec![b'a', b'\\', b'b', 1]));
        assert_eq!(parse_bytea("\\x0").unwrap_err().state(), SqlState::INVALID_PARAMETER_VALUE);
        assert_eq!(parse_bytea("\\9").unwrap_err().state(), SqlState::INVALID_TEXT_REPRESENTATION);
        let uuid = parse_uuid("{A0EEBC99-9C0B4EF8-BB6D6BB9BD380A11}").unwrap();
        let mut out = Vec::new();
        write_uuid(&uuid, &mut out);
        assert_eq!(out, b"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11");
        for bad in
            ["", "a0eebc99", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1", "a-0eebc999c0b4ef8bb6d6bb9bd380a11"]
        {
            assert_eq!(parse_uuid(bad).unwrap_err().state(), SqlState::INVALID_TEXT_REPRESENTATION, "{bad}");
        }
    }
}
