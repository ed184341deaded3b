//! Expressions that belong to a relation's columns: watermark, DEFAULT, generated columns, CHECK.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema};
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, ExprSchemable};
use datafusion::physical_expr::create_physical_expr;
use datafusion::physical_plan::PhysicalExpr;
use datafusion::sql::planner::{PlannerContext, SqlToRel};
use millpond_functions::error::from_datafusion;
use millpond_types::{SqlError, SqlState, SqlType};
use sqlparser::ast;

use crate::context::Context;
use crate::errors::{self, Places, at_opt};
use crate::{Planner, coercion, prepare, rules};

/// A typed expression over the declared columns of one relation.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnExpression {
    /// Columns are named without a qualifier.
    pub expr: Expr,
    pub ty: SqlType,
    /// The declared columns it reads, ascending.
    pub columns: Vec<usize>,
    /// It calls something that answers differently each time (random(), nextval()) or now().
    pub volatile: bool,
}

impl Planner {
    /// Types an expression over the columns of one relation (name, type, NOT NULL): a watermark, a generated column, a
    /// CHECK; a DEFAULT, with no columns. `to` is the type it is stored as, by assignment; `None` leaves its own.
    ///
    /// # Errors
    /// As PostgreSQL's for the expression; 0A000 for subqueries; 42803 and 42P20 for aggregates and window functions.
    pub fn plan_column_expression(
        &self,
        columns: &[(String, SqlType, bool)],
        expr: &ast::Expr,
        to: Option<(&str, &SqlType)>,
    ) -> Result<ColumnExpression, SqlError> {
        let places = Places::of(expr);
        let fields = columns.iter().map(|(name, ty, not_null)| ty.field(name, !not_null)).collect::<Vec<_>>();
        let schema = DFSchema::try_from(Schema::new(fields)).map_err(|e| errors::planning(e, &places))?;
        let context = Context::new(self, Vec::new());
        let bound = SqlToRel::new(&context)
            .sql_to_expr(prepare::expression(expr)?, &schema, &mut PlannerContext::new())
            .map_err(|e| errors::planning(e, &places))?;
        refuse_misplaced(&bound, "an expression of a column")?;
        let (_, session) = context.into_findings();
        let mut volatile = session.is_some();
        let walk = bound.apply(|e| {
            volatile |= e.is_volatile_node();
            Ok(TreeNodeRecursion::Continue)
        });
        debug_assert!(walk.is_ok(), "walking an expression cannot fail");
        let place = millpond_sql::position_of(ast::Spanned::span(expr));
        let expr = match to {
            Some((name, ty)) => coercion::assign(bound, name, ty, &schema, self.settings.zone(), place)?,
            None => rules::typed(vec![bound], &schema, self.settings.zone())
                .map_err(|e| errors::planning(e, &places))?
                .swap_remove(0),
        };
        let (_, field) = expr.to_field(&schema).map_err(|e| errors::planning(e, &places))?;
        let ty = SqlType::of(&field)?;
        let reads: BTreeSet<usize> = expr
            .column_refs()
            .into_iter()
            .filter_map(|column| columns.iter().position(|(name, ..)| *name == column.name))
            .collect();
        Ok(ColumnExpression { expr, ty, columns: reads.into_iter().collect(), volatile })
    }
}

/// Refuses what an expression over single rows cannot hold.
pub(crate) fn refuse_misplaced(expr: &Expr, place: &str) -> Result<(), SqlError> {
    if has_subquery(expr) {
        return Err(SqlError::unsupported(format!("a subquery in {place} is not supported")));
    }
    refuse_aggregates(expr, place)
}

pub(crate) fn has_subquery(expr: &Expr) -> bool {
    let found = expr.exists(|e| {
        Ok(matches!(
            e,
            Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_)
        ))
    });
    found.expect("walking an expression cannot fail")
}

/// As [`refuse_misplaced`], where a subquery may stand.
pub(crate) fn refuse_aggregates(expr: &Expr, place: &str) -> Result<(), SqlError> {
    let mut error = None;
    let walk = expr.apply(|e| {
        error = match e {
            Expr::AggregateFunction(_) => Some(SqlError::new(
                SqlState::GROUPING_ERROR,
                format!("aggregate functions are not allowed in {place}"),
            )),
            Expr::WindowFunction(_) => Some(SqlError::new(
                SqlState::WINDOWING_ERROR,
                format!("window functions are not allowed in {place}"),
            )),
            Expr::Unnest(_) => Some(SqlError::unsupported(format!("unnest in {place} is not supported"))),
            _ => None,
        };
        Ok(if error.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    debug_assert!(walk.is_ok(), "walking an expression cannot fail");
    error.map_or(Ok(()), Err)
}

/// `expr` over batches of `schema`, whose fields it names without qualifiers. This is the way for the expressions of
/// incremental plans, of columns and of writes alike.
///
/// # Errors
/// 42804 and the like if it does not type.
pub fn physical(expr: &Expr, schema: &SchemaRef) -> Result<Arc<dyn PhysicalExpr>, SqlError> {
    let schema = DFSchema::try_from(Arc::clone(schema)).map_err(from_datafusion)?;
    create_physical_expr(expr, &schema, &ExecutionProps::new(), &PhysicalPlanningContext::default())
        .map_err(from_datafusion)
}

/// The expression with its columns' qualifiers taken off.
pub(crate) fn unqualified(expr: Expr) -> Expr {
    let transformed = expr.transform_up(|e| {
        Ok(match e {
            Expr::Column(column) if column.relation.is_some() => {
                Transformed::yes(Expr::Column(Column::new_unqualified(column.name)))
            }
            other => Transformed::no(other),
        })
    });
    transformed.expect("renaming columns cannot fail").data
}

/// `expr`, which must be boolean.
pub(crate) fn boolean(
    expr: &Expr,
    schema: &DFSchema,
    clause: &str,
    place: Option<usize>,
) -> Result<(), SqlError> {
    let (_, field) = expr.to_field(schema).map_err(from_datafusion)?;
    match SqlType::of(&field)? {
        SqlType::Boolean => Ok(()),
        _ if field.data_type().is_null() => Ok(()),
        other => Err(at_opt(
            SqlError::new(
                SqlState::DATATYPE_MISMATCH,
                format!("argument of {clause} must be type boolean, not type {other}"),
            ),
            place,
        )),
    }
}
