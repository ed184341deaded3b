//! PostgreSQL's functions, operators, casts and text forms as Arrow kernels.
//!
//! [`Registry`] finds a function by its PostgreSQL name: DataFusion's own where it is right, ours where DataFusion lacks
//! it or answers differently. [`rewrite`] turns the operators and casts of a typed expression into checked kernels
//! (22003, 22012, 22P02 ...), once, for one-off SELECTs as for views. [`text`] prints and reads values as PostgreSQL
//! does; [`cast`] converts whole columns; [`aggregate`] holds the rules and final functions of sum and avg that batch and
//! incremental execution share; [`window`] says which windows a timestamp belongs to. [`error`] turns a failure of
//! DataFusion into what a user should read.
//!
//! Not here: name resolution, plans, session settings, state. Kernels are pure functions of their arguments.
//! Begin at [`rewrite`].

pub mod aggregate;
mod calendar;
pub mod cast;
pub mod error;
mod kernel;
pub mod numbering;
pub mod numeric;
mod operator;
pub mod registry;
pub mod rewrite;
mod scalar;
pub mod sets;
pub mod text;
pub mod window;

pub use registry::{Registry, all_aggregate, all_scalar, all_window, register};
pub use text::zone::Zone;
