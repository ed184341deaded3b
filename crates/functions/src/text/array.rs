//! Text form of arrays: `{1,NULL,"a b"}`.

use millpond_types::SqlError;

use super::number::trim;

/// Appends one element, quoted where PostgreSQL quotes it.
pub(crate) fn write_element(text: &[u8], out: &mut Vec<u8>) {
    let plain = !text.is_empty()
        && !text.eq_ignore_ascii_case(b"null")
        && !text.iter().any(|b| matches!(b, b'{' | b'}' | b',' | b'"' | b'\\' | b' ' | b'\t'..=b'\r'));
    if plain {
        return out.extend_from_slice(text);
    }
    out.push(b'"');
    for byte in text {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out.push(b'"');
}

/// The elements of an array's text; `None` is NULL. An element that is an array itself comes with its braces.
pub(crate) fn elements(text: &str) -> Result<Vec<Option<String>>, SqlError> {
    let malformed = |detail: &str| {
        SqlError::new(
            millpond_types::SqlState::INVALID_TEXT_REPRESENTATION,
            format!("malformed array literal: \"{text}\""),
        )
        .detail(detail)
    };
    let trimmed = trim(text);
    let inner = trimmed
        .strip_prefix('{')
        .ok_or_else(|| malformed("Array value must start with \"{\" or dimension information."))?;
    let mut characters = inner.char_indices();
    let mut found = Vec::new();
    let mut element = Element::default();
    let mut depth = 0;
    while let Some((at, c)) = characters.next() {
        match c {
            '\\' => {
                let (_, escaped) = characters.next().ok_or_else(|| malformed("Unexpected end of input."))?;
                if depth > 0 {
                    element.push('\\');
                }
                element.push_escaped(escaped);
            }
            '"' if depth > 0 => {
                // Inside a nested array quotes stay for its own reading.
                element.push('"');
                element.quoted = !element.quoted;
            }
            '"' if element.quoted => (element.quoted, element.closed) = (false, true),
            '"' if element.closed || !trim(&element.text).is_empty() => {
                return Err(malformed("Incorrectly quoted array element."));
            }
            '"' => {
                element.text.clear();
                element.kept = 0;
                element.quoted = true;
            }
            _ if element.quoted => element.push_escaped(c),
            '{' => {
                depth += 1;
                element.push_escaped(c);
            }
            '}' if depth > 0 => {
                depth -= 1;
                element.push_escaped(c);
            }
            '}' => {
                if !trim(&inner[at + 1..]).is_empty() {
                    return Err(malformed("Junk after closing right brace."));
                }
                let empty = !element.closed && trim(&element.text).is_empty();
                match (empty, found.is_empty()) {
                    (true, true) => return Ok(found),
                    (true, false) => return Err(malformed("Unexpected \"}\" character.")),
                    _ => found.push(element.finish()),
                }
                return Ok(found);
            }
            ',' if depth == 0 => {
                if !element.closed && trim(&element.text).is_empty() {
                    return Err(malformed("Unexpected \",\" character."));
                }
                found.push(std::mem::take(&mut element).finish());
            }
            _ if element.closed && c.is_ascii_whitespace() => {}
            _ if element.closed => return Err(malformed("Incorrectly quoted array element.")),
            _ => element.push(c),
        }
    }
    Err(malformed("Unexpected end of input."))
}

#[derive(Default)]
struct Element {
    text: String,
    /// Bytes that trimming may not take: up to the last escaped character.
    kept: usize,
    quoted: bool,
    closed: bool,
}

impl Element {
    fn push(&mut self, c: char) {
        if self.text.is_empty() && c.is_ascii_whitespace() {
            return;
        }
        self.text.push(c);
    }

    fn push_escaped(&mut self, c: char) {
        self.text.push(c);
        self.kept = self.text.len();
    }

    fn finish(mut self) -> Option<String> {
        if self.closed {
            return Some(self.text);
        }
        let blank = |c: char| c.is_ascii_whitespace();
        let end = self.text[self.kept..].trim_end_matches(blank).len() + self.kept;
        self.text.truncate(end);
        if self.kept == 0 && self.text.eq_ignore_ascii_case("null") { None } else { Some(self.text) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_read_as_in_postgresql() {
        let some = |texts: &[&str]| texts.iter().map(|t| Some((*t).to_owned())).collect::<Vec<_>>();
        assert_eq!(elements("{}"), Ok(vec![]));
        assert_eq!(elements(" { 1 , 2 ,3 } "), Ok(some(&["1", "2", "3"])));
        assert_eq!(elements(r#"{"a b","","c\"d",x\,y}"#), Ok(some(&["a b", "", "c\"d", "x,y"])));
        assert_eq!(elements(r#"{NULL,"NULL",null}"#), Ok(vec![None, Some("NULL".into()), None]));
        assert_eq!(elements("{{1,2},{3,4}}"), Ok(some(&["{1,2}", "{3,4}"])));
        for bad in ["", "1", "{1,}", "{,1}", "{1", "{1}x", "{\"a\"b}", "{a\"b\"}"] {
            let error = elements(bad).unwrap_err();
            assert_eq!(error.state(), millpond_types::SqlState::INVALID_TEXT_REPRESENTATION, "{bad}");
        }
    }
}
