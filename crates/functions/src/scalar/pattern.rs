//! Patterns: SIMILAR TO as a regular expression, and texts split by one (PostgreSQL 15, chapter 9.7).

use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::DataType;
use millpond_types::{SqlError, SqlState, SqlType};
use regex::{Regex, RegexBuilder};

use super::{Function, Kind, Texts, assignable, rows, texts};
use crate::kernel::Side;

pub(crate) fn functions() -> Vec<Function> {
    vec![
        Function::new("similar_to_escape", Kind::Immutable, some_texts(1, 2), |_| SqlType::Text, similar),
        Function::new(
            "regexp_split_to_array",
            Kind::Immutable,
            some_texts(2, 3),
            |_| SqlType::Array(Box::new(SqlType::Text)),
            |sides, _| split_by(sides, "regexp_split_to_array"),
        ),
    ]
}

fn some_texts(
    least: usize,
    most: usize,
) -> impl Fn(&[SqlType]) -> Option<Vec<SqlType>> + Send + Sync + 'static {
    move |types| {
        let fits =
            (least..=most).contains(&types.len()) && types.iter().all(|ty| assignable(ty, &SqlType::Text));
        fits.then(|| vec![SqlType::Text; types.len()])
    }
}

/// A pattern of SQL as a regular expression over the whole text: `%` and `_` are any characters, what regular expressions
/// call by other signs loses its meaning, and the character after the escape loses it, too.
fn similar(sides: &[Side], _: &SqlType) -> Result<ArrayRef, SqlError> {
    let patterns = Texts::of(&sides[0]);
    let escapes = sides.get(1).map(Texts::of);
    texts(sides, |row, out| {
        let Some(pattern) = patterns.get(row) else { return Ok(false) };
        let escape = match &escapes {
            None => Some('\\'),
            Some(escapes) => {
                let Some(escape) = escapes.get(row) else { return Ok(false) };
                let mut characters = escape.chars();
                let first = characters.next();
                if characters.next().is_some() {
                    return Err(SqlError::new(SqlState::new("22019"), "invalid escape string")
                        .hint("Escape string must be empty or one character."));
                }
                first
            }
        };
        as_regular_expression(pattern, escape, out);
        Ok(true)
    })
}

fn as_regular_expression(pattern: &str, escape: Option<char>, out: &mut String) {
    out.push_str("(?s)^(?:");
    let mut in_brackets = false;
    let mut characters = pattern.chars();
    while let Some(c) = characters.next() {
        match c {
            c if Some(c) == escape => {
                if let Some(next) = characters.next() {
                    out.push_str(&regex::escape(next.encode_utf8(&mut [0; 4])));
                }
            }
            '[' => {
                in_brackets = true;
                out.push('[');
            }
            ']' => {
                in_brackets = false;
                out.push(']');
            }
            '\\' => out.push_str("\\\\"),
            c if in_brackets => out.push(c),
            '%' => out.push_str(".*"),
            '_' => out.push('.'),
            // Groups do not capture.
            '(' => out.push_str("(?:"),
            '.' | '^' | '$' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out.push_str(")$");
}

/// A regular expression and the flags that PostgreSQL gives letters to.
fn compile(pattern: &str, flags: &str, function: &str) -> Result<Regex, SqlError> {
    let mut builder = RegexBuilder::new(pattern);
    // As PostgreSQL's: a dot is any character, and patterns of any text stay small.
    builder.dot_matches_new_line(true).size_limit(1 << 24);
    for flag in flags.chars() {
        match flag {
            'i' => builder.case_insensitive(true),
            'c' => builder.case_insensitive(false),
            'n' | 'm' => builder.multi_line(true).dot_matches_new_line(false),
            's' => builder.dot_matches_new_line(true).multi_line(false),
            'x' => builder.ignore_whitespace(true),
            'g' => {
                let text = format!("{function}() does not support the \"global\" option");
                return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, text));
            }
            other => {
                let text = format!("invalid regular expression option: \"{other}\"");
                return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, text));
            }
        };
    }
    builder.build().map_err(|error| crate::error::regular_expression(&error.to_string()))
}

/// The last regular expression: it is mostly that of the next row, too.
#[derive(Default)]
pub(crate) struct Compiled {
    known: Option<(String, String, Regex)>,
}

impl Compiled {
    /// # Errors
    /// 2201B and 22023 for what is no pattern and no flag of `function`.
    pub(crate) fn get(&mut self, pattern: &str, flags: &str, function: &str) -> Result<&Regex, SqlError> {
        let known = self.known.take().filter(|(p, f, _)| p == pattern && f == flags);
        let known = match known {
            Some(known) => known,
            None => (pattern.to_owned(), flags.to_owned(), compile(pattern, flags, function)?),
        };
        Ok(&self.known.insert(known).2)
    }
}

/// The pieces between matches. An empty match splits where it stands, but not at the ends or right behind another match.
pub(crate) fn split_by(sides: &[Side], function: &str) -> Result<ArrayRef, SqlError> {
    let (values, patterns) = (Texts::of(&sides[0]), Texts::of(&sides[1]));
    let flags = sides.get(2).map(Texts::of);
    let mut lists = ListBuilder::new(StringBuilder::new());
    let mut compiled = Compiled::default();
    for row in 0..rows(sides) {
        let flags = flags.as_ref().map_or(Some(""), |flags| flags.get(row));
        let (Some(value), Some(pattern), Some(flags)) = (values.get(row), patterns.get(row), flags) else {
            lists.append_null();
            continue;
        };
        let regex = compiled.get(pattern, flags, function)?;
        let mut from = 0;
        for found in regex.find_iter(value) {
            if found.is_empty() && (found.start() == from || found.start() == value.len()) {
                continue;
            }
            lists.values().append_value(&value[from..found.start()]);
            from = found.end();
        }
        lists.values().append_value(&value[from..]);
        lists.append(true);
    }
    let DataType::List(field) = SqlType::Array(Box::new(SqlType::Text)).arrow() else {
        return Err(SqlError::internal("an array is a list"));
    };
    let (_, offsets, values, nulls) = lists.finish().into_parts();
    Ok(Arc::new(ListArray::try_new(field, offsets, values, nulls).map_err(crate::error::from_arrow)?))
}
