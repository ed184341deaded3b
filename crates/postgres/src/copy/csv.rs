//! COPY's CSV format (PostgreSQL 15, COPY, "CSV Format"): a quote may open anywhere in a field, quoted fields keep
//! newlines, and only an unquoted field can be NULL.

use memchr::{memchr, memchr_iter, memchr2};
use millpond_engine::{Column, CopyFormat, Header};
use millpond_types::SqlError;

use super::Read;
use super::fields::{Fields, bad_format};
use super::text::{LineEnd, match_header};
use crate::error::Failure;

pub(super) struct CsvRecords {
    delimiter: u8,
    quote: u8,
    escape: u8,
    null: Vec<u8>,
    /// Per column: the null string is text even unquoted; NULL even quoted.
    not_null: Vec<bool>,
    null_when_quoted: Vec<bool>,
    /// The first line is still to come, and is not data.
    header: Header,
    names: Vec<String>,
    line: u64,
    line_end: LineEnd,
    field: Vec<u8>,
}

/// A record at the front of the input.
struct Record {
    length: usize,
    quoted: bool,
    newlines: u64,
}

impl CsvRecords {
    pub fn new(format: &CopyFormat, columns: &[Column]) -> Self {
        let CopyFormat::Csv { delimiter, null, header, quote, escape, force_not_null, force_null, .. } =
            format
        else {
            unreachable!("the caller has matched the format");
        };
        let marked = |list: &[usize]| (0..columns.len()).map(|i| list.contains(&i)).collect();
        Self {
            delimiter: *delimiter,
            quote: *quote,
            escape: *escape,
            null: null.as_bytes().to_vec(),
            not_null: marked(force_not_null),
            null_when_quoted: marked(force_null),
            header: *header,
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
            let (record, used) = match self.find_end(rest) {
                Some(record) => {
                    let used = record.length + 1;
                    (record, used)
                }
                None if end && !rest.is_empty() => (self.last_record(rest, fields)?, rest.len()),
                None => return Ok((at, Read::Hungry)),
            };
            at += used;
            self.line += 1 + record.newlines;
            fields.begin(self.line);
            let line = &rest[..record.length];
            let stripped = self.line_end.strip(line).filter(|l| record.quoted || memchr(b'\r', l).is_none());
            let Some(line) = stripped else {
                let error = bad_format("unquoted carriage return found in data")
                    .hint("Use quoted CSV field to represent carriage return.");
                fields.refuse(error, line)?;
                continue;
            };
            if line == b"\\." {
                return Ok((at, Read::End));
            }
            match std::mem::replace(&mut self.header, Header::None) {
                Header::None => {
                    let cut = if record.quoted {
                        self.cut_quoted(line, fields)
                    } else {
                        self.cut_plain(line, fields)
                    };
                    fields.end(cut, line)?;
                }
                Header::Present => {}
                Header::Match => self.check_header(line).map_err(|error| fields.failure(error))?,
            }
        }
    }

    /// The first newline outside of quotes.
    fn find_end(&self, input: &[u8]) -> Option<Record> {
        let first = memchr2(b'\n', self.quote, input)?;
        if input[first] == b'\n' {
            return Some(Record { length: first, quoted: false, newlines: 0 });
        }
        let (mut inside, mut newlines, mut at) = (false, 0, first);
        while at < input.len() {
            let byte = input[at];
            if inside && byte == self.escape && self.escape != self.quote {
                // What follows an escape does not end anything, if it is a quote or an escape.
                if input.get(at + 1).is_some_and(|b| *b == self.quote || *b == self.escape) {
                    at += 1;
                }
            } else if byte == self.quote {
                inside = !inside;
            } else if byte == b'\n' {
                if !inside {
                    return Some(Record { length: at, quoted: true, newlines });
                }
                newlines += 1;
            }
            at += 1;
        }
        None
    }

    /// What is left when the input ends without a newline.
    fn last_record(&self, rest: &[u8], fields: &mut Fields) -> Result<Record, Failure> {
        let with_end = [rest, b"\n"].concat();
        match self.find_end(&with_end) {
            Some(record) => Ok(record),
            None => {
                fields.set_line(self.line + 1 + memchr_iter(b'\n', rest).count() as u64);
                fields.refuse(bad_format("unterminated CSV quoted field"), rest)?;
                // Tolerated: nothing is left.
                Ok(Record { length: rest.len(), quoted: true, newlines: 0 })
            }
        }
    }

    fn cut_plain(&mut self, line: &[u8], fields: &mut Fields) -> Result<(), SqlError> {
        if fields.width() == 0 && line.is_empty() {
            return Ok(());
        }
        let (mut start, mut column) = (0, 0);
        for end in memchr_iter(self.delimiter, line).chain([line.len()]) {
            let field = &line[start..end];
            let is_null = field == self.null && !self.not_null.get(column).is_some_and(|forced| *forced);
            fields.push((!is_null).then_some(field))?;
            start = end + 1;
            column += 1;
        }
        Ok(())
    }

    fn cut_quoted(&mut self, line: &[u8], fields: &mut Fields) -> Result<(), SqlError> {
        let (mut at, mut column) = (0, 0);
        loop {
            let (end, quoted) = self.unquote(line, at)?;
            let forced = if quoted { &self.null_when_quoted } else { &self.not_null };
            let forced = forced.get(column).is_some_and(|forced| *forced);
            // Quoted text is NULL only if forced, unquoted text unless forced.
            let is_null = self.field == self.null && quoted == forced;
            fields.push((!is_null).then_some(&self.field))?;
            column += 1;
            if end == line.len() {
                return Ok(());
            }
            at = end + 1;
        }
    }

    /// Puts the field at `at` into `self.field`; returns where it ends, and whether any of it was quoted.
    fn unquote(&mut self, line: &[u8], mut at: usize) -> Result<(usize, bool), SqlError> {
        self.field.clear();
        let (mut inside, mut quoted) = (false, false);
        while at < line.len() {
            let byte = line[at];
            if !inside {
                if byte == self.delimiter {
                    break;
                }
                if byte == self.quote {
                    (inside, quoted) = (true, true);
                } else {
                    self.field.push(byte);
                }
            } else {
                let next = line.get(at + 1).copied();
                if byte == self.escape && next.is_some_and(|b| b == self.quote || b == self.escape) {
                    self.field.extend(next);
                    at += 1;
                } else if byte == self.quote {
                    inside = false;
                } else {
                    self.field.push(byte);
                }
            }
            at += 1;
        }
        match inside {
            true => Err(bad_format("unterminated CSV quoted field")),
            false => Ok((at, quoted)),
        }
    }

    fn check_header(&mut self, line: &[u8]) -> Result<(), SqlError> {
        let (mut found, mut at) = (Vec::new(), 0);
        loop {
            let (end, _) = self.unquote(line, at)?;
            found.push(String::from_utf8_lossy(&self.field).into_owned());
            if end == line.len() {
                return match_header(&found, &self.names);
            }
            at = end + 1;
        }
    }
}
