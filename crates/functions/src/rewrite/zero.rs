//! Minus zero is zero where rows are ordered and told apart: PostgreSQL compares floats so, Arrow's order of all bits does not.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, Result};
use datafusion::logical_expr::expr::{AggregateFunction, WindowFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    ColumnarValue, Distinct, Expr, ExprSchemable, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, SortExpr, Volatility,
};

/// A plan whose ORDER BY, PARTITION BY and DISTINCT ON take -0.0 for 0.0, in all places that order rows.
///
/// # Errors
/// Those of its expressions' types.
pub fn order_keys(plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut renamed = HashMap::new();
    let ordered = plan.transform_up_with_subqueries(|plan| {
        let plan = if renamed.is_empty() { plan } else { rename(plan, &renamed)? };
        match plan {
            LogicalPlan::Sort(mut sort) => {
                let schema = Arc::clone(sort.input.schema());
                let changed = sorts(&mut sort.expr, &schema)?;
                Ok(Transformed::new_transformed(LogicalPlan::Sort(sort), changed))
            }
            LogicalPlan::Distinct(Distinct::On(mut distinct)) => {
                let schema = Arc::clone(distinct.input.schema());
                let mut changed = keys(&mut distinct.on_expr, &schema)?;
                if let Some(order) = &mut distinct.sort_expr {
                    changed |= sorts(order, &schema)?;
                }
                Ok(Transformed::new_transformed(LogicalPlan::Distinct(Distinct::On(distinct)), changed))
            }
            plan @ (LogicalPlan::Window(_) | LogicalPlan::Aggregate(_)) => {
                let schema = merge_schema(&plan.inputs());
                let plan = plan.map_expressions(|expr| {
                    let before = expr.schema_name().to_string();
                    let expr = expr.transform_up(|expr| call(expr, &schema))?;
                    let after = expr.data.schema_name().to_string();
                    if before != after {
                        renamed.insert(before, after);
                    }
                    Ok(expr)
                })?;
                match plan.transformed {
                    true => plan.map_data(LogicalPlan::recompute_schema),
                    false => Ok(plan),
                }
            }
            other => Ok(Transformed::no(other)),
        }
    });
    ordered.map(|plan| plan.data)
}

/// The name of a call's column says what it is ordered by. What stands above has the column under its new name.
fn rename(plan: LogicalPlan, renamed: &HashMap<String, String>) -> Result<LogicalPlan> {
    let preserver = NamePreserver::new(&plan);
    let below = merge_schema(&plan.inputs());
    let plan = plan.map_expressions(|expr| {
        let saved = preserver.save(&expr);
        let expr = expr.transform_up(|expr| match &expr {
            // A projection has given it the old name again.
            Expr::Column(column @ Column { relation: None, .. }) if below.has_column(column) => {
                Ok(Transformed::no(expr))
            }
            Expr::Column(Column { relation: None, name, .. }) => Ok(match renamed.get(name) {
                Some(name) => Transformed::yes(Expr::Column(Column::new_unqualified(name))),
                None => Transformed::no(expr),
            }),
            _ => Ok(Transformed::no(expr)),
        })?;
        Ok(expr.update_data(|expr| saved.restore(expr)))
    })?;
    plan.data.recompute_schema()
}

fn call(mut expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let changed = match &mut expr {
        Expr::WindowFunction(window) => {
            let WindowFunction { params, .. } = window.as_mut();
            keys(&mut params.partition_by, schema)? | sorts(&mut params.order_by, schema)?
        }
        Expr::AggregateFunction(AggregateFunction { params, .. }) => sorts(&mut params.order_by, schema)?,
        _ => false,
    };
    Ok(Transformed::new_transformed(expr, changed))
}

fn sorts(order: &mut [SortExpr], schema: &DFSchema) -> Result<bool> {
    order.iter_mut().try_fold(false, |changed, sort| Ok(key(&mut sort.expr, schema)? | changed))
}

fn keys(exprs: &mut [Expr], schema: &DFSchema) -> Result<bool> {
    exprs.iter_mut().try_fold(false, |changed, expr| Ok(key(expr, schema)? | changed))
}

fn key(expr: &mut Expr, schema: &DFSchema) -> Result<bool> {
    let is_key = matches!(expr, Expr::ScalarFunction(call) if call.name() == NAME);
    if is_key || !matches!(expr.get_type(schema)?, DataType::Float32 | DataType::Float64) {
        return Ok(false);
    }
    let argument = std::mem::take(expr);
    *expr = ScalarUDF::new_from_impl(OrderKey(Signature::any(1, Volatility::Immutable))).call(vec![argument]);
    Ok(true)
}

pub const NAME: &str = "order_key";

/// Its argument, with 0.0 for -0.0. Columns made of it keep the argument's name.
#[derive(Debug, PartialEq, Eq, Hash)]
struct OrderKey(Signature);

impl ScalarUDFImpl for OrderKey {
    fn name(&self) -> &str {
        NAME
    }

    fn display_name(&self, args: &[Expr]) -> Result<String> {
        Ok(args.first().map(|arg| arg.to_string()).unwrap_or_default())
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(args.first().map(|arg| arg.schema_name().to_string()).unwrap_or_default())
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types.first().cloned().unwrap_or(DataType::Null))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let array = args.args[0].to_array(args.number_rows)?;
        // Of all floats only -0.0 is changed by adding 0.0.
        let positive: ArrayRef = match array.data_type() {
            DataType::Float64 => {
                Arc::new(array.as_primitive::<Float64Type>().unary::<_, Float64Type>(|v| v + 0.0))
            }
            DataType::Float32 => {
                Arc::new(array.as_primitive::<Float32Type>().unary::<_, Float32Type>(|v| v + 0.0))
            }
            _ => array,
        };
        Ok(ColumnarValue::Array(positive))
    }
}
