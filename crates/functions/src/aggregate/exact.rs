//! sum and avg as PostgreSQL types them: integers and numerics exactly, in 128 or 256 bits.
//!
//! The state of a group is a sum and a count of the values that are not NULL, so values can be taken back (sliding
//! frames). The final step is the plain function of the module above that incremental views use too.

use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::*;
use arrow::buffer::NullBuffer;
use arrow::datatypes::*;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{
    Accumulator, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF, Signature, Volatility,
};
use millpond_types::{SqlError, SqlType};

use super::{
    avg_from_sum_count, avg_from_sum_count_wide, avg_type, overflow, sum_to_bigint, sum_to_numeric, sum_type,
};
use crate::error::into_datafusion;
use crate::operator::temporal::scale_interval;

/// sum or avg.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Exact {
    average: bool,
    signature: Signature,
}

impl Exact {
    pub(crate) fn sum() -> Self {
        Self { average: false, signature: Signature::user_defined(Volatility::Immutable) }
    }
    pub(crate) fn avg() -> Self {
        Self { average: true, signature: Signature::user_defined(Volatility::Immutable) }
    }

    fn result(&self, input: &SqlType) -> Result<SqlType, SqlError> {
        if self.average { avg_type(input) } else { sum_type(input) }
    }

    fn shape(&self, input: &DataType) -> Result<Shape> {
        let input = crate::numeric::plain(SqlType::of_arrow(input).map_err(into_datafusion)?);
        let result = self.result(&input).map_err(into_datafusion)?;
        Ok(Shape { average: self.average, input, result })
    }
}

/// What is summed, and what becomes of it.
#[derive(Clone, Debug)]
struct Shape {
    average: bool,
    input: SqlType,
    result: SqlType,
}

impl Shape {
    /// The Arrow type of sums in flight.
    fn state(&self) -> DataType {
        match &self.input {
            SqlType::Int2 | SqlType::Int4 | SqlType::Int8 => DataType::Decimal128(38, 0),
            SqlType::Numeric(p, s) if *p <= 38 => DataType::Decimal128(38, *s),
            SqlType::Numeric(_, s) => DataType::Decimal256(76, *s),
            SqlType::Interval => SqlType::Interval.arrow(),
            _ => DataType::Float64,
        }
    }

    fn scale(&self) -> i8 {
        if let SqlType::Numeric(_, s) = self.input { s } else { 0 }
    }

    fn result_scale(&self) -> i8 {
        if let SqlType::Numeric(_, s) = self.result { s } else { 0 }
    }
}

macro_rules! by_type {
    ($shape:expr, $make:ident) => {
        match &$shape.input {
            SqlType::Int2 => $make!(Int16Type, Decimal128Type),
            SqlType::Int4 => $make!(Int32Type, Decimal128Type),
            SqlType::Int8 => $make!(Int64Type, Decimal128Type),
            SqlType::Numeric(p, _) if *p <= 38 => $make!(Decimal128Type, Decimal128Type),
            SqlType::Numeric(..) => $make!(Decimal256Type, Decimal256Type),
            SqlType::Float4 => $make!(Float32Type, Float64Type),
            SqlType::Interval => $make!(IntervalMonthDayNanoType, IntervalMonthDayNanoType),
            _ => $make!(Float64Type, Float64Type),
        }
    };
}

impl AggregateUDFImpl for Exact {
    fn name(&self) -> &str {
        if self.average { "avg" } else { "sum" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let [input] = types else {
            return Err(into_datafusion(crate::error::no_function(self.name(), types)));
        };
        // A bare NULL is text to PostgreSQL, and text has no sum.
        let input = crate::numeric::plain(SqlType::of_arrow(input).map_err(into_datafusion)?);
        self.result(&input).map_err(into_datafusion)?;
        Ok(vec![input.arrow()])
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(self.shape(&types[0])?.result.arrow())
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let input = args.input_fields[0].data_type();
        if args.is_distinct {
            let values = Field::new_list_field(input.clone(), true);
            return Ok(vec![Arc::new(Field::new_list(
                format_state_name(args.name, "distinct"),
                values,
                false,
            ))]);
        }
        Ok(vec![
            Arc::new(Field::new(format_state_name(args.name, "sum"), self.shape(input)?.state(), false)),
            Arc::new(Field::new(format_state_name(args.name, "count"), DataType::Int64, false)),
        ])
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let input = args.expr_fields[0].data_type();
        let shape = self.shape(input)?;
        macro_rules! make {
            ($input:ty, $state:ty) => {
                Box::new(Single::<$input, $state>(Groups::new(shape)))
            };
        }
        let single: Box<dyn Accumulator> = by_type!(shape, make);
        if args.is_distinct {
            return Ok(Box::new(super::distinct::Distinct::new(input.clone(), single)));
        }
        Ok(single)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        !args.is_distinct
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        let shape = self.shape(args.expr_fields[0].data_type())?;
        macro_rules! make {
            ($input:ty, $state:ty) => {
                Ok(Box::new(Groups::<$input, $state>::new(shape)))
            };
        }
        by_type!(shape, make)
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

/// A type of sums in flight: addition with a flag for overflow, and the way out.
trait Sum: ArrowPrimitiveType + Debug {
    fn add(a: Self::Native, b: Self::Native) -> (Self::Native, bool);
    fn subtract(a: Self::Native, b: Self::Native) -> (Self::Native, bool);
    fn finish(shape: &Shape, sums: &[Self::Native], counts: &[i64]) -> Result<ArrayRef, SqlError>;
}

/// A value as its sum.
trait Summed<S: Sum>: ArrowPrimitiveType + Debug {
    fn widen(value: Self::Native) -> S::Native;
}

macro_rules! summed {
    ($($input:ty => $state:ty: $widen:expr;)*) => {
        $(impl Summed<$state> for $input {
            #[inline(always)]
            fn widen(value: Self::Native) -> <$state as ArrowPrimitiveType>::Native {
                $widen(value)
            }
        })*
    };
}
summed! {
    Int16Type => Decimal128Type: i128::from;
    Int32Type => Decimal128Type: i128::from;
    Int64Type => Decimal128Type: i128::from;
    Decimal128Type => Decimal128Type: std::convert::identity;
    Decimal256Type => Decimal256Type: std::convert::identity;
    Float32Type => Float64Type: f64::from;
    Float64Type => Float64Type: std::convert::identity;
    IntervalMonthDayNanoType => IntervalMonthDayNanoType: std::convert::identity;
}

/// The groups that have values; the others are NULL.
fn valid(counts: &[i64]) -> Option<NullBuffer> {
    counts.contains(&0).then(|| counts.iter().map(|count| *count != 0).collect::<Vec<bool>>().into())
}

/// `finish` of each group that has values.
fn each<S: Copy, O: ArrowPrimitiveType>(
    sums: &[S],
    counts: &[i64],
    finish: impl Fn(S, i64) -> Result<O::Native, SqlError>,
) -> Result<PrimitiveArray<O>, SqlError> {
    let one =
        |(sum, count): (&S, &i64)| if *count == 0 { Ok(O::Native::default()) } else { finish(*sum, *count) };
    let values = sums.iter().zip(counts).map(one).collect::<Result<Vec<_>, SqlError>>()?;
    Ok(PrimitiveArray::new(values.into(), valid(counts)))
}

impl Sum for Decimal128Type {
    fn add(a: i128, b: i128) -> (i128, bool) {
        a.overflowing_add(b)
    }
    fn subtract(a: i128, b: i128) -> (i128, bool) {
        a.overflowing_sub(b)
    }
    fn finish(shape: &Shape, sums: &[i128], counts: &[i64]) -> Result<ArrayRef, SqlError> {
        let (scale, wanted) = (shape.scale(), shape.result_scale());
        if shape.result == SqlType::Int8 {
            return Ok(Arc::new(each::<_, Int64Type>(sums, counts, |sum, _| sum_to_bigint(sum))?));
        }
        let values = match shape.average {
            true => each::<_, Self>(sums, counts, |sum, n| avg_from_sum_count(sum, scale, n, wanted))?,
            false => each::<_, Self>(sums, counts, |sum, _| sum_to_numeric(sum))?,
        };
        Ok(Arc::new(values.with_data_type(shape.result.arrow())))
    }
}

impl Sum for Decimal256Type {
    fn add(a: i256, b: i256) -> (i256, bool) {
        let sum = a.checked_add(b);
        (sum.unwrap_or(i256::ZERO), sum.is_none())
    }
    fn subtract(a: i256, b: i256) -> (i256, bool) {
        let difference = a.checked_sub(b);
        (difference.unwrap_or(i256::ZERO), difference.is_none())
    }
    fn finish(shape: &Shape, sums: &[i256], counts: &[i64]) -> Result<ArrayRef, SqlError> {
        let (scale, wanted) = (shape.scale(), shape.result_scale());
        let values = each::<_, Self>(sums, counts, |sum, n| match shape.average {
            true => avg_from_sum_count_wide(sum, scale, n, wanted),
            false => super::sum_to_numeric_wide(sum),
        })?;
        Ok(Arc::new(values.with_data_type(shape.result.arrow())))
    }
}

impl Sum for Float64Type {
    fn add(a: f64, b: f64) -> (f64, bool) {
        let sum = a + b;
        (sum, sum.is_infinite() && a.is_finite() && b.is_finite())
    }
    fn subtract(a: f64, b: f64) -> (f64, bool) {
        (a - b, false)
    }
    fn finish(shape: &Shape, sums: &[f64], counts: &[i64]) -> Result<ArrayRef, SqlError> {
        let value = |sum: f64, count: i64| if shape.average { sum / count as f64 } else { sum };
        if shape.result == SqlType::Float4 {
            return Ok(Arc::new(each::<_, Float32Type>(sums, counts, |sum, _| {
                let narrow = sum as f32;
                if narrow.is_infinite() && sum.is_finite() {
                    Err(crate::operator::overflow())
                } else {
                    Ok(narrow)
                }
            })?));
        }
        Ok(Arc::new(each::<_, Self>(sums, counts, |sum, count| Ok(value(sum, count)))?))
    }
}

impl Sum for IntervalMonthDayNanoType {
    fn add(a: IntervalMonthDayNano, b: IntervalMonthDayNano) -> (IntervalMonthDayNano, bool) {
        let (months, m) = a.months.overflowing_add(b.months);
        let (days, d) = a.days.overflowing_add(b.days);
        let (nanoseconds, n) = a.nanoseconds.overflowing_add(b.nanoseconds);
        (IntervalMonthDayNano { months, days, nanoseconds }, m | d | n)
    }
    fn subtract(a: IntervalMonthDayNano, b: IntervalMonthDayNano) -> (IntervalMonthDayNano, bool) {
        let (months, m) = a.months.overflowing_sub(b.months);
        let (days, d) = a.days.overflowing_sub(b.days);
        let (nanoseconds, n) = a.nanoseconds.overflowing_sub(b.nanoseconds);
        (IntervalMonthDayNano { months, days, nanoseconds }, m | d | n)
    }
    fn finish(shape: &Shape, sums: &[IntervalMonthDayNano], counts: &[i64]) -> Result<ArrayRef, SqlError> {
        Ok(Arc::new(each::<_, Self>(sums, counts, |sum, count| match shape.average {
            true => scale_interval(sum, |part| part / count as f64),
            false => Ok(sum),
        })?))
    }
}

/// Sums and counts of many groups.
#[derive(Debug)]
struct Groups<I: Summed<S>, S: Sum> {
    shape: Shape,
    sums: Vec<S::Native>,
    counts: Vec<i64>,
    input: PhantomData<fn() -> I>,
}

impl<I: Summed<S>, S: Sum> Groups<I, S> {
    fn new(shape: Shape) -> Self {
        Self { shape, sums: Vec::new(), counts: Vec::new(), input: PhantomData }
    }

    fn resize(&mut self, groups: usize) {
        self.sums.resize(groups, S::Native::default());
        self.counts.resize(groups, 0);
    }

    fn add(&mut self, values: &PrimitiveArray<I>, groups: &[usize], filter: Option<&BooleanArray>) -> bool {
        let mut failed = false;
        let mut step = |group: usize, value: I::Native| {
            let (sum, bad) = S::add(self.sums[group], I::widen(value));
            self.sums[group] = sum;
            self.counts[group] += 1;
            failed |= bad;
        };
        match (filter, values.null_count()) {
            (None, 0) => {
                groups.iter().zip(values.values().iter()).for_each(|(group, value)| step(*group, *value))
            }
            _ => {
                for (row, group) in groups.iter().enumerate() {
                    let kept = filter.is_none_or(|f| f.is_valid(row) && f.value(row));
                    if kept && values.is_valid(row) {
                        step(*group, values.value(row));
                    }
                }
            }
        }
        failed
    }

    fn take(&mut self, emit_to: EmitTo) -> (Vec<S::Native>, Vec<i64>) {
        (emit_to.take_needed(&mut self.sums), emit_to.take_needed(&mut self.counts))
    }

    fn states(&self, sums: Vec<S::Native>, counts: Vec<i64>) -> Vec<ArrayRef> {
        let sums = PrimitiveArray::<S>::new(sums.into(), None).with_data_type(self.shape.state());
        vec![Arc::new(sums), Arc::new(Int64Array::from(counts))]
    }

    fn check(failed: bool) -> Result<()> {
        if failed { Err(into_datafusion(overflow())) } else { Ok(()) }
    }
}

impl<I: Summed<S>, S: Sum> GroupsAccumulator for Groups<I, S> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.resize(total);
        let failed = self.add(values[0].as_primitive::<I>(), groups, filter);
        Self::check(failed)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let (sums, counts) = self.take(emit_to);
        S::finish(&self.shape, &sums, &counts).map_err(into_datafusion)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let (sums, counts) = self.take(emit_to);
        Ok(self.states(sums, counts))
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.resize(total);
        let (sums, counts) = (states[0].as_primitive::<S>(), states[1].as_primitive::<Int64Type>());
        let mut failed = false;
        for (row, group) in groups.iter().enumerate() {
            let (sum, bad) = S::add(self.sums[*group], sums.value(row));
            self.sums[*group] = sum;
            self.counts[*group] += counts.value(row);
            failed |= bad;
        }
        Self::check(failed)
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let mut rows = Self::new(self.shape.clone());
        let each: Vec<usize> = (0..values[0].len()).collect();
        rows.resize(each.len());
        rows.add(values[0].as_primitive::<I>(), &each, filter);
        let (sums, counts) = (std::mem::take(&mut rows.sums), std::mem::take(&mut rows.counts));
        Ok(self.states(sums, counts))
    }

    fn size(&self) -> usize {
        self.sums.capacity() * size_of::<S::Native>() + self.counts.capacity() * size_of::<i64>()
    }
}

/// Addition or subtraction.
type Step<S> = fn(
    <S as ArrowPrimitiveType>::Native,
    <S as ArrowPrimitiveType>::Native,
) -> (<S as ArrowPrimitiveType>::Native, bool);

/// One group, for aggregates without GROUP BY and for window frames.
#[derive(Debug)]
struct Single<I: Summed<S>, S: Sum>(Groups<I, S>);

impl<I: Summed<S>, S: Sum> Single<I, S> {
    fn fold(&mut self, values: &ArrayRef, step: Step<S>, sign: i64) -> Result<()> {
        self.0.resize(1);
        let values = values.as_primitive::<I>();
        let (mut sum, mut failed) = (self.0.sums[0], false);
        let mut fold = |value: I::Native| {
            let (next, bad) = step(sum, I::widen(value));
            (sum, failed) = (next, failed | bad);
        };
        match values.null_count() {
            0 => values.values().iter().for_each(|value| fold(*value)),
            _ => values.iter().flatten().for_each(fold),
        }
        self.0.sums[0] = sum;
        self.0.counts[0] += sign * (values.len() - values.null_count()) as i64;
        Groups::<I, S>::check(failed)
    }
}

impl<I: Summed<S>, S: Sum> Accumulator for Single<I, S> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.fold(&values[0], S::add, 1)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.fold(&values[0], S::subtract, -1)
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.0.resize(1);
        let array = S::finish(&self.0.shape, &self.0.sums, &self.0.counts).map_err(into_datafusion)?;
        ScalarValue::try_from_array(&array, 0)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.0.resize(1);
        let states = self.0.states(self.0.sums.clone(), self.0.counts.clone());
        states.iter().map(|array| ScalarValue::try_from_array(array, 0)).collect()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let groups = vec![0; states[0].len()];
        GroupsAccumulator::merge_batch(&mut self.0, states, &groups, 1)
    }

    fn size(&self) -> usize {
        size_of_val(self) + GroupsAccumulator::size(&self.0)
    }
}
