//! An aggregate of the logical plan with its expressions over a node, on the way to [`super::Aggregate`].

use arrow::datatypes::{Field, FieldRef};
use datafusion::common::DFSchema;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::expr::AggregateFunction as Call;
use millpond_types::{RelationId, SqlError, SqlType};

use super::lower::{Names, over, unsupported};
use super::text::shown;
use super::{AggregateCall, AggregateFunction};
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
    pub(super) function: AggregateFunction,
    pub(super) argument: Option<Expr>,
    pub(super) filter: Option<Expr>,
    pub(super) result: SqlType,
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
        if name == "first_value" {
            return Err(unsupported("DISTINCT ON (or first_value)", "Use GROUP BY with min or max."));
        }
        if params.distinct && !matches!(name.as_str(), "count" | "min" | "max" | "bool_and" | "bool_or") {
            return Err(unsupported(
                &format!("{name}(DISTINCT ...)"),
                "Use count(DISTINCT ...), or aggregate over a view that groups by the distinct values.",
            ));
        }
        if !params.order_by.is_empty() || params.null_treatment.is_some() {
            return Err(unsupported(
                &format!("an order inside {name}(...)"),
                "Use count, sum, avg, min or max.",
            ));
        }
        let argument = match &params.args[..] {
            [] => None,
            [one] => Some(one),
            _ => {
                return Err(unsupported(
                    &format!("{name} with several arguments"),
                    "Use count, sum, avg, min or max.",
                ));
            }
        };
        let (function, argument) = match (name.as_str(), argument) {
            ("count", Some(argument)) if params.distinct => {
                (AggregateFunction::CountDistinct, Some(argument))
            }
            ("count", None) => (AggregateFunction::CountStar, None),
            ("count", Some(Expr::Literal(value, _))) if !value.is_null() => {
                (AggregateFunction::CountStar, None)
            }
            ("count", Some(argument)) => (AggregateFunction::Count, Some(argument)),
            ("sum", Some(argument)) => (AggregateFunction::Sum, Some(argument)),
            ("avg", Some(argument)) => (AggregateFunction::Avg, Some(argument)),
            ("min", Some(argument)) => (AggregateFunction::Min, Some(argument)),
            ("max", Some(argument)) => (AggregateFunction::Max, Some(argument)),
            // False comes before true.
            ("bool_and", Some(argument)) => (AggregateFunction::Min, Some(argument)),
            ("bool_or", Some(argument)) => (AggregateFunction::Max, Some(argument)),
            _ => {
                return Err(unsupported(
                    &format!("the aggregate {name}"),
                    "Aggregates that views keep up to date are count, sum, avg, min, max, bool_and and bool_or.",
                ));
            }
        };
        let argument = argument.map(|e| over(e, schema, columns)).transpose()?;
        let filter = params.filter.as_deref().map(|e| over(e, schema, columns)).transpose()?;
        let inner = argument.as_ref().map_or("*".to_owned(), shown);
        let distinct = if params.distinct { "DISTINCT " } else { "" };
        let mut text = format!("{}({distinct}{inner})", func.name());
        if let Some(filter) = &filter {
            text.push_str(&format!(" FILTER ({})", shown(filter)));
        }
        Ok(Self { function, argument, filter, result, shown: text })
    }

    pub(super) fn place(&self, slots: &mut Slots) -> AggregateCall {
        AggregateCall {
            function: self.function,
            argument: self.argument.as_ref().map(|e| slots.place(&shown(e), e)),
            filter: self.filter.as_ref().map(|e| slots.place(&shown(e), e)),
            result: self.result.clone(),
        }
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
        }
    }
}
