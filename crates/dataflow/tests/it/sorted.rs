//! Aggregates over the sorted rows of each group.

use std::sync::Arc;

use arrow::datatypes::*;
use datafusion::common::ScalarValue;
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_plan::PhysicalExpr;
use millpond_dataflow::*;
use millpond_functions::Registry;

/// A call of a function of the registry; columns are of `input`.
pub fn call(
    input: &SchemaRef,
    function: &str,
    arguments: Vec<SortedArgument>,
    order: Vec<OrderColumn>,
) -> SortedCall {
    let expression = |argument: &SortedArgument| -> Arc<dyn PhysicalExpr> {
        match argument {
            SortedArgument::Column(at) => Arc::new(Column::new(input.field(*at).name(), *at)),
            SortedArgument::Constant(value) => Arc::new(Literal::new(value.clone())),
        }
    };
    let udaf = Registry::global().aggregate(function).expect("a function");
    let function = AggregateExprBuilder::new(udaf, arguments.iter().map(expression).collect())
        .schema(Arc::clone(input))
        .alias(function)
        .build()
        .expect("it takes these");
    SortedCall { function: Arc::new(function), arguments, filter: None, order, distinct: false }
}

/// The aggregate with accumulators, or the same one over the rows of its groups.
pub fn add_aggregate(
    graph: &mut Graph,
    source: impl Into<NodeId>,
    spec: AggregateSpec,
    input: &SchemaRef,
    over_rows: bool,
) -> NodeId {
    if !over_rows {
        return graph.add_aggregate(source, spec).expect("an aggregate");
    }
    let calls = spec.calls.iter().map(|of| {
        let name = match of.function {
            AggregateFunction::CountStar | AggregateFunction::Count | AggregateFunction::CountDistinct => {
                "count"
            }
            AggregateFunction::Sum => "sum",
            AggregateFunction::Avg => "avg",
            AggregateFunction::Min => "min",
            AggregateFunction::Max => "max",
            AggregateFunction::Spread(spread) => spread.name(),
        };
        let argument = match of.argument {
            Some(column) => SortedArgument::Column(column),
            None => SortedArgument::Constant(ScalarValue::Int64(Some(1))),
        };
        let distinct = of.function == AggregateFunction::CountDistinct;
        SortedCall { filter: of.filter, distinct, ..call(input, name, vec![argument], Vec::new()) }
    });
    let sorted = SortedAggregateSpec {
        calls: calls.collect(),
        keys: spec.keys,
        append_only: spec.append_only,
        close: spec.close,
        global: spec.global,
        schema: spec.schema,
    };
    graph.add_sorted_aggregate(source, sorted).expect("an aggregate")
}
