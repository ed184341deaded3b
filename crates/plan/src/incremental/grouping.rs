//! An aggregate of the logical plan with its expressions over a node, on the way to [`super::Aggregate`] or
//! [`super::SortedAggregate`].

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::expr::{AggregateFunction as Call, NullTreatment};
use datafusion::logical_expr::{AggregateUDF, Expr, ExprSchemable, SortExpr};
use millpond_functions::aggregate::moments::Spread;
use millpond_functions::error::from_datafusion;
use millpond_types::{RelationId, SqlError, SqlType};

use super::lower::{Names, over, unsupported};
use super::sorted::{self, Argument, SortedCall};
use super::text::shown;
use super::{AggregateCall, AggregateFunction, OrderColumn};
use crate::rules::without_alias;

/// An aggregate with its expressions over the input's node.
pub(super) struct Grouping {
    pub(super) names: Vec<String>,
    pub(super) group: Vec<Expr>,
    pub(super) calls: Vec<BoundCall>,
    pub(super) source: Option<RelationId>,
    /// Of the logical aggregate's output.
    pub(super) fields: Vec<FieldRef>,
}

impl Grouping {
    pub(super) fn output_fields(&self) -> Vec<Field> {
        let mut unique = Names::default();
        let named = self.names.iter().cloned().chain(self.calls.iter().map(|c| c.shown.clone()));
        named
            .zip(&self.fields)
            .map(|(name, field)| field.as_ref().clone().with_name(unique.next(&name)))
            .collect()
    }
}

pub(super) struct BoundCall {
    /// With an accumulator of its own; `None`: a function of all rows of a group.
    pub(super) function: Option<AggregateFunction>,
    udaf: Arc<AggregateUDF>,
    arguments: Vec<Expr>,
    pub(super) filter: Option<Expr>,
    order: Vec<SortExpr>,
    distinct: bool,
    result: SqlType,
    /// `sum(price)`
    pub(super) shown: String,
}

impl BoundCall {
    pub(super) fn new(
        expr: &Expr,
        result: SqlType,
        schema: &DFSchema,
        columns: &[(String, Expr)],
    ) -> Result<Self, SqlError> {
        let Expr::AggregateFunction(Call { func, params }) = without_alias(expr.clone()) else {
            return Err(SqlError::internal(format!("{expr} is no aggregate")));
        };
        let name = func.name().to_lowercase();
        if params.null_treatment == Some(NullTreatment::IgnoreNulls) {
            return Err(unsupported(
                &format!("IGNORE NULLS in {name}(...)"),
                "Filter the NULLs out: FILTER (WHERE ... IS NOT NULL).",
            ));
        }
        let types: Vec<DataType> = params
            .args
            .iter()
            .map(|e| e.get_type(schema))
            .collect::<Result<_, _>>()
            .map_err(from_datafusion)?;
        let function = accumulated(&name, params.distinct, &params.args, &types);
        if function.is_none() {
            sorted::check(&name, params.distinct, &params.args, &params.order_by)?;
        }
        let bind = |e: &Expr| over(e, schema, columns);
        let arguments: Vec<Expr> = params.args.iter().map(bind).collect::<Result<_, _>>()?;
        let filter = params.filter.as_deref().map(bind).transpose()?;
        let order = params.order_by.iter().map(|sort| Ok(SortExpr { expr: bind(&sort.expr)?, ..*sort }));
        let order: Vec<SortExpr> = order.collect::<Result<_, SqlError>>()?;
        let mut call = Self {
            function,
            udaf: func,
            arguments,
            filter,
            order,
            distinct: params.distinct,
            result,
            shown: String::new(),
        };
        call.shown = call.text(&name);
        Ok(call)
    }

    fn text(&self, name: &str) -> String {
        let within = self.udaf.supports_within_group_clause();
        // The order of WITHIN GROUP is an argument, too.
        let arguments = self.arguments.iter().skip(if within { self.order.len() } else { 0 });
        let arguments: Vec<String> = match self.function {
            Some(AggregateFunction::CountStar) => vec!["*".to_owned()],
            _ => arguments.map(shown).collect(),
        };
        let distinct = if self.distinct { "DISTINCT " } else { "" };
        let order: Vec<String> = self
            .order
            .iter()
            .map(|sort| format!("{}{}", shown(&sort.expr), if sort.asc { "" } else { " DESC" }))
            .collect();
        let order = if order.is_empty() { String::new() } else { format!("ORDER BY {}", order.join(", ")) };
        let mut text = match (within, order.is_empty()) {
            (true, false) => format!("{name}({}) WITHIN GROUP ({order})", arguments.join(", ")),
            (false, false) => format!("{name}({distinct}{} {order})", arguments.join(", ")),
            (_, true) => format!("{name}({distinct}{})", arguments.join(", ")),
        };
        if let Some(filter) = &self.filter {
            text.push_str(&format!(" FILTER ({})", shown(filter)));
        }
        text
    }

    pub(super) fn uses(&self, mut matches: impl FnMut(&Expr) -> bool) -> bool {
        self.arguments.iter().chain(&self.filter).chain(self.order.iter().map(|s| &s.expr)).any(&mut matches)
    }

    pub(super) fn place(&self, slots: &mut Slots) -> Option<AggregateCall> {
        let function = self.function?;
        let argument = match function {
            AggregateFunction::CountStar => None,
            _ => self.arguments.first(),
        };
        Some(AggregateCall {
            function,
            argument: argument.map(|e| slots.place(&shown(e), e)),
            filter: self.filter.as_ref().map(|e| slots.place(&shown(e), e)),
            result: self.result.clone(),
        })
    }

    pub(super) fn place_sorted(&self, slots: &mut Slots) -> SortedCall {
        let mut column = |e: &Expr| slots.place(&shown(e), e);
        let order: Vec<OrderColumn> = self
            .order
            .iter()
            .map(|sort| OrderColumn {
                column: column(&sort.expr),
                descending: !sort.asc,
                nulls_first: sort.nulls_first,
            })
            .collect();
        let mut arguments: Vec<Argument> = self
            .arguments
            .iter()
            .map(|argument| match argument {
                Expr::Literal(value, _) => Argument::Constant(value.clone()),
                other => Argument::Column(column(other)),
            })
            .collect();
        if arguments.is_empty() {
            arguments.push(Argument::Constant(ScalarValue::Int64(Some(1))));
        }
        if self.udaf.supports_within_group_clause() {
            // Its accumulator sorts, and is given what it sorts by.
            arguments.extend(order.iter().map(|o| Argument::Column(o.column)));
        }
        SortedCall {
            function: Arc::clone(&self.udaf),
            arguments,
            filter: self.filter.as_ref().map(&mut column),
            order,
            distinct: self.distinct,
            result: self.result.clone(),
        }
    }
}

/// The function with an accumulator of its own, where there is one over arguments of these types.
fn accumulated(
    name: &str,
    distinct: bool,
    arguments: &[Expr],
    types: &[DataType],
) -> Option<AggregateFunction> {
    let number = types.first().is_some_and(DataType::is_numeric);
    let ordered = types.first().is_some_and(sorted::has_extremes);
    match (name, arguments) {
        ("count", []) => Some(AggregateFunction::CountStar),
        ("count", [_]) if distinct => ordered.then_some(AggregateFunction::CountDistinct),
        ("count", [Expr::Literal(value, _)]) if !value.is_null() => Some(AggregateFunction::CountStar),
        ("count", [_]) => Some(AggregateFunction::Count),
        ("sum", [_]) if number && !distinct => Some(AggregateFunction::Sum),
        ("avg", [_]) if number && !distinct => Some(AggregateFunction::Avg),
        // False comes before true.
        ("min" | "bool_and", [_]) if ordered => Some(AggregateFunction::Min),
        ("max" | "bool_or", [_]) if ordered => Some(AggregateFunction::Max),
        (_, [_]) if !distinct => Spread::named(name).map(AggregateFunction::Spread),
        _ => None,
    }
}

/// The expressions that an aggregate reads, each once.
#[derive(Default)]
pub(super) struct Slots {
    pub(super) expressions: Vec<(String, Expr)>,
}

impl Slots {
    pub(super) fn is_empty(&self) -> bool {
        self.expressions.is_empty()
    }

    pub(super) fn place(&mut self, name: &str, expr: &Expr) -> usize {
        if let Some(at) = self.expressions.iter().position(|(_, e)| e == expr) {
            return at;
        }
        self.expressions.push((name.to_owned(), expr.clone()));
        self.expressions.len() - 1
    }

    pub(super) fn finish(self) -> Vec<(String, Expr)> {
        self.expressions
    }
}

impl AggregateFunction {
    pub fn name(self) -> &'static str {
        match self {
            Self::CountStar | Self::Count | Self::CountDistinct => "count",
            Self::Sum => "sum",
            Self::Avg => "avg",
            Self::Min => "min",
            Self::Max => "max",
            Self::Spread(spread) => spread.name(),
        }
    }
}
