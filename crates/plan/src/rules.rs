//! The fixed list of rules that types and simplifies a plan: the same for a one-off SELECT and for a view.
//!
//! Analysis: integer literals become integers where they fit, DataFusion's coercions, then PostgreSQL's operators and casts
//! (`functions::rewrite`). Optimization: rules that are right for every input and need no statistics. What is left out, and
//! why:
//! - `PropagateEmptyRelation`, `EliminateJoin`, `EliminateGroupByConstant`: a view over something that is empty or constant
//!   today must keep its inputs and its group keys.
//! - `SingleDistinctToGroupBy`: the inner grouping has state that the outer one's window would not free.
//! - `CommonSubexprEliminate`, `ExtractLeafExpressions`, `PushDownLeafProjections`: they split projections, which lowering
//!   fuses again; repeated expressions are the executor's to share.
//! - `UnionsToFilter`, `FilterNullJoinKeys`: gains for scans of files only.

use std::sync::{Arc, LazyLock};

use chrono::{DateTime, Utc};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::optimizer::analyzer::resolve_grouping_function::ResolveGroupingFunction;
use datafusion::optimizer::analyzer::type_coercion::TypeCoercion;
use datafusion::optimizer::decorrelate_lateral_join::DecorrelateLateralJoin;
use datafusion::optimizer::decorrelate_predicate_subquery::DecorrelatePredicateSubquery;
use datafusion::optimizer::eliminate_cross_join::EliminateCrossJoin;
use datafusion::optimizer::eliminate_duplicated_expr::EliminateDuplicatedExpr;
use datafusion::optimizer::eliminate_limit::EliminateLimit;
use datafusion::optimizer::eliminate_outer_join::EliminateOuterJoin;
use datafusion::optimizer::extract_equijoin_predicate::ExtractEquijoinPredicate;
use datafusion::optimizer::optimize_projections::OptimizeProjections;
use datafusion::optimizer::optimize_unions::OptimizeUnions;
use datafusion::optimizer::push_down_filter::PushDownFilter;
use datafusion::optimizer::push_down_limit::PushDownLimit;
use datafusion::optimizer::replace_distinct_aggregate::ReplaceDistinctWithAggregate;
use datafusion::optimizer::rewrite_set_comparison::RewriteSetComparison;
use datafusion::optimizer::scalar_subquery_to_join::ScalarSubqueryToJoin;
use datafusion::optimizer::simplify_expressions::SimplifyExpressions;
use datafusion::optimizer::{Analyzer, AnalyzerRule, Optimizer, OptimizerContext, OptimizerRule};
use millpond_functions::rewrite::{PostgresSemantics, postgres_literal};

use crate::context::config_options;

static ANALYZER: LazyLock<Analyzer> = LazyLock::new(|| {
    Analyzer::with_rules(vec![
        Arc::new(NarrowLiterals),
        Arc::new(ResolveGroupingFunction::new()),
        Arc::new(TypeCoercion::new()),
        Arc::new(PostgresSemantics),
    ])
});

static OPTIMIZER: LazyLock<Optimizer> = LazyLock::new(|| {
    let rules: Vec<Arc<dyn OptimizerRule + Send + Sync>> = vec![
        Arc::new(RewriteSetComparison::new()),
        Arc::new(OptimizeUnions::new()),
        Arc::new(SimplifyExpressions::new()),
        Arc::new(ReplaceDistinctWithAggregate::new()),
        Arc::new(DecorrelatePredicateSubquery::new()),
        Arc::new(ScalarSubqueryToJoin::new()),
        Arc::new(DecorrelateLateralJoin::new()),
        Arc::new(ExtractEquijoinPredicate::new()),
        Arc::new(EliminateDuplicatedExpr::new()),
        Arc::new(EliminateCrossJoin::new()),
        Arc::new(EliminateLimit::new()),
        Arc::new(EliminateOuterJoin::new()),
        Arc::new(PushDownLimit::new()),
        Arc::new(PushDownFilter::new()),
        Arc::new(OptimizeProjections::new()),
    ];
    Optimizer::with_rules(rules)
});

static FOLDER: LazyLock<Optimizer> =
    LazyLock::new(|| Optimizer::with_rules(vec![Arc::new(SimplifyExpressions::new())]));

/// A plan with PostgreSQL's types.
pub(crate) fn analyze(plan: LogicalPlan) -> Result<LogicalPlan> {
    ANALYZER.execute_and_check(plan, config_options(), |_, _| {})
}

/// An analyzed plan, simplified.
pub(crate) fn optimize(plan: LogicalPlan) -> Result<LogicalPlan> {
    OPTIMIZER.optimize(plan, &optimizer_context(), |_, _| {})
}

/// An analyzed plan with its constants folded, and otherwise as it was.
pub(crate) fn fold(plan: LogicalPlan) -> Result<LogicalPlan> {
    FOLDER.optimize(plan, &optimizer_context(), |_, _| {})
}

/// now() is answered before the optimizer sees a plan, so its clock stands at the epoch: a plan is a function of its text.
fn optimizer_context() -> OptimizerContext {
    OptimizerContext::new_with_config_options(Arc::clone(config_options()))
        .with_query_execution_start_time(DateTime::<Utc>::UNIX_EPOCH)
}

/// See [`postgres_literal`]; LIMIT and OFFSET stay bigint.
#[derive(Debug)]
struct NarrowLiterals;

impl AnalyzerRule for NarrowLiterals {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|plan| {
            if matches!(plan, LogicalPlan::Limit(_)) {
                return Ok(Transformed::no(plan));
            }
            let preserver = NamePreserver::new(&plan);
            let plan = plan.map_expressions(|expr| {
                let saved = preserver.save(&expr);
                // Operands of arithmetic have their types already.
                let narrowed = expr.transform_down(|e| match &e {
                    Expr::ScalarFunction(call) if call.name().starts_with("checked_") => {
                        Ok(Transformed::new(e, false, TreeNodeRecursion::Jump))
                    }
                    _ => Ok(Transformed::yes(postgres_literal(e))),
                })?;
                Ok(narrowed.update_data(|e| saved.restore(e)))
            })?;
            plan.map_data(|plan| match plan {
                // The types of its columns are those of its rows, brought together.
                LogicalPlan::Values(values) => LogicalPlanBuilder::values(values.values)?.build(),
                other => other.recompute_schema(),
            })
        })
        .map(|transformed| transformed.data)
    }

    fn name(&self) -> &str {
        "narrow_literals"
    }
}

/// Expressions over `schema`, typed and with their constants folded, each of them as itself (without an alias).
pub(crate) fn typed(expressions: Vec<Expr>, schema: &DFSchema) -> Result<Vec<Expr>> {
    use datafusion::logical_expr::{EmptyRelation, Projection};
    let named = expressions.into_iter().enumerate().map(|(i, e)| e.alias(format!("{i}"))).collect();
    let empty = LogicalPlan::EmptyRelation(EmptyRelation {
        produce_one_row: false,
        schema: Arc::new(schema.clone()),
    });
    let plan = LogicalPlan::Projection(Projection::try_new(named, Arc::new(empty))?);
    match fold(analyze(plan)?)? {
        LogicalPlan::Projection(projection) => Ok(projection.expr.into_iter().map(without_alias).collect()),
        other => datafusion::common::internal_err!("a projection became {}", other.display()),
    }
}

pub(crate) fn without_alias(expr: Expr) -> Expr {
    match expr {
        Expr::Alias(alias) => without_alias(*alias.expr),
        other => other,
    }
}
