//! Operators over rows in order.

use std::sync::Arc;

use millpond_dataflow::{
    Frame, FrameAggregate, FrameBound, FrameUnits, OrderColumn, OverCall, OverFunction, OverSpec, Ranking,
    SortedAggregateSpec, SortedArgument, SortedCall, TopNSpec,
};
use millpond_plan::incremental::{self, Node};
use millpond_types::SqlError;

use super::function;

pub(super) fn top_n(top: &incremental::TopN, source: &Node, node: &Node) -> TopNSpec {
    TopNSpec {
        partition: top.partition.clone(),
        order: columns(&top.order),
        ranking: match top.ranking {
            incremental::Ranking::RowNumber => Ranking::RowNumber,
            incremental::Ranking::Rank => Ranking::Rank,
            incremental::Ranking::DenseRank => Ranking::DenseRank,
        },
        skip: top.skip,
        end: top.end,
        number: top.number,
        append_only: source.append_only,
        schema: Arc::clone(&node.schema),
    }
}

pub(super) fn over(over: &incremental::Over, source: &Node, node: &Node) -> Result<OverSpec, SqlError> {
    let of_frame = |call: &incremental::SortedCall| {
        let function = call.physical(&source.schema)?;
        Ok::<_, SqlError>(FrameAggregate {
            function,
            arguments: call.arguments.iter().map(argument).collect(),
        })
    };
    let call = |call: &incremental::OverCall| {
        Ok(OverCall {
            function: over_function(call.function),
            of_frame: call.of_frame.as_ref().map(of_frame).transpose()?,
            argument: call.argument,
            default: call.default,
            filter: call.filter,
            frame: frame(call.frame),
            result: call.result.clone(),
        })
    };
    Ok(OverSpec {
        partition: over.partition.clone(),
        order: columns(&over.order),
        calls: over.calls.iter().map(call).collect::<Result<_, SqlError>>()?,
        append_only: source.append_only,
        schema: Arc::clone(&node.schema),
    })
}

fn argument(argument: &incremental::Argument) -> SortedArgument {
    match argument {
        incremental::Argument::Column(column) => SortedArgument::Column(*column),
        incremental::Argument::Constant(value) => SortedArgument::Constant(value.clone()),
    }
}

pub(super) fn sorted(
    aggregate: &incremental::SortedAggregate,
    source: &Node,
    node: &Node,
) -> Result<SortedAggregateSpec, SqlError> {
    let mut calls = Vec::with_capacity(aggregate.calls.len());
    for call in &aggregate.calls {
        calls.push(SortedCall {
            function: call.physical(&source.schema)?,
            arguments: call.arguments.iter().map(argument).collect(),
            filter: call.filter,
            order: columns(&call.order),
            distinct: call.distinct,
        });
    }
    Ok(SortedAggregateSpec {
        keys: aggregate.group.clone(),
        calls,
        append_only: source.append_only,
        close: aggregate.close.and_then(super::close_spec),
        global: aggregate.global,
        schema: Arc::clone(&node.schema),
    })
}

fn columns(order: &[incremental::OrderColumn]) -> Vec<OrderColumn> {
    let column = |o: &incremental::OrderColumn| OrderColumn {
        column: o.column,
        descending: o.descending,
        nulls_first: o.nulls_first,
    };
    order.iter().map(column).collect()
}

fn over_function(of: incremental::OverFunction) -> OverFunction {
    match of {
        incremental::OverFunction::RowNumber => OverFunction::RowNumber,
        incremental::OverFunction::Rank => OverFunction::Rank,
        incremental::OverFunction::DenseRank => OverFunction::DenseRank,
        incremental::OverFunction::PercentRank => OverFunction::PercentRank,
        incremental::OverFunction::CumeDist => OverFunction::CumeDist,
        incremental::OverFunction::Ntile(n) => OverFunction::Ntile(n),
        incremental::OverFunction::Lag(rows) => OverFunction::Lag(rows),
        incremental::OverFunction::FirstValue => OverFunction::FirstValue,
        incremental::OverFunction::LastValue => OverFunction::LastValue,
        incremental::OverFunction::NthValue(n) => OverFunction::NthValue(n),
        incremental::OverFunction::Aggregate(f) => OverFunction::Aggregate(function(f)),
        incremental::OverFunction::OfFrame => OverFunction::OfFrame,
        incremental::OverFunction::SessionStart(gap) => OverFunction::SessionStart(gap),
        incremental::OverFunction::SessionEnd(gap) => OverFunction::SessionEnd(gap),
    }
}

fn frame(frame: incremental::Frame) -> Frame {
    let units = match frame.units {
        incremental::FrameUnits::Rows => FrameUnits::Rows,
        incremental::FrameUnits::Range => FrameUnits::Range,
        incremental::FrameUnits::Groups => FrameUnits::Groups,
    };
    Frame { units, start: bound(frame.start), end: bound(frame.end) }
}

fn bound(bound: incremental::FrameBound) -> FrameBound {
    match bound {
        incremental::FrameBound::UnboundedPreceding => FrameBound::UnboundedPreceding,
        incremental::FrameBound::Preceding(n) => FrameBound::Preceding(n),
        incremental::FrameBound::CurrentRow => FrameBound::CurrentRow,
        incremental::FrameBound::Following(n) => FrameBound::Following(n),
        incremental::FrameBound::UnboundedFollowing => FrameBound::UnboundedFollowing,
    }
}
