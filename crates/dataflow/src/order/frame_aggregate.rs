//! Aggregates over frames that have no shorter way: their accumulators see the rows of each frame.
//!
//! A frame that only grows is added to, if the function lets itself be asked again and again; any other is read anew for each row, which
//! costs as much as the frame has rows. Batch does the same (`functions/src/aggregate/recomputed.rs`).

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::{cast, take};
use arrow::error::ArrowError;
use datafusion::common::ScalarValue;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::Accumulator;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use millpond_functions::aggregate::recomputed::grows;
use millpond_functions::error::from_datafusion;
use millpond_types::SqlError;

use super::spec::SortedArgument;

/// What makes the accumulators, and what they are given.
#[derive(Clone, Debug)]
pub struct FrameAggregate {
    /// Without ORDER BY and DISTINCT.
    pub function: Arc<AggregateFunctionExpr>,
    pub arguments: Vec<SortedArgument>,
}

impl FrameAggregate {
    /// One result per frame. Rows that are not `counted` are in none; a frame without a result has NULL, and its error in `failed`.
    pub(super) fn results(
        &self,
        counted: &[bool],
        bounds: &[(usize, usize)],
        columns: &[ArrayRef],
        failed: &mut BTreeMap<usize, SqlError>,
    ) -> Result<ArrayRef, ArrowError> {
        let kept: UInt32Array =
            (0..counted.len()).filter(|row| counted[*row]).map(|row| Some(row as u32)).collect();
        // Of each row, how many before it count.
        let mut places = Vec::with_capacity(counted.len() + 1);
        places.push(0);
        places.extend(counted.iter().scan(0, |place, counted| {
            *place += usize::from(*counted);
            Some(*place)
        }));
        let mut arguments = Vec::with_capacity(self.arguments.len());
        for argument in &self.arguments {
            arguments.push(match argument {
                SortedArgument::Column(column) => match columns.get(*column) {
                    Some(column) => take(column, &kept, None)?,
                    None => return Err(ArrowError::SchemaError(format!("there is no column {column}"))),
                },
                SortedArgument::Constant(value) => value.to_array_of_size(kept.len()).map_err(external)?,
            });
        }
        let ty = self.function.field().data_type().clone();
        let null = ScalarValue::try_from(&ty).map_err(external)?;
        let mut frames = Frames { function: &self.function, arguments: &arguments, last: None };
        let mut results = Vec::with_capacity(bounds.len());
        for (row, (start, end)) in bounds.iter().enumerate() {
            results.push(frames.result(places[*start], places[*end]).unwrap_or_else(|error| {
                failed.entry(row).or_insert_with(|| from_datafusion(error));
                null.clone()
            }));
        }
        if results.is_empty() {
            return Ok(arrow::array::new_empty_array(&ty));
        }
        let results = ScalarValue::iter_to_array(results).map_err(external)?;
        if *results.data_type() == ty { Ok(results) } else { cast(&results, &ty) }
    }
}

fn external(error: DataFusionError) -> ArrowError {
    ArrowError::ExternalError(Box::new(error))
}

struct Frames<'a> {
    function: &'a AggregateFunctionExpr,
    arguments: &'a [ArrayRef],
    last: Option<Last>,
}

/// The frame before, and what has read it.
struct Last {
    start: usize,
    end: usize,
    accumulator: Box<dyn Accumulator>,
    result: ScalarValue,
}

impl Frames<'_> {
    fn result(&mut self, start: usize, end: usize) -> Result<ScalarValue, DataFusionError> {
        let end = end.max(start);
        if let Some(last) = self.last.as_ref().filter(|last| (last.start, last.end) == (start, end)) {
            return Ok(last.result.clone());
        }
        let (mut accumulator, from) = match self.last.take() {
            Some(last) if last.start == start && last.end <= end && grows(self.function.fun().name()) => {
                (last.accumulator, last.end)
            }
            _ => (self.function.create_accumulator()?, start),
        };
        if from < end {
            let rows: Vec<ArrayRef> =
                self.arguments.iter().map(|column| column.slice(from, end - from)).collect();
            accumulator.update_batch(&rows)?;
        }
        let result = accumulator.evaluate()?;
        self.last = Some(Last { start, end, accumulator, result: result.clone() });
        Ok(result)
    }
}
