//! Checks json, and brings jsonb into PostgreSQL's normal form: keys ordered by length, then bytes, the last of equal
//! keys kept; a space after `:` and `,`; numbers as written, without exponent.

use millpond_types::{SqlError, SqlState};

/// How deep values may nest: recursion must end before the stack does.
const DEPTH_MAX: usize = 512;

/// Whether `text` is JSON.
///
/// # Errors
/// 22P02; 54001 beyond 512 levels.
pub(crate) fn check(text: &str) -> Result<(), SqlError> {
    normal_form(text).map(|_| ())
}

/// The normal form of jsonb.
///
/// # Errors
/// As [`check`].
pub(crate) fn normal_form(text: &str) -> Result<String, SqlError> {
    let mut reader = Reader { text, at: 0 };
    let mut out = String::with_capacity(text.len() + 8);
    reader.value(&mut out, 0)?;
    reader.space();
    if reader.at < text.len() { Err(reader.bad()) } else { Ok(out) }
}

pub(super) struct Reader<'a> {
    pub text: &'a str,
    pub at: usize,
}

impl<'a> Reader<'a> {
    /// The next value as it stands.
    pub fn part(&mut self) -> Result<&'a str, SqlError> {
        self.space();
        let from = self.at;
        self.value(&mut String::new(), 0)?;
        Ok(&self.text[from..self.at])
    }
}

impl Reader<'_> {
    fn bad(&self) -> SqlError {
        let error =
            SqlError::new(SqlState::INVALID_TEXT_REPRESENTATION, "invalid input syntax for type json");
        match self.text.get(self.at..).and_then(|rest| rest.chars().next()) {
            None => error.detail("The input string ended unexpectedly."),
            Some(c) => {
                let place = self.text[..self.at].chars().count() + 1;
                error.detail(format!("Token \"{c}\" is invalid at character {place}."))
            }
        }
    }

    pub fn space(&mut self) {
        let rest = &self.text.as_bytes()[self.at..];
        self.at += rest.iter().take_while(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r')).count();
    }

    pub fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    pub fn expect(&mut self, byte: u8) -> Result<(), SqlError> {
        self.space();
        if self.peek() != Some(byte) {
            return Err(self.bad());
        }
        self.at += 1;
        Ok(())
    }

    fn value(&mut self, out: &mut String, depth: usize) -> Result<(), SqlError> {
        if depth > DEPTH_MAX {
            let error = SqlError::new(SqlState::STATEMENT_TOO_COMPLEX, "stack depth limit exceeded");
            return Err(error.detail(format!("JSON may nest {DEPTH_MAX} levels deep.")));
        }
        self.space();
        match self.peek() {
            Some(b'{') => self.object(out, depth),
            Some(b'[') => self.array(out, depth),
            Some(b'"') => self.string(out),
            Some(b'-' | b'0'..=b'9') => self.number(out),
            _ => self.word(out),
        }
    }

    fn word(&mut self, out: &mut String) -> Result<(), SqlError> {
        for word in ["true", "false", "null"] {
            if self.text[self.at..].starts_with(word) {
                self.at += word.len();
                if self.peek().is_some_and(|b| b.is_ascii_alphanumeric()) {
                    return Err(self.bad());
                }
                out.push_str(word);
                return Ok(());
            }
        }
        Err(self.bad())
    }

    fn array(&mut self, out: &mut String, depth: usize) -> Result<(), SqlError> {
        self.expect(b'[')?;
        out.push('[');
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            out.push(']');
            return Ok(());
        }
        loop {
            self.value(out, depth + 1)?;
            self.space();
            match self.peek() {
                Some(b',') => out.push_str(", "),
                Some(b']') => {
                    self.at += 1;
                    out.push(']');
                    return Ok(());
                }
                _ => return Err(self.bad()),
            }
            self.at += 1;
        }
    }

    fn object(&mut self, out: &mut String, depth: usize) -> Result<(), SqlError> {
        self.expect(b'{')?;
        let mut members: Vec<(String, String)> = Vec::new();
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            out.push_str("{}");
            return Ok(());
        }
        loop {
            self.space();
            let (mut key, mut value) = (String::new(), String::new());
            if self.peek() != Some(b'"') {
                return Err(self.bad());
            }
            self.string(&mut key)?;
            self.expect(b':')?;
            self.value(&mut value, depth + 1)?;
            members.push((key, value));
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                _ => return Err(self.bad()),
            }
        }
        self.at += 1;
        // Stable, so that of equal keys the last stands last.
        members.sort_by(|a, b| (a.0.len(), &a.0).cmp(&(b.0.len(), &b.0)));
        out.push('{');
        let mut first = true;
        for (i, (key, value)) in members.iter().enumerate() {
            if members.get(i + 1).is_some_and(|next| next.0 == *key) {
                continue;
            }
            if !std::mem::take(&mut first) {
                out.push_str(", ");
            }
            out.push_str(key);
            out.push_str(": ");
            out.push_str(value);
        }
        out.push('}');
        Ok(())
    }

    /// Copies a string with its quotes; escapes of characters that need none are resolved.
    fn string(&mut self, out: &mut String) -> Result<(), SqlError> {
        self.at += 1;
        out.push('"');
        loop {
            let rest = &self.text[self.at..];
            let plain = rest.bytes().take_while(|b| !matches!(b, b'"' | b'\\' | 0..=0x1f)).count();
            out.push_str(&rest[..plain]);
            self.at += plain;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    out.push('"');
                    return Ok(());
                }
                Some(b'\\') => self.escape(out)?,
                _ => return Err(self.bad()),
            }
        }
    }

    fn escape(&mut self, out: &mut String) -> Result<(), SqlError> {
        let code = self.text.as_bytes().get(self.at + 1).copied();
        match code {
            Some(c @ (b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't')) => {
                out.push('\\');
                out.push(char::from(c));
            }
            Some(b'/') => out.push('/'),
            Some(b'u') => {
                let first = self.unit(self.at + 2)?;
                let scalar = match first {
                    0xd800..=0xdbff => {
                        let low = match self.text.as_bytes().get(self.at + 6..self.at + 8) {
                            Some(b"\\u") => self.unit(self.at + 8)?,
                            _ => return Err(self.bad()),
                        };
                        if !(0xdc00..=0xdfff).contains(&low) {
                            return Err(self.bad());
                        }
                        self.at += 6;
                        0x10000 + ((first - 0xd800) << 10) + (low - 0xdc00)
                    }
                    other => other,
                };
                match char::from_u32(scalar).filter(|c| *c != '\0') {
                    None => return Err(self.bad()),
                    Some(c @ ('"' | '\\')) => out.extend(['\\', c]),
                    Some('\n') => out.push_str("\\n"),
                    Some('\r') => out.push_str("\\r"),
                    Some('\t') => out.push_str("\\t"),
                    Some('\u{8}') => out.push_str("\\b"),
                    Some('\u{c}') => out.push_str("\\f"),
                    Some(c) if c < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
                    Some(c) => out.push(c),
                }
                self.at += 4;
            }
            _ => return Err(self.bad()),
        }
        self.at += 2;
        Ok(())
    }

    fn unit(&self, at: usize) -> Result<u32, SqlError> {
        let digits = self.text.get(at..at + 4).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        digits.and_then(|d| u32::from_str_radix(d, 16).ok()).ok_or_else(|| self.bad())
    }

    fn digits(&mut self) -> Result<(), SqlError> {
        let count = self.text.as_bytes()[self.at..].iter().take_while(|b| b.is_ascii_digit()).count();
        self.at += count;
        if count == 0 { Err(self.bad()) } else { Ok(()) }
    }

    fn number(&mut self, out: &mut String) -> Result<(), SqlError> {
        let from = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1
        } else {
            self.digits()?
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        let plain = self.at;
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        if self.peek().is_some_and(|b| b.is_ascii_alphanumeric()) {
            return Err(self.bad());
        }
        let written = &self.text[from..self.at];
        match plain == self.at {
            true if written == "-0" => out.push('0'),
            true => out.push_str(written),
            false => out.push_str(&without_exponent(written)),
        }
        Ok(())
    }
}

/// `1.5e3` as `1500`; beyond 1,000 places the exponent stays.
fn without_exponent(written: &str) -> String {
    let (mantissa, exponent) = written.split_once(['e', 'E']).unwrap_or((written, "0"));
    let Some(exponent) = exponent.parse::<i32>().ok().filter(|e| e.abs() <= 1000) else {
        return written.to_owned();
    };
    let (sign, digits) = mantissa.strip_prefix('-').map_or(("", mantissa), |d| ("-", d));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all = format!("{whole}{fraction}");
    let point = whole.len() as i32 + exponent;
    let text = if point <= 0 {
        format!("0.{}{all}", "0".repeat(-point as usize))
    } else if point as usize >= all.len() {
        format!("{all}{}", "0".repeat(point as usize - all.len()))
    } else {
        format!("{}.{}", &all[..point as usize], &all[point as usize..])
    };
    let trimmed = text.trim_start_matches('0');
    let lead = if trimmed.is_empty() || trimmed.starts_with('.') { "0" } else { "" };
    format!("{sign}{lead}{trimmed}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jsonb_has_postgresql_normal_form() {
        for (text, expected) in [
            (
                r#"{"b":1,"a":[1,2, {"x":null}],"aa":true,"b":2}"#,
                r#"{"a": [1, 2, {"x": null}], "b": 2, "aa": true}"#,
            ),
            (r#" "aé\/\n" "#, r#""aé/\n""#),
            ("1.5e3", "1500"),
            ("1e-2", "0.01"),
            ("-0", "0"),
            ("[]", "[]"),
            ("{ }", "{}"),
            (r#""😀""#, "\"😀\""),
            ("12345678901234567890.123", "12345678901234567890.123"),
        ] {
            assert_eq!(normal_form(text), Ok(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn bad_json_is_refused() {
        for text in [
            "",
            "{",
            "[1,]",
            "{\"a\"}",
            "01",
            "1.",
            "tru",
            "truex",
            "\"\\x\"",
            "\"\u{1}\"",
            "nul",
            "[1 2]",
            "\"\\u00\"",
            "1 2",
        ] {
            assert_eq!(
                normal_form(text).unwrap_err().state(),
                SqlState::INVALID_TEXT_REPRESENTATION,
                "{text}"
            );
        }
        assert_eq!(check(&"[".repeat(100_000)).unwrap_err().state(), SqlState::STATEMENT_TOO_COMPLEX);
    }
}
