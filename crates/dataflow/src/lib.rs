//! Incremental operators and the graph that steps them.
//!
//! A [`Graph`] holds nodes: inputs, operators, outputs. [`Graph::step`] feeds it the [`millpond_types::Delta`]s of one
//! epoch together with the watermarks after it, and gives what the outputs changed by, which rows an expression refused
//! ([`Rejected`]) and which came after their window had closed ([`Late`]). Stateless operators ([`MapSpec`],
//! [`WindowSpec`], union) are linear and keep nothing; aggregates ([`AggregateSpec`], [`HopSpec`]) keep one slot per group
//! in tables that are split into shards by the fixed hash of the group's key; joins ([`JoinSpec`]) keep the rows of both
//! sides behind one hash index of their keys, and those of many sources ([`MultiJoinSpec`]) each source once. [`Graph::freeze`] hands out what changed
//! since the last freeze as rows for a checkpoint; [`Graph::restore`] reads them back, for any number of shards.
//!
//! The view of a graph on the world: columns by number, [`datafusion::physical_plan::PhysicalExpr`] for expressions. It
//! knows neither SQL nor plans nor the log. Keeps I3 (no clock, no randomness, no I/O: whoever wants busy times lends a
//! clock with [`Graph::set_clock`]), I4 (an epoch is drained before the next begins) and I6 (a negative weight at the end
//! of an epoch is a [`Fault`]). Results do not depend on the number of shards or on where epochs are cut.
//!
//! Begin at [`spec`], then [`graph`], [`operator`], `aggregate/table.rs` and `join/mod.rs`.

mod aggregate;
mod exchange;
pub mod fault;
pub mod graph;
mod join;
mod operator;
mod order;
pub mod spec;

pub use aggregate::{Frozen, STATE_GROUPS, STATE_VALUES};
pub use fault::Fault;
pub use graph::{
    Clock, EpochInput, EpochOutput, EpochStats, Graph, InputId, Late, NodeId, NodeStats, OutputId, Rejected,
    Sink,
};
pub use join::{SOURCES_MAX, STATE_LEFT, STATE_RIGHT};
pub use order::asof::AsofSpec;
pub use order::frame_aggregate::FrameAggregate;
pub use order::span::{ClockBound, ClockStep, Comparison, TemporalSpec, TimeSpan};
pub use order::spec::{
    Frame, FrameBound, FrameUnits, OrderColumn, OverCall, OverFunction, OverSpec, Ranking,
    SortedAggregateSpec, SortedArgument, SortedCall, TopNSpec,
};
pub use order::{STATE_RIGHT_ROWS, STATE_ROWS};
pub use spec::{
    AggregateCall, AggregateFunction, AggregateSpec, CloseSpec, FlatMapSpec, GroupColumn, HopClose, HopSpec,
    JoinClose, JoinKind, JoinSpec, Lookup, MapSpec, MultiJoinSpec, Residual, SideClose, Spread, WindowKind,
    WindowSpec,
};
