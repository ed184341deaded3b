//! DataFusion's messages, recognized by their words.

use millpond_types::{SqlError, SqlState};

use super::{arrow_type_name, no_function_named};
use crate::text::number::invalid;

/// The part of a message that is meant for people.
pub(super) fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default().trim().trim_end_matches('.');
    let mut characters = line.chars();
    match characters.next() {
        Some(first) => first.to_lowercase().chain(characters).collect(),
        None => "unknown error".to_owned(),
    }
}

pub(super) fn not_implemented(text: &str) -> String {
    let line = first_line(text);
    if line.contains("not supported") || line.contains("not implemented") || line.contains("unsupported") {
        line
    } else {
        format!("not supported: {line}")
    }
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let rest = &text[text.find(before)? + before.len()..];
    rest.find(after).map(|end| &rest[..end])
}

/// `sql parser error: Expected: an expression, found: FROM at Line: 1, Column: 8`
pub(super) fn syntax(text: &str) -> SqlError {
    let text = text.trim_start_matches("sql parser error: ");
    if text.contains("recursion limit") {
        return SqlError::new(SqlState::STATEMENT_TOO_COMPLEX, "the statement nests too deep");
    }
    let found = text.split("found: ").nth(1).map(|rest| rest.split(" at Line").next().unwrap_or(rest).trim());
    match found {
        Some("EOF") => SqlError::new(SqlState::SYNTAX_ERROR, "syntax error at end of input"),
        Some(token) => SqlError::new(SqlState::SYNTAX_ERROR, format!("syntax error at or near \"{token}\"")),
        None => SqlError::new(SqlState::SYNTAX_ERROR, format!("syntax error: {}", first_line(text))),
    }
}

pub(super) fn parser_place(text: &str) -> Option<(u64, u64)> {
    let line = between(text, "Line: ", ",")?.parse().ok()?;
    let column = text.rsplit("Column: ").next()?;
    let digits: String = column.chars().take_while(char::is_ascii_digit).collect();
    Some((line, digits.parse().ok()?))
}

pub(super) fn plan(text: &str) -> SqlError {
    if let Some(name) = between(text, "Invalid function '", "'") {
        let error = SqlError::new(SqlState::UNDEFINED_FUNCTION, format!("function {name} does not exist"));
        return match between(text, "Did you mean '", "'") {
            Some(near) => error.hint(format!("Perhaps you meant the function \"{near}\".")),
            None => error,
        };
    }
    if let Some(call) =
        between(text, "No function matches the given name and argument types '", "'. You might")
        && let Some((name, types)) = call.split_once('(')
    {
        let types = types.strip_suffix(')').unwrap_or(types);
        return no_function_named(name, &shown_types(types));
    }
    let table = between(text, "table '", "' not found").or_else(|| text.strip_prefix("Table not found: "));
    if let Some(name) = table {
        let name = name.rsplit('.').next().unwrap_or(name);
        return SqlError::new(SqlState::UNDEFINED_TABLE, format!("relation \"{name}\" does not exist"));
    }
    if let Some(operands) = between(text, "Cannot coerce arithmetic expression ", " to valid types")
        .or_else(|| after(text, "Cannot infer common argument type for comparison operation "))
        .or_else(|| after(text, "Cannot infer common string type for string concat operation "))
        .or_else(|| after(text, "Cannot infer common argument type for logical boolean operation "))
        .or_else(|| after(text, "Cannot infer common argument type for regex operation "))
    {
        let shown: Vec<String> = operands.split(' ').map(shown_type).collect();
        let message = format!("operator does not exist: {}", shown.join(" "));
        return SqlError::new(SqlState::UNDEFINED_FUNCTION, message).hint(
            "No operator matches the given name and argument types. You might need to add explicit type casts.",
        );
    }
    let (state, message) = match text {
        t if t.contains("must appear in the GROUP BY clause")
            || t.contains("could not be resolved from available") =>
        {
            let column =
                between(text, "Column in ", " must").or_else(|| between(text, "Expression ", " could not"));
            let column = column.unwrap_or("a column").trim_matches('"').replace("SELECT ", "");
            let message = format!(
                "column \"{column}\" must appear in the GROUP BY clause or be used in an aggregate function"
            );
            (SqlState::GROUPING_ERROR, message)
        }
        t if t.contains("Aggregate function calls cannot be nested") => {
            (SqlState::GROUPING_ERROR, "aggregate function calls cannot be nested".to_owned())
        }
        t if t.contains("Window function calls cannot be nested") => {
            (SqlState::WINDOWING_ERROR, "window function calls cannot be nested".to_owned())
        }
        t if t.contains("queries have different number of columns") => {
            let kind = text.split(' ').next().unwrap_or("UNION");
            (SqlState::SYNTAX_ERROR, format!("each {kind} query must have the same number of columns"))
        }
        t if t.contains("only return one column") || t.contains("exactly one column") => {
            (SqlState::SYNTAX_ERROR, "subquery must return only one column".to_owned())
        }
        t if t.contains("require unique expression names") => {
            (SqlState::DUPLICATE_COLUMN, "two columns of a query have the same name".to_owned())
        }
        t if t.contains("Unsupported CAST from") => {
            let types: Vec<String> =
                after(t, "Unsupported CAST from ").unwrap_or("").split(" to ").map(shown_type).collect();
            (SqlState::CANNOT_COERCE, format!("cannot cast type {}", types.join(" to ")))
        }
        t if t.contains("Cannot create filter with non-boolean predicate") => {
            (SqlState::DATATYPE_MISMATCH, "argument of WHERE must be type boolean".to_owned())
        }
        t if t.contains("coerce") || t.contains("type mismatch") || t.contains("Cannot infer common") => {
            (SqlState::DATATYPE_MISMATCH, first_line(text))
        }
        t if t.contains("requires") || t.contains("expects") || t.contains("cannot be used with") => {
            (SqlState::DATATYPE_MISMATCH, first_line(text))
        }
        t if t.contains("not supported") || t.contains("unsupported") || t.contains("Unsupported") => {
            return SqlError::unsupported(first_line(text));
        }
        _ => return SqlError::internal(format!("could not plan the statement: {}", first_line(text))),
    };
    SqlError::new(state, message)
}

fn after<'a>(text: &'a str, before: &str) -> Option<&'a str> {
    text.find(before).map(|at| text[at + before.len()..].lines().next().unwrap_or_default())
}

/// `Int64, Utf8` as `bigint, text`.
fn shown_types(types: &str) -> String {
    types.split(", ").map(shown_type).collect::<Vec<_>>().join(", ")
}

/// One word of a message: a type's SQL name, or the word itself.
fn shown_type(word: &str) -> String {
    let word = word.trim().trim_end_matches('.');
    match word {
        "Null" => "unknown".to_owned(),
        "Utf8View" => "text".to_owned(),
        _ => match word.parse() {
            Ok(ty) => arrow_type_name(&ty),
            Err(_) => word.to_owned(),
        },
    }
}

/// Text of a function that refused its arguments while it ran.
pub(super) fn execution(text: &str) -> SqlError {
    if text.contains("more than one row") {
        let message = "more than one row returned by a subquery used as an expression";
        return SqlError::new(SqlState::CARDINALITY_VIOLATION, message);
    }
    if text.contains("ivide by zero") || text.contains("ivision by zero") {
        return crate::operator::division_by_zero();
    }
    if text.contains("verflow") || text.contains("out of range") {
        return SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "value out of range: overflow");
    }
    if text.contains("Regular expression") || text.contains("regex") {
        let message = format!("invalid regular expression: {}", first_line(text));
        return SqlError::new(SqlState::new("2201B"), message);
    }
    SqlError::new(SqlState::INVALID_PARAMETER_VALUE, first_line(text))
}

/// `Cannot cast string 'x' to value of Int32 type`
pub(super) fn cast(text: &str) -> SqlError {
    match (between(text, "string '", "'"), between(text, "value of ", " type")) {
        (Some(value), Some(ty)) => invalid(&shown_type(ty), value),
        _ if text.contains("out of range") || text.contains("verflow") || text.contains("too large") => {
            SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "value out of range")
        }
        _ => SqlError::new(SqlState::INVALID_TEXT_REPRESENTATION, first_line(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_datafusion_have_codes() {
        for (text, expected) in [
            ("Invalid function 'flor'.\nDid you mean 'floor'?", "42883 function flor does not exist"),
            (
                "Error. No function matches the given name and argument types 'round(Float64, Utf8)'. You might need",
                "42883 function round(double precision, text) does not exist",
            ),
            ("table 'millpond.public.nope' not found", "42P01 relation \"nope\" does not exist"),
            (
                "Cannot infer common argument type for comparison operation Utf8 > Int64",
                "42883 operator does not exist: text > bigint",
            ),
            (
                "UNION queries have different number of columns",
                "42601 each UNION query must have the same number of columns",
            ),
        ] {
            let error = plan(text);
            assert_eq!(format!("{} {}", error.state(), error.message()), expected);
        }
        assert_eq!(
            syntax("sql parser error: Expected: an expression, found: FROM at Line: 1, Column: 8").message(),
            "syntax error at or near \"FROM\""
        );
        assert_eq!(parser_place("Expected: x, found: y at Line: 2, Column: 18"), Some((2, 18)));
    }
}
