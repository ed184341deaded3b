//! Filters on now(), and ASOF joins.

use std::sync::Arc;

use millpond_dataflow::{AsofSpec, ClockBound, ClockStep, Comparison, TemporalSpec, TimeSpan};
use millpond_functions::window::Tumble;
use millpond_plan::incremental::{self, Asof, Node, Temporal};
use millpond_types::SqlError;

pub(super) fn filter(filter: &Temporal, source: &Node, node: &Node) -> Result<TemporalSpec, SqlError> {
    Ok(TemporalSpec {
        spans: filter.spans.iter().map(span).collect::<Result<_, _>>()?,
        output: filter.output.clone(),
        append_only: source.append_only,
        schema: Arc::clone(&node.schema),
    })
}

fn span(span: &incremental::TimeSpan) -> Result<TimeSpan, SqlError> {
    let bounds = span.bounds.iter().map(|bound| {
        Ok(ClockBound {
            time: bound.time,
            comparison: comparison(bound.comparison),
            clock: bound.clock.iter().map(step).collect::<Result<_, SqlError>>()?,
        })
    });
    Ok(TimeSpan { conditions: span.conditions.clone(), bounds: bounds.collect::<Result<_, SqlError>>()? })
}

pub(super) fn asof(join: &Asof, sources: [&Node; 2], node: &Node) -> AsofSpec {
    AsofSpec {
        keys: join.keys.clone(),
        times: join.times,
        comparison: comparison(join.comparison),
        outer: join.outer,
        append_only: sources.map(|source| source.append_only),
        output: join.output.clone(),
        schema: Arc::clone(&node.schema),
    }
}

fn comparison(comparison: incremental::Comparison) -> Comparison {
    match comparison {
        incremental::Comparison::Less => Comparison::Less,
        incremental::Comparison::LessOrEqual => Comparison::LessOrEqual,
        incremental::Comparison::Greater => Comparison::Greater,
        incremental::Comparison::GreaterOrEqual => Comparison::GreaterOrEqual,
    }
}

fn step(step: &incremental::ClockStep) -> Result<ClockStep, SqlError> {
    Ok(match step {
        incremental::ClockStep::Shift(us) => ClockStep::Shift(*us),
        incremental::ClockStep::Truncate(unit) => {
            let (size, offset) = unit.size_and_offset();
            ClockStep::Truncate(Tumble::new(size, Some(offset))?)
        }
    })
}
