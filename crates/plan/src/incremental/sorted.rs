//! Aggregates that are functions of a group's rows in order.

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{AggregateUDF, Expr, SortExpr};
use datafusion::physical_expr::PhysicalSortExpr;
use datafusion::physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_plan::PhysicalExpr;
use millpond_functions::error::from_datafusion;
use millpond_types::{SqlError, SqlState, SqlType};

use super::{OrderColumn, WindowClose};

/// GROUP BY with functions of a group's rows in order, which are all kept. Output columns: the group's, then one per call.
#[derive(Clone, Debug, PartialEq)]
pub struct SortedAggregate {
    /// Input columns; NULLs are equal to each other.
    pub group: Vec<usize>,
    pub calls: Vec<SortedCall>,
    /// No GROUP BY at all: exactly one row, also over an empty input.
    pub global: bool,
    pub close: Option<WindowClose>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct SortedCall {
    pub function: Arc<AggregateUDF>,
    pub arguments: Vec<Argument>,
    /// A boolean input column; only rows where it is true count.
    pub filter: Option<usize>,
    pub order: Vec<OrderColumn>,
    /// Of rows with equal arguments one counts.
    pub distinct: bool,
    pub result: SqlType,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Argument {
    /// Of the input.
    Column(usize),
    Constant(ScalarValue),
}

impl SortedCall {
    /// What makes accumulators over columns of `input`. Only functions with an order of their own (WITHIN GROUP) know of
    /// the order; others are given rows in order.
    ///
    /// # Errors
    /// XX000 if the function does not take its arguments.
    pub fn physical(&self, input: &SchemaRef) -> Result<Arc<AggregateFunctionExpr>, SqlError> {
        let column =
            |at: usize| -> Arc<dyn PhysicalExpr> { Arc::new(Column::new(input.field(at).name(), at)) };
        let argument = |argument: &Argument| match argument {
            Argument::Column(at) => column(*at),
            Argument::Constant(value) => Arc::new(Literal::new(value.clone())),
        };
        let mut arguments: Vec<_> = self.arguments.iter().map(argument).collect();
        let mut order = Vec::new();
        if self.function.supports_within_group_clause() {
            arguments.truncate(self.arguments.len() - self.order.len());
            order.extend(self.order.iter().map(|o| {
                PhysicalSortExpr::new(
                    column(o.column),
                    arrow::compute::SortOptions { descending: o.descending, nulls_first: o.nulls_first },
                )
            }));
        }
        AggregateExprBuilder::new(Arc::clone(&self.function), arguments)
            .schema(Arc::clone(input))
            .order_by(order)
            .alias(self.function.name())
            .build()
            .map(Arc::new)
            .map_err(from_datafusion)
    }

    pub(super) fn renumber(&mut self, to: &[usize]) {
        for argument in &mut self.arguments {
            if let Argument::Column(column) = argument {
                *column = to[*column];
            }
        }
        self.filter.iter_mut().for_each(|column| *column = to[*column]);
        self.order.iter_mut().for_each(|order| order.column = to[order.column]);
    }
}

/// Functions whose answer depends on the order of their input, which a view therefore pins down.
pub(crate) fn depends_on_order(name: &str) -> bool {
    matches!(
        name,
        "array_agg"
            | "string_agg"
            | "json_agg"
            | "jsonb_agg"
            | "json_object_agg"
            | "jsonb_object_agg"
            | "first_value"
            | "last_value"
            | "nth_value"
            | "any_value"
    )
}

/// Why a function of all rows cannot be kept up to date.
pub(super) fn check(
    name: &str,
    distinct: bool,
    arguments: &[Expr],
    order: &[SortExpr],
) -> Result<(), SqlError> {
    if name.starts_with("approx_percentile") || name == "approx_median" {
        return Err(super::lower::unsupported(
            &format!("the aggregate {name}"),
            "Use percentile_cont or percentile_disc, which are exact.",
        ));
    }
    if distinct && order.iter().any(|sort| !arguments.contains(&sort.expr)) {
        return Err(SqlError::new(
            SqlState::INVALID_COLUMN_REFERENCE,
            "in an aggregate with DISTINCT, ORDER BY expressions must appear in argument list",
        ));
    }
    Ok(())
}

/// Whether min and max of the type have an accumulator of their own.
pub(super) fn has_extremes(ty: &DataType) -> bool {
    !ty.is_nested() && !ty.is_null()
}
