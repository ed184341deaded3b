//! Names as PostgreSQL folds, quotes and compares them.

use std::fmt;

use millpond_types::SqlError;
use sqlparser::ast;

/// A relation as it was named: perhaps with its schema, folded, with its place. A database in front is dropped: there is
/// one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelationName {
    pub schema: Option<String>,
    pub name: String,
    pub position: usize,
}

impl RelationName {
    /// A name without a place, for callers that made it themselves.
    pub fn new(schema: Option<&str>, name: &str) -> Self {
        Self { schema: schema.map(str::to_owned), name: name.to_owned(), position: 0 }
    }

    /// # Errors
    /// 42601 for more than three parts or a part that is not a name.
    pub fn from_ast(_name: &ast::ObjectName) -> Result<Self, SqlError> {
        unimplemented!()
    }

    /// An error about this name: at its place, if it has one.
    pub fn mark(&self, error: SqlError) -> SqlError {
        if self.position > 0 { error.at(self.position) } else { error }
    }
}

/// Quoted where needed: `s."T"`.
impl fmt::Display for RelationName {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        unimplemented!()
    }
}

/// An identifier as PostgreSQL keeps it: lower case unless quoted, at most 63 bytes.
pub fn fold(_identifier: &ast::Ident) -> String {
    unimplemented!()
}

/// As quote_ident: in double quotes unless it is a plain lower-case word that is no keyword.
pub fn quote_identifier(_name: &str) -> String {
    unimplemented!()
}

/// As quote_literal, for texts without NUL.
pub fn quote_literal(_value: &str) -> String {
    unimplemented!()
}

/// The name among `known` that a user most likely meant by `name`: few letters apart, else `None`.
pub fn nearest<'a>(_name: &str, _known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    unimplemented!()
}
