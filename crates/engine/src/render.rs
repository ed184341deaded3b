//! The one place where a plan becomes operators.

mod joins;
mod order;
mod temporal;

use std::sync::Arc;

use arrow::datatypes::{DataType, IntervalMonthDayNano};
use millpond_dataflow::{
    AggregateCall, AggregateFunction, AggregateSpec, CloseSpec, FlatMapSpec, Graph, GroupColumn, HopClose,
    HopSpec, InputId, MapSpec, NodeId, WindowKind, WindowSpec,
};
use millpond_functions::window::{Cumulate, Hop, Tumble};
use millpond_plan::incremental::{self, HopColumn, InputColumn, Node, Operator, Plan};
use millpond_plan::physical;
use millpond_plan::window as planned;
use millpond_types::{RelationId, SqlError};

use crate::clock::CLOCK;

/// A plan as operators.
pub(crate) struct Rendered {
    pub inputs: Vec<RenderedInput>,
    /// Of each node of the plan.
    pub nodes: Vec<NodeId>,
}

/// Where the changes of a relation enter.
pub(crate) struct RenderedInput {
    pub relation: RelationId,
    pub columns: Vec<InputColumn>,
    pub schema: arrow::datatypes::SchemaRef,
    pub id: InputId,
}

/// # Errors
/// 0A000 for types that an operator cannot hold; XX000 if the plan contradicts itself.
pub(crate) fn render(plan: &Plan, graph: &mut Graph) -> Result<Rendered, SqlError> {
    let mut inputs = Vec::new();
    let mut nodes: Vec<NodeId> = Vec::with_capacity(plan.nodes.len());
    let clock = plan.follows_clock().then(|| {
        let schema = Arc::new(arrow::datatypes::Schema::empty());
        let id = graph.add_input(Arc::clone(&schema));
        inputs.push(RenderedInput { relation: CLOCK, columns: Vec::new(), schema, id });
        id
    });
    for node in &plan.nodes {
        let source = |n: usize| nodes[node.inputs[n]];
        let source_node = |n: usize| &plan.nodes[node.inputs[n]];
        nodes.push(match &node.operator {
            Operator::Input(input) => {
                let id = graph.add_input(Arc::clone(&node.schema));
                inputs.push(RenderedInput {
                    relation: input.relation,
                    columns: input.columns.clone(),
                    schema: Arc::clone(&node.schema),
                    id,
                });
                id.into()
            }
            Operator::Map(map) => graph.add_map(source(0), map_spec(map, source_node(0), node)?)?,
            Operator::Aggregate(aggregate) => {
                let spec = aggregate_spec(aggregate, source_node(0), node);
                graph.add_aggregate(source(0), spec)?
            }
            Operator::HopAggregate(hop) => {
                graph.add_hop_aggregate(source(0), hop_spec(hop, source_node(0), node)?)?
            }
            Operator::SortedAggregate(aggregate) => {
                graph.add_sorted_aggregate(source(0), order::sorted(aggregate, source_node(0), node)?)?
            }
            Operator::Window(window) => {
                let kind = match window.window {
                    planned::WindowKind::Tumble { size, offset } => {
                        WindowKind::Tumble(Tumble::new(size, Some(offset))?)
                    }
                    planned::WindowKind::Hop { slide, size, offset } => {
                        WindowKind::Hop(Hop::new(slide, size, Some(offset))?)
                    }
                    planned::WindowKind::Cumulate { step, size, offset } => {
                        WindowKind::Cumulate(Cumulate::new(step, size, Some(offset))?)
                    }
                    planned::WindowKind::Session { .. } => {
                        return Err(SqlError::internal("a session is no function of one row"));
                    }
                };
                graph.add_window(source(0), WindowSpec { time: window.time, kind })?
            }
            Operator::Join(join) => {
                let spec = joins::join(join, [source_node(0), source_node(1)], node)?;
                graph.add_join(source(0), source(1), &spec)?
            }
            Operator::MultiJoin(join) => {
                let sources: Vec<NodeId> = node.inputs.iter().map(|n| nodes[*n]).collect();
                let inputs: Vec<&Node> = node.inputs.iter().map(|n| &plan.nodes[*n]).collect();
                graph.add_multi_join(&sources, &joins::multi_join(join, &inputs, node)?)?
            }
            Operator::OneRow => one_row(graph, node)?,
            Operator::Union => {
                let sources: Vec<NodeId> = node.inputs.iter().map(|n| nodes[*n]).collect();
                graph.add_union(&sources)?
            }
            Operator::TopN(top) => graph.add_top_n(source(0), order::top_n(top, source_node(0), node))?,
            Operator::Over(over) => graph.add_over(source(0), order::over(over, source_node(0), node)?)?,
            Operator::Asof(join) => {
                let spec = temporal::asof(join, [source_node(0), source_node(1)], node);
                graph.add_asof(source(0), source(1), &spec)?
            }
            Operator::Temporal(filter) => {
                let clock = clock.ok_or_else(|| SqlError::internal("a filter on now() without a clock"))?;
                graph.add_temporal(source(0), clock, &temporal::filter(filter, source_node(0), node)?)?
            }
            Operator::FlatMap(sets) => {
                let spec = FlatMapSpec {
                    kept: sets.kept.clone(),
                    sets: sets.sets.clone(),
                    ordinality: sets.ordinality,
                    outer: sets.outer,
                    schema: Arc::clone(&node.schema),
                };
                graph.add_flat_map(source(0), &spec)?
            }
            Operator::Repeat(repeat) => graph.add_repeat(source(0), repeat.times)?,
        });
    }
    let root = *nodes.last().ok_or_else(|| SqlError::internal("a plan has no nodes"))?;
    graph.add_output(root)?;
    Ok(Rendered { inputs, nodes })
}

/// A count of the rows of an input that nobody feeds.
fn one_row(graph: &mut Graph, node: &Node) -> Result<NodeId, SqlError> {
    let nothing = graph.add_input(Arc::clone(&node.schema));
    let count = AggregateCall {
        function: AggregateFunction::CountStar,
        argument: None,
        filter: None,
        result: DataType::Int64,
    };
    let spec = AggregateSpec {
        keys: Vec::new(),
        calls: vec![count],
        append_only: true,
        close: None,
        global: true,
        schema: Arc::clone(&node.schema),
    };
    graph.add_aggregate(nothing, spec)
}

fn map_spec(map: &incremental::Map, source: &Node, node: &Node) -> Result<MapSpec, SqlError> {
    let filter = map.filter.as_ref().map(|filter| physical(filter, &source.schema)).transpose()?;
    let mut projection = Vec::with_capacity(map.projection.len());
    for (expr, field) in map.projection.iter().zip(node.schema.fields()) {
        projection.push((physical(expr, &source.schema)?, Arc::clone(field)));
    }
    Ok(MapSpec { filter, projection })
}

fn aggregate_spec(aggregate: &incremental::Aggregate, source: &Node, node: &Node) -> AggregateSpec {
    AggregateSpec {
        keys: aggregate.group.clone(),
        calls: calls(&aggregate.calls),
        append_only: source.append_only,
        close: aggregate.close.and_then(close_spec),
        global: aggregate.global,
        schema: Arc::clone(&node.schema),
    }
}

fn close_spec(close: incremental::WindowClose) -> Option<CloseSpec> {
    Some(CloseSpec {
        window_end: close.end?,
        window_start: None,
        watermark: close.watermark,
        lateness_micros: close.lateness_us,
        emit_on_close: close.emit_on_close,
    })
}

fn hop_spec(hop: &incremental::HopAggregate, source: &Node, node: &Node) -> Result<HopSpec, SqlError> {
    let (slide, size, offset, cumulative) = match hop.window {
        planned::WindowKind::Hop { slide, size, offset } => (slide, size, offset, false),
        planned::WindowKind::Cumulate { step, size, offset } => (step, size, offset, true),
        _ => return Err(SqlError::internal("an aggregate per slice over windows that have none")),
    };
    let keys = hop.group.iter().map(|column| match column {
        HopColumn::Input(n) => GroupColumn::Input(*n),
        HopColumn::WindowStart => GroupColumn::WindowStart,
        HopColumn::WindowEnd => GroupColumn::WindowEnd,
    });
    Ok(HopSpec {
        time: hop.time,
        slide_micros: micros(slide)?,
        size_micros: micros(size)?,
        offset_micros: micros(offset)?,
        cumulative,
        keys: keys.collect(),
        calls: calls(&hop.calls),
        append_only: source.append_only,
        close: hop.close.map(|close| HopClose {
            watermark: close.watermark,
            lateness_micros: close.lateness_us,
            emit_on_close: close.emit_on_close,
        }),
        schema: Arc::clone(&node.schema),
    })
}

fn calls(calls: &[incremental::AggregateCall]) -> Vec<AggregateCall> {
    let call = |c: &incremental::AggregateCall| AggregateCall {
        function: function(c.function),
        argument: c.argument,
        filter: c.filter,
        result: result_type(c),
    };
    calls.iter().map(call).collect()
}

fn function(function: incremental::AggregateFunction) -> AggregateFunction {
    match function {
        incremental::AggregateFunction::CountStar => AggregateFunction::CountStar,
        incremental::AggregateFunction::Count => AggregateFunction::Count,
        incremental::AggregateFunction::CountDistinct => AggregateFunction::CountDistinct,
        incremental::AggregateFunction::Sum => AggregateFunction::Sum,
        incremental::AggregateFunction::Avg => AggregateFunction::Avg,
        incremental::AggregateFunction::Min => AggregateFunction::Min,
        incremental::AggregateFunction::Max => AggregateFunction::Max,
        incremental::AggregateFunction::Spread(spread) => AggregateFunction::Spread(spread),
    }
}

fn result_type(call: &incremental::AggregateCall) -> DataType {
    call.result.arrow()
}

fn micros(interval: IntervalMonthDayNano) -> Result<i64, SqlError> {
    if interval.months != 0 {
        return Err(SqlError::unsupported("a hop of calendar months is not aggregated per slice")
            .hint("Use TUMBLE for months and years."));
    }
    Ok(i64::from(interval.days) * 86_400_000_000 + interval.nanoseconds / 1_000)
}
