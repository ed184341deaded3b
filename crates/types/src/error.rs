//! What a user sees of a failure, in PostgreSQL's form (PostgreSQL 15, chapter "Error and Notice Message Fields").

use std::fmt;

/// A five-character SQLSTATE (PostgreSQL 15, Appendix A).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SqlState([u8; 5]);

impl SqlState {
    pub const fn new(code: &'static str) -> Self {
        let b = code.as_bytes();
        assert!(b.len() == 5, "an SQLSTATE has five characters");
        Self([b[0], b[1], b[2], b[3], b[4]])
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("built from ASCII")
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

macro_rules! states {
    ($($name:ident = $code:literal;)*) => {
        impl SqlState { $(pub const $name: Self = Self::new($code);)* }
    };
}

states! {
    CONNECTION_FAILURE = "08006";
    PROTOCOL_VIOLATION = "08P01";
    FEATURE_NOT_SUPPORTED = "0A000";
    CARDINALITY_VIOLATION = "21000";
    STRING_DATA_RIGHT_TRUNCATION = "22001";
    NUMERIC_VALUE_OUT_OF_RANGE = "22003";
    INVALID_DATETIME_FORMAT = "22007";
    DATETIME_FIELD_OVERFLOW = "22008";
    DIVISION_BY_ZERO = "22012";
    INVALID_PARAMETER_VALUE = "22023";
    CHARACTER_NOT_IN_REPERTOIRE = "22021";
    INVALID_ROW_COUNT_IN_LIMIT_CLAUSE = "2201W";
    INVALID_TEXT_REPRESENTATION = "22P02";
    INVALID_BINARY_REPRESENTATION = "22P03";
    BAD_COPY_FILE_FORMAT = "22P04";
    NOT_NULL_VIOLATION = "23502";
    UNIQUE_VIOLATION = "23505";
    CHECK_VIOLATION = "23514";
    INVALID_CURSOR_STATE = "24000";
    ACTIVE_SQL_TRANSACTION = "25001";
    READ_ONLY_SQL_TRANSACTION = "25006";
    NO_ACTIVE_SQL_TRANSACTION = "25P01";
    IN_FAILED_SQL_TRANSACTION = "25P02";
    INVALID_SQL_STATEMENT_NAME = "26000";
    INVALID_AUTHORIZATION_SPECIFICATION = "28000";
    INVALID_PASSWORD = "28P01";
    DEPENDENT_OBJECTS_STILL_EXIST = "2BP01";
    INVALID_CURSOR_NAME = "34000";
    INVALID_SAVEPOINT_SPECIFICATION = "3B001";
    INVALID_CATALOG_NAME = "3D000";
    INVALID_SCHEMA_NAME = "3F000";
    SERIALIZATION_FAILURE = "40001";
    DEADLOCK_DETECTED = "40P01";
    SYNTAX_ERROR = "42601";
    INVALID_NAME = "42602";
    INSUFFICIENT_PRIVILEGE = "42501";
    AMBIGUOUS_COLUMN = "42702";
    AMBIGUOUS_PARAMETER = "42P08";
    UNDEFINED_COLUMN = "42703";
    UNDEFINED_OBJECT = "42704";
    DUPLICATE_OBJECT = "42710";
    DUPLICATE_COLUMN = "42701";
    DUPLICATE_SCHEMA = "42P06";
    DUPLICATE_TABLE = "42P07";
    DUPLICATE_PREPARED_STATEMENT = "42P05";
    DUPLICATE_CURSOR = "42P03";
    GROUPING_ERROR = "42803";
    WINDOWING_ERROR = "42P20";
    DATATYPE_MISMATCH = "42804";
    WRONG_OBJECT_TYPE = "42809";
    CANNOT_COERCE = "42846";
    UNDEFINED_FUNCTION = "42883";
    AMBIGUOUS_FUNCTION = "42725";
    UNDEFINED_TABLE = "42P01";
    UNDEFINED_PARAMETER = "42P02";
    RESERVED_NAME = "42939";
    INVALID_COLUMN_REFERENCE = "42P10";
    INDETERMINATE_DATATYPE = "42P18";
    INVALID_TABLE_DEFINITION = "42P16";
    INSUFFICIENT_RESOURCES = "53000";
    DISK_FULL = "53100";
    OUT_OF_MEMORY = "53200";
    TOO_MANY_CONNECTIONS = "53300";
    CONFIGURATION_LIMIT_EXCEEDED = "53400";
    PROGRAM_LIMIT_EXCEEDED = "54000";
    STATEMENT_TOO_COMPLEX = "54001";
    TOO_MANY_COLUMNS = "54011";
    OBJECT_NOT_IN_PREREQUISITE_STATE = "55000";
    OBJECT_IN_USE = "55006";
    CANT_CHANGE_RUNTIME_PARAM = "55P02";
    LOCK_NOT_AVAILABLE = "55P03";
    QUERY_CANCELED = "57014";
    ADMIN_SHUTDOWN = "57P01";
    CANNOT_CONNECT_NOW = "57P03";
    IO_ERROR = "58030";
    UNDEFINED_FILE = "58P01";
    INTERNAL_ERROR = "XX000";
    DATA_CORRUPTED = "XX001";
}

/// An error of the user's making, or one that the user must hear of.
///
/// The message is one lower-case clause without a full stop; detail and hint are sentences, and a hint is an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlError(Box<Fields>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Fields {
    state: SqlState,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
    position: Option<usize>,
}

impl SqlError {
    pub fn new(state: SqlState, message: impl Into<String>) -> Self {
        Self(Box::new(Fields { state, message: message.into(), detail: None, hint: None, position: None }))
    }

    /// Something that Millpond does not do: 0A000. The hint should name what would work.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(SqlState::FEATURE_NOT_SUPPORTED, message)
    }

    /// A fault of ours: XX000.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(SqlState::INTERNAL_ERROR, message)
    }

    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// The place in the statement's text: characters, counted from 1 as PostgreSQL does. The first caller wins, because
    /// the innermost knows best.
    pub fn at(mut self, position: usize) -> Self {
        self.0.position.get_or_insert(position);
        self
    }

    pub fn state(&self) -> SqlState {
        self.0.state
    }
    pub fn message(&self) -> &str {
        &self.0.message
    }
    pub fn detail_text(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }
    pub fn position(&self) -> Option<usize> {
        self.0.position
    }

    /// The same error with its position moved, for a statement that stands later in a longer text.
    pub fn shifted(mut self, characters: usize) -> Self {
        self.0.position = self.0.position.map(|p| p + characters);
        self
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for SqlError {}
