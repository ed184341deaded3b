//! CSV as PostgreSQL's COPY reads it: a quoted field may hold anything, an unquoted empty field is NULL.

use millpond_types::{SqlError, SqlState};

use super::text_rows::{Place, TextRows};

/// The characters of a CSV file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dialect {
    pub delimiter: u8,
    pub quote: u8,
    pub escape: u8,
    /// An unquoted field that says this is NULL.
    pub null: String,
    pub has_header: bool,
}

/// Where a record ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// After this many bytes, its line end included; it has so many lines.
    At { bytes: usize, lines: u64 },
    /// Not in these bytes.
    Unknown,
}

impl Dialect {
    /// Finds the end of the record that begins with `bytes`. `is_last` says that nothing follows them.
    pub fn end(&self, bytes: &[u8], is_last: bool) -> End {
        let mut quoted = false;
        let mut lines = 1;
        let mut at = 0;
        while at < bytes.len() {
            let byte = bytes[at];
            if quoted && byte == self.escape && self.escape != self.quote {
                at += 1;
            } else if byte == self.quote {
                // A doubled quote leaves and enters again.
                quoted = !quoted;
            } else if byte == b'\n' {
                if !quoted {
                    return End::At { bytes: at + 1, lines };
                }
                lines += 1;
            }
            at += 1;
        }
        if is_last && !quoted { End::At { bytes: bytes.len(), lines } } else { End::Unknown }
    }

    /// Takes a record apart; calls `field` with the number and text of each.
    ///
    /// # Errors
    /// 22021 if it is not UTF-8, 22P04 if a quote is left open.
    pub fn fields(
        &self,
        record: &[u8],
        mut field: impl FnMut(usize, Option<&str>),
    ) -> Result<usize, SqlError> {
        let record = str::from_utf8(record).map_err(|e| not_utf8(record, &e))?;
        let record = record.strip_suffix('\n').unwrap_or(record);
        let record = record.strip_suffix('\r').unwrap_or(record);
        let bytes = record.as_bytes();
        let mut unescaped = String::new();
        let mut number = 0;
        let mut at = 0;
        loop {
            let start = at;
            while at < bytes.len() && bytes[at] != self.delimiter && bytes[at] != self.quote {
                at += 1;
            }
            if at < bytes.len() && bytes[at] == self.quote {
                unescaped.clear();
                unescaped.push_str(&record[start..at]);
                at = self.quoted(record, at, &mut unescaped)?;
                field(number, Some(&unescaped));
            } else {
                let text = &record[start..at];
                field(number, (text != self.null).then_some(text));
            }
            number += 1;
            if at == bytes.len() {
                return Ok(number);
            }
            at += 1;
        }
    }

    /// Reads a field from its first quote on; returns where its delimiter stands.
    fn quoted(&self, record: &str, mut at: usize, out: &mut String) -> Result<usize, SqlError> {
        let bytes = record.as_bytes();
        let mut quoted = false;
        // Quote, escape and delimiter are ASCII, so that slices end between characters.
        let mut start = at;
        while at < bytes.len() {
            let byte = bytes[at];
            let next = bytes.get(at + 1);
            if quoted && byte == self.escape && next.is_some_and(|n| *n == self.quote || *n == self.escape) {
                out.push_str(&record[start..at]);
                start = at + 1;
                at += 2;
            } else if byte == self.quote {
                out.push_str(&record[start..at]);
                quoted = !quoted;
                at += 1;
                start = at;
            } else if byte == self.delimiter && !quoted {
                break;
            } else {
                at += 1;
            }
        }
        if quoted {
            return Err(unterminated());
        }
        out.push_str(&record[start..at]);
        Ok(at)
    }

    /// Reads one record as a row. `mapping` holds for each field of the file the column that it goes to.
    pub fn row(&self, record: &[u8], mapping: &[Option<usize>], place: Place, rows: &mut TextRows) {
        let blank = matches!(record, b"" | b"\n" | b"\r\n");
        if blank && mapping.len() > 1 {
            return;
        }
        let read = self.fields(record, |number, text| {
            if let Some(Some(column)) = mapping.get(number) {
                rows.set(*column, text);
            }
        });
        let error = match read {
            Ok(fields) if fields == mapping.len() => return rows.finish_row(place),
            Ok(fields) if fields < mapping.len() => {
                let name = mapping[fields].map(|column| rows.schema().field(column).name().clone());
                let message = match name {
                    Some(name) => format!("missing data for column \"{name}\""),
                    None => format!("missing data: {fields} fields instead of {}", mapping.len()),
                };
                SqlError::new(SqlState::BAD_COPY_FILE_FORMAT, message)
            }
            Ok(_) => SqlError::new(SqlState::BAD_COPY_FILE_FORMAT, "extra data after last expected column"),
            Err(error) => error,
        };
        rows.refuse_row(place, error);
    }
}

pub(super) fn unterminated() -> SqlError {
    SqlError::new(SqlState::BAD_COPY_FILE_FORMAT, "unterminated CSV quoted field")
}

pub(super) fn not_utf8(bytes: &[u8], error: &std::str::Utf8Error) -> SqlError {
    let bad = bytes[error.valid_up_to()..].iter().take(error.error_len().unwrap_or(1));
    let bad: Vec<String> = bad.map(|b| format!("0x{b:02x}")).collect();
    SqlError::new(
        SqlState::CHARACTER_NOT_IN_REPERTOIRE,
        format!("invalid byte sequence for encoding \"UTF8\": {}", bad.join(" ")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialect() -> Dialect {
        Dialect { delimiter: b',', quote: b'"', escape: b'"', null: String::new(), has_header: false }
    }

    fn fields(dialect: &Dialect, record: &str) -> Result<Vec<Option<String>>, String> {
        let mut fields = Vec::new();
        dialect
            .fields(record.as_bytes(), |_, text| fields.push(text.map(str::to_owned)))
            .map_err(|e| e.message().to_owned())?;
        Ok(fields)
    }

    #[test]
    fn fields_are_read_as_copy_reads_them() {
        let some = |texts: &[&str]| texts.iter().map(|t| Some((*t).to_owned())).collect::<Vec<_>>();
        let check = |record, expected| assert_eq!(fields(&dialect(), record), Ok(expected), "{record}");
        check("a,b\r\n", some(&["a", "b"]));
        check("\"a,\"\"b\"\"\nc\",d\n", some(&["a,\"b\"\nc", "d"]));
        check("a,,\"\"\n", vec![Some("a".to_owned()), None, Some(String::new())]);
        check("x\"y,z\"w", some(&["xy,zw"]));
        check(",", vec![None, None]);
        check("ä,ö", some(&["ä", "ö"]));
        assert_eq!(fields(&dialect(), "\"a"), Err("unterminated CSV quoted field".to_owned()));
        let other =
            Dialect { delimiter: b'|', quote: b'\'', escape: b'\\', null: "\\N".to_owned(), ..dialect() };
        assert_eq!(
            fields(&other, "'it\\'s \\\\'|\\N|"),
            Ok(vec![Some("it's \\".to_owned()), None, Some(String::new())])
        );
    }

    #[test]
    fn a_record_ends_outside_of_quotes() {
        let end = |text: &str, is_last| dialect().end(text.as_bytes(), is_last);
        assert_eq!(end("a,b\nc", false), End::At { bytes: 4, lines: 1 });
        assert_eq!(end("a,\"b\n\"\"\n\"\nc", false), End::At { bytes: 10, lines: 3 });
        assert_eq!(end("a,b", false), End::Unknown);
        assert_eq!(end("a,b", true), End::At { bytes: 3, lines: 1 });
        assert_eq!(end("a,\"b\n", true), End::Unknown);
    }
}
