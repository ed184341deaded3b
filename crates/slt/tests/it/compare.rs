//! The second oracle: random queries on Millpond and on a PostgreSQL of the test's own.

use millpond_slt::compare;
use millpond_slt::file::{Mode, binary};
use millpond_slt::postgresql::PostgreSql;
use millpond_slt::server::Server;

use crate::{Outcome, block_on, ensure};

/// `cargo xtask compare --from SEED` runs others.
pub fn postgresql_answers_the_same() -> Outcome {
    let postgresql = PostgreSql::start()?;
    let server = Server::start(&binary()?, &Mode::default())?;
    let (ours, theirs) = (server.config(), postgresql.config());
    let run = compare::run(&ours, &theirs, 0..12, |_, _| ());
    let report = block_on(run)?;
    ensure(report.differences.is_empty(), || report.differences.join("\n\n"))?;
    ensure(report.views > 50 && report.errors > 0, || format!("too little was compared: {report:?}"))
}
