//! row_number, rank, dense_rank and ntile with PostgreSQL's types and buckets; DataFusion answers with unsigned numbers.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::function::{ExpressionArgs, PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{ColumnarValue, PartitionEvaluator, Signature, WindowUDF, WindowUDFImpl};
use datafusion::physical_plan::PhysicalExpr;
use millpond_types::{SqlError, SqlState};

use crate::error::into_datafusion;

/// The function of DataFusion with the result that PostgreSQL gives.
pub(crate) fn numbering(function: &Arc<WindowUDF>) -> Option<Arc<WindowUDF>> {
    let result = match function.name() {
        "row_number" | "rank" | "dense_rank" => DataType::Int64,
        "ntile" => DataType::Int32,
        _ => return None,
    };
    Some(Arc::new(WindowUDF::new_from_impl(Numbering { inner: Arc::clone(function), result })))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Numbering {
    inner: Arc<WindowUDF>,
    result: DataType,
}

impl WindowUDFImpl for Numbering {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn expressions(&self, args: ExpressionArgs) -> Vec<Arc<dyn PhysicalExpr>> {
        self.inner.expressions(args)
    }

    fn partition_evaluator(&self, args: PartitionEvaluatorArgs) -> Result<Box<dyn PartitionEvaluator>> {
        if self.inner.name() == "ntile" {
            return Ok(Box::new(Ntile { buckets: buckets(args.input_exprs())? }));
        }
        let inner = self.inner.partition_evaluator_factory(args)?;
        Ok(Box::new(Whole { inner, result: self.result.clone() }))
    }

    fn field(&self, args: WindowUDFFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(args.name(), self.result.clone(), self.inner.name() == "ntile")))
    }
}

/// Numbers of another evaluator in another type.
#[derive(Debug)]
struct Whole {
    inner: Box<dyn PartitionEvaluator>,
    result: DataType,
}

impl PartitionEvaluator for Whole {
    fn is_causal(&self) -> bool {
        self.inner.is_causal()
    }

    fn evaluate_all(&mut self, values: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        Ok(cast(&self.inner.evaluate_all(values, rows)?, &self.result)?)
    }

    fn evaluate(&mut self, values: &[ArrayRef], range: &Range<usize>) -> Result<ScalarValue> {
        self.inner.evaluate(values, range)?.cast_to(&self.result)
    }

    fn evaluate_all_with_rank(&self, rows: usize, ranks: &[Range<usize>]) -> Result<ArrayRef> {
        Ok(cast(&self.inner.evaluate_all_with_rank(rows, ranks)?, &self.result)?)
    }

    fn supports_bounded_execution(&self) -> bool {
        self.inner.supports_bounded_execution()
    }

    fn uses_window_frame(&self) -> bool {
        self.inner.uses_window_frame()
    }

    fn include_rank(&self) -> bool {
        self.inner.include_rank()
    }
}

/// The first `rows % buckets` buckets have a row more than the others.
#[derive(Debug)]
struct Ntile {
    buckets: Option<u64>,
}

impl PartitionEvaluator for Ntile {
    fn evaluate_all(&mut self, _values: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        let Some(buckets) = self.buckets else { return Ok(Arc::new(Int32Array::new_null(rows))) };
        let numbers = (0..rows as u64).map(|row| ntile(row, rows as u64, buckets) as i32);
        Ok(Arc::new(Int32Array::from_iter_values(numbers)))
    }
}

/// The bucket, from 1, of row `row` of `rows`. `buckets` is not 0.
pub fn ntile(row: u64, rows: u64, buckets: u64) -> u64 {
    let (size, larger) = (rows / buckets, rows % buckets);
    let in_larger = larger * (size + 1);
    if row < in_larger { row / (size + 1) + 1 } else { larger + (row - in_larger) / size.max(1) + 1 }
}

fn buckets(arguments: &[Arc<dyn PhysicalExpr>]) -> Result<Option<u64>> {
    let Some(argument) = arguments.first() else { return Ok(None) };
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    let empty = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options)?;
    let value = match argument.evaluate(&empty)? {
        ColumnarValue::Scalar(value) => value,
        ColumnarValue::Array(values) => ScalarValue::try_from_array(&values, 0)?,
    };
    match value.cast_to(&DataType::Int64)? {
        ScalarValue::Int64(None) => Ok(None),
        ScalarValue::Int64(Some(n)) if n > 0 => Ok(Some(n as u64)),
        _ => Err(into_datafusion(not_positive())),
    }
}

/// What PostgreSQL says of `ntile(0)`.
pub fn not_positive() -> SqlError {
    SqlError::new(SqlState::INVALID_PARAMETER_VALUE, "argument of ntile must be greater than zero")
}

#[cfg(test)]
mod tests {
    use super::ntile;

    #[test]
    fn the_first_buckets_of_ntile_are_the_larger_ones() {
        let buckets = |rows: u64, n: u64| (0..rows).map(|row| ntile(row, rows, n)).collect::<Vec<_>>();
        assert_eq!(buckets(10, 4), [1, 1, 1, 2, 2, 2, 3, 3, 4, 4]);
        assert_eq!(buckets(2, 5), [1, 2]);
    }
}
