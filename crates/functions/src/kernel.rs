//! Loops over columns: whole batches with plain closures, validity apart, errors found again only after one happened.

use std::sync::Arc;

use arrow::array::*;
use arrow::buffer::NullBuffer;
use arrow::datatypes::DataType;
use datafusion::common::Result as DataFusionResult;
use datafusion::logical_expr::ColumnarValue;
use millpond_types::SqlError;

use crate::error::into_datafusion;

/// An argument of a kernel: a column, or one value that stands for all rows (an array of length 1).
#[derive(Clone, Debug)]
pub(crate) struct Side {
    pub array: ArrayRef,
    pub constant: bool,
}

impl Side {
    pub(crate) fn new(value: &ColumnarValue) -> DataFusionResult<Self> {
        Ok(match value {
            ColumnarValue::Array(array) => Self { array: Arc::clone(array), constant: false },
            ColumnarValue::Scalar(scalar) => Self { array: scalar.to_array()?, constant: true },
        })
    }

    pub(crate) fn data_type(&self) -> &DataType {
        self.array.data_type()
    }

    /// Whether every row is NULL because the one value is.
    fn is_null_constant(&self) -> bool {
        self.constant && self.array.is_null(0)
    }

    fn nulls(&self) -> Option<&NullBuffer> {
        if self.constant { None } else { self.array.nulls() }
    }
}

/// How many rows a kernel over these sides has: one, if all of them are constants.
pub(crate) fn rows_of(sides: &[&Side]) -> usize {
    sides.iter().find(|side| !side.constant).map_or(1, |side| side.array.len())
}

/// Runs a kernel on its arguments; if all are constants, so is the result.
pub(crate) fn run(
    args: &[ColumnarValue],
    kernel: impl FnOnce(&[Side]) -> Result<ArrayRef, SqlError>,
) -> DataFusionResult<ColumnarValue> {
    let sides = args.iter().map(Side::new).collect::<DataFusionResult<Vec<_>>>()?;
    let array = kernel(&sides).map_err(into_datafusion)?;
    columnar(array, sides.iter().all(|side| side.constant))
}

pub(crate) fn columnar(array: ArrayRef, constant: bool) -> DataFusionResult<ColumnarValue> {
    if constant && array.len() == 1 {
        return Ok(ColumnarValue::Scalar(datafusion::scalar::ScalarValue::try_from_array(&array, 0)?));
    }
    Ok(ColumnarValue::Array(array))
}

/// `f` of each pair; its flag says that the value is no result, and `diagnose` then tells the error of the first such
/// pair that is not NULL. `f` also sees what lies under NULLs and must not panic on it.
pub(crate) fn binary<A, B, O>(
    left: &Side,
    right: &Side,
    f: impl Fn(A::Native, B::Native) -> (O::Native, bool),
    diagnose: impl Fn(A::Native, B::Native) -> SqlError,
) -> Result<PrimitiveArray<O>, SqlError>
where
    A: ArrowPrimitiveType,
    B: ArrowPrimitiveType,
    O: ArrowPrimitiveType,
{
    let rows = rows_of(&[left, right]);
    if left.is_null_constant() || right.is_null_constant() {
        return Ok(PrimitiveArray::new_null(rows));
    }
    let (a, b) = (left.array.as_primitive::<A>().values(), right.array.as_primitive::<B>().values());
    let mut failed = false;
    let mut step = |x, y| {
        let (value, bad) = f(x, y);
        failed |= bad;
        value
    };
    let values: Vec<O::Native> = match (left.constant, right.constant) {
        (false, false) => a.iter().zip(b.iter()).map(|(x, y)| step(*x, *y)).collect(),
        (false, true) => a.iter().map(|x| step(*x, b[0])).collect(),
        (true, false) => b.iter().map(|y| step(a[0], *y)).collect(),
        (true, true) => vec![step(a[0], b[0])],
    };
    let nulls = NullBuffer::union(left.nulls(), right.nulls());
    if failed {
        for row in 0..rows {
            let (x, y) = (a[if left.constant { 0 } else { row }], b[if right.constant { 0 } else { row }]);
            if nulls.as_ref().is_none_or(|n| n.is_valid(row)) && f(x, y).1 {
                return Err(diagnose(x, y));
            }
        }
    }
    Ok(PrimitiveArray::new(values.into(), nulls))
}

/// As [`binary`], of one column.
pub(crate) fn unary<A, O>(
    array: &ArrayRef,
    f: impl Fn(A::Native) -> (O::Native, bool),
    diagnose: impl Fn(A::Native) -> SqlError,
) -> Result<PrimitiveArray<O>, SqlError>
where
    A: ArrowPrimitiveType,
    O: ArrowPrimitiveType,
{
    let input = array.as_primitive::<A>();
    let mut failed = false;
    let values: Vec<O::Native> = input
        .values()
        .iter()
        .map(|x| {
            let (value, bad) = f(*x);
            failed |= bad;
            value
        })
        .collect();
    if failed {
        for row in 0..input.len() {
            if input.is_valid(row) && f(input.value(row)).1 {
                return Err(diagnose(input.value(row)));
            }
        }
    }
    Ok(PrimitiveArray::new(values.into(), input.nulls().cloned()))
}

/// `f` of each pair of values that are not NULL, one by one, for functions whose values are dear.
pub(crate) fn try_binary<A, B, O>(
    left: &Side,
    right: &Side,
    f: impl Fn(A::Native, B::Native) -> Result<O::Native, SqlError>,
) -> Result<PrimitiveArray<O>, SqlError>
where
    A: ArrowPrimitiveType,
    B: ArrowPrimitiveType,
    O: ArrowPrimitiveType,
{
    let rows = rows_of(&[left, right]);
    let (a, b) = (left.array.as_primitive::<A>(), right.array.as_primitive::<B>());
    let mut builder = PrimitiveBuilder::<O>::with_capacity(rows);
    for row in 0..rows {
        let (i, j) = (if left.constant { 0 } else { row }, if right.constant { 0 } else { row });
        if a.is_null(i) || b.is_null(j) {
            builder.append_null();
        } else {
            builder.append_value(f(a.value(i), b.value(j))?);
        }
    }
    Ok(builder.finish())
}

/// As [`try_binary`], of one column.
pub(crate) fn try_unary<A, O>(
    array: &ArrayRef,
    f: impl Fn(A::Native) -> Result<O::Native, SqlError>,
) -> Result<PrimitiveArray<O>, SqlError>
where
    A: ArrowPrimitiveType,
    O: ArrowPrimitiveType,
{
    array.as_primitive::<A>().try_unary(f)
}
