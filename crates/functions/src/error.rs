//! From a failure inside DataFusion or Arrow to what the user reads.
//!
//! Most errors of ours travel as [`SqlError`] inside `DataFusionError::External` and come out unchanged. DataFusion's own
//! are told apart by variant and, where it has only text, by the words of its messages; the tests plan real statements,
//! so that a DataFusion upgrade that words them differently shows.

mod message;

use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use datafusion::common::{Column, DataFusionError, SchemaError};
use millpond_types::{SqlError, SqlState, SqlType};

/// The [`SqlError`] that a DataFusion error carries inside, or the nearest that describes it; never internals.
pub fn from_datafusion(error: DataFusionError) -> SqlError {
    convert(&error)
}

/// As [`from_datafusion`], with the position in `sql` if DataFusion knows it.
pub fn from_datafusion_in(error: DataFusionError, sql: &str) -> SqlError {
    let found = convert(&error);
    match place(&error).and_then(|(line, column)| position(sql, line, column)) {
        Some(position) => found.at(position),
        None => found,
    }
}

/// As [`from_datafusion`].
pub fn from_arrow(error: ArrowError) -> SqlError {
    arrow(&error)
}

/// Carries a [`SqlError`] through DataFusion; [`from_datafusion`] takes it out unchanged.
pub fn into_datafusion(error: SqlError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// Carries a [`SqlError`] through Arrow.
pub fn into_arrow(error: SqlError) -> ArrowError {
    ArrowError::ExternalError(Box::new(error))
}

fn convert(error: &DataFusionError) -> SqlError {
    match error {
        DataFusionError::External(inner) => external(inner.as_ref()),
        DataFusionError::ArrowError(inner, _) => arrow(inner),
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => convert(inner),
        DataFusionError::Shared(inner) => convert(inner),
        DataFusionError::Collection(errors) => match errors.first() {
            Some(first) => convert(first),
            None => SqlError::internal("several errors occurred"),
        },
        DataFusionError::SchemaError(inner, _) => schema(inner),
        DataFusionError::SQL(inner, _) => message::syntax(&inner.to_string()),
        DataFusionError::Plan(text) => message::plan(text),
        DataFusionError::Execution(text) => message::execution(text),
        DataFusionError::Configuration(text) => {
            SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message::first_line(text))
        }
        DataFusionError::NotImplemented(text) => SqlError::unsupported(message::not_implemented(text)),
        DataFusionError::ResourcesExhausted(_) => SqlError::new(SqlState::OUT_OF_MEMORY, "out of memory")
            .detail("The statement needs more memory than the server's limit leaves for it.")
            .hint("Make the statement read or keep fewer rows, or raise --memory-limit."),
        DataFusionError::IoError(_) | DataFusionError::ObjectStore(_) => {
            SqlError::new(SqlState::IO_ERROR, "could not read or write a file")
        }
        _ => unexpected(error),
    }
}

/// What no user can do anything about: the cause goes to the server's log.
fn unexpected(error: &dyn std::fmt::Display) -> SqlError {
    let text = error.to_string();
    if text.contains("regex parse error") {
        return regular_expression(&text);
    }
    tracing::error!(%error, "internal error while a statement was planned or executed");
    SqlError::internal("internal error while the statement was planned or executed")
        .hint("The server's log has the cause. Please report it with the statement.")
}

/// Unwraps what was boxed, however often.
fn external(error: &(dyn std::error::Error + Send + Sync + 'static)) -> SqlError {
    if let Some(found) = error.downcast_ref::<SqlError>() {
        return found.clone();
    }
    if let Some(found) = error.downcast_ref::<DataFusionError>() {
        return convert(found);
    }
    if let Some(found) = error.downcast_ref::<ArrowError>() {
        return arrow(found);
    }
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(found) = inner.downcast_ref::<SqlError>() {
            return found.clone();
        }
        source = inner.source();
    }
    unexpected(&error)
}

/// A pattern that is none.
pub(crate) fn regular_expression(text: &str) -> SqlError {
    let why = text.lines().rev().find_map(|line| line.strip_prefix("error: ")).unwrap_or("it is too large");
    SqlError::new(SqlState::new("2201B"), format!("invalid regular expression: {why}"))
}

fn arrow(error: &ArrowError) -> SqlError {
    match error {
        ArrowError::ExternalError(inner) => external(inner.as_ref()),
        ArrowError::DivideByZero => crate::operator::division_by_zero(),
        ArrowError::ArithmeticOverflow(_) => {
            SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "value out of range: overflow")
        }
        ArrowError::OffsetOverflowError(_) => crate::text::too_long(),
        ArrowError::NotYetImplemented(text) => SqlError::unsupported(message::not_implemented(text)),
        ArrowError::CastError(text) | ArrowError::ParseError(text) => message::cast(text),
        ArrowError::ComputeError(text) | ArrowError::InvalidArgumentError(text) => message::execution(text),
        ArrowError::IoError(..) => SqlError::new(SqlState::IO_ERROR, "could not read or write a file"),
        _ => unexpected(error),
    }
}

fn schema(error: &SchemaError) -> SqlError {
    match error {
        SchemaError::AmbiguousReference { field } => SqlError::new(
            SqlState::AMBIGUOUS_COLUMN,
            format!("column reference \"{}\" is ambiguous", field.name),
        )
        .hint("Qualify the column with its table."),
        SchemaError::FieldNotFound { field, valid_fields } => undefined_column(field, valid_fields),
        SchemaError::DuplicateQualifiedField { name, .. }
        | SchemaError::DuplicateUnqualifiedField { name } => SqlError::new(
            SqlState::DUPLICATE_COLUMN,
            format!("column name \"{name}\" appears more than once"),
        )
        .hint("Give one of them another name with AS."),
    }
}

fn undefined_column(field: &Column, valid: &[Column]) -> SqlError {
    let table = field.relation.as_ref().map(|relation| relation.table());
    if let Some(table) = table
        && !valid.iter().any(|c| c.relation.as_ref().is_some_and(|r| r.table() == table))
        && !valid.is_empty()
    {
        let message = format!("missing FROM-clause entry for table \"{table}\"");
        return SqlError::new(SqlState::UNDEFINED_TABLE, message);
    }
    let shown = match table {
        Some(table) => format!("column {table}.{} does not exist", field.name),
        None => format!("column \"{}\" does not exist", field.name),
    };
    let error = SqlError::new(SqlState::UNDEFINED_COLUMN, shown);
    let near = valid
        .iter()
        .map(|c| (distance(&c.name.to_lowercase(), &field.name.to_lowercase()), c))
        .filter(|(d, c)| *d <= (c.name.len().max(field.name.len()) / 2).min(3))
        .min_by_key(|(d, _)| *d);
    match near {
        Some((_, column)) => {
            let near = match &column.relation {
                Some(relation) => format!("{}.{}", relation.table(), column.name),
                None => column.name.clone(),
            };
            error.hint(format!("Perhaps you meant to reference the column \"{near}\"."))
        }
        None => error,
    }
}

/// Levenshtein's.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

/// Line and column (from 1) where DataFusion saw the fault.
fn place(error: &DataFusionError) -> Option<(u64, u64)> {
    match error {
        DataFusionError::Diagnostic(diagnostic, inner) => {
            diagnostic.span.map(|s| (s.start.line, s.start.column)).or_else(|| place(inner))
        }
        DataFusionError::Context(_, inner) => place(inner),
        DataFusionError::Shared(inner) => place(inner),
        DataFusionError::Collection(errors) => errors.first().and_then(place),
        DataFusionError::SchemaError(inner, _) => match inner.as_ref() {
            SchemaError::FieldNotFound { field, .. } | SchemaError::AmbiguousReference { field } => {
                field.spans.first().map(|s| (s.start.line, s.start.column))
            }
            _ => None,
        },
        DataFusionError::SQL(inner, _) => message::parser_place(&inner.to_string()),
        _ => None,
    }
}

/// Characters from 1 to a line and column of `sql`.
pub fn position(sql: &str, line: u64, column: u64) -> Option<usize> {
    let before = line.checked_sub(1)? as usize;
    let lines: Vec<&str> = sql.split('\n').collect();
    let ahead: usize = lines.get(..before)?.iter().map(|l| l.chars().count() + 1).sum();
    lines.get(before).map(|_| ahead + column.max(1) as usize)
}

/// A type in messages: `numeric` and `character varying` without their modifiers, as PostgreSQL shows arguments.
pub(crate) fn type_name(ty: &SqlType) -> String {
    match ty {
        SqlType::Numeric(..) => "numeric".to_owned(),
        SqlType::Varchar(_) => "character varying".to_owned(),
        SqlType::Char(_) => "character".to_owned(),
        SqlType::Array(element) => format!("{}[]", type_name(element)),
        other => other.to_string(),
    }
}

pub(crate) fn arrow_type_name(ty: &DataType) -> String {
    match ty {
        DataType::Null => "unknown".to_owned(),
        ty => SqlType::of_arrow(ty).map_or_else(|_| ty.to_string(), |ty| type_name(&ty)),
    }
}

/// PostgreSQL's error for a function that no candidate fits.
pub fn no_function(name: &str, arguments: &[DataType]) -> SqlError {
    let types: Vec<String> = arguments.iter().map(arrow_type_name).collect();
    no_function_named(name, &types.join(", "))
}

pub(crate) fn no_function_named(name: &str, types: &str) -> SqlError {
    SqlError::new(SqlState::UNDEFINED_FUNCTION, format!("function {name}({types}) does not exist")).hint(
        "No function matches the given name and argument types. You might need to add explicit type casts.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_carried_error_comes_out_unchanged() {
        let error = SqlError::new(SqlState::DIVISION_BY_ZERO, "division by zero").detail("d").hint("h");
        let wrapped = into_datafusion(error.clone()).context("a rule");
        let arrow = ArrowError::ExternalError(Box::new(DataFusionError::Shared(wrapped.into())));
        let deep = DataFusionError::Collection(vec![DataFusionError::ArrowError(Box::new(arrow), None)]);
        assert_eq!(from_datafusion(deep), error);
    }

    #[test]
    fn nothing_internal_is_shown() {
        let error =
            from_datafusion(DataFusionError::Internal("at src/secret.rs: index out of bounds".into()));
        assert_eq!(error.state(), SqlState::INTERNAL_ERROR);
        assert!(!error.message().contains("secret"));
    }

    #[test]
    fn a_near_miss_is_named() {
        let valid = [Column::new(Some("t"), "price"), Column::new(Some("t"), "bidder")];
        let error = undefined_column(&Column::from_name("prise"), &valid);
        assert_eq!(error.message(), "column \"prise\" does not exist");
        assert_eq!(error.hint_text(), Some("Perhaps you meant to reference the column \"t.price\"."));
        let error = undefined_column(&Column::new(Some("x"), "price"), &valid);
        assert_eq!(error.message(), "missing FROM-clause entry for table \"x\"");
        assert_eq!(undefined_column(&Column::from_name("zzz"), &valid).hint_text(), None);
    }

    #[test]
    fn lines_and_columns_become_characters() {
        assert_eq!(position("select x\nfrom t", 2, 6), Some(15));
        assert_eq!(position("é x", 1, 3), Some(3));
        assert_eq!(position("x", 5, 1), None);
    }
}
