//! Ways into a json text: members of objects, elements of arrays, what a value is. Parts are slices of the text.

use millpond_types::SqlError;

use super::json::Reader;

/// The kinds of values, named as `jsonb_typeof` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Object,
    Array,
    String,
    Number,
    Boolean,
    Null,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::Null => "null",
        }
    }
}

pub(crate) fn kind(text: &str) -> Kind {
    match text.trim_start().as_bytes().first() {
        Some(b'{') => Kind::Object,
        Some(b'[') => Kind::Array,
        Some(b'"') => Kind::String,
        Some(b't' | b'f') => Kind::Boolean,
        Some(b'n') => Kind::Null,
        _ => Kind::Number,
    }
}

/// The members of an object: keys in quotes as they stand, and values. `None` if it is no object.
///
/// # Errors
/// 22P02 if the text is no JSON.
pub(crate) fn members(text: &str) -> Result<Option<Vec<(&str, &str)>>, SqlError> {
    if kind(text) != Kind::Object {
        return Ok(None);
    }
    let mut members = Vec::new();
    let mut reader = Reader { text, at: 0 };
    reader.expect(b'{')?;
    reader.space();
    while reader.peek() != Some(b'}') {
        let key = reader.part()?;
        reader.expect(b':')?;
        members.push((key, reader.part()?));
        reader.space();
        if reader.peek() != Some(b'}') {
            reader.expect(b',')?;
        }
    }
    Ok(Some(members))
}

/// The elements of an array; `None` if it is no array.
///
/// # Errors
/// 22P02 if the text is no JSON.
pub(crate) fn elements(text: &str) -> Result<Option<Vec<&str>>, SqlError> {
    if kind(text) != Kind::Array {
        return Ok(None);
    }
    let mut elements = Vec::new();
    let mut reader = Reader { text, at: 0 };
    reader.expect(b'[')?;
    reader.space();
    while reader.peek() != Some(b']') {
        elements.push(reader.part()?);
        reader.space();
        if reader.peek() != Some(b']') {
            reader.expect(b',')?;
        }
    }
    Ok(Some(elements))
}

/// The value of a key; the last one, if it stands there more than once.
///
/// # Errors
/// 22P02 if the text is no JSON.
pub(crate) fn field<'a>(text: &'a str, key: &str) -> Result<Option<&'a str>, SqlError> {
    let members = members(text)?.unwrap_or_default();
    Ok(members.into_iter().rev().find(|(quoted, _)| unquoted(quoted) == key).map(|(_, value)| value))
}

/// The element at a place, from the end if it is negative.
///
/// # Errors
/// 22P02 if the text is no JSON.
pub(crate) fn element(text: &str, place: i64) -> Result<Option<&str>, SqlError> {
    let elements = elements(text)?.unwrap_or_default();
    let place = if place < 0 { place + elements.len() as i64 } else { place };
    Ok(usize::try_from(place).ok().and_then(|place| elements.get(place).copied()))
}

/// What is found along a path of keys and places.
///
/// # Errors
/// 22P02 if the text is no JSON.
pub(crate) fn along<'a>(text: &'a str, path: &[Option<&str>]) -> Result<Option<&'a str>, SqlError> {
    let mut at = text;
    for step in path {
        let Some(step) = step else { return Ok(None) };
        let next = match kind(at) {
            Kind::Object => field(at, step)?,
            Kind::Array => match step.trim().parse() {
                Ok(place) => element(at, place)?,
                Err(_) => None,
            },
            _ => None,
        };
        match next {
            Some(value) => at = value,
            None => return Ok(None),
        }
    }
    Ok(Some(at))
}

/// A value as `->>` gives it: strings without quotes and escapes, null as NULL.
pub(crate) fn as_text(value: &str) -> Option<String> {
    match kind(value) {
        Kind::Null => None,
        Kind::String => Some(unquoted(value)),
        _ => Some(value.trim().to_owned()),
    }
}

/// The text in a string of a valid JSON text.
pub(crate) fn unquoted(string: &str) -> String {
    let inner = string.trim();
    let inner = inner.strip_prefix('"').and_then(|s| s.strip_suffix('"')).unwrap_or(inner);
    let mut out = String::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let unit =
            |from: usize| rest.get(at + from..at + from + 4).and_then(|d| u32::from_str_radix(d, 16).ok());
        let taken = match rest.as_bytes().get(at + 1) {
            Some(b'n') => (Some('\n'), 2),
            Some(b't') => (Some('\t'), 2),
            Some(b'r') => (Some('\r'), 2),
            Some(b'b') => (Some('\u{8}'), 2),
            Some(b'f') => (Some('\u{c}'), 2),
            Some(b'u') => match (unit(2), unit(8)) {
                (Some(high @ 0xd800..=0xdbff), Some(low @ 0xdc00..=0xdfff)) => {
                    (char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)), 12)
                }
                (Some(one), _) => (char::from_u32(one), 6),
                (None, _) => (None, 2),
            },
            Some(other) => (Some(char::from(*other)), 2),
            None => (None, 1),
        };
        out.extend(taken.0);
        rest = rest.get(at + taken.1..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

/// A text as a JSON string.
pub(crate) fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Whether `left` contains `right` (PostgreSQL 15, chapter 8.14.3): objects by their members, arrays by their elements in any
/// order; an array also contains a scalar at the outermost level.
///
/// # Errors
/// 22P02 if a text is no JSON.
pub(crate) fn contains(left: &str, right: &str) -> Result<bool, SqlError> {
    if kind(left) == Kind::Array && !matches!(kind(right), Kind::Array | Kind::Object) {
        return any(elements(left)?.unwrap_or_default(), |element| holds(element, right));
    }
    holds(left, right)
}

fn holds(left: &str, right: &str) -> Result<bool, SqlError> {
    match (kind(left), kind(right)) {
        (Kind::Object, Kind::Object) => {
            for (key, value) in members(right)?.unwrap_or_default() {
                let found = match field(left, &unquoted(key))? {
                    Some(mine) => holds(mine, value)?,
                    None => false,
                };
                if !found {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        (Kind::Array, Kind::Array) => {
            let mine = elements(left)?.unwrap_or_default();
            for wanted in elements(right)?.unwrap_or_default() {
                if !any(mine.clone(), |element| holds(element, wanted))? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        (Kind::Number, Kind::Number) => Ok(same_number(left, right)),
        (a, b) if a == b => Ok(match a {
            Kind::String => unquoted(left) == unquoted(right),
            _ => left.trim() == right.trim(),
        }),
        _ => Ok(false),
    }
}

fn any<'a>(values: Vec<&'a str>, test: impl Fn(&'a str) -> Result<bool, SqlError>) -> Result<bool, SqlError> {
    for value in values {
        if test(value)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// `1` and `1.00`.
fn same_number(left: &str, right: &str) -> bool {
    let plain = |text: &str| {
        let text = text.trim();
        match text.contains('.') && !text.contains(['e', 'E']) {
            true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
            false => text.to_owned(),
        }
    };
    plain(left) == plain(right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found() {
        let text = r#"{"a": [1, {"b": "x\ny"}, null], "c": 1.50, "a b": {}}"#;
        assert_eq!(field(text, "c").unwrap(), Some("1.50"));
        assert_eq!(field(text, "a b").unwrap(), Some("{}"));
        assert_eq!(field(text, "z").unwrap(), None);
        assert_eq!(
            along(text, &[Some("a"), Some("1"), Some("b")]).unwrap().and_then(as_text),
            Some("x\ny".into())
        );
        assert_eq!(element("[1, 2, 3]", -1).unwrap(), Some("3"));
        assert_eq!(as_text("null"), None);
        assert_eq!(unquoted(r#""\ud83d\ude00\u0041\"""#), "😀A\"");
        assert!(field("{\"a\": }", "a").is_err());
        assert!(elements("[1 2]").is_err());
    }

    #[test]
    fn containment_is_that_of_postgresql() {
        for (left, right, is) in [
            ("[1, 2, 3]", "[1, 3]", true),
            ("[1, 2, 3]", "[3, 1, 1]", true),
            ("[1, 2, [1, 3]]", "[1, 3]", false),
            ("[1, 2, [1, 3]]", "[[1, 3]]", true),
            (r#"{"foo": {"bar": "baz"}}"#, r#"{"bar": "baz"}"#, false),
            (r#"{"foo": {"bar": "baz", "n": 1}}"#, r#"{"foo": {"bar": "baz"}}"#, true),
            (r#"["foo", "bar"]"#, r#""bar""#, true),
            (r#""bar""#, r#"["bar"]"#, false),
            ("1.0", "1.00", true),
            ("{}", "{}", true),
        ] {
            assert_eq!(contains(left, right).unwrap(), is, "{left} @> {right}");
        }
    }
}
