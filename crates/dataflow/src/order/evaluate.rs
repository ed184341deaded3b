//! Window functions over rows in order, a column at a time.
//!
//! Numbers come from positions; lag, first_value and the like are positions that are then gathered at once; counts and sums
//! are differences of running totals, so that a frame of any size costs the same; min and max keep the candidates of a
//! sliding frame in a queue. Running totals of floats would drift, so a sum of floats adds up each frame.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Decimal256Array, Float64Array, Int64Array,
    UInt32Array,
};
use arrow::compute::{cast, is_null, take};
use arrow::datatypes::*;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use millpond_functions::aggregate::{
    avg_from_sum_count, avg_from_sum_count_wide, sum_to_bigint, sum_to_numeric, sum_to_numeric_wide,
};
use millpond_functions::numbering::ntile;
use millpond_types::SqlError;

use super::frame::Layout;
use super::session;
use super::spec::{FrameBound, OverCall, OverFunction, SortedArgument};
use crate::exchange::is_time;
use crate::spec::AggregateFunction;

/// Results by row, and why some rows have none.
pub(super) struct Results {
    pub(super) columns: Vec<ArrayRef>,
    pub(super) failed: BTreeMap<usize, SqlError>,
}

/// Computes `calls` over `columns`, which are those of the source. `values` are those of the order column.
pub(super) fn evaluate(
    calls: &[OverCall],
    layout: &Layout,
    columns: &[ArrayRef],
    values: Option<&[Option<i128>]>,
) -> Result<Results, ArrowError> {
    let mut results = Results { columns: Vec::with_capacity(calls.len()), failed: BTreeMap::new() };
    for call in calls {
        let column = match call.function {
            OverFunction::Aggregate(function) => {
                let bounds = call.frame.bounds(layout, values);
                aggregate(call, function, &bounds, columns, &mut results.failed)?
            }
            OverFunction::OfFrame => {
                let bounds = call.frame.bounds(layout, values);
                let counted = counted(call, columns, bounds.len());
                let aggregate = call.of_frame.as_ref().ok_or_else(|| {
                    ArrowError::InvalidArgumentError("an aggregate of a frame lacks its function".to_owned())
                })?;
                aggregate.results(&counted, &bounds, columns, &mut results.failed)?
            }
            OverFunction::FirstValue | OverFunction::LastValue | OverFunction::NthValue(_) => {
                let bounds = call.frame.bounds(layout, values);
                let picked: UInt32Array = bounds.iter().map(|bounds| pick(call.function, *bounds)).collect();
                take(argument(call, columns)?, &picked, None)?
            }
            OverFunction::Lag(rows) => lag(call, rows, layout, columns)?,
            OverFunction::SessionStart(gap) => session::starts(call, gap, layout, values)?,
            OverFunction::SessionEnd(gap) => session::ends(call, gap, layout, values, &mut results.failed)?,
            _ => numbers(call.function, layout),
        };
        let same = *column.data_type() == call.result;
        results.columns.push(if same { column } else { cast(&column, &call.result)? });
    }
    Ok(results)
}

fn argument<'c>(call: &OverCall, columns: &'c [ArrayRef]) -> Result<&'c ArrayRef, ArrowError> {
    let column = call.argument.and_then(|at| columns.get(at));
    column.ok_or_else(|| ArrowError::InvalidArgumentError("a window function lacks its argument".to_owned()))
}

fn pick(function: OverFunction, (start, end): (usize, usize)) -> Option<u32> {
    let row = match function {
        OverFunction::FirstValue => start,
        OverFunction::LastValue => end.checked_sub(1)?,
        OverFunction::NthValue(n) => start.checked_add(usize::try_from(n).ok()?.checked_sub(1)?)?,
        _ => return None,
    };
    (start..end).contains(&row).then_some(row as u32)
}

fn lag(call: &OverCall, rows: i64, layout: &Layout, columns: &[ArrayRef]) -> Result<ArrayRef, ArrowError> {
    let mut picked: Vec<Option<u32>> = Vec::with_capacity(layout.peers.len());
    for segment in &layout.segments {
        picked.extend(segment.clone().map(|row| {
            let from = (row as i64).checked_sub(rows).and_then(|from| usize::try_from(from).ok())?;
            segment.contains(&from).then_some(from as u32)
        }));
    }
    let picked = UInt32Array::from(picked);
    let taken = take(argument(call, columns)?, &picked, None)?;
    let Some(default) = call.default.and_then(|at| columns.get(at)) else { return Ok(taken) };
    let default = cast(default, taken.data_type())?;
    arrow::compute::kernels::zip::zip(&is_null(&picked)?, &default, &taken)
}

fn numbers(function: OverFunction, layout: &Layout) -> ArrayRef {
    let rows = layout.peers.len();
    let mut whole: Vec<i64> = Vec::with_capacity(rows);
    let mut shares: Vec<f64> = Vec::new();
    for segment in &layout.segments {
        let (start, count) = (segment.start, segment.len());
        let mut dense = 0;
        for row in segment.clone() {
            let (first, last) = layout.peers[row];
            dense += i64::from(first == row);
            match function {
                OverFunction::RowNumber => whole.push((row - start) as i64 + 1),
                OverFunction::Rank => whole.push((first - start) as i64 + 1),
                OverFunction::DenseRank => whole.push(dense),
                OverFunction::PercentRank if count == 1 => shares.push(0.0),
                OverFunction::PercentRank => shares.push((first - start) as f64 / (count - 1) as f64),
                OverFunction::CumeDist => shares.push((last - start) as f64 / count as f64),
                OverFunction::Ntile(buckets) => {
                    whole.push(ntile((row - start) as u64, count as u64, buckets) as i64)
                }
                // The caller has taken the others away.
                _ => {}
            }
        }
    }
    match function {
        OverFunction::PercentRank | OverFunction::CumeDist => Arc::new(Float64Array::from(shares)),
        _ => Arc::new(Int64Array::from(whole)),
    }
}

/// Rows whose argument is not NULL and whose filter is true.
fn counted(call: &OverCall, columns: &[ArrayRef], rows: usize) -> Vec<bool> {
    let argument = call.argument.and_then(|at| columns.get(at));
    let filter = call.filter.and_then(|at| columns.get(at)).and_then(|column| column.as_boolean_opt());
    let valid = |row: usize| argument.is_none_or(|column| column.is_valid(row));
    let kept = |row: usize| filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
    (0..rows).map(|row| valid(row) && kept(row)).collect()
}

fn aggregate(
    call: &OverCall,
    function: AggregateFunction,
    bounds: &[(usize, usize)],
    columns: &[ArrayRef],
    failed: &mut BTreeMap<usize, SqlError>,
) -> Result<ArrayRef, ArrowError> {
    let counted = counted(call, columns, bounds.len());
    let totals: Vec<i64> = running(counted.iter().map(|counted| i64::from(*counted)), |a, b| a + b);
    let counts: Vec<i64> = bounds.iter().map(|(start, end)| totals[*end] - totals[*start]).collect();
    match function {
        AggregateFunction::CountStar | AggregateFunction::Count => Ok(Arc::new(Int64Array::from(counts))),
        AggregateFunction::CountDistinct => {
            Err(ArrowError::NotYetImplemented("count(DISTINCT) over a window".to_owned()))
        }
        AggregateFunction::Spread(_) => {
            Err(ArrowError::NotYetImplemented("stddev or variance over a window".to_owned()))
        }
        AggregateFunction::Min | AggregateFunction::Max => {
            let max = function == AggregateFunction::Max;
            extremes(argument(call, columns)?, max, &counted, bounds)
        }
        AggregateFunction::Sum | AggregateFunction::Avg => {
            let values = argument(call, columns)?;
            let finish = Finish { call, avg: function == AggregateFunction::Avg, counts: &counts };
            match values.data_type() {
                DataType::Float32 | DataType::Float64 => {
                    let values = cast(values, &DataType::Float64)?;
                    let values = values.as_primitive::<Float64Type>().values();
                    Ok(finish.floats(&float_sums(values, &counted, bounds)))
                }
                data_type => {
                    let scale = match data_type {
                        DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) => *scale,
                        _ => 0,
                    };
                    let values = integers(values)?;
                    let kept = values.iter().zip(&counted).map(|(v, c)| if *c { *v } else { i256::ZERO });
                    let totals = running(kept, i256::wrapping_add);
                    let sums = bounds.iter().map(|(start, end)| totals[*end].wrapping_sub(totals[*start]));
                    finish.integers(&sums.collect::<Vec<_>>(), scale, failed)
                }
            }
        }
    }
}

/// Totals before each row, and after the last.
fn running<T: Copy + Default>(values: impl Iterator<Item = T>, add: impl Fn(T, T) -> T) -> Vec<T> {
    let mut total = T::default();
    let mut totals = vec![total];
    totals.extend(values.map(|value| {
        total = add(total, value);
        total
    }));
    totals
}

fn integers(column: &ArrayRef) -> Result<Vec<i256>, ArrowError> {
    macro_rules! widen {
        ($type:ty) => {
            column.as_primitive::<$type>().values().iter().map(|v| i256::from_i128(i128::from(*v))).collect()
        };
    }
    Ok(match column.data_type() {
        DataType::Int16 => widen!(Int16Type),
        DataType::Int32 => widen!(Int32Type),
        DataType::Int64 => widen!(Int64Type),
        DataType::Decimal128(_, _) => widen!(Decimal128Type),
        DataType::Decimal256(_, _) => column.as_primitive::<Decimal256Type>().values().to_vec(),
        other => return Err(ArrowError::NotYetImplemented(format!("sum of {other} over a window"))),
    })
}

/// A frame that only grows is added to; any other is added up.
fn float_sums(values: &[f64], counted: &[bool], bounds: &[(usize, usize)]) -> Vec<f64> {
    let mut last: (usize, usize, f64) = (0, 0, 0.0);
    let add = |from: f64, rows: std::ops::Range<usize>| {
        rows.filter(|row| counted[*row]).fold(from, |sum, row| sum + values[row])
    };
    bounds
        .iter()
        .map(|&(start, end)| {
            let (from, until, sum) = last;
            let grows = from == start && until <= end && until > from;
            let sum = if grows { add(sum, until..end) } else { add(0.0, start..end) };
            last = (start, end, sum);
            sum
        })
        .collect()
}

/// Sums and counts of frames as results.
struct Finish<'a> {
    call: &'a OverCall,
    avg: bool,
    counts: &'a [i64],
}

impl Finish<'_> {
    fn floats(&self, sums: &[f64]) -> ArrayRef {
        let one = |(sum, count): (&f64, &i64)| match *count {
            0 => None,
            count if self.avg => Some(sum / count as f64),
            _ => Some(*sum),
        };
        Arc::new(sums.iter().zip(self.counts).map(one).collect::<Float64Array>())
    }

    fn integers(
        &self,
        sums: &[i256],
        scale: i8,
        failed: &mut BTreeMap<usize, SqlError>,
    ) -> Result<ArrayRef, ArrowError> {
        let narrow =
            |sum: i256| sum.to_i128().ok_or_else(|| sum_to_numeric(i128::MAX).expect_err("39 digits"));
        macro_rules! column {
            ($array:ty, $one:expr) => {{
                let one = $one;
                let mut result = |(row, (sum, count)): (usize, (&i256, &i64))| {
                    if *count == 0 {
                        return None;
                    }
                    match one(*sum, *count) {
                        Ok(value) => Some(value),
                        Err(error) => {
                            failed.entry(row).or_insert(error);
                            None
                        }
                    }
                };
                sums.iter().zip(self.counts).enumerate().map(&mut result).collect::<$array>()
            }};
        }
        let result = &self.call.result;
        Ok(match result {
            DataType::Int64 => {
                let one = |sum: i256, _: i64| narrow(sum).and_then(sum_to_bigint);
                Arc::new(column!(Int64Array, one))
            }
            DataType::Decimal128(_, to) => {
                let one = |sum: i256, count: i64| match self.avg {
                    true => narrow(sum).and_then(|sum| avg_from_sum_count(sum, scale, count, *to)),
                    false => narrow(sum).and_then(sum_to_numeric),
                };
                Arc::new(column!(Decimal128Array, one).with_data_type(result.clone()))
            }
            DataType::Decimal256(_, to) => {
                let one = |sum: i256, count: i64| match self.avg {
                    true => avg_from_sum_count_wide(sum, scale, count, *to),
                    false => sum_to_numeric_wide(sum),
                };
                Arc::new(column!(Decimal256Array, one).with_data_type(result.clone()))
            }
            other => return Err(ArrowError::NotYetImplemented(format!("a sum of type {other}"))),
        })
    }
}

/// The least or greatest counted value of each frame. Neither end of a frame goes back from one row to the next, except
/// where a partition begins, so each row enters and leaves the queue of candidates once.
fn extremes(
    column: &ArrayRef,
    max: bool,
    counted: &[bool],
    bounds: &[(usize, usize)],
) -> Result<ArrayRef, ArrowError> {
    let converter = RowConverter::new(vec![SortField::new(column.data_type().clone())])?;
    let values = converter.convert_columns(&[Arc::clone(column)])?;
    // Whether an earlier candidate can still win against a later one.
    let wins = |earlier: usize, later: usize| match max {
        true => values.row(earlier) > values.row(later),
        false => values.row(earlier) < values.row(later),
    };
    let mut queue: VecDeque<usize> = VecDeque::new();
    let mut entered = 0;
    let mut picked: Vec<Option<u32>> = Vec::with_capacity(bounds.len());
    for &(start, end) in bounds {
        if entered < start || end < entered {
            queue.clear();
            entered = start;
        }
        for row in (entered..end).filter(|row| counted[*row]) {
            while queue.back().is_some_and(|last| !wins(*last, row)) {
                queue.pop_back();
            }
            queue.push_back(row);
        }
        entered = entered.max(end);
        while queue.front().is_some_and(|first| *first < start) {
            queue.pop_front();
        }
        picked.push(queue.front().map(|row| *row as u32));
    }
    take(column, &UInt32Array::from(picked), None)
}

/// One column that is equal for rows whose results are, failures included.
pub(super) fn marks(results: &Results, rows: usize) -> Option<BooleanArray> {
    (!results.failed.is_empty())
        .then(|| (0..rows).map(|row| Some(results.failed.contains_key(&row))).collect())
}

/// Whether a call can be computed over columns of these types.
pub(super) fn check(call: &OverCall, input: &Schema, order: Option<&DataType>) -> Result<(), SqlError> {
    let has_offset = |bound: FrameBound| matches!(bound, FrameBound::Preceding(_) | FrameBound::Following(_));
    let ranged = call.frame.units == super::spec::FrameUnits::Range
        && (has_offset(call.frame.start) || has_offset(call.frame.end));
    let ordered = matches!(
        order,
        Some(
            DataType::Int16
                | DataType::Int32
                | DataType::Int64
                | DataType::Date32
                | DataType::Timestamp(TimeUnit::Microsecond, _)
                | DataType::Decimal128(_, _)
        )
    );
    if ranged && !ordered {
        return Err(SqlError::unsupported(
            "RANGE with an offset over a column of this type is not supported",
        )
        .hint("Order by an integer, numeric, date or timestamp column, or use ROWS."));
    }
    let session = matches!(call.function, OverFunction::SessionStart(_) | OverFunction::SessionEnd(_));
    if session && !(is_time(&call.result) && order.is_some_and(is_time)) {
        return Err(SqlError::internal("sessions of what is no time"));
    }
    if call.function == OverFunction::Aggregate(AggregateFunction::CountDistinct) {
        return Err(SqlError::unsupported("count(DISTINCT) over a window is not supported"));
    }
    if call.function == OverFunction::Ntile(0) {
        return Err(SqlError::internal("ntile(0)"));
    }
    if (call.function == OverFunction::OfFrame) != call.of_frame.is_some() {
        return Err(SqlError::internal("an aggregate of a frame lacks its function"));
    }
    let of_frame = call.of_frame.iter().flat_map(|aggregate| &aggregate.arguments).map(|a| match a {
        SortedArgument::Column(column) => Some(*column),
        SortedArgument::Constant(_) => None,
    });
    let columns: Vec<Option<usize>> =
        [call.argument, call.default, call.filter].into_iter().chain(of_frame).collect();
    if columns.iter().flatten().any(|column| *column >= input.fields().len()) {
        return Err(SqlError::internal("a window function names a column that its source lacks"));
    }
    if let OverFunction::Aggregate(AggregateFunction::Sum | AggregateFunction::Avg) = call.function {
        let argument = call.argument.map(|at| input.field(at).data_type());
        let known = argument.is_some_and(|ty| {
            matches!(
                ty,
                DataType::Int16
                    | DataType::Int32
                    | DataType::Int64
                    | DataType::Float32
                    | DataType::Float64
                    | DataType::Decimal128(_, _)
                    | DataType::Decimal256(_, _)
            )
        });
        if !known {
            return Err(SqlError::unsupported("sum or avg of this type over a window is not supported")
                .hint("Use numbers."));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::spec::{Frame, FrameUnits};

    #[test]
    fn sliding_extremes_are_those_of_each_frame() {
        let values: ArrayRef =
            Arc::new(Int64Array::from(vec![Some(5), None, Some(3), Some(4), Some(1), Some(9)]));
        let layout = Layout { segments: vec![0..4, 4..6], peers: (0..6).map(|row| (row, row + 1)).collect() };
        let frame =
            Frame { units: FrameUnits::Rows, start: FrameBound::Preceding(1), end: FrameBound::Following(1) };
        let call = |function| OverCall {
            function: OverFunction::Aggregate(function),
            of_frame: None,
            argument: Some(0),
            default: None,
            filter: None,
            frame,
            result: DataType::Int64,
        };
        let calls = [call(AggregateFunction::Min), call(AggregateFunction::Max)];
        let results = evaluate(&calls, &layout, &[values], None).expect("columns fit");
        let ints = |n: usize| results.columns[n].as_primitive::<Int64Type>().iter().collect::<Vec<_>>();
        assert_eq!(ints(0), [5, 3, 3, 3, 1, 1].map(Some));
        assert_eq!(ints(1), [5, 5, 4, 4, 9, 9].map(Some));
    }
}
