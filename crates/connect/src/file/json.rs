//! JSON lines: one object per line, each value as the text that its column's type reads.
//!
//! Numbers keep every digit: the text of a value is taken as it stands, never through a float.

use std::collections::HashMap;

use millpond_types::{SqlError, SqlState, SqlType};

use super::csv::not_utf8;
use super::text_rows::{Place, TextRows};

/// How deep a value may nest.
const DEPTH_MAX: usize = 128;

/// Finds columns by the names of keys.
pub(super) struct Keys(HashMap<String, usize>);

impl Keys {
    pub fn new(rows: &TextRows) -> Self {
        Self(rows.schema().fields().iter().enumerate().map(|(i, f)| (f.name().clone(), i)).collect())
    }

    /// Reads one line as a row; keys that name no column are passed over, and columns without a key are NULL.
    pub fn row(&self, line: &[u8], place: Place, rows: &mut TextRows) {
        if line.trim_ascii().is_empty() {
            return;
        }
        match self.read(line, rows) {
            Ok(()) => rows.finish_row(place),
            Err(error) => rows.refuse_row(place, error),
        }
    }

    fn read(&self, line: &[u8], rows: &mut TextRows) -> Result<(), SqlError> {
        let text = str::from_utf8(line).map_err(|e| not_utf8(line, &e))?;
        let mut scanner = Scanner { text, at: 0 };
        scanner.expect(b'{')?;
        if !scanner.eat(b'}') {
            loop {
                let key = scanner.string()?;
                scanner.expect(b':')?;
                let value = scanner.checked(0)?;
                if let Some(column) = self.0.get(unquote(key)?.as_ref()) {
                    let text = text_of(value, &rows.types()[*column])?;
                    rows.set(*column, text.as_deref());
                }
                if scanner.eat(b'}') {
                    break;
                }
                scanner.expect(b',')?;
            }
        }
        scanner.end()
    }
}

/// A JSON value as text for a type; `None` for null.
fn text_of<'a>(value: &'a str, ty: &SqlType) -> Result<Option<std::borrow::Cow<'a, str>>, SqlError> {
    Ok(match (value.as_bytes()[0], ty) {
        // JSON's null in a JSON column is SQL's NULL too: nobody can tell a missing key from a null one.
        (b'n', _) => None,
        (_, SqlType::Json | SqlType::Jsonb) => Some(value.into()),
        (b'"', _) => Some(unquote(value)?),
        (b'[', SqlType::Array(_)) => {
            let value = serde_json::from_str(value).map_err(|_| malformed("a value", value))?;
            let mut out = String::new();
            array_literal(&value, &mut out);
            Some(out.into())
        }
        _ => Some(value.into()),
    })
}

/// A JSON array in PostgreSQL's spelling.
fn array_literal(value: &serde_json::Value, out: &mut String) {
    match value {
        serde_json::Value::Array(items) => {
            out.push('{');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                array_literal(item, out);
            }
            out.push('}');
        }
        serde_json::Value::Null => out.push_str("NULL"),
        other => {
            let text = other.as_str().map_or_else(|| other.to_string(), str::to_owned);
            out.push('"');
            for c in text.chars() {
                if matches!(c, '"' | '\\') {
                    out.push('\\');
                }
                out.push(c);
            }
            out.push('"');
        }
    }
}

/// The text inside a JSON string.
fn unquote(string: &str) -> Result<std::borrow::Cow<'_, str>, SqlError> {
    let inside = &string[1..string.len() - 1];
    if !inside.contains('\\') {
        return Ok(inside.into());
    }
    let text: String = serde_json::from_str(string).map_err(|_| malformed("a string", string))?;
    if text.contains('\0') {
        return Err(SqlError::new(
            SqlState::CHARACTER_NOT_IN_REPERTOIRE,
            "invalid byte sequence for encoding \"UTF8\": 0x00",
        ));
    }
    Ok(text.into())
}

fn malformed(what: &str, at: &str) -> SqlError {
    let near: String = at.chars().take(40).collect();
    SqlError::new(SqlState::INVALID_TEXT_REPRESENTATION, "invalid input syntax for type json")
        .detail(format!("Expected {what} at \"{near}\"."))
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while matches!(bytes.get(self.at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8) -> Result<(), SqlError> {
        if self.eat(byte) { Ok(()) } else { Err(self.error(&format!("\"{}\"", byte as char))) }
    }

    fn error(&self, expected: &str) -> SqlError {
        malformed(expected, &self.text[self.at.min(self.text.len())..])
    }

    fn end(&mut self) -> Result<(), SqlError> {
        if self.peek().is_none() { Ok(()) } else { Err(self.error("the end of the line")) }
    }

    /// A string with its quotes; its escapes are checked when it is unquoted.
    fn string(&mut self) -> Result<&'a str, SqlError> {
        if self.peek() != Some(b'"') {
            return Err(self.error("a string"));
        }
        let start = self.at;
        let bytes = self.text.as_bytes();
        let mut at = start + 1;
        loop {
            match bytes.get(at) {
                Some(b'"') => break,
                Some(b'\\') => at += 2,
                Some(byte) if *byte >= b' ' => at += 1,
                _ => return Err(self.error("the end of a string")),
            }
        }
        self.at = at + 1;
        Ok(&self.text[start..self.at])
    }

    /// Any value, as it stands.
    fn value(&mut self, depth: usize) -> Result<&'a str, SqlError> {
        if depth > DEPTH_MAX {
            return Err(SqlError::new(SqlState::STATEMENT_TOO_COMPLEX, "a JSON value is nested too deeply"));
        }
        let first = self.peek();
        let start = self.at;
        match first {
            Some(b'"') => return self.string(),
            Some(b'{') => {
                self.at += 1;
                if !self.eat(b'}') {
                    loop {
                        unquote(self.string()?)?;
                        self.expect(b':')?;
                        self.checked(depth + 1)?;
                        if self.eat(b'}') {
                            break;
                        }
                        self.expect(b',')?;
                    }
                }
            }
            Some(b'[') => {
                self.at += 1;
                if !self.eat(b']') {
                    loop {
                        self.checked(depth + 1)?;
                        if self.eat(b']') {
                            break;
                        }
                        self.expect(b',')?;
                    }
                }
            }
            Some(b't' | b'f' | b'n') => {
                let rest = &self.text[start..];
                let word = ["true", "false", "null"].into_iter().find(|word| rest.starts_with(word));
                self.at += word.ok_or_else(|| self.error("a value"))?.len();
            }
            Some(b'-' | b'0'..=b'9') => self.number()?,
            _ => return Err(self.error("a value")),
        }
        Ok(&self.text[start..self.at])
    }

    /// Any value, as it stands, with good escapes if it is a string.
    fn checked(&mut self, depth: usize) -> Result<&'a str, SqlError> {
        let value = self.value(depth)?;
        if value.starts_with('"') {
            unquote(value)?;
        }
        Ok(value)
    }

    fn digits(&mut self) -> usize {
        let digits = self.text.as_bytes()[self.at..].iter().take_while(|b| b.is_ascii_digit()).count();
        self.at += digits;
        digits
    }

    fn next_is(&mut self, one_of: &[u8]) -> bool {
        let found = self.text.as_bytes().get(self.at).is_some_and(|b| one_of.contains(b));
        self.at += usize::from(found);
        found
    }

    fn number(&mut self) -> Result<(), SqlError> {
        let start = self.at;
        self.next_is(b"-");
        let leading_zero = self.text.as_bytes().get(self.at) == Some(&b'0');
        let whole = self.digits();
        let mut is_number = whole == 1 || (whole > 1 && !leading_zero);
        if self.next_is(b".") {
            is_number &= self.digits() > 0;
        }
        if self.next_is(b"eE") {
            self.next_is(b"+-");
            is_number &= self.digits() > 0;
        }
        if is_number { Ok(()) } else { Err(malformed("a number", &self.text[start..])) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::Schema;
    use arrow::util::display::array_value_to_string;

    use super::*;

    /// The row of one line, or its error.
    fn check(line: &str, expected: Result<[&str; 4], &str>) {
        let schema = Schema::new(vec![
            SqlType::Int8.field("n", true),
            SqlType::Text.field("t", true),
            SqlType::Jsonb.field("j", true),
            SqlType::Array(Box::new(SqlType::Text)).field("a", true),
        ]);
        let mut rows = TextRows::new(Arc::new(schema)).unwrap();
        let keys = Keys::new(&rows);
        keys.row(line.as_bytes(), Place { start: 0, end: line.len(), line: 1 }, &mut rows);
        let (batch, rejected) = rows.finish(line.as_bytes(), "f").unwrap();
        match expected {
            Ok(values) => {
                assert!(rejected.is_empty(), "{line}: {rejected:?}");
                let read: Vec<String> =
                    batch.columns().iter().map(|c| array_value_to_string(c, 0).unwrap()).collect();
                assert_eq!(read, values, "{line}");
            }
            Err(message) => {
                assert_eq!(batch.num_rows(), 0);
                assert_eq!(rejected[0].error.message(), message, "{line}");
                assert_eq!(rejected[0].place, "f, line 1");
            }
        }
    }

    #[test]
    fn values_become_what_their_columns_hold() {
        check(r#"{"n": 12, "t": "a\u00e4\n", "x": [{"y": 1e5}]}"#, Ok(["12", "aä\n", "", ""]));
        check(r#" {"t":1.50,"j":"s","n":null} "#, Ok(["", "1.50", "\"s\"", ""]));
        check(r#"{"n":1,"n":2,"a":["x, \"y\"",null,3]}"#, Ok(["2", "", "", "[x, \"y\", , 3]"]));
        check("{}", Ok(["", "", "", ""]));
        check(r#"{"\u006e":"7"}"#, Ok(["7", "", "", ""]));
    }

    #[test]
    fn what_is_no_json_is_refused() {
        let syntax = Err("invalid input syntax for type json");
        for line in [
            "{",
            "[1]",
            r#"{"n":01}"#,
            r#"{"n":1,}"#,
            r#"{"n":1} x"#,
            r#"{"n":-}"#,
            r#"{"t":"a}"#,
            r#"{n:1}"#,
        ] {
            check(line, syntax);
        }
        check(r#"{"x":{"y":"\q"}}"#, syntax);
        check(r#"{"n":tru}"#, syntax);
        check(r#"{"n":"x"}"#, Err("column \"n\": invalid input syntax for type bigint: \"x\""));
        let deep = format!("{{\"x\":{}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
        check(&deep, Err("a JSON value is nested too deeply"));
        check(r#"{"t":"\u0000"}"#, Err("invalid byte sequence for encoding \"UTF8\": 0x00"));
    }
}
