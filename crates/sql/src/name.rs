//! Names as PostgreSQL folds, quotes and compares them.

use std::fmt;

pub(crate) use millpond_types::keyword::is_reserved;
pub use millpond_types::keyword::{quote_identifier, quote_literal};
use millpond_types::{SqlError, SqlState};
use sqlparser::ast;
use sqlparser::ast::Spanned;

use crate::position_of;

/// PostgreSQL's NAMEDATALEN - 1.
const NAME_BYTES_MAX: usize = 63;

/// A relation as it was named: perhaps with its schema, folded, with its place. A database in front is dropped: there is
/// one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelationName {
    pub schema: Option<String>,
    pub name: String,
    /// In characters from 1; 0 when the name came from no text.
    pub position: usize,
}

impl RelationName {
    /// A name without a place, for callers that made it themselves.
    pub fn new(schema: Option<&str>, name: &str) -> Self {
        Self { schema: schema.map(str::to_owned), name: name.to_owned(), position: 0 }
    }

    /// # Errors
    /// 42601 for more than three parts or a part that is not a name.
    pub fn from_ast(name: &ast::ObjectName) -> Result<Self, SqlError> {
        let position = position_of(name.span()).unwrap_or(0);
        let parts = name.0.iter().map(|part| part.as_ident().map(fold)).collect::<Option<Vec<_>>>();
        let error = || SqlError::new(SqlState::SYNTAX_ERROR, format!("improper relation name: {name}"));
        Self::from_parts(parts.ok_or_else(error)?, position)
    }

    /// From folded parts: `[database.][schema.]name`.
    pub(crate) fn from_parts(mut parts: Vec<String>, position: usize) -> Result<Self, SqlError> {
        let written = parts.join(".");
        let too_many = format!("improper qualified name (too many dotted names): {written}");
        let name = parts.pop().filter(|_| parts.len() <= 2);
        let Some(name) = name else {
            return Err(SqlError::new(SqlState::SYNTAX_ERROR, too_many).at(position));
        };
        Ok(Self { schema: parts.pop(), name, position })
    }

    /// An error about this name: at its place, if it has one.
    pub fn mark(&self, error: SqlError) -> SqlError {
        if self.position > 0 { error.at(self.position) } else { error }
    }
}

/// Quoted where needed: `s."T"`.
impl fmt::Display for RelationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{}.", quote_identifier(schema))?;
        }
        f.write_str(&quote_identifier(&self.name))
    }
}

/// An identifier as PostgreSQL keeps it: lower case unless quoted, at most 63 bytes.
pub fn fold(identifier: &ast::Ident) -> String {
    fold_word(&identifier.value, identifier.quote_style.is_some())
}

pub(crate) fn fold_word(word: &str, quoted: bool) -> String {
    // Only ASCII: so does PostgreSQL in a multi-byte encoding.
    let mut name = if quoted { word.to_owned() } else { word.to_ascii_lowercase() };
    name.truncate((0..=NAME_BYTES_MAX).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0));
    name
}

/// The name among `known` that a user most likely meant by `name`: few letters apart, else `None`.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted: Vec<char> = name.chars().flat_map(char::to_lowercase).take(NAME_BYTES_MAX).collect();
    let scored = known.into_iter().filter_map(|candidate| {
        let letters: Vec<char> =
            candidate.chars().flat_map(char::to_lowercase).take(NAME_BYTES_MAX).collect();
        let distance = edit_distance(&wanted, &letters);
        // A third of the letters may differ, and never all.
        let allowed = (wanted.len().max(letters.len()) / 3).max(1);
        (distance <= allowed && distance < wanted.len().max(letters.len())).then_some((distance, candidate))
    });
    scored.min().map(|(_, candidate)| candidate)
}

/// Letters to insert, delete, replace or swap with a neighbour (optimal string alignment).
fn edit_distance(a: &[char], b: &[char]) -> usize {
    let mut before_last = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before_last[j - 2] + 1);
            }
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_misses_are_found_and_strangers_are_not() {
        let known = ["partitions", "retention", "retention_bytes", "idle_timeout"];
        for (name, expected) in [
            ("partition", Some("partitions")),
            ("retension", Some("retention")),
            ("Retention", Some("retention")),
            ("idel_timeout", Some("idle_timeout")),
            ("connector", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, known), expected, "{name}");
        }
        assert_eq!(nearest("tt", ["t1", "ab"]), Some("t1"));
    }

    #[test]
    fn identifiers_are_quoted_as_quote_ident_does() {
        for (name, quoted) in [
            ("a", "a"),
            ("_a1", "_a1"),
            ("A", "\"A\""),
            ("1a", "\"1a\""),
            ("a b", "\"a b\""),
            ("a\"b", "\"a\"\"b\""),
            ("select", "\"select\""),
            ("timestamp", "\"timestamp\""),
            ("text", "text"),
            ("", "\"\""),
        ] {
            assert_eq!(quote_identifier(name), quoted);
        }
        assert_eq!(quote_literal("it's"), "'it''s'");
        assert_eq!(quote_literal("a\\b"), "E'a\\\\b'");
    }

    #[test]
    fn long_names_are_cut_at_a_character() {
        assert_eq!(fold_word(&"Ä".repeat(40), false).len(), 62);
        assert_eq!(fold_word(&"A".repeat(80), false), "a".repeat(63));
        assert_eq!(fold_word("ÄB", false), "Äb");
    }
}
