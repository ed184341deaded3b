//! Casts of whole columns, with PostgreSQL's roundings and errors.

pub(crate) mod number;

use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::*;
use datafusion::common::Result as DataFusionResult;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use millpond_types::{SqlError, SqlState, SqlType};

use crate::calendar::{self, DAY};
use crate::error::{into_datafusion, type_name};
use crate::kernel::{columnar, unary};
use crate::operator::never;
use crate::operator::temporal::{timestamp_range, zone_of};
use crate::text::datetime::in_range;
use crate::text::interval::Parts;
use crate::text::zone::Zone;
use crate::text::{canonical, format_array, parse_in};

/// Why a value is converted: PostgreSQL cuts a text that is too long for varchar(n) when asked explicitly, and refuses it
/// (22001) when it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CastContext {
    Explicit,
    Assignment,
}

/// Whether PostgreSQL has an explicit cast between the types.
pub fn can_cast(from: &SqlType, to: &SqlType) -> bool {
    use SqlType::*;
    let number = |ty: &SqlType| ty.is_integer() || matches!(ty, Float4 | Float8 | Numeric(..));
    match (from, to) {
        (Json | Jsonb, Json | Jsonb) => true,
        (a, b) if is_text(a) || is_text(b) => true,
        (a, b) if number(a) && number(b) => true,
        (Boolean, Int4) | (Int4, Boolean) => true,
        (Int2 | Int4 | Int8, Oid) | (Oid, Int4 | Int8) => true,
        (Date, Timestamp | Timestamptz) | (Timestamp, Date | Time | Timestamptz) => true,
        (Timestamptz, Date | Time | Timestamp) | (Time, Interval) | (Interval, Time) => true,
        (Array(a), Array(b)) => can_cast(a, b),
        (a, b) => a == b,
    }
}

pub(crate) fn is_text(ty: &SqlType) -> bool {
    use SqlType::*;
    matches!(ty, Text | Varchar(_) | Char(_) | Name | InternalChar | Unknown)
}

pub(crate) fn no_cast(from: &SqlType, to: &SqlType) -> SqlError {
    let message = format!("cannot cast type {} to {}", type_name(from), type_name(to));
    SqlError::new(SqlState::CANNOT_COERCE, message)
}

/// `array`, a column of type `from`, as `to`; NULL stays NULL.
///
/// # Errors
/// The first value that does not fit: 22P02, 22003, 22007, 22008, 22001; 42846 where PostgreSQL has no such cast.
pub fn cast_array(
    array: &ArrayRef,
    from: &SqlType,
    to: &SqlType,
    context: CastContext,
) -> Result<ArrayRef, SqlError> {
    cast_array_in(array, from, to, context, Zone::UTC)
}

/// As [`cast_array`] in a session whose time zone is `zone`.
pub(crate) fn cast_array_in(
    array: &ArrayRef,
    from: &SqlType,
    to: &SqlType,
    context: CastContext,
    zone: Zone,
) -> Result<ArrayRef, SqlError> {
    use SqlType::*;
    if *array.data_type() == DataType::Null {
        return Ok(new_null_array(&to.arrow(), array.len()));
    }
    if !can_cast(from, to) {
        return Err(no_cast(from, to));
    }
    let array = &canonical(array, from)?;
    Ok(match (from, to) {
        (Text | Varchar(_) | Name | InternalChar | Unknown, _) => {
            parse(array.as_string(), to, context, zone)?
        }
        (Char(_), Char(_)) => parse(array.as_string(), to, context, zone)?,
        // The padding of char(n) means nothing outside of it.
        (Char(_), _) => parse(&trim_padding(array.as_string()), to, context, zone)?,
        (Boolean, to) if is_text(to) => parse(&truth(array.as_boolean()), to, context, zone)?,
        (from, to) if is_text(to) => {
            let texts = format_array(array, from, zone)?;
            if *to == Text { Arc::new(texts) } else { parse(&texts, to, context, zone)? }
        }
        (Json, Jsonb) => parse(array.as_string(), to, context, zone)?,
        (Jsonb, Json) => Arc::clone(array),
        (Boolean, Int4) => {
            let ints: Int32Array = array.as_boolean().iter().map(|v| v.map(i32::from)).collect();
            Arc::new(ints)
        }
        (Int4, Boolean) => {
            let truths: BooleanArray =
                array.as_primitive::<Int32Type>().iter().map(|v| v.map(|v| v != 0)).collect();
            Arc::new(truths)
        }
        (Array(a), Array(b)) => {
            let list = array.as_list::<i32>();
            let values = cast_array_in(list.values(), a, b, context, zone)?;
            let field = Arc::new(b.field("item", true));
            Arc::new(ListArray::new(field, list.offsets().clone(), values, list.nulls().cloned()))
        }
        (from, to) if from.arrow() == to.arrow() => Arc::clone(array),
        (Date | Time | Timestamp | Timestamptz | Interval, _) => temporal(array, from, to, zone)?,
        _ => number::cast(array, from, to)?,
    })
}

fn parse(texts: &StringArray, to: &SqlType, context: CastContext, zone: Zone) -> Result<ArrayRef, SqlError> {
    if *to == SqlType::Text || *to == SqlType::Varchar(None) {
        return Ok(Arc::new(texts.clone()));
    }
    parse_in(texts.iter(), to, context, zone).map_err(|e| e.error)
}

fn trim_padding(texts: &StringArray) -> StringArray {
    texts.iter().map(|text| text.map(|t| t.trim_end_matches(' '))).collect()
}

fn truth(values: &BooleanArray) -> StringArray {
    values.iter().map(|v| v.map(|v| if v { "true" } else { "false" })).collect()
}

/// Whether the session's zone has a part in a cast.
pub(crate) fn is_zoned(from: &SqlType, to: &SqlType) -> bool {
    use SqlType::*;
    let plain = |ty: &SqlType| is_text(ty) || matches!(ty, Date | Time | Timestamp);
    match (from, to) {
        (Timestamptz, other) | (other, Timestamptz) => plain(other),
        (Array(a), Array(b)) => is_zoned(a, b),
        (Array(a), b) | (b, Array(a)) => is_text(b) && is_zoned(a, b),
        _ => false,
    }
}

/// A timestamptz as the local time of `zone`, or the other way round.
fn shifted(
    array: &ArrayRef,
    shift: impl Fn(i64) -> Option<i64>,
) -> Result<TimestampMicrosecondArray, SqlError> {
    let f = |time: i64| {
        let moved = shift(time).filter(|t| in_range(*t));
        (moved.unwrap_or(0), moved.is_none())
    };
    let plain: ArrayRef = Arc::new(
        array.as_primitive::<TimestampMicrosecondType>().clone().with_timezone_opt(None::<Arc<str>>),
    );
    unary::<TimestampMicrosecondType, TimestampMicrosecondType>(&plain, f, |_| timestamp_range())
}

fn temporal(array: &ArrayRef, from: &SqlType, to: &SqlType, zone: Zone) -> Result<ArrayRef, SqlError> {
    use SqlType::*;
    type Micros = TimestampMicrosecondType;
    if zone != Zone::UTC && is_zoned(from, to) {
        if *from == Timestamptz {
            let local: ArrayRef = Arc::new(shifted(array, |utc| zone.to_local(utc))?);
            return if *to == Timestamp { Ok(local) } else { temporal(&local, &Timestamp, to, Zone::UTC) };
        }
        let local = temporal(array, from, &Timestamp, Zone::UTC)?;
        return Ok(Arc::new(shifted(&local, |local| zone.to_utc(local))?.with_timezone_opt(zone_of(to))));
    }
    Ok(match (from, to) {
        (Date, Timestamp | Timestamptz) => {
            let f = |days: i32| {
                let micros = i64::from(days).checked_mul(DAY).filter(|t| in_range(*t));
                (micros.unwrap_or(0), micros.is_none())
            };
            let out_of_range =
                |_| SqlError::new(SqlState::DATETIME_FIELD_OVERFLOW, "date out of range for timestamp");
            Arc::new(unary::<Date32Type, Micros>(array, f, out_of_range)?.with_timezone_opt(zone_of(to)))
        }
        (Timestamp | Timestamptz, Date) => {
            let day = |t: i64| (t.div_euclid(DAY) as i32, false);
            Arc::new(unary::<Micros, Date32Type>(array, day, |_| timestamp_range())?)
        }
        (Timestamp | Timestamptz, Time) => {
            let time = |t: i64| (t.rem_euclid(DAY), false);
            Arc::new(unary::<Micros, Time64MicrosecondType>(array, time, never)?)
        }
        (Timestamp | Timestamptz, _) => {
            Arc::new(array.as_primitive::<Micros>().clone().with_timezone_opt(zone_of(to)))
        }
        (Time, _) => {
            let span = |t: i64| (IntervalMonthDayNano::new(0, 0, t.wrapping_mul(1000)), false);
            Arc::new(unary::<Time64MicrosecondType, IntervalMonthDayNanoType>(array, span, never)?)
        }
        _ => {
            let time =
                |span: IntervalMonthDayNano| (Parts::from(span).micros.rem_euclid(calendar::DAY), false);
            Arc::new(unary::<IntervalMonthDayNanoType, Time64MicrosecondType>(array, time, never)?)
        }
    })
}

/// The cast to one type as a scalar function; columns keep the name of its argument, as under DataFusion's cast.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct CastTo {
    pub target: SqlType,
    context: CastContext,
    zone: Zone,
    signature: Signature,
}

/// The call of a cast that DataFusion does not do as PostgreSQL does.
pub(crate) fn call(expr: Expr, target: &SqlType, context: CastContext) -> Expr {
    let signature = Signature::any(1, Volatility::Immutable);
    let cast = CastTo { target: target.clone(), context, zone: Zone::UTC, signature };
    ScalarUDF::new_from_impl(cast).call(vec![expr])
}

/// The same cast in a session of another time zone; `None` if `function` is no cast.
pub(crate) fn in_zone(function: &ScalarUDF, zone: Zone) -> Option<ScalarUDF> {
    let cast = function.inner().downcast_ref::<CastTo>()?;
    let signature = Signature::any(1, Volatility::Immutable);
    let cast = CastTo { target: cast.target.clone(), context: cast.context, zone, signature };
    Some(ScalarUDF::new_from_impl(cast))
}

/// See [`crate::rewrite::utc_cast_target`].
pub(crate) fn target(function: &ScalarUDF) -> Option<Option<&SqlType>> {
    let cast = function.inner().downcast_ref::<CastTo>()?;
    Some((cast.zone == Zone::UTC).then_some(&cast.target))
}

/// Whether `function` is a cast that may refuse a value because of what it says, rather than of its size.
pub(crate) fn is_partial(function: &ScalarUDF) -> bool {
    function.inner().downcast_ref::<CastTo>().is_some_and(|cast| !is_text(&cast.target))
}

impl ScalarUDFImpl for CastTo {
    fn name(&self) -> &str {
        match self.context {
            CastContext::Explicit => "pg_cast",
            CastContext::Assignment => "pg_assign",
        }
    }

    fn schema_name(&self, args: &[Expr]) -> DataFusionResult<String> {
        Ok(args.first().map(|e| e.schema_name().to_string()).unwrap_or_default())
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> DataFusionResult<DataType> {
        Ok(self.target.arrow())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> DataFusionResult<FieldRef> {
        let nullable = args.arg_fields.iter().any(|f| f.is_nullable());
        Ok(Arc::new(self.target.field(self.name(), nullable)))
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let from = SqlType::of(&args.arg_fields[0]).map_err(into_datafusion)?;
        let (array, constant) = match &args.args[0] {
            ColumnarValue::Array(array) => (Arc::clone(array), false),
            ColumnarValue::Scalar(scalar) => (scalar.to_array()?, true),
        };
        let cast =
            cast_array_in(&array, &from, &self.target, self.context, self.zone).map_err(into_datafusion)?;
        columnar(cast, constant)
    }
}

#[cfg(test)]
#[path = "cast/tests.rs"]
mod tests;
