//! Text to statements: a thin parser in front of sqlparser.
//!
//! [`parse`] splits a text into [`ParsedStatement`]s. What PostgreSQL has, sqlparser reads, in its PostgreSQL dialect;
//! what Millpond adds (sources, watermarks, EMIT, SUBSCRIBE, …) is read here from the same tokens. A [`Statement`] is
//! either one of our own structs, with names folded and types resolved, or a node of sqlparser's tree ([`ast`]).
//!
//! **Positions.** Every place is counted in characters from 1 in the whole text that was given to `parse`, as PostgreSQL
//! counts. Tokens are renumbered before they are parsed, so that each span in the tree lies on line 1 and its column *is*
//! that position: [`position_of`] turns a span into the number for [`SqlError::at`](millpond_types::SqlError::at).
//!
//! **Bounds.** Text size, tokens, nesting and chain length are checked before a tree is built ([`limits`]), so that no
//! text can overflow the stack: neither here nor in whoever walks, clones or drops the tree.
//!
//! Not here: what a name means (catalog), what an expression means (plan). Begin at [`statement`].

mod asof;
mod dialect;
mod lexer;
pub mod limits;
pub mod name;
pub mod options;
mod parser;
pub mod statement;
pub mod types;

pub use dialect::PARTITIONED;
pub use name::{RelationName, fold, nearest, quote_identifier, quote_literal};
pub use options::{OptionEntry, OptionValue, Options, parse_bytes, parse_duration};
pub use sqlparser;
pub use sqlparser::ast;
pub use statement::{ParsedStatement, Statement};

use millpond_types::{SqlError, SqlType};

/// Splits a text into its statements. Empty statements vanish, so the result may be empty.
///
/// # Errors
/// 42601 in PostgreSQL's words (`syntax error at or near "x"`) with the place; 54000 and 54001 for a text that is too
/// long or nested too deeply; 0A000 for what Millpond knows and does not do; 42704 for an unknown type.
pub fn parse(text: &str) -> Result<Vec<ParsedStatement>, SqlError> {
    parser::each(text, |reader| reader.parsed_statement())
}

/// The one statement of a text, such as a definition that the catalog keeps.
///
/// # Errors
/// As [`parse`]; 42601 when there is none or more than one.
pub fn parse_one(text: &str) -> Result<ParsedStatement, SqlError> {
    parser::one(text, |reader| reader.parsed_statement())
}

/// A text that is one expression: a DEFAULT, a generated column, a watermark.
///
/// # Errors
/// As [`parse`].
pub fn parse_expression(text: &str) -> Result<ast::Expr, SqlError> {
    parser::one(text, |reader| reader.expression().map(|expression| *expression.expr))
}

/// A text that is one query: the body of a view.
///
/// # Errors
/// As [`parse`].
pub fn parse_query(text: &str) -> Result<Box<ast::Query>, SqlError> {
    parser::one(text, |reader| reader.query())
}

/// A text that names a type, as in `'int4'::regtype` or a connector's option.
///
/// # Errors
/// As [`parse`]; 42704 for an unknown type.
pub fn parse_type(text: &str) -> Result<SqlType, SqlError> {
    parser::one(text, |reader| reader.data_type())
}

/// The position, for an error, of a span in a tree that this crate parsed; `None` for a node that has no place.
pub fn position_of(span: sqlparser::tokenizer::Span) -> Option<usize> {
    (span.start.line > 0).then_some(span.start.column as usize)
}

#[cfg(test)]
mod limits_tests;
#[cfg(test)]
mod tests;
