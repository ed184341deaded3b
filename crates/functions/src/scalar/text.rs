//! Functions of texts and bytes.

use std::sync::Arc;

use arrow::array::*;
use millpond_types::keyword::quote_identifier;
use millpond_types::{SqlError, SqlState, SqlType};

use super::{Function, Kind, Texts, Values, assignable, exactly, rows, texts};
use crate::kernel::Side;
use crate::text::Formatter;
use crate::text::bytes::{parse_bytea, parse_hex, write_hex};

type Integer = arrow::datatypes::Int32Type;

pub(crate) fn functions() -> Vec<Function> {
    use SqlType::*;
    let text =
        |name, arguments, kernel| Function::new(name, Kind::Immutable, exactly(arguments), |_| Text, kernel);
    vec![
        Function::new("length", Kind::Immutable, length_arguments, |_| Int4, length)
            .alias("char_length")
            .alias("character_length"),
        text("split_part", &[Text, Text, Int4], split_part),
        text("to_hex", &[Int8], to_hex),
        text("quote_ident", &[Text], |s, _| one(s, |text, out| out.push_str(&quote_identifier(text)))),
        text("initcap", &[Text], |s, _| one(s, initcap)),
        Function::new("concat", Kind::Immutable, anything, |_| Text, concat),
        Function::new(
            "concat_ws",
            Kind::Immutable,
            |t| if t.is_empty() { None } else { anything(t) },
            |_| Text,
            concat_ws,
        ),
        Function::new("encode", Kind::Immutable, encode_arguments, |_| Text, encode),
        Function::new("decode", Kind::Immutable, exactly(&[Text, Text]), |_| Bytea, decode),
        Function::new("substr", Kind::Immutable, substr_arguments, |_| Text, substr).alias("substring"),
        Function::new("lpad", Kind::Immutable, pad_arguments, |_| Text, |s, _| pad(s, true)),
        Function::new("rpad", Kind::Immutable, pad_arguments, |_| Text, |s, _| pad(s, false)),
        text("left", &[Text, Int4], |s, _| cut(s, true)),
        text("right", &[Text, Int4], |s, _| cut(s, false)),
        text("repeat", &[Text, Int4], repeat),
        text("chr", &[Int4], chr),
    ]
}

/// concat takes every type.
pub(super) fn anything(types: &[SqlType]) -> Option<Vec<SqlType>> {
    let known = |ty: &SqlType| if *ty == SqlType::Unknown { SqlType::Text } else { ty.clone() };
    Some(types.iter().map(known).collect())
}

fn encode_arguments(types: &[SqlType]) -> Option<Vec<SqlType>> {
    let [bytes, format] = types else { return None };
    let fits = matches!(bytes, SqlType::Bytea | SqlType::Text | SqlType::Unknown)
        && assignable(format, &SqlType::Text);
    fits.then(|| vec![SqlType::Bytea, SqlType::Text])
}

fn length_arguments(types: &[SqlType]) -> Option<Vec<SqlType>> {
    match types {
        [SqlType::Bytea] => Some(vec![SqlType::Bytea]),
        [ty] if assignable(ty, &SqlType::Text) => Some(vec![SqlType::Text]),
        _ => None,
    }
}

/// Characters of a text, bytes of a bytea.
fn length(sides: &[Side], _: &SqlType) -> Result<ArrayRef, SqlError> {
    let array = &sides[0].array;
    let lengths: Int32Array = match array.as_string_opt::<i32>() {
        Some(texts) => {
            let count = |text: &str| if text.is_ascii() { text.len() } else { text.chars().count() };
            texts.iter().map(|text| text.map(|t| count(t) as i32)).collect()
        }
        None => array.as_binary::<i32>().iter().map(|bytes| bytes.map(|b| b.len() as i32)).collect(),
    };
    Ok(Arc::new(lengths))
}

fn substr_arguments(types: &[SqlType]) -> Option<Vec<SqlType>> {
    let (text, places) = types.split_first()?;
    let integers = places
        .iter()
        .all(|ty| matches!(ty, SqlType::Int2 | SqlType::Int4 | SqlType::Int8 | SqlType::Unknown));
    let fits = assignable(text, &SqlType::Text) && integers && matches!(places.len(), 1 | 2);
    fits.then(|| std::iter::once(SqlType::Text).chain(vec![SqlType::Int4; places.len()]).collect())
}

fn pad_arguments(types: &[SqlType]) -> Option<Vec<SqlType>> {
    let fits = |wanted: &[SqlType]| {
        types.len() == wanted.len() && types.iter().zip(wanted).all(|(t, w)| assignable(t, w))
    };
    let short = vec![SqlType::Text, SqlType::Int4];
    let long = vec![SqlType::Text, SqlType::Int4, SqlType::Text];
    if fits(&short) {
        Some(short)
    } else if fits(&long) {
        Some(long)
    } else {
        None
    }
}

/// A text from one text.
fn one(sides: &[Side], write: impl Fn(&str, &mut String)) -> Result<ArrayRef, SqlError> {
    let inputs = Texts::of(&sides[0]);
    texts(sides, |row, out| match inputs.get(row) {
        Some(text) => {
            write(text, out);
            Ok(true)
        }
        None => Ok(false),
    })
}

fn split_part(sides: &[Side], _: &SqlType) -> Result<ArrayRef, SqlError> {
    let (inputs, delimiters, fields) =
        (Texts::of(&sides[0]), Texts::of(&sides[1]), Values::<Integer>::of(&sides[2]));
    texts(sides, |row, out| {
        let (Some(text), Some(delimiter), Some(n)) = (inputs.get(row), delimiters.get(row), fields.get(row))
        else {
            return Ok(false);
        };
        if n == 0 {
            return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, "field position must not be zero"));
        }
        let nth = n.unsigned_abs() as usize - 1;
        let found = match (delimiter.is_empty() || text.is_empty(), n > 0) {
            (true, _) => (nth == 0).then_some(text),
            (false, true) => text.split(delimiter).nth(nth),
            (false, false) => text.rsplit(delimiter).nth(nth),
        };
        out.push_str(found.unwrap_or_default());
        Ok(true)
    })
}

fn to_hex(sides: &[Side], _: &SqlType) -> Result<ArrayRef, SqlError> {
    let values = Values::<arrow::datatypes::Int64Type>::of(&sides[0]);
    texts(sides, |row, out| match values.get(row) {
        Some(value) => {
            out.push_str(&format!("{value:x}"));
            Ok(true)
        }
        None => Ok(false),
    })
}

fn initcap(text: &str, out: &mut String) {
    let mut inside = false;
    for c in text.chars() {
        if inside {
            out.extend(c.to_lowercase())
        } else {
            out.extend(c.to_uppercase())
        }
        inside = c.is_alphanumeric();
    }
}

/// NULLs count as nothing; booleans show as t and f, as their output function does.
fn concat(sides: &[Side], _: &SqlType) -> Result<ArrayRef, SqlError> {
    let formatters = formatters(sides)?;
    let mut bytes = Vec::new();
    texts(sides, |row, out| {
        bytes.clear();
        for (formatter, side) in formatters.iter().zip(sides) {
            formatter.write(if side.constant { 0 } else { row }, &mut bytes);
        }
        push_utf8(&bytes, out);
        Ok(true)
    })
}

fn concat_ws(sides: &[Side], _: &SqlType) -> Result<ArrayRef, SqlError> {
    let formatters = formatters(sides)?;
    let (mut bytes, mut separator) = (Vec::new(), Vec::new());
    texts(sides, |row, out| {
        bytes.clear();
        separator.clear();
        let at = |side: &Side| if side.constant { 0 } else { row };
        if !formatters[0].write(at(&sides[0]), &mut separator) {
            return Ok(false);
        }
        let mut first = true;
        for (formatter, side) in formatters.iter().zip(sides).skip(1) {
            if formatter.is_null(at(side)) {
                continue;
            }
            if !std::mem::take(&mut first) {
                bytes.extend_from_slice(&separator);
            }
            formatter.write(at(side), &mut bytes);
        }
        push_utf8(&bytes, out);
        Ok(true)
    })
}

pub(super) fn formatters(sides: &[Side]) -> Result<Vec<Formatter>, SqlError> {
    sides.iter().map(|side| Formatter::new(&side.array, &SqlType::of_arrow(side.data_type())?)).collect()
}

fn push_utf8(bytes: &[u8], out: &mut String) {
    out.push_str(std::str::from_utf8(bytes).expect("text forms are UTF-8"));
}

fn unrecognized(format: &str) -> SqlError {
    SqlError::new(SqlState::INVALID_PARAMETER_VALUE, format!("unrecognized encoding: \"{format}\""))
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn encode(sides: &[Side], _: &SqlType) -> Result<ArrayRef, SqlError> {
    let values = sides[0].array.as_binary::<i32>();
    let formats = Texts::of(&sides[1]);
    texts(sides, |row, out| {
        let at = if sides[0].constant { 0 } else { row };
        let (false, Some(format)) = (values.is_null(at), formats.get(row)) else { return Ok(false) };
        let bytes = values.value(at);
        let mut encoded = Vec::new();
        match format.to_ascii_lowercase().as_str() {
            "hex" => write_hex(bytes, &mut encoded),
            "base64" => write_base64(bytes, &mut encoded),
            "escape" => write_escaped(bytes, &mut encoded),
            _ => return Err(unrecognized(format)),
        }
        push_utf8(&encoded, out);
        Ok(true)
    })
}

/// Lines of 76 characters, as MIME has them.
fn write_base64(bytes: &[u8], out: &mut Vec<u8>) {
    for (i, chunk) in bytes.chunks(3).enumerate() {
        if i > 0 && i % 19 == 0 {
            out.push(b'\n');
        }
        let word = chunk.iter().fold(0u32, |w, b| w << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = BASE64[(word >> (18 - 6 * place) & 63) as usize];
            out.push(if place <= chunk.len() { digit } else { b'=' });
        }
    }
}

fn write_escaped(bytes: &[u8], out: &mut Vec<u8>) {
    for byte in bytes {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            0 | 0x80..=0xff => out.extend_from_slice(format!("\\{byte:03o}").as_bytes()),
            _ => out.push(*byte),
        }
    }
}

fn decode(sides: &[Side], _: &SqlType) -> Result<ArrayRef, SqlError> {
    let (inputs, formats) = (Texts::of(&sides[0]), Texts::of(&sides[1]));
    let mut builder = BinaryBuilder::new();
    for row in 0..rows(sides) {
        let (Some(text), Some(format)) = (inputs.get(row), formats.get(row)) else {
            builder.append_null();
            continue;
        };
        builder.append_value(match format.to_ascii_lowercase().as_str() {
            "hex" => parse_hex(text)?,
            "base64" => parse_base64(text)?,
            "escape" => parse_bytea(text)?,
            _ => return Err(unrecognized(format)),
        });
    }
    Ok(Arc::new(builder.finish()))
}

fn parse_base64(text: &str) -> Result<Vec<u8>, SqlError> {
    let bad = |message: String| SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message);
    let (mut word, mut digits, mut padding, mut out) = (0u32, 0, 0, Vec::new());
    for c in text.chars().filter(|c| !c.is_ascii_whitespace()) {
        let value = match BASE64.iter().position(|b| char::from(*b) == c) {
            Some(value) if padding == 0 => value as u32,
            None if c == '=' && digits >= 2 => {
                padding += 1;
                0
            }
            _ => return Err(bad(format!("invalid symbol \"{c}\" found while decoding base64 sequence"))),
        };
        word = word << 6 | value;
        digits += 1;
        if digits == 4 {
            let bytes = [(word >> 16) as u8, (word >> 8) as u8, word as u8];
            out.extend_from_slice(&bytes[..3 - usize::min(padding, 2)]);
            (word, digits) = (0, 0);
        }
    }
    if digits != 0 {
        return Err(bad("invalid base64 end sequence".into())
            .hint("Input data is missing padding, is truncated, or is otherwise corrupted."));
    }
    Ok(out)
}

/// The byte at which character `n` (from 0) begins, or the end.
fn byte_of(text: &str, n: usize) -> usize {
    if text.is_ascii() {
        return n.min(text.len());
    }
    text.char_indices().nth(n).map_or(text.len(), |(at, _)| at)
}

/// From position `start` (1 is the first character, and places before it count too), `count` characters.
fn substr(sides: &[Side], _: &SqlType) -> Result<ArrayRef, SqlError> {
    let (inputs, starts) = (Texts::of(&sides[0]), Values::<Integer>::of(&sides[1]));
    let counts = sides.get(2).map(Values::<Integer>::of);
    texts(sides, |row, out| {
        let (Some(text), Some(start)) = (inputs.get(row), starts.get(row)) else { return Ok(false) };
        let start = i64::from(start) - 1;
        let end = match &counts {
            None => i64::MAX,
            Some(counts) => match counts.get(row) {
                None => return Ok(false),
                Some(count) if count < 0 => {
                    let message = "negative substring length not allowed";
                    return Err(SqlError::new(SqlState::new("22011"), message));
                }
                Some(count) => start + i64::from(count),
            },
        };
        let (from, to) = (start.max(0) as usize, end.max(0) as usize);
        let rest = &text[byte_of(text, from)..];
        out.push_str(&rest[..byte_of(rest, to.saturating_sub(from))]);
        Ok(true)
    })
}

/// left and right; a negative count means all but so many.
fn cut(sides: &[Side], left: bool) -> Result<ArrayRef, SqlError> {
    let (inputs, counts) = (Texts::of(&sides[0]), Values::<Integer>::of(&sides[1]));
    texts(sides, |row, out| {
        let (Some(text), Some(n)) = (inputs.get(row), counts.get(row)) else { return Ok(false) };
        let length = if text.is_ascii() { text.len() } else { text.chars().count() };
        let size = n.unsigned_abs() as usize;
        let kept = if n >= 0 { size.min(length) } else { length.saturating_sub(size) };
        let split = byte_of(text, if left { kept } else { length - kept });
        out.push_str(if left { &text[..split] } else { &text[split..] });
        Ok(true)
    })
}

/// The longest text that functions make.
const BYTES_MAX: usize = 256 << 20;

fn too_large() -> SqlError {
    SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, "requested length too large")
}

fn pad(sides: &[Side], left: bool) -> Result<ArrayRef, SqlError> {
    let (inputs, lengths) = (Texts::of(&sides[0]), Values::<Integer>::of(&sides[1]));
    let fills = sides.get(2).map(Texts::of);
    texts(sides, |row, out| {
        let fill = match &fills {
            None => Some(" "),
            Some(fills) => fills.get(row),
        };
        let (Some(text), Some(length), Some(fill)) = (inputs.get(row), lengths.get(row), fill) else {
            return Ok(false);
        };
        let wanted = length.max(0) as usize;
        let missing = wanted.saturating_sub(text.chars().count());
        if missing.saturating_mul(4) > BYTES_MAX {
            return Err(too_large());
        }
        let padding = fill.chars().cycle().take(if fill.is_empty() { 0 } else { missing });
        if left {
            out.extend(padding.clone());
        }
        out.push_str(&text[..byte_of(text, wanted)]);
        if !left {
            out.extend(padding);
        }
        Ok(true)
    })
}

fn repeat(sides: &[Side], _: &SqlType) -> Result<ArrayRef, SqlError> {
    let (inputs, counts) = (Texts::of(&sides[0]), Values::<Integer>::of(&sides[1]));
    texts(sides, |row, out| {
        let (Some(text), Some(n)) = (inputs.get(row), counts.get(row)) else { return Ok(false) };
        let n = n.max(0) as usize;
        if text.len().saturating_mul(n) > BYTES_MAX {
            return Err(too_large());
        }
        (0..n).for_each(|_| out.push_str(text));
        Ok(true)
    })
}

fn chr(sides: &[Side], _: &SqlType) -> Result<ArrayRef, SqlError> {
    let codes = Values::<Integer>::of(&sides[0]);
    texts(sides, |row, out| {
        let Some(code) = codes.get(row) else { return Ok(false) };
        let refused = |message: String| Err(SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, message));
        match u32::try_from(code).ok().and_then(char::from_u32) {
            Some('\0') => refused("null character not permitted".into()),
            Some(c) => {
                out.push(c);
                Ok(true)
            }
            None if code < 0 => {
                Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, "character number must be positive"))
            }
            None => refused(format!("requested character not valid for encoding: {code}")),
        }
    })
}
