//! Errors and notices as messages.

use millpond_engine::Notice;
use millpond_types::SqlError;
use pgwire::error::ErrorInfo;
use pgwire::messages::PgWireBackendMessage;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Error,
    /// The connection ends.
    Fatal,
}

/// An error, and where it happened if its text alone does not say (`COPY t, line 3, …`).
#[derive(Debug)]
pub(crate) struct Failure {
    pub error: SqlError,
    pub context: Option<String>,
}

impl From<SqlError> for Failure {
    fn from(error: SqlError) -> Self {
        Self { error, context: None }
    }
}

pub(crate) fn response(level: Level, failure: &Failure) -> PgWireBackendMessage {
    let severity = match level {
        Level::Error => "ERROR",
        Level::Fatal => "FATAL",
    };
    let error = &failure.error;
    let mut info = info(severity, error.state().as_str(), error.message());
    info.detail = error.detail_text().map(str::to_owned);
    info.hint = error.hint_text().map(str::to_owned);
    info.position = error.position().map(|p| p.to_string());
    info.where_context = failure.context.clone();
    PgWireBackendMessage::ErrorResponse(info.into())
}

pub(crate) fn notice(notice: &Notice) -> PgWireBackendMessage {
    let mut info = info(notice.severity.name(), notice.state.as_str(), &notice.message);
    info.detail = notice.detail.clone();
    info.hint = notice.hint.clone();
    PgWireBackendMessage::NoticeResponse(info.into())
}

fn info(severity: &str, code: &str, message: &str) -> ErrorInfo {
    // A NUL would end the field early and leave the client lost in the message.
    let message = message.replace('\0', "\u{fffd}");
    let mut info = ErrorInfo::new(severity.to_owned(), code.to_owned(), message);
    info.severity_nonlocalized = Some(severity.to_owned());
    info
}

/// Why the work on a message ended early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The client hears of it, and goes on.
    Failed(Failure),
    /// The client is gone.
    Socket(std::io::Error),
}

impl From<SqlError> for Stop {
    fn from(error: SqlError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Self {
        Self::Socket(error)
    }
}
