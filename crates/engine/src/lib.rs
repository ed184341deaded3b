//! The work of sessions: DDL, DML, transactions, the epoch driver, checkpoints, backfill and reads.

pub mod copy;
pub mod outcome;
pub mod session;
pub mod status;
pub mod system;
mod write;

use std::sync::Arc;

pub use copy::{CopyFormat, CopyIn, Header, OnError};
use millpond_catalog::Catalog;
use millpond_types::SqlError;
pub use outcome::{Column, Notice, Outcome, RowsTag, Severity, TransactionStatus};
pub use session::{CancelHandle, ParsedStatement, Prepared, Session, SessionInfo};
pub use status::Status;
pub use system::{ConnectionInfo, SystemCatalog, SystemContext};

/// A running database; cheap to clone.
#[derive(Clone)]
pub struct Engine(#[allow(dead_code)] Arc<()>);

#[derive(Clone, Debug, Default)]
pub struct EngineConfig {
    pub data_dir: std::path::PathBuf,
}

impl Engine {
    pub async fn open(_config: EngineConfig, _system: Arc<dyn SystemCatalog>) -> Result<Engine, SqlError> {
        unimplemented!()
    }

    /// # Errors
    /// 53300 when there are too many.
    pub fn session(&self, _info: SessionInfo) -> Result<Session, SqlError> {
        unimplemented!()
    }

    /// The newest published catalog.
    pub fn catalog(&self) -> Arc<Catalog> {
        unimplemented!()
    }

    pub fn status(&self) -> Status {
        unimplemented!()
    }

    /// Finishes what is acknowledged, writes a checkpoint and stops.
    pub async fn shutdown(&self) {
        unimplemented!()
    }
}
