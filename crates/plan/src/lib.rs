//! From a statement and a catalog snapshot to plans: plain printable data.
//!
//! A [`Planner`] binds names against one catalog snapshot and gives a [`QueryPlan`]: DataFusion's `LogicalPlan`, typed as
//! PostgreSQL types it and put through a fixed list of rules ([`rules`]), the same for a one-off SELECT and for a view.
//! From there two ways part: [`batch`] makes it something that DataFusion executes over a snapshot, and
//! [`incremental::lower`] makes it an [`incremental::Plan`], which the engine renders into operators. TUMBLE, HOP and SESSION
//! are the node [`window::WindowTvf`] in between. Writes are planned by [`dml`], the expressions of a relation's own columns
//! (watermark, default, generated, check) by [`column`].
//!
//! Not here: execution, state, sessions. This crate reads the catalog and never changes it. Begin at [`Planner`].

mod asof;
pub mod batch;
mod clock;
mod coercion;
pub mod column;
mod constant;
mod context;
mod decorrelate;
pub mod dml;
mod errors;
pub mod flat_map;
mod flat_map_exec;
mod grouping_sets;
pub mod incremental;
mod literals;
mod metadata;
mod names;
mod null_safe;
mod parameters;
mod planner;
mod prepare;
mod row_values;
mod rows;
mod rules;
mod session;
mod set_operation;
mod single_row;
mod source;
mod spelling;
mod sql_types;
mod table_function;
mod ties;
mod trace;
pub mod window;
mod window_sql;

pub use batch::{Provide, batch, replace_relations, without_late_rows};
pub use clock::is_proctime;
pub use column::{ColumnExpression, physical};
pub use context::{SystemTables, config_options};
pub use dml::{DeletePlan, InsertPlan, OnConflict, UpdatePlan};
pub use flat_map_exec::physical_planner;
pub use metadata::Metadata;
pub use names::shown_text;
pub use parameters::{bind_expression, bind_parameters};
pub use planner::{PlanSettings, Planner, QueryPlan};
pub use source::{RelationFacts, RelationSource};
