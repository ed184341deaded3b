//! format(), and values in the quotes of SQL (PostgreSQL 15, chapters 9.4 and 9.4.1).

use std::iter::Peekable;
use std::str::Chars;

use arrow::array::*;
use millpond_types::keyword::{quote_identifier, quote_literal};
use millpond_types::{SqlError, SqlState, SqlType};

use super::text::{anything, formatters};
use super::{Function, Kind, Texts, texts};
use crate::kernel::Side;
use crate::text::Formatter;

pub(crate) fn functions() -> Vec<Function> {
    let quote = |name, kernel| {
        // What is no text is cast to it.
        Function::new(
            name,
            Kind::Immutable,
            |types| (types.len() == 1).then(|| vec![SqlType::Text]),
            |_| SqlType::Text,
            kernel,
        )
    };
    vec![
        quote("quote_literal", |sides, _| quoted(sides, None)),
        quote("quote_nullable", |sides, _| quoted(sides, Some("NULL"))),
        Function::new("format", Kind::Immutable, format_arguments, |_| SqlType::Text, format),
    ]
}

fn quoted(sides: &[Side], null: Option<&str>) -> Result<ArrayRef, SqlError> {
    let values = Texts::of(&sides[0]);
    texts(sides, |row, out| match (values.get(row), null) {
        (Some(value), _) => {
            out.push_str(&quote_literal(value));
            Ok(true)
        }
        (None, Some(null)) => {
            out.push_str(null);
            Ok(true)
        }
        (None, None) => Ok(false),
    })
}

/// A pattern, and values of any types.
fn format_arguments(types: &[SqlType]) -> Option<Vec<SqlType>> {
    let (_, values) = types.split_first()?;
    Some(std::iter::once(SqlType::Text).chain(anything(values)?).collect())
}

fn format(sides: &[Side], _: &SqlType) -> Result<ArrayRef, SqlError> {
    let patterns = Texts::of(&sides[0]);
    let formatters = formatters(&sides[1..])?;
    texts(sides, |row, out| {
        let Some(pattern) = patterns.get(row) else { return Ok(false) };
        let values = Values { sides: &sides[1..], formatters: &formatters, row };
        write(pattern, &values, out).map(|()| true)
    })
}

/// The values of one row.
struct Values<'a> {
    sides: &'a [Side],
    formatters: &'a [Formatter],
    row: usize,
}

impl Values<'_> {
    /// From 1.
    fn text(&self, number: usize) -> Result<Option<String>, SqlError> {
        let at = number.checked_sub(1).filter(|at| *at < self.sides.len());
        let at = at.ok_or_else(|| wrong("too few arguments for format()"))?;
        Ok(self.formatters[at].text(if self.sides[at].constant { 0 } else { self.row }))
    }
}

fn wrong(message: impl Into<String>) -> SqlError {
    SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message)
}

fn unterminated() -> SqlError {
    wrong("unterminated format() type specifier").hint("For a single \"%\" use \"%%\".")
}

fn number(characters: &mut Peekable<Chars<'_>>) -> Result<Option<usize>, SqlError> {
    let mut digits = String::new();
    while let Some(digit) = characters.next_if(char::is_ascii_digit) {
        digits.push(digit);
    }
    match digits.is_empty() {
        true => Ok(None),
        false => match digits.parse::<i32>() {
            Ok(number) => Ok(Some(number as usize)),
            Err(_) => Err(wrong("number is out of range")),
        },
    }
}

/// `n$`, which is taken only as a whole.
fn position(characters: &mut Peekable<Chars<'_>>) -> Result<Option<usize>, SqlError> {
    let mut ahead = characters.clone();
    let Some(at) = number(&mut ahead)? else { return Ok(None) };
    if ahead.next_if_eq(&'$').is_none() {
        return Ok(None);
    }
    if at == 0 {
        return Err(wrong("format specifies argument 0, but arguments are numbered from 1"));
    }
    *characters = ahead;
    Ok(Some(at))
}

/// `%[position$][-][width]type`; the width may be an argument, too.
fn write(pattern: &str, values: &Values<'_>, out: &mut String) -> Result<(), SqlError> {
    let mut characters = pattern.chars().peekable();
    let mut last = 0;
    while let Some(c) = characters.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        if characters.peek().is_none() {
            return Err(unterminated());
        }
        if characters.next_if_eq(&'%').is_some() {
            out.push('%');
            continue;
        }
        let place = position(&mut characters)?;
        let mut left = false;
        while characters.next_if_eq(&'-').is_some() {
            left = true;
        }
        let mut width = 0;
        if characters.next_if_eq(&'*').is_some() {
            let at = position(&mut characters)?.unwrap_or(last + 1);
            last = at;
            if let Some(given) = values.text(at)? {
                let given: i32 = given.trim().parse().map_err(|_| {
                    SqlError::new(
                        SqlState::INVALID_TEXT_REPRESENTATION,
                        format!("invalid input syntax for type integer: \"{given}\""),
                    )
                })?;
                left |= given < 0;
                width = given.unsigned_abs() as usize;
            }
        } else if let Some(given) = number(&mut characters)? {
            width = given;
        }
        let kind = characters.next().ok_or_else(unterminated)?;
        if !matches!(kind, 's' | 'I' | 'L') {
            let text = format!("unrecognized format() type specifier \"{kind}\"");
            return Err(wrong(text).hint("For a single \"%\" use \"%%\"."));
        }
        let at = place.unwrap_or(last + 1);
        last = at;
        let text = match (kind, values.text(at)?) {
            ('s', value) => value.unwrap_or_default(),
            ('L', value) => value.map_or_else(|| "NULL".to_owned(), |value| quote_literal(&value)),
            (_, Some(value)) => quote_identifier(&value),
            (_, None) => {
                let text = "null values cannot be formatted as an SQL identifier";
                return Err(SqlError::new(SqlState::new("22004"), text));
            }
        };
        let padding = width.saturating_sub(text.chars().count());
        if out.len().saturating_add(padding).saturating_add(text.len()) > i32::MAX as usize {
            return Err(crate::text::too_long());
        }
        if !left {
            out.extend(std::iter::repeat_n(' ', padding));
        }
        out.push_str(&text);
        if left {
            out.extend(std::iter::repeat_n(' ', padding));
        }
    }
    Ok(())
}
