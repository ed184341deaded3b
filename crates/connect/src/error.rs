//! What can go wrong while a connector runs.

use millpond_types::{SqlError, SqlState};

/// A failure of a running source or sink; it stops that connector, never the database.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The outside did not answer. Opening the connector again at its committed position may help.
    #[error("could not {action}")]
    Unavailable {
        action: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What is outside is not what it was, or cannot be understood as a whole; trying again does not help.
    #[error(transparent)]
    Refused(#[from] SqlError),
}

impl ConnectError {
    pub(crate) fn unavailable(
        action: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Unavailable { action: action.into(), source: source.into() }
    }

    /// Whether opening the connector again may help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

impl From<ConnectError> for SqlError {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Refused(error) => error,
            ConnectError::Unavailable { action, source } => {
                SqlError::new(SqlState::IO_ERROR, format!("could not {action}")).detail(chain(&*source))
            }
        }
    }
}

/// The messages of an error and of its causes, in one sentence.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        // Many libraries print their cause themselves.
        if !text.contains(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        cause = error.source();
    }
    text.push('.');
    text
}
