//! Small functions over texts and arrays that catalog queries lean on.

use millpond_sql::{quote_identifier, quote_literal};
use millpond_types::{SqlError, SqlState, SqlType};

use super::super::cell::Cell;
use super::super::facts::Facts;
use super::{Function, lenient, strict};

pub(super) fn functions() -> Vec<Function> {
    let text = || SqlType::Text;
    vec![
        strict("quote_ident", text(), 1..=1, |_, a| Ok(a[0].shown().map(|t| quote_identifier(&t)).into())),
        strict("quote_literal", text(), 1..=1, |_, a| Ok(a[0].shown().map(|t| quote_literal(&t)).into())),
        lenient("quote_nullable", text(), 1..=1, |_, a| {
            Ok(a[0].shown().map_or_else(|| "NULL".to_owned(), |t| quote_literal(&t)).into())
        }),
        lenient("format", text(), 1..=usize::MAX, format),
        strict("array_upper", SqlType::Int4, 2..=2, |_, a| Ok(bound(&a[0], &a[1], |n| n as i64).into())),
        strict("array_lower", SqlType::Int4, 2..=2, |_, a| Ok(bound(&a[0], &a[1], |_| 1).into())),
        // generate_subscripts returns these as rows.
        strict("array_subscripts", SqlType::Array(Box::new(SqlType::Int4)), 2..=2, |_, a| {
            let subscripts =
                bound(&a[0], &a[1], |n| n as i64).map_or(Vec::new(), |n| (1..=n).collect::<Vec<_>>());
            Ok(subscripts.into())
        }),
        lenient("json_build_object", SqlType::Json, 0..=usize::MAX, json_build_object),
        lenient("jsonb_build_object", SqlType::Jsonb, 0..=usize::MAX, json_build_object),
        // The text of ARRAY(SELECT ...) over no rows is an empty array, where array_agg has NULL.
        lenient("text_array_or_empty", SqlType::Array(Box::new(SqlType::Text)), 1..=1, |_, a| match &a[0] {
            Cell::List(cells) => Ok(Cell::List(cells.clone())),
            _ => Ok(Cell::List(Vec::new())),
        }),
    ]
}

fn bound(array: &Cell, dimension: &Cell, of: fn(usize) -> i64) -> Option<i64> {
    match array {
        Cell::List(cells) if !cells.is_empty() && dimension.int() == Some(1) => Some(of(cells.len())),
        _ => None,
    }
}

/// `%s`, `%I`, `%L` and `%%`, with positions such as `%2$s`.
fn format(_: &Facts, arguments: &[Cell]) -> Result<Cell, SqlError> {
    let Some(template) = arguments[0].text() else { return Ok(Cell::Null) };
    let bad = |message: &str| SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message);
    let (mut out, mut next) = (String::new(), 1);
    let mut characters = template.chars().peekable();
    while let Some(c) = characters.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut digits = String::new();
        while let Some(d) = characters.next_if(char::is_ascii_digit) {
            digits.push(d);
        }
        if characters.next_if_eq(&'$').is_some() {
            next = digits.parse().map_err(|_| bad("number is out of range"))?;
        }
        let specifier = characters.next().ok_or_else(|| bad("unterminated format() type specifier"))?;
        if specifier == '%' {
            out.push('%');
            continue;
        }
        let argument = arguments.get(next).ok_or_else(|| bad("too few arguments for format()"))?;
        next += 1;
        match (specifier, argument.shown()) {
            ('s', value) => out.push_str(&value.unwrap_or_default()),
            ('I', Some(value)) => out.push_str(&quote_identifier(&value)),
            ('I', None) => {
                let text = "null values cannot be formatted as an SQL identifier";
                return Err(SqlError::new(SqlState::new("22004"), text));
            }
            ('L', value) => {
                out.push_str(&value.map_or_else(|| "NULL".to_owned(), |v| quote_literal(&v)));
            }
            (other, _) => return Err(bad(&format!("unrecognized format() type specifier \"{other}\""))),
        }
    }
    Ok(out.into())
}

/// # Errors
/// 0A000 for types whose JSON form is not that of their text: dates and the like.
fn json(cell: &Cell) -> Result<String, SqlError> {
    Ok(match cell {
        Cell::Null => "null".to_owned(),
        Cell::Bool(b) => b.to_string(),
        Cell::Int(i) => i.to_string(),
        Cell::Float(f) => f.to_string(),
        Cell::Number(text) => text.clone(),
        Cell::Text(text) => serde_json::Value::from(text.as_str()).to_string(),
        Cell::Other(_) => {
            return Err(SqlError::unsupported("json_build_object() of this type is not supported")
                .hint("Cast the value to text."));
        }
        Cell::List(cells) => {
            let elements: Vec<String> = cells.iter().map(json).collect::<Result<_, _>>()?;
            format!("[{}]", elements.join(","))
        }
    })
}

fn json_build_object(_: &Facts, arguments: &[Cell]) -> Result<Cell, SqlError> {
    if arguments.len() % 2 == 1 {
        return Err(SqlError::new(
            SqlState::INVALID_PARAMETER_VALUE,
            "argument list must have even number of elements",
        ));
    }
    let mut members = Vec::new();
    for pair in arguments.chunks_exact(2) {
        let key = pair[0].shown().ok_or_else(|| {
            SqlError::new(
                SqlState::INVALID_PARAMETER_VALUE,
                "argument of json_build_object() must not be null",
            )
        })?;
        members.push(format!("{} : {}", json(&key.into())?, json(&pair[1])?));
    }
    Ok(format!("{{{}}}", members.join(", ")).into())
}
