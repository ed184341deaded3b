//! Parameters: their types, and their values.

use std::ops::ControlFlow;

use datafusion::common::metadata::ScalarAndMetadata;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DFSchema, ParamValues, ScalarValue};
use datafusion::logical_expr::expr::{Case, Placeholder};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};
use millpond_functions::error::from_datafusion;
use millpond_types::{SqlError, SqlState, SqlType};
use sqlparser::ast::{self, Visit, Visitor};

/// The plan with each `$n` replaced by `values[n - 1]`, which is of the type that the plan said.
///
/// # Errors
/// 08P01 if a value is missing.
pub fn bind_parameters(plan: &LogicalPlan, values: &[ScalarValue]) -> Result<LogicalPlan, SqlError> {
    if values.is_empty() {
        return Ok(plan.clone());
    }
    let values = values.iter().cloned().map(|v| ScalarAndMetadata::new(v, None)).collect();
    plan.clone().replace_params_with_values(&ParamValues::List(values)).map_err(missing)
}

/// As [`bind_parameters`], for the expressions of writes.
///
/// # Errors
/// 08P01 if a value is missing.
pub fn bind_expression(expr: &Expr, values: &[ScalarValue]) -> Result<Expr, SqlError> {
    use datafusion::common::tree_node::{Transformed, TreeNode};
    let bound = expr.clone().transform_up(|expr| match &expr {
        Expr::Placeholder(Placeholder { id, .. }) => match number(id).and_then(|n| values.get(n - 1)) {
            Some(value) => Ok(Transformed::yes(Expr::Literal(value.clone(), None))),
            None => datafusion::common::plan_err!("no value for {id}"),
        },
        _ => Ok(Transformed::no(expr)),
    });
    bound.map(|t| t.data).map_err(missing)
}

fn missing(error: datafusion::common::DataFusionError) -> SqlError {
    let error = from_datafusion(error);
    SqlError::new(SqlState::PROTOCOL_VIOLATION, "bind message supplies too few parameters")
        .detail(error.message())
}

/// `$3` is 3.
fn number(id: &str) -> Option<usize> {
    id.strip_prefix('$')?.parse().ok().filter(|n| *n > 0)
}

/// How many parameters a tree has: the largest number, with its place.
pub(crate) fn count(tree: &impl Visit) -> Result<usize, SqlError> {
    struct Count(usize, Option<SqlError>);
    impl Visitor for Count {
        type Break = ();

        fn pre_visit_value(&mut self, value: &ast::ValueWithSpan) -> ControlFlow<()> {
            if let ast::Value::Placeholder(id) = &value.value {
                match number(id) {
                    Some(n) if n <= PARAMETERS_MAX => self.0 = self.0.max(n),
                    _ => {
                        let error = SqlError::new(
                            SqlState::UNDEFINED_PARAMETER,
                            format!("there is no parameter {id}"),
                        );
                        self.1.get_or_insert(crate::errors::at_opt(
                            error,
                            millpond_sql::position_of(value.span),
                        ));
                    }
                }
            }
            ControlFlow::Continue(())
        }
    }
    let mut count = Count(0, None);
    let _ = tree.visit(&mut count);
    count.1.map_or(Ok(count.0), Err)
}

/// The protocol counts parameters in 16 bits.
const PARAMETERS_MAX: usize = 65_535;

/// Fills in the types that the places of a parameter in `plan` tell.
pub(crate) fn infer(plan: &LogicalPlan, types: &mut [Option<SqlType>]) {
    let walk = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Limit(limit) = node {
            for expr in limit.skip.iter().chain(&limit.fetch) {
                set(expr, Some(SqlType::Int8), types);
            }
        }
        let mut schema = DFSchema::empty();
        for input in node.inputs() {
            schema.merge(input.schema());
        }
        node.apply_expressions(|expr| {
            infer_expression(expr, &schema, types);
            Ok(TreeNodeRecursion::Continue)
        })
    });
    debug_assert!(walk.is_ok(), "walking a plan cannot fail");
}

/// As [`infer`], for one expression over `schema`.
pub(crate) fn infer_expression(expr: &Expr, schema: &DFSchema, types: &mut [Option<SqlType>]) {
    use datafusion::common::tree_node::TreeNode;
    let walk = expr.apply(|expr| {
        match expr {
            Expr::Placeholder(Placeholder { field: Some(field), .. }) => {
                set(expr, SqlType::of(field).ok(), types);
            }
            Expr::Cast(cast) => set(&cast.expr, SqlType::of(&cast.field).ok(), types),
            Expr::TryCast(cast) => set(&cast.expr, SqlType::of(&cast.field).ok(), types),
            Expr::BinaryExpr(binary) => alike([&*binary.left, &*binary.right], schema, types),
            Expr::Between(b) => alike([&*b.expr, &*b.low, &*b.high], schema, types),
            Expr::InList(list) => alike(std::iter::once(&*list.expr).chain(&list.list), schema, types),
            Expr::Case(case) => infer_case(case, schema, types),
            Expr::Not(inner) | Expr::IsTrue(inner) | Expr::IsFalse(inner) => {
                set(inner, Some(SqlType::Boolean), types)
            }
            Expr::ScalarFunction(call) => match call.func.name() {
                "coalesce" | "nullif" | "greatest" | "least" => alike(&call.args, schema, types),
                // `x = ANY ($1)`
                "array_has" => {
                    if let [array, element] = &call.args[..]
                        && let Some(element) = type_of(element, schema)
                    {
                        set(array, Some(SqlType::Array(Box::new(element))), types);
                    }
                }
                _ => {}
            },
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(walk.is_ok(), "walking an expression cannot fail");
}

fn infer_case(case: &Case, schema: &DFSchema, types: &mut [Option<SqlType>]) {
    let results = case.when_then_expr.iter().map(|(_, then)| &**then).chain(case.else_expr.as_deref());
    alike(results, schema, types);
    let whens = case.when_then_expr.iter().map(|(when, _)| &**when);
    match &case.expr {
        Some(operand) => alike(std::iter::once(&**operand).chain(whens), schema, types),
        None => whens.for_each(|when| set(when, Some(SqlType::Boolean), types)),
    }
}

/// Parameters among `exprs` are of the first type that one of the others has.
fn alike<'a>(
    exprs: impl IntoIterator<Item = &'a Expr, IntoIter: Clone>,
    schema: &DFSchema,
    types: &mut [Option<SqlType>],
) {
    let exprs = exprs.into_iter();
    let known = exprs.clone().find_map(|e| type_of(e, schema));
    if known.is_some() {
        exprs.for_each(|e| set(e, known.clone(), types));
    }
}

/// The type of what is no parameter and not NULL.
fn type_of(expr: &Expr, schema: &DFSchema) -> Option<SqlType> {
    if matches!(expr, Expr::Placeholder(_)) {
        return None;
    }
    let (_, field) = expr.to_field(schema).ok()?;
    if field.data_type().is_null() { None } else { SqlType::of(&field).ok() }
}

fn set(expr: &Expr, ty: Option<SqlType>, types: &mut [Option<SqlType>]) {
    if let Expr::Placeholder(Placeholder { id, .. }) = expr
        && let Some(n) = number(id)
        && let Some(slot @ None) = types.get_mut(n - 1)
    {
        *slot = ty.filter(|ty| *ty != SqlType::Unknown);
    }
}
