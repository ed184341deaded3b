//! .
use datafusion::logical_expr::LogicalPlan;
use millpond_types::SqlError;

use super::Plan;

/// Options of the view that lowering heeds.
#[derive(Clone, Copy, Debug, Default)]
pub struct LowerOptions {
    /// `WITH (allowed_lateness = …)`.
    pub allowed_lateness_us: i64,
    /// EMIT ON WINDOW CLOSE.
    pub emit_on_close: bool,
}

/// The incremental plan of a view's query ([`crate::QueryPlan::logical`]).
///
/// # Errors
/// 0A000, naming the construct, where the first slice of the dataflow has no operator for it.
pub fn lower(plan: &LogicalPlan, options: LowerOptions) -> Result<Plan, SqlError> {
    let _ = (plan, options);
    unimplemented!()
}
