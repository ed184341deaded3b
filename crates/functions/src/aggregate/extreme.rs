//! min and max of groups of floats and intervals in PostgreSQL's order: NaN is above everything, intervals order by their
//! length with months of 30 days. For all other types, DataFusion's.
//!
//! DataFusion's groups of floats begin at the smallest finite one, so a group of `-Infinity` alone would have that for its
//! largest value, and NaN replaces whatever stood before it.

use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::*;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF, SetMonotonicity,
    Signature, StatisticsArgs,
};

/// DataFusion's min or max, with groups of its own for some types.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Extreme {
    inner: Arc<AggregateUDF>,
    max: bool,
}

impl Extreme {
    /// `inner` is DataFusion's min or max.
    pub(crate) fn over(inner: Arc<AggregateUDF>) -> Self {
        Self { max: inner.name() == "max", inner }
    }
}

fn is_ours(ty: &DataType) -> bool {
    matches!(ty, DataType::Float32 | DataType::Float64 | DataType::Interval(IntervalUnit::MonthDayNano))
}

impl AggregateUDFImpl for Extreme {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.inner.state_fields(args)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let max = self.max;
        match args.return_field.data_type() {
            DataType::Interval(IntervalUnit::MonthDayNano) => {
                Ok(Box::new(One(Groups::<Intervals>::new(max))))
            }
            _ => self.inner.accumulator(args),
        }
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.inner.create_sliding_accumulator(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        is_ours(args.return_field.data_type()) || self.inner.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        let max = self.max;
        match args.return_field.data_type() {
            DataType::Float32 => Ok(Box::new(Groups::<Singles>::new(max))),
            DataType::Float64 => Ok(Box::new(Groups::<Doubles>::new(max))),
            DataType::Interval(IntervalUnit::MonthDayNano) => Ok(Box::new(Groups::<Intervals>::new(max))),
            _ => self.inner.create_groups_accumulator(args),
        }
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn is_descending(&self) -> Option<bool> {
        self.inner.is_descending()
    }

    fn value_from_stats(&self, args: &StatisticsArgs) -> Option<ScalarValue> {
        self.inner.value_from_stats(args)
    }

    fn set_monotonicity(&self, ty: &DataType) -> SetMonotonicity {
        self.inner.inner().set_monotonicity(ty)
    }
}

/// A type with PostgreSQL's order.
trait Ordered: Debug + Send + Sync + 'static {
    type Arrow: ArrowPrimitiveType + Debug;
    type Key: Ord + Copy + Debug + Send + Sync;
    fn key(value: <Self::Arrow as ArrowPrimitiveType>::Native) -> Self::Key;
}

#[derive(Debug)]
struct Singles;
#[derive(Debug)]
struct Doubles;
#[derive(Debug)]
struct Intervals;

/// The bits of a float, so that they order as PostgreSQL orders floats. Both zeros are equal.
fn float_key(value: f64) -> i64 {
    let bits = if value.is_nan() { f64::NAN } else { value + 0.0 }.to_bits() as i64;
    bits ^ (((bits >> 63) as u64) >> 1) as i64
}

impl Ordered for Singles {
    type Arrow = Float32Type;
    type Key = i64;
    fn key(value: f32) -> i64 {
        float_key(value.into())
    }
}

impl Ordered for Doubles {
    type Arrow = Float64Type;
    type Key = i64;
    fn key(value: f64) -> i64 {
        float_key(value)
    }
}

impl Ordered for Intervals {
    type Arrow = IntervalMonthDayNanoType;
    type Key = i128;
    fn key(value: IntervalMonthDayNano) -> i128 {
        let days = i128::from(value.months) * 30 + i128::from(value.days);
        days * 86_400_000_000_000 + i128::from(value.nanoseconds)
    }
}

/// The extreme value of each group; of equal ones the first.
#[derive(Debug)]
struct Groups<O: Ordered> {
    max: bool,
    values: Vec<Option<<O::Arrow as ArrowPrimitiveType>::Native>>,
    order: PhantomData<O>,
}

impl<O: Ordered> Groups<O> {
    fn new(max: bool) -> Self {
        Self { max, values: Vec::new(), order: PhantomData }
    }

    fn add(&mut self, group: usize, value: <O::Arrow as ArrowPrimitiveType>::Native) {
        let best = &mut self.values[group];
        let better = best.is_none_or(|best| match self.max {
            true => O::key(value) > O::key(best),
            false => O::key(value) < O::key(best),
        });
        if better {
            *best = Some(value);
        }
    }

    fn array(values: Vec<Option<<O::Arrow as ArrowPrimitiveType>::Native>>) -> ArrayRef {
        Arc::new(values.into_iter().collect::<PrimitiveArray<O::Arrow>>())
    }
}

impl<O: Ordered> GroupsAccumulator for Groups<O> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.values.resize(total, None);
        let values = values[0].as_primitive::<O::Arrow>();
        for (row, group) in groups.iter().enumerate() {
            if values.is_valid(row) && filter.is_none_or(|f| f.is_valid(row) && f.value(row)) {
                self.add(*group, values.value(row));
            }
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.update_batch(states, groups, None, total)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        Ok(Self::array(emit_to.take_needed(&mut self.values)))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.evaluate(emit_to)?])
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let mut rows = Self::new(self.max);
        let each: Vec<usize> = (0..values[0].len()).collect();
        rows.update_batch(values, &each, filter, each.len())?;
        Ok(vec![Self::array(rows.values)])
    }

    fn size(&self) -> usize {
        self.values.capacity() * size_of::<Option<<O::Arrow as ArrowPrimitiveType>::Native>>()
    }
}

/// All rows are one group.
#[derive(Debug)]
struct One<O: Ordered>(Groups<O>);

impl<O: Ordered> Accumulator for One<O> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        GroupsAccumulator::update_batch(&mut self.0, values, &vec![0; values[0].len()], None, 1)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let value = self.0.values.first().copied().flatten();
        ScalarValue::try_from_array(&Groups::<O>::array(vec![value]), 0)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_have_the_order_of_postgresql() {
        let ascending = [f64::NEG_INFINITY, -1.5, -1e-300, 0.0, 1e-300, f64::MAX, f64::INFINITY, f64::NAN];
        assert!(ascending.windows(2).all(|pair| float_key(pair[0]) < float_key(pair[1])));
        assert_eq!(float_key(-0.0), float_key(0.0));
        assert_eq!(float_key(-f64::NAN), float_key(f64::NAN));
    }

    #[test]
    fn groups_have_their_extremes() {
        let values: ArrayRef = Arc::new(Float64Array::from(vec![
            Some(f64::NEG_INFINITY),
            Some(f64::NAN),
            Some(1.0),
            None,
            Some(f64::NEG_INFINITY),
        ]));
        for (max, expected) in [
            (true, vec![Some(f64::NEG_INFINITY), Some(f64::NAN), None]),
            (false, vec![Some(f64::NEG_INFINITY), Some(1.0), None]),
        ] {
            let mut groups = Groups::<Doubles>::new(max);
            groups.update_batch(&[Arc::clone(&values)], &[0, 1, 1, 2, 0], None, 3).unwrap();
            let results = groups.evaluate(EmitTo::All).unwrap();
            let bits = |v: Option<f64>| v.map(f64::to_bits);
            let results: Vec<_> = results.as_primitive::<Float64Type>().iter().map(bits).collect();
            assert_eq!(results, expected.into_iter().map(bits).collect::<Vec<_>>());
        }
    }
}
