//! A sample of the matrix: `cargo xtask matrix` runs all of it.

use millpond_slt::file::binary;
use millpond_slt::matrix::{Cell, Suite};

use crate::{Outcome, block_on, ensure};

pub fn queries_hold_over_changing_tables() -> Outcome {
    for (suite, epoch_rows, shards) in [(Suite::TpcH, Some(7), 2), (Suite::Nexmark, None, 4)] {
        let cell = Cell { suite, epoch_rows, shards, seed: 1, steps: 6, verify_every: 3, restart_every: 4 };
        let report = block_on(cell.run(&binary()?))?;
        ensure(report.verifications == 44 && report.restarts == 1, || format!("{report:?}"))?;
        ensure(report.empty.len() < 3, || format!("views that show nothing: {report:?}"))?;
    }
    Ok(())
}
