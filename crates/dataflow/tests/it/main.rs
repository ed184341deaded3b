//! Operators against a naive evaluator, and worked traces.

mod asof;
mod bounded_joins;
mod flat_map;
mod harness;
mod joins;
mod map;
mod model;
mod multi_joins;
mod order;
mod random;
mod sorted;
mod temporal;
mod traces;
