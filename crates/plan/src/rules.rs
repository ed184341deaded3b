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
//! - `DecorrelatePredicateSubquery`, `ScalarSubqueryToJoin`, `DecorrelateLateralJoin`, `RewriteSetComparison`: what [`decorrelate`]
//!   does before, for more forms.
//! - `UnionsToFilter`, `FilterNullJoinKeys`: gains for scans of files only.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::DataType;
use chrono::{DateTime, Utc};
use datafusion::common::alias::AliasGenerator;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result};
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::optimizer::analyzer::resolve_grouping_function::ResolveGroupingFunction;
use datafusion::optimizer::analyzer::type_coercion::TypeCoercion;
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
use datafusion::optimizer::simplify_expressions::SimplifyExpressions;
use datafusion::optimizer::{
    Analyzer, AnalyzerRule, ApplyOrder, Optimizer, OptimizerConfig, OptimizerContext, OptimizerRule,
};
use millpond_functions::Zone;
use millpond_functions::error::into_datafusion;
use millpond_functions::rewrite::{
    PostgresSemantics, common_types, order_keys, plan_in_zone, postgres_literal,
};
use millpond_types::{SqlError, SqlState};

use crate::constant::argument_name;
use crate::context::{config_options, session_state};
use crate::decorrelate::decorrelate;
use crate::null_safe::{self, Guarded};

static ANALYZER: LazyLock<Analyzer> = LazyLock::new(|| {
    Analyzer::with_rules(vec![
        Arc::new(NarrowLiterals),
        Arc::new(CommonTypes),
        Arc::new(UnionTypes),
        Arc::new(ResolveGroupingFunction::new()),
        Arc::new(TypeCoercion::new()),
        Arc::new(PostgresSemantics),
    ])
});

static OPTIMIZER: LazyLock<Optimizer> = LazyLock::new(|| {
    let rules: Vec<Arc<dyn OptimizerRule + Send + Sync>> = vec![
        Arc::new(OptimizeUnions::new()),
        Arc::new(SimplifyExpressions::new()),
        Arc::new(ReplaceDistinctWithAggregate::new()),
        Arc::new(Guarded { rule: ExtractEquijoinPredicate::new(), applies: null_safe::has_no_such_keys }),
        Arc::new(EliminateDuplicatedExpr::new()),
        Arc::new(Guarded { rule: EliminateCrossJoin::new(), applies: null_safe::has_no_inner_join }),
        Arc::new(EliminateLimit::new()),
        Arc::new(EliminateOuterJoin::new()),
        Arc::new(PushDownLimit::new()),
        Arc::new(PushDownConditions(PushDownFilter::new())),
        Arc::new(OptimizeProjections::new()),
    ];
    Optimizer::with_rules(rules)
});

static FOLDER: LazyLock<Optimizer> =
    LazyLock::new(|| Optimizer::with_rules(vec![Arc::new(SimplifyExpressions::new())]));

/// A plan with PostgreSQL's types.
pub(crate) fn analyze(plan: LogicalPlan, zone: Zone) -> Result<LogicalPlan> {
    // Without DataFusion's checks of subqueries: more is possible here.
    let mut plan = plan;
    for rule in &ANALYZER.rules {
        plan = rule.analyze(plan, config_options()).map_err(|e| e.context(rule.name()))?;
    }
    plan_in_zone(order_keys(union_fields(plan)?)?, zone)
}

/// What the fields of a UNION say beside their types was settled before its branches were; execution takes it from these.
fn union_fields(plan: LogicalPlan) -> Result<LogicalPlan> {
    let mended = plan.transform_up_with_subqueries(|plan| {
        let LogicalPlan::Union(union) = plan else { return plan.recompute_schema().map(Transformed::yes) };
        let fields = union.schema.iter().enumerate().map(|(at, (qualifier, field))| {
            let said = union.inputs.iter().flat_map(|input| input.schema().field(at).metadata().clone());
            let nullable = union.inputs.iter().any(|input| input.schema().field(at).is_nullable());
            let field = field.as_ref().clone().with_metadata(said.collect()).with_nullable(nullable);
            (qualifier.cloned(), Arc::new(field))
        });
        let schema = DFSchema::new_with_metadata(fields.collect(), union.schema.metadata().clone())?;
        let union = datafusion::logical_expr::Union { inputs: union.inputs, schema: Arc::new(schema) };
        Ok(Transformed::yes(LogicalPlan::Union(union)))
    });
    mended.map(|mended| mended.data)
}

/// An analyzed plan, simplified.
pub(crate) fn optimize(plan: LogicalPlan) -> Result<LogicalPlan> {
    let plan = decorrelate(plan)?;
    // Of a subquery that has become a join, what was never NULL may be.
    union_fields(crate::flat_map::narrow(OPTIMIZER.optimize(plan, &optimizer_context(), |_, _| {})?)?)
}

/// An analyzed plan with its constants folded, and otherwise as it was.
pub(crate) fn fold(plan: LogicalPlan) -> Result<LogicalPlan> {
    FOLDER.optimize(plan, &optimizer_context(), |_, _| {})
}

fn optimizer_context() -> Context {
    Context(OptimizerContext::new_with_config_options(Arc::clone(config_options())))
}

/// now() is answered before the optimizer sees a plan, so its clock stands at the epoch: a plan is a function of its text.
/// DISTINCT ON becomes `first_value`, which the rule looks up.
struct Context(OptimizerContext);

impl OptimizerConfig for Context {
    fn query_execution_start_time(&self) -> Option<DateTime<Utc>> {
        Some(DateTime::<Utc>::UNIX_EPOCH)
    }

    fn alias_generator(&self) -> &Arc<AliasGenerator> {
        self.0.alias_generator()
    }

    fn options(&self) -> Arc<ConfigOptions> {
        self.0.options()
    }

    fn function_registry(&self) -> Option<&dyn FunctionRegistry> {
        Some(session_state())
    }
}

/// DataFusion's rule, which would also push a condition without columns (`WHERE false`, or what NULL for a column of a
/// grouping set leaves of one) below an aggregate without groups: that gives a row for no rows, so the row would be there
/// again. Conditions above such an aggregate stay.
#[derive(Debug)]
struct PushDownConditions(PushDownFilter);

impl PushDownConditions {
    /// Whether conditions, one or several on each other, lie on an aggregate that has a group for no rows.
    fn lies_on_total(plan: &LogicalPlan) -> bool {
        match plan {
            LogicalPlan::Filter(filter) => match &*filter.input {
                LogicalPlan::Aggregate(aggregate) => {
                    let groups = &aggregate.group_expr;
                    groups.is_empty() || matches!(groups[..], [Expr::GroupingSet(_)])
                }
                below => Self::lies_on_total(below),
            },
            _ => false,
        }
    }
}

impl OptimizerRule for PushDownConditions {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        match Self::lies_on_total(&plan) {
            true => Ok(Transformed::no(plan)),
            false => self.0.rewrite(plan, config),
        }
    }
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

/// See [`common_types`].
#[derive(Debug)]
struct CommonTypes;

impl AnalyzerRule for CommonTypes {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|plan| {
            let schema = merge_schema(&plan.inputs());
            let preserver = NamePreserver::new(&plan);
            let plan = plan.map_expressions(|expr| {
                let saved = preserver.save(&expr);
                Ok(common_types(expr, &schema)?.update_data(|e| saved.restore(e)))
            })?;
            match plan.transformed {
                true => plan.map_data(LogicalPlan::recompute_schema),
                false => Ok(plan),
            }
        })
        .map(|transformed| transformed.data)
    }

    fn name(&self) -> &str {
        "common_types"
    }
}

/// DataFusion reads numbers as text to bring the branches of a UNION together; PostgreSQL refuses.
#[derive(Debug)]
struct UnionTypes;

impl AnalyzerRule for UnionTypes {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.apply_with_subqueries(|node| {
            if let LogicalPlan::Union(union) = node
                && let Some((first, rest)) = union.inputs.split_first()
            {
                for (i, field) in first.schema().fields().iter().enumerate() {
                    for other in rest.iter().filter_map(|input| input.schema().fields().get(i)) {
                        match_union(field.data_type(), other.data_type())?;
                    }
                }
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(plan)
    }

    fn name(&self) -> &str {
        "union_types"
    }
}

fn match_union(a: &DataType, b: &DataType) -> Result<()> {
    let text = |ty: &DataType| matches!(ty, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8);
    if text(a) == text(b) || a.is_null() || b.is_null() {
        return Ok(());
    }
    let (a, b) = (argument_name(a), argument_name(b));
    let error =
        SqlError::new(SqlState::DATATYPE_MISMATCH, format!("UNION types {a} and {b} cannot be matched"));
    Err(into_datafusion(error.hint("Cast one of them.")))
}

/// Expressions over `schema`, typed and with their constants folded, each of them as itself (without an alias).
pub(crate) fn typed(expressions: Vec<Expr>, schema: &DFSchema, zone: Zone) -> Result<Vec<Expr>> {
    use datafusion::logical_expr::{EmptyRelation, Projection};
    let named = expressions.into_iter().enumerate().map(|(i, e)| e.alias(format!("{i}"))).collect();
    let empty = LogicalPlan::EmptyRelation(EmptyRelation {
        produce_one_row: false,
        schema: Arc::new(schema.clone()),
    });
    let plan = LogicalPlan::Projection(Projection::try_new(named, Arc::new(empty))?);
    match fold(analyze(plan, zone)?)? {
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
