//! From DataFusion's operators and casts to PostgreSQL's.
//!
//! Two steps. While SQL is planned, [`PostgresOperators`] (an [`ExprPlanner`]) resolves binary operators as PostgreSQL
//! does: `date - date`, `'5' + 1`, `text || 1`; the planner's ContextProvider returns it first from `get_expr_planners`.
//! After DataFusion's type coercion, [`rewrite_expr`] (or [`PostgresSemantics`] over a whole plan) replaces what is left
//! of arithmetic, unary minus and casts by checked kernels.

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::AnalyzerRule;
use millpond_types::SqlType;

/// Replaces arithmetic, unary minus and casts in a typed expression (all of its columns stand in `schema`) by kernels
/// with PostgreSQL's results and errors. Column names are the caller's business (see [`PostgresSemantics`]).
///
/// # Errors
/// A literal that its type refuses (22P02, 22007, ...), operands for which there is no operator (42883).
pub fn rewrite_expr(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let _ = (expr, schema);
    unimplemented!()
}

/// `expr` as `to`, by PostgreSQL's explicit cast; folded at once where `expr` is a literal.
///
/// # Errors
/// As [`rewrite_expr`]; 42846 where PostgreSQL has no such cast.
pub fn cast_expr(expr: Expr, to: &SqlType, schema: &DFSchema) -> Result<Expr> {
    let _ = (expr, to, schema);
    unimplemented!()
}

/// As [`cast_expr`], for storing into a column: a text that is too long for varchar(n) is refused (22001), not cut.
pub fn assign_expr(expr: Expr, to: &SqlType, schema: &DFSchema) -> Result<Expr> {
    let _ = (expr, to, schema);
    unimplemented!()
}

/// The analyzer rule that applies [`rewrite_expr`] to every expression of a plan, keeping output column names. It stands
/// directly after type coercion.
#[derive(Debug, Default)]
pub struct PostgresSemantics;

impl AnalyzerRule for PostgresSemantics {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let _ = plan;
        unimplemented!()
    }

    fn name(&self) -> &str {
        "postgres_semantics"
    }
}

/// Resolves binary operators as PostgreSQL does, while SQL is planned.
#[derive(Debug, Default)]
pub struct PostgresOperators;

impl ExprPlanner for PostgresOperators {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let _ = schema;
        Ok(PlannerResult::Original(expr))
    }
}
