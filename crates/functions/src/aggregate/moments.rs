//! stddev and variance, of samples and of populations, from a count, a sum and a sum of squares.
//!
//! Integers and numerics are exact up to the last division, so values can be taken back without a trace; their results are
//! numeric with [`super::AVG_SCALE`] digits after the point, as those of avg. Floats are summed in twice the precision of a
//! double (Dekker, "A floating-point technique for extending the available precision", 1971): squares then cancel without
//! harm, and values can be taken back, too.

use std::fmt::Debug;

use arrow::array::*;
use arrow::datatypes::*;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, ReversedUDAF, Signature, Volatility};
use millpond_types::{SqlError, SqlType};

use super::{AVG_SCALE, overflow};
use crate::error::into_datafusion;
use crate::numeric::divide_rounded_256;
use crate::text::number::power_of_ten;

/// Which of the four functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Spread {
    /// Divided by n - 1, not by n.
    pub sample: bool,
    /// The root of the variance.
    pub deviation: bool,
}

impl Spread {
    /// By the name of the function; `None` for any other.
    pub fn named(name: &str) -> Option<Self> {
        let (sample, deviation) = match name {
            "variance" | "var_samp" => (true, false),
            "var_pop" => (false, false),
            "stddev" | "stddev_samp" => (true, true),
            "stddev_pop" => (false, true),
            _ => return None,
        };
        Some(Self { sample, deviation })
    }

    pub fn name(self) -> &'static str {
        match (self.sample, self.deviation) {
            (true, false) => "var_samp",
            (false, false) => "var_pop",
            (true, true) => "stddev_samp",
            (false, true) => "stddev_pop",
        }
    }

    /// Digits of the exact result. The variance of bigints may need more than a Decimal128 holds.
    fn precision(self) -> u8 {
        if self.deviation { 38 } else { 76 }
    }

    /// The result over exact values of `scale` digits after the point, with [`AVG_SCALE`] digits; `None` is NULL.
    ///
    /// # Errors
    /// 22003 if it, or what it is computed from, has too many digits.
    pub fn of_exact(self, count: i64, sum: i256, squares: i256, scale: i8) -> Result<Option<i256>, SqlError> {
        if count < 1 + i64::from(self.sample) {
            return Ok(None);
        }
        let n = i256::from_i128(count.into());
        let spread = n.checked_mul(squares).zip(sum.checked_mul(sum)).and_then(|(a, b)| a.checked_sub(b));
        let divisor = n.checked_mul(if self.sample { i256::from_i128((count - 1).into()) } else { n });
        let (spread, divisor) = spread.zip(divisor).ok_or_else(overflow)?;
        // Squares have twice the digits after the point.
        let shift = i32::from(AVG_SCALE) - 2 * i32::from(scale);
        let factor = power_of_ten(shift.unsigned_abs().min(76) as u8);
        let (spread, divisor) = match shift >= 0 {
            true => (spread.checked_mul(factor).ok_or_else(overflow)?, divisor),
            false => (spread, divisor.checked_mul(factor).ok_or_else(overflow)?),
        };
        let variance = divide_rounded_256(spread, divisor).ok_or_else(overflow)?;
        let result = match self.deviation {
            true => root(variance.checked_mul(power_of_ten(AVG_SCALE as u8)).ok_or_else(overflow)?),
            false => variance,
        };
        if result < power_of_ten(self.precision()) { Ok(Some(result)) } else { Err(overflow()) }
    }

    fn scalar(self, exact: Option<i256>) -> Result<ScalarValue, SqlError> {
        Ok(match self.deviation {
            false => ScalarValue::Decimal256(exact, 76, AVG_SCALE),
            true => {
                let narrow = exact.map(|value| value.to_i128().ok_or_else(overflow)).transpose()?;
                ScalarValue::Decimal128(narrow, 38, AVG_SCALE)
            }
        })
    }

    /// The result over floats; `None` is NULL.
    ///
    /// # Errors
    /// 22003 if the sum of squares is beyond the range of a double.
    pub fn of_floats(self, moments: &FloatMoments) -> Result<Option<f64>, SqlError> {
        let FloatMoments { count, not_finite, sum, squares } = *moments;
        if count < 1 + i64::from(self.sample) {
            return Ok(None);
        }
        if not_finite != 0 {
            return Ok(Some(f64::NAN));
        }
        let n = count as f64;
        let mean_square = sum.times(sum).over(n);
        let spread = squares.plus(mean_square.negated()).value();
        if !squares.value().is_finite() || !spread.is_finite() {
            return Err(crate::operator::overflow());
        }
        // Rounding may have left less than nothing, and -0.0 is not what it prints.
        let spread = if spread > 0.0 { spread } else { 0.0 };
        let variance = spread / if self.sample { n - 1.0 } else { n };
        Ok(Some(if self.deviation { variance.sqrt() } else { variance }))
    }
}

/// The root of a value that is not negative, rounded to the nearest.
fn root(value: i256) -> i256 {
    if value <= i256::ZERO {
        return i256::ZERO;
    }
    // Newton's way, from above.
    let bits = 256 - value.leading_zeros();
    let mut root = i256::ONE << bits.div_ceil(2).min(254) as u8;
    loop {
        let next = (root + value / root) >> 1;
        if next >= root {
            break;
        }
        root = next;
    }
    // root² <= value < (root + 1)²
    if value - root * root > root { root + i256::ONE } else { root }
}

/// A number as the sum of two doubles, the second no larger than half a unit of the first's last place.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Double(pub f64, pub f64);

impl Double {
    fn value(self) -> f64 {
        self.0 + self.1
    }

    fn negated(self) -> Self {
        Self(-self.0, -self.1)
    }

    /// Of a product, exactly.
    fn product(a: f64, b: f64) -> Self {
        let product = a * b;
        Self(product, a.mul_add(b, -product))
    }

    fn plus(self, other: Self) -> Self {
        let sum = self.0 + other.0;
        let from = sum - self.0;
        let lost = (self.0 - (sum - from)) + (other.0 - from);
        let low = lost + self.1 + other.1;
        let high = sum + low;
        Self(high, low - (high - sum))
    }

    fn times(self, other: Self) -> Self {
        let Self(high, low) = Self::product(self.0, other.0);
        let low = low + self.0 * other.1 + self.1 * other.0;
        let sum = high + low;
        Self(sum, low - (sum - high))
    }

    fn over(self, divisor: f64) -> Self {
        let high = self.0 / divisor;
        let rest = self.plus(Self::product(high, divisor).negated());
        let low = rest.value() / divisor;
        let sum = high + low;
        Self(sum, low - (sum - high))
    }
}

/// What is kept of floats.
#[derive(Clone, Copy, Debug, Default)]
pub struct FloatMoments {
    pub count: i64,
    /// How many of them are infinite or no number.
    pub not_finite: i64,
    pub sum: Double,
    pub squares: Double,
}

impl FloatMoments {
    /// Adds `value` so many times; a negative weight takes it back.
    pub fn add(&mut self, value: f64, weight: i64) {
        self.count = self.count.wrapping_add(weight);
        if !value.is_finite() {
            self.not_finite = self.not_finite.wrapping_add(weight);
            return;
        }
        let weight = weight as f64;
        self.sum = self.sum.plus(Double::product(value, weight));
        let square = Double::product(value, value);
        self.squares = self.squares.plus(square.times(Double(weight, 0.0)));
    }

    pub fn merge(&mut self, other: &Self) {
        self.count = self.count.wrapping_add(other.count);
        self.not_finite = self.not_finite.wrapping_add(other.not_finite);
        self.sum = self.sum.plus(other.sum);
        self.squares = self.squares.plus(other.squares);
    }

    /// Forgets what rounding has left where no value is left. Not while retractions may stand before their insertions.
    pub fn settle(&mut self) {
        if self.count == self.not_finite {
            (self.sum, self.squares) = (Double::default(), Double::default());
        }
    }
}

/// One of the functions that [`Spread::named`] knows.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Moments {
    name: &'static str,
    spread: Spread,
    signature: Signature,
}

impl Moments {
    pub(crate) fn all() -> Vec<Self> {
        let names = ["variance", "var_samp", "var_pop", "stddev", "stddev_samp", "stddev_pop"];
        let one = |name| {
            let signature = Signature::user_defined(Volatility::Immutable);
            Some(Self { name, spread: Spread::named(name)?, signature })
        };
        names.into_iter().filter_map(one).collect()
    }

    fn exact(&self) -> SqlType {
        SqlType::Numeric(self.spread.precision(), AVG_SCALE)
    }

    /// # Errors
    /// 42883 if `ty` is no number; 0A000 for a numeric of more than 38 digits.
    fn result(&self, ty: &SqlType) -> Result<SqlType, SqlError> {
        match ty {
            SqlType::Int2 | SqlType::Int4 | SqlType::Int8 => Ok(self.exact()),
            SqlType::Numeric(p, _) if *p <= 38 => Ok(self.exact()),
            SqlType::Numeric(..) => {
                let text = format!("{} of a numeric of more than 38 digits is not supported", self.name);
                Err(SqlError::unsupported(text).hint("Cast it to numeric(38, s) or to double precision."))
            }
            SqlType::Float4 | SqlType::Float8 => Ok(SqlType::Float8),
            other => Err(crate::error::no_function(self.name, &[other.arrow()])),
        }
    }
}

impl AggregateUDFImpl for Moments {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let [input] = types else {
            return Err(into_datafusion(crate::error::no_function(self.name(), types)));
        };
        let input = crate::numeric::plain(SqlType::of_arrow(input).map_err(into_datafusion)?);
        self.result(&input).map_err(into_datafusion)?;
        Ok(vec![input.arrow()])
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let input = SqlType::of_arrow(&types[0]).map_err(into_datafusion)?;
        Ok(self.result(&input).map_err(into_datafusion)?.arrow())
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let field = |name: &str, data_type| {
            std::sync::Arc::new(Field::new(format_state_name(args.name, name), data_type, false))
        };
        let input = args.input_fields[0].data_type();
        if args.is_distinct {
            return Ok(vec![field("values", DataType::new_list(input.clone(), true))]);
        }
        Ok(match input {
            DataType::Float32 | DataType::Float64 => vec![
                field("count", DataType::Int64),
                field("not_finite", DataType::Int64),
                field("sum", DataType::Float64),
                field("sum_low", DataType::Float64),
                field("squares", DataType::Float64),
                field("squares_low", DataType::Float64),
            ],
            _ => vec![
                field("count", DataType::Int64),
                field("sum", DataType::Decimal256(76, 0)),
                field("squares", DataType::Decimal256(76, 0)),
            ],
        })
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let input = args.expr_fields[0].data_type().clone();
        let values = Values { spread: self.spread, moments: State::of(&input), input };
        if args.is_distinct {
            return Ok(Box::new(super::distinct::Distinct::new(values.input.clone(), Box::new(values))));
        }
        Ok(Box::new(values))
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

#[derive(Debug)]
enum State {
    Exact { count: i64, sum: i256, squares: i256, scale: i8 },
    Floats(FloatMoments),
}

impl State {
    fn of(input: &DataType) -> Self {
        match input {
            DataType::Float32 | DataType::Float64 => Self::Floats(FloatMoments::default()),
            DataType::Decimal128(_, scale) => Self::exact(*scale),
            _ => Self::exact(0),
        }
    }

    fn exact(scale: i8) -> Self {
        Self::Exact { count: 0, sum: i256::ZERO, squares: i256::ZERO, scale }
    }
}

/// One group.
#[derive(Debug)]
struct Values {
    spread: Spread,
    input: DataType,
    moments: State,
}

impl Values {
    fn fold(&mut self, values: &ArrayRef, weight: i64) -> Result<()> {
        let mut fits = true;
        macro_rules! fold {
            ($type:ty, $widen:expr) => {{
                let values = values.as_primitive::<$type>();
                for value in values.iter().flatten() {
                    #[allow(clippy::redundant_closure_call)]
                    match &mut self.moments {
                        State::Floats(moments) => moments.add(($widen)(value).1, weight),
                        State::Exact { count, sum, squares, .. } => {
                            let value = i256::from_i128(($widen)(value).0);
                            let sign = i256::from_i128(weight.into());
                            *count += weight;
                            let next = sum.checked_add(value * sign);
                            let square = value.checked_mul(value).and_then(|s| squares.checked_add(s * sign));
                            fits &= next.is_some() && square.is_some();
                            (*sum, *squares) = (next.unwrap_or(*sum), square.unwrap_or(*squares));
                        }
                    }
                }
            }};
        }
        match values.data_type() {
            DataType::Int16 => fold!(Int16Type, |v: i16| (i128::from(v), 0.0)),
            DataType::Int32 => fold!(Int32Type, |v: i32| (i128::from(v), 0.0)),
            DataType::Int64 => fold!(Int64Type, |v: i64| (i128::from(v), 0.0)),
            DataType::Float32 => fold!(Float32Type, |v: f32| (0, f64::from(v))),
            DataType::Float64 => fold!(Float64Type, |v: f64| (0, v)),
            DataType::Decimal128(..) => fold!(Decimal128Type, |v: i128| (v, 0.0)),
            other => return datafusion::common::internal_err!("no moments of {other}"),
        }
        if let State::Floats(moments) = &mut self.moments {
            moments.settle();
        }
        if fits { Ok(()) } else { Err(into_datafusion(overflow())) }
    }
}

impl Accumulator for Values {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.fold(&values[0], 1)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.fold(&values[0], -1)
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        match &self.moments {
            State::Floats(moments) => {
                self.spread.of_floats(moments).map(ScalarValue::Float64).map_err(into_datafusion)
            }
            State::Exact { count, sum, squares, scale } => self
                .spread
                .of_exact(*count, *sum, *squares, *scale)
                .and_then(|value| self.spread.scalar(value))
                .map_err(into_datafusion),
        }
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(match &self.moments {
            State::Floats(m) => {
                let whole = [m.count, m.not_finite].map(|n| ScalarValue::Int64(Some(n)));
                let parts = [m.sum.0, m.sum.1, m.squares.0, m.squares.1];
                whole.into_iter().chain(parts.map(|v| ScalarValue::Float64(Some(v)))).collect()
            }
            State::Exact { count, sum, squares, .. } => vec![
                ScalarValue::Int64(Some(*count)),
                ScalarValue::Decimal256(Some(*sum), 76, 0),
                ScalarValue::Decimal256(Some(*squares), 76, 0),
            ],
        })
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let ints = |at: usize| states[at].as_primitive::<Int64Type>();
        for row in 0..states[0].len() {
            match &mut self.moments {
                State::Floats(moments) => {
                    let float = |at: usize| states[at].as_primitive::<Float64Type>().value(row);
                    moments.merge(&FloatMoments {
                        count: ints(0).value(row),
                        not_finite: ints(1).value(row),
                        sum: Double(float(2), float(3)),
                        squares: Double(float(4), float(5)),
                    });
                }
                State::Exact { count, sum, squares, .. } => {
                    let wide = |at: usize| states[at].as_primitive::<Decimal256Type>().value(row);
                    let sums = sum.checked_add(wide(1)).zip(squares.checked_add(wide(2)));
                    *count += ints(0).value(row);
                    (*sum, *squares) = sums.ok_or_else(|| into_datafusion(overflow()))?;
                }
            }
        }
        Ok(())
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VARIANCE: Spread = Spread { sample: true, deviation: false };
    const DEVIATION: Spread = Spread { sample: true, deviation: true };

    #[test]
    fn exact_results_are_those_of_postgresql() {
        let of = |spread: Spread, values: &[i128], scale| {
            let (sum, squares) = values.iter().fold((0, 0), |(s, q), v| (s + v, q + v * v));
            let count = values.len() as i64;
            spread
                .of_exact(count, i256::from_i128(sum), i256::from_i128(squares), scale)
                .map(|v| v.map(|v| v.as_i128()))
        };
        assert_eq!(of(VARIANCE, &[1, 2, 4], 0), Ok(Some(23_333_333_333_333_333)));
        assert_eq!(of(DEVIATION, &[1, 2, 4], 0), Ok(Some(15_275_252_316_519_467)));
        assert_eq!(of(VARIANCE, &[150, 225, 400], 2), Ok(Some(16_458_333_333_333_333)));
        assert_eq!(of(VARIANCE, &[7], 0), Ok(None));
        assert_eq!(of(Spread { sample: false, deviation: true }, &[7], 0), Ok(Some(0)));
        assert!(of(VARIANCE, &[10i128.pow(18), -(10i128.pow(18))], 0).is_ok());
    }

    #[test]
    fn floats_leave_no_trace_when_they_are_taken_back() {
        let mut moments = FloatMoments::default();
        for value in [1e9, 1.5, 2.5, 4.25, f64::INFINITY, 0.1] {
            moments.add(value, 1);
        }
        assert!(VARIANCE.of_floats(&moments).unwrap().unwrap().is_nan());
        for value in [1e9, f64::INFINITY, 0.1] {
            moments.add(value, -1);
            moments.settle();
        }
        let deviation = DEVIATION.of_floats(&moments).unwrap().unwrap();
        // A double would have lost all of it beside 1e18.
        assert!((deviation - 1.3919410907075054).abs() < 1e-13, "{deviation}");
    }

    #[test]
    fn roots_are_rounded() {
        for (value, expected) in [(0, 0), (1, 1), (2, 1), (3, 2), (6, 2), (7, 3), (1 << 60, 1 << 30)] {
            assert_eq!(root(i256::from_i128(value)), i256::from_i128(expected), "{value}");
        }
    }
}
