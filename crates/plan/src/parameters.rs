//! Parameters: their types, and their values.

use datafusion::common::ScalarValue;
use datafusion::logical_expr::LogicalPlan;
use millpond_types::SqlError;

/// The plan with each `$n` replaced by `values[n - 1]`, which is of the type that the plan said.
///
/// # Errors
/// 08P01 if a value is missing.
pub fn bind_parameters(plan: &LogicalPlan, values: &[ScalarValue]) -> Result<LogicalPlan, SqlError> {
    let _ = (plan, values);
    unimplemented!()
}
