//! One epoch: deltas in, changes out.

use millpond_types::Delta;

use super::{EpochInput, EpochOutput, EpochStats, Graph, Late, OutputId, Rejected};
use crate::Fault;

/// Where the results of an epoch go, as they come.
pub trait Sink {
    fn output(&mut self, output: OutputId, delta: Delta);
    fn reject(&mut self, row: Rejected);
    fn late(&mut self, rows: Late);
}

impl Graph {
    /// Passes one epoch through the graph and gathers its results.
    ///
    /// # Errors
    /// A [`Fault`] leaves the graph useless: rebuild it from a checkpoint.
    pub fn step(&mut self, input: EpochInput) -> Result<EpochOutput, Fault> {
        let _ = input;
        unimplemented!()
    }

    /// As [`Graph::step`], for results that should not pile up: each bounded batch is handed on as it comes.
    ///
    /// # Errors
    /// As [`Graph::step`].
    pub fn step_into(&mut self, input: EpochInput, sink: &mut dyn Sink) -> Result<EpochStats, Fault> {
        let _ = (input, sink);
        unimplemented!()
    }
}
