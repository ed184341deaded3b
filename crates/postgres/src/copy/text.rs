//! COPY's text format: lines of fields between delimiters, with backslash escapes (PostgreSQL 15, COPY, "Text Format").

use memchr::{memchr, memchr2};
use millpond_engine::{Column, Header};
use millpond_types::SqlError;

use super::Read;
use super::fields::{Fields, bad_format};
use crate::error::Failure;

/// How lines end: the first line decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineEnd {
    Unknown,
    Newline,
    CarriageReturnNewline,
}

impl LineEnd {
    /// The line without its carriage return, if lines end so; else an error if it has one in it.
    pub fn strip<'a>(&mut self, line: &'a [u8]) -> Option<&'a [u8]> {
        let stripped = line.strip_suffix(b"\r");
        if *self == Self::Unknown {
            *self = if stripped.is_some() { Self::CarriageReturnNewline } else { Self::Newline };
        }
        match self {
            Self::CarriageReturnNewline => stripped,
            _ => stripped.is_none().then_some(line),
        }
    }
}

pub(super) struct TextRecords {
    delimiter: u8,
    null: Vec<u8>,
    /// The first line is still to come, and is not data.
    header: Header,
    names: Vec<String>,
    line: u64,
    line_end: LineEnd,
    field: Vec<u8>,
}

impl TextRecords {
    pub fn new(delimiter: u8, null: &str, header: Header, columns: &[Column]) -> Self {
        Self {
            delimiter,
            null: null.into(),
            header,
            names: columns.iter().map(|c| c.name.clone()).collect(),
            line: 0,
            line_end: LineEnd::Unknown,
            field: Vec::new(),
        }
    }

    pub fn read(&mut self, input: &[u8], end: bool, fields: &mut Fields) -> Result<(usize, Read), Failure> {
        let mut at = 0;
        loop {
            if fields.is_full() {
                return Ok((at, Read::Full));
            }
            let rest = &input[at..];
            let (line, used) = match find_end(rest) {
                Some(length) => (&rest[..length], length + 1),
                None if end && !rest.is_empty() => (rest, rest.len()),
                None => return Ok((at, Read::Hungry)),
            };
            at += used;
            self.line += 1 + memchr::memchr_iter(b'\n', line).count() as u64;
            fields.begin(self.line);
            let Some(line) = self.line_end.strip(line).filter(|line| memchr(b'\r', line).is_none()) else {
                let error = bad_format("literal carriage return found in data")
                    .hint("Use \"\\r\" to represent carriage return.");
                fields.refuse(error, line)?;
                continue;
            };
            if line == b"\\." {
                return Ok((at, Read::End));
            }
            match std::mem::replace(&mut self.header, Header::None) {
                Header::None => {
                    let cut = self.cut(line, fields);
                    fields.end(cut, line)?;
                }
                Header::Present => {}
                Header::Match => self.check_header(line).map_err(|error| fields.failure(error))?,
            }
        }
    }

    fn cut(&mut self, line: &[u8], fields: &mut Fields) -> Result<(), SqlError> {
        if fields.width() == 0 && line.is_empty() {
            return Ok(());
        }
        let mut rest = line;
        loop {
            match memchr2(self.delimiter, b'\\', rest) {
                // The rule: a field without escapes.
                Some(end) if rest[end] == self.delimiter => {
                    self.plain(&rest[..end], fields)?;
                    rest = &rest[end + 1..];
                }
                None => return self.plain(rest, fields),
                Some(_) => {
                    let end = self.escaped(rest);
                    match rest[..end] == self.null[..] {
                        true => fields.push(None)?,
                        false => fields.push(Some(&self.field))?,
                    }
                    match rest.get(end) {
                        Some(_) => rest = &rest[end + 1..],
                        None => return Ok(()),
                    }
                }
            }
        }
    }

    fn check_header(&mut self, line: &[u8]) -> Result<(), SqlError> {
        let (mut found, mut rest) = (Vec::new(), line);
        loop {
            let end = self.escaped(rest);
            found.push(String::from_utf8_lossy(&self.field).into_owned());
            match rest.get(end) {
                Some(_) => rest = &rest[end + 1..],
                None => return match_header(&found, &self.names),
            }
        }
    }

    fn plain(&self, field: &[u8], fields: &mut Fields) -> Result<(), SqlError> {
        fields.push((field != self.null).then_some(field))
    }

    /// Puts the first field of `rest` into `self.field`, without its escapes; returns its length with them.
    fn escaped(&mut self, rest: &[u8]) -> usize {
        self.field.clear();
        let mut at = 0;
        while at < rest.len() && rest[at] != self.delimiter {
            let byte = rest[at];
            at += 1;
            if byte != b'\\' || at == rest.len() {
                self.field.push(byte);
                continue;
            }
            let escape = rest[at];
            at += 1;
            let number = |digits: &[u8], radix: u32| {
                digits.iter().fold(0u32, |n, d| n * radix + char::from(*d).to_digit(16).unwrap_or(0)) as u8
            };
            self.field.push(match escape {
                b'b' => 8,
                b'f' => 12,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'v' => 11,
                b'0'..=b'7' => {
                    let more = rest[at..].iter().take(2).take_while(|b| matches!(b, b'0'..=b'7')).count();
                    at += more;
                    number(&rest[at - more - 1..at], 8)
                }
                b'x' => {
                    let digits = rest[at..].iter().take(2).take_while(|b| b.is_ascii_hexdigit()).count();
                    at += digits;
                    if digits == 0 { b'x' } else { number(&rest[at - digits..at], 16) }
                }
                other => other,
            });
        }
        at
    }
}

/// HEADER MATCH: the first line must name the columns.
pub(super) fn match_header(found: &[String], names: &[String]) -> Result<(), SqlError> {
    if found.len() != names.len() {
        let (found, names) = (found.len(), names.len());
        let message =
            format!("wrong number of fields in header line: field count is {found}, expected {names}");
        return Err(bad_format(message));
    }
    match found.iter().zip(names).position(|(found, name)| found != name) {
        None => Ok(()),
        Some(at) => {
            let (number, found, name) = (at + 1, &found[at], &names[at]);
            let message = format!(
                "column name mismatch in header line field {number}: got \"{found}\", expected \"{name}\""
            );
            Err(bad_format(message))
        }
    }
}

/// The first newline that no backslash stands before (or an even number of them).
fn find_end(input: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let end = from + memchr(b'\n', &input[from..])?;
        let backslashes = input[..end].iter().rev().take_while(|b| **b == b'\\').count();
        if backslashes % 2 == 0 {
            return Some(end);
        }
        from = end + 1;
    }
}
