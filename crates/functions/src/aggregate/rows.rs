//! Aggregates that need all values of a group, in order: string_agg, the json ones, and those of WITHIN GROUP
//! (PostgreSQL 15, chapter 9.21).
//!
//! The state of a group is its rows, one list per argument and per ORDER BY column; the result is computed when all have
//! come. Incremental views hand the rows of a group in order to an accumulator without ORDER BY.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::*;
use arrow::compute::{SortOptions, concat, take};
use arrow::datatypes::*;
use arrow::row::{OwnedRow, RowConverter, SortField};
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Signature, Volatility};
use millpond_types::{SqlError, SqlState, SqlType};

use crate::error::into_datafusion;
use crate::operator::temporal::scale_interval;
use crate::scalar::json::Writer;
use crate::text::json::normal_form;
use crate::text::json_path;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    String,
    JsonArray { binary: bool },
    JsonObject { binary: bool },
    PercentileCont,
    PercentileDisc,
    Mode,
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct OfRows {
    name: &'static str,
    kind: Kind,
    signature: Signature,
}

impl OfRows {
    pub(crate) fn all() -> Vec<Self> {
        let one = |name, kind| Self { name, kind, signature: Signature::user_defined(Volatility::Immutable) };
        vec![
            one("string_agg", Kind::String),
            one("json_agg", Kind::JsonArray { binary: false }),
            one("jsonb_agg", Kind::JsonArray { binary: true }),
            one("json_object_agg", Kind::JsonObject { binary: false }),
            one("jsonb_object_agg", Kind::JsonObject { binary: true }),
            one("percentile_cont", Kind::PercentileCont),
            one("percentile_disc", Kind::PercentileDisc),
            one("mode", Kind::Mode),
        ]
    }

    /// The types that arguments are brought to; `None` if there is no such function.
    fn arguments(&self, types: &[DataType]) -> Option<Vec<DataType>> {
        let is_text = |ty: &DataType| matches!(ty, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        let text = |ty: &DataType| is_text(ty) || ty.is_null();
        let bytes = |ty: &DataType| matches!(ty, DataType::Binary | DataType::LargeBinary) || ty.is_null();
        let plain = |ty: &DataType| if ty.is_null() || is_text(ty) { DataType::Utf8 } else { ty.clone() };
        match (self.kind, types) {
            (Kind::String, [value, by]) if text(value) && text(by) => Some(vec![DataType::Utf8; 2]),
            (Kind::String, [value, by]) if bytes(value) && (bytes(by) || text(by)) => {
                Some(vec![DataType::Binary; 2])
            }
            (Kind::JsonArray { .. } | Kind::Mode, [value]) => Some(vec![plain(value)]),
            (Kind::JsonObject { .. }, [key, value]) => Some(vec![plain(key), plain(value)]),
            (Kind::PercentileDisc, [value, fraction]) => Some(vec![plain(value), fractions(fraction)?]),
            (Kind::PercentileCont, [value, fraction]) => {
                let value = match value {
                    DataType::Interval(_) => value.clone(),
                    other if other.is_numeric() || other.is_null() => DataType::Float64,
                    _ => return None,
                };
                Some(vec![value, fractions(fraction)?])
            }
            _ => None,
        }
    }
}

/// One fraction, or an array of them.
fn fractions(ty: &DataType) -> Option<DataType> {
    let number = |ty: &DataType| ty.is_numeric() || ty.is_null();
    match ty {
        DataType::List(element) if number(element.data_type()) => {
            Some(DataType::new_list(DataType::Float64, true))
        }
        other => number(other).then_some(DataType::Float64),
    }
}

/// The order of rows that ask for none.
const LAST: SortOptions = SortOptions { descending: false, nulls_first: false };

impl AggregateUDFImpl for OfRows {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.arguments(types).ok_or_else(|| into_datafusion(crate::error::no_function(self.name, types)))
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(match self.kind {
            Kind::String => types[0].clone(),
            Kind::JsonArray { .. } | Kind::JsonObject { .. } => DataType::Utf8,
            Kind::Mode => types[0].clone(),
            Kind::PercentileCont | Kind::PercentileDisc => match &types[1] {
                DataType::List(_) => DataType::new_list(types[0].clone(), true),
                _ => types[0].clone(),
            },
        })
    }

    fn return_field(&self, arguments: &[FieldRef]) -> Result<FieldRef> {
        let types: Vec<DataType> = arguments.iter().map(|f| f.data_type().clone()).collect();
        let plain = Field::new(self.name, self.return_type(&types)?, true);
        Ok(Arc::new(match self.kind {
            Kind::JsonArray { binary } | Kind::JsonObject { binary } => {
                if binary { SqlType::Jsonb } else { SqlType::Json }.field(self.name, true)
            }
            // A value of the column: of the same SQL type.
            Kind::Mode | Kind::PercentileDisc if !types.iter().any(|ty| matches!(ty, DataType::List(_))) => {
                arguments[0].as_ref().clone().with_name(self.name).with_nullable(true)
            }
            _ => plain,
        }))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let columns = args.input_fields.iter().chain(args.ordering_fields);
        let list = |(at, field): (usize, &FieldRef)| {
            let items = Field::new_list_field(field.data_type().clone(), true);
            Arc::new(Field::new_list(format_state_name(args.name, &format!("rows{at}")), items, false))
        };
        Ok(columns.enumerate().map(|(at, field)| list((at, field))).collect())
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let mut types: Vec<DataType> = args.expr_fields.iter().map(|f| f.data_type().clone()).collect();
        let mut order: Vec<(usize, SortOptions)> = Vec::new();
        for sort in args.order_bys {
            order.push((types.len(), sort.options));
            types.push(sort.expr.data_type(args.schema)?);
        }
        if self.supports_within_group_clause() && order.is_empty() {
            order.push((0, LAST));
        }
        if args.is_distinct && order.is_empty() {
            // PostgreSQL finds equal rows by sorting them, and there they stay.
            order.extend((0..types.len()).map(|column| (column, LAST)));
        }
        let arguments: Result<Vec<SqlType>, SqlError> = args
            .expr_fields
            .iter()
            .map(|f| if f.data_type().is_null() { Ok(SqlType::Text) } else { SqlType::of(f) })
            .collect();
        Ok(Box::new(Rows {
            kind: self.kind,
            arguments: arguments.map_err(into_datafusion)?,
            result: args.return_field.data_type().clone(),
            chunks: vec![Vec::new(); types.len()],
            bytes: 0,
            types,
            order,
            distinct: args.is_distinct,
        }))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Beneficial
    }

    fn with_beneficial_ordering(self: Arc<Self>, _: bool) -> Result<Option<Arc<dyn AggregateUDFImpl>>> {
        // Rows in order are sorted no more slowly than others, and nothing is to be told apart.
        Ok(Some(self))
    }

    fn supports_within_group_clause(&self) -> bool {
        matches!(self.kind, Kind::PercentileCont | Kind::PercentileDisc | Kind::Mode)
    }
}

/// The rows of one group.
#[derive(Debug)]
struct Rows {
    kind: Kind,
    arguments: Vec<SqlType>,
    result: DataType,
    /// The arguments, then what ORDER BY names.
    types: Vec<DataType>,
    chunks: Vec<Vec<ArrayRef>>,
    /// Of the chunks. They are slices of batches that many groups share, so each counts for its own rows only.
    bytes: usize,
    order: Vec<(usize, SortOptions)>,
    distinct: bool,
}

impl Rows {
    fn keep(&mut self, column: usize, values: ArrayRef) {
        self.bytes += size_of::<ArrayRef>() + values.to_data().get_slice_memory_size().unwrap_or_default();
        self.chunks[column].push(values);
    }

    fn columns(&self) -> Result<Vec<ArrayRef>> {
        let whole = |(chunks, ty): (&Vec<ArrayRef>, &DataType)| match &chunks[..] {
            [] => Ok(new_empty_array(ty)),
            [one] => Ok(Arc::clone(one)),
            many => concat(&many.iter().map(AsRef::as_ref).collect::<Vec<_>>()),
        };
        Ok(self.chunks.iter().zip(&self.types).map(whole).collect::<Result<_, _>>()?)
    }

    /// The arguments of the rows that count, in order.
    fn in_order(&self) -> Result<Vec<ArrayRef>> {
        let mut columns = self.columns()?;
        let rows = columns[0].len();
        let mut order: Vec<u32> = (0..rows as u32).collect();
        if self.distinct {
            let fields = self.types[..self.arguments.len()].iter().map(|ty| SortField::new(ty.clone()));
            let converter = RowConverter::new(fields.collect())?;
            let encoded = converter.convert_columns(&columns[..self.arguments.len()])?;
            let mut seen: HashSet<OwnedRow> = HashSet::with_capacity(rows);
            order.retain(|row| seen.insert(encoded.row(*row as usize).owned()));
        }
        if !self.order.is_empty() {
            let fields = self
                .order
                .iter()
                .map(|(column, options)| SortField::new_with_options(self.types[*column].clone(), *options));
            let converter = RowConverter::new(fields.collect())?;
            let keys: Vec<ArrayRef> =
                self.order.iter().map(|(column, _)| Arc::clone(&columns[*column])).collect();
            let keys = converter.convert_columns(&keys)?;
            order.sort_by(|a, b| keys.row(*a as usize).cmp(&keys.row(*b as usize)));
        }
        columns.truncate(self.arguments.len());
        let order = UInt32Array::from(order);
        Ok(columns.iter().map(|column| take(column, &order, None)).collect::<Result<_, _>>()?)
    }

    fn finish(&self, columns: &[ArrayRef]) -> Result<ScalarValue> {
        if columns[0].is_empty() {
            return ScalarValue::try_from(&self.result);
        }
        let written = match self.kind {
            Kind::String => return strings(columns),
            Kind::JsonArray { binary } => json_array(columns, &self.arguments, binary),
            Kind::JsonObject { binary } => json_object(columns, &self.arguments, binary),
            Kind::Mode => return mode(&columns[0]),
            Kind::PercentileCont => return self.percentiles(columns, continuous),
            Kind::PercentileDisc => return self.percentiles(columns, discrete),
        };
        written.map(|text| ScalarValue::Utf8(Some(text))).map_err(into_datafusion)
    }

    /// The value at a fraction of the values, or at each fraction of an array.
    fn percentiles(
        &self,
        columns: &[ArrayRef],
        at: fn(&ArrayRef, f64) -> Result<ScalarValue>,
    ) -> Result<ScalarValue> {
        let values = arrow::compute::filter(&columns[0], &arrow::compute::is_not_null(&columns[0])?)?;
        let null = ScalarValue::try_from(values.data_type())?;
        let one = |fraction: Option<f64>| match fraction {
            Some(fraction) if !(0.0..=1.0).contains(&fraction) => Err(into_datafusion(SqlError::new(
                SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
                format!("percentile value {fraction} is not between 0 and 1"),
            ))),
            Some(fraction) if !values.is_empty() => at(&values, fraction),
            _ => Ok(null.clone()),
        };
        let Some(list) = columns[1].as_list_opt::<i32>() else {
            let fractions = columns[1].as_primitive::<Float64Type>();
            return one(fractions.is_valid(0).then(|| fractions.value(0)));
        };
        if list.is_null(0) || values.is_empty() {
            return ScalarValue::try_from(&self.result);
        }
        let fractions = list.value(0);
        let found: Vec<ScalarValue> =
            fractions.as_primitive::<Float64Type>().iter().map(one).collect::<Result<_>>()?;
        Ok(ScalarValue::List(ScalarValue::new_list_nullable(&found, values.data_type())))
    }
}

impl Accumulator for Rows {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        // Without an ORDER BY of its own, what the executor adds for one is not there.
        for (column, values) in values.iter().enumerate().take(self.chunks.len()) {
            self.keep(column, Arc::clone(values));
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let columns = self.in_order()?;
        self.finish(&columns)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let list = |values: ArrayRef| {
            let field = Arc::new(Field::new_list_field(values.data_type().clone(), true));
            let offsets = arrow::buffer::OffsetBuffer::from_lengths([values.len()]);
            ScalarValue::List(Arc::new(ListArray::new(field, offsets, values, None)))
        };
        Ok(self.columns()?.into_iter().map(list).collect())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for (column, lists) in states.iter().enumerate().take(self.chunks.len()) {
            lists.as_list::<i32>().iter().flatten().for_each(|values| self.keep(column, values));
        }
        Ok(())
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.bytes
    }
}

/// Each value behind its own delimiter, the first without; values that are NULL do not count.
fn strings(columns: &[ArrayRef]) -> Result<ScalarValue> {
    fn join<'a>(
        values: impl Iterator<Item = Option<&'a [u8]>>,
        delimiters: impl Iterator<Item = Option<&'a [u8]>>,
    ) -> Option<Vec<u8>> {
        let mut joined: Option<Vec<u8>> = None;
        for (value, delimiter) in values.zip(delimiters) {
            let Some(value) = value else { continue };
            match &mut joined {
                None => joined = Some(value.to_vec()),
                Some(joined) => {
                    joined.extend_from_slice(delimiter.unwrap_or_default());
                    joined.extend_from_slice(value);
                }
            }
        }
        joined
    }
    if let Some(values) = columns[0].as_binary_opt::<i32>() {
        return Ok(ScalarValue::Binary(join(values.iter(), columns[1].as_binary::<i32>().iter())));
    }
    let bytes = |at: usize| columns[at].as_string::<i32>().iter().map(|text| text.map(str::as_bytes));
    match join(bytes(0), bytes(1)).map(String::from_utf8).transpose() {
        Ok(text) => Ok(ScalarValue::Utf8(text)),
        Err(_) => internal_err!("texts that are joined are a text"),
    }
}

fn json_array(columns: &[ArrayRef], types: &[SqlType], binary: bool) -> Result<String, SqlError> {
    let values = Writer::new(&columns[0], &types[0])?;
    let mut text = String::from("[");
    for row in 0..columns[0].len() {
        text.push_str(if row > 0 { ", " } else { "" });
        values.write(row, &mut text);
    }
    text.push(']');
    if binary { normal_form(&text) } else { Ok(text) }
}

fn json_object(columns: &[ArrayRef], types: &[SqlType], binary: bool) -> Result<String, SqlError> {
    let (keys, values) = (Writer::new(&columns[0], &types[0])?, Writer::new(&columns[1], &types[1])?);
    let mut text = String::from("{ ");
    for row in 0..columns[0].len() {
        text.push_str(if row > 0 { ", " } else { "" });
        let Some(key) = keys.key(row) else {
            return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, "field name must not be null"));
        };
        json_path::quote(&key, &mut text);
        text.push_str(" : ");
        values.write(row, &mut text);
    }
    text.push_str(" }");
    if binary { normal_form(&text) } else { Ok(text) }
}

/// The value that is there most often; of several, the first in order.
fn mode(values: &ArrayRef) -> Result<ScalarValue> {
    let values = arrow::compute::filter(values, &arrow::compute::is_not_null(values)?)?;
    if values.is_empty() {
        return ScalarValue::try_from(values.data_type());
    }
    let runs = arrow::compute::partition(&[Arc::clone(&values)])?.ranges();
    let longest = runs.into_iter().reduce(|best, run| if run.len() > best.len() { run } else { best });
    ScalarValue::try_from_array(&values, longest.map_or(0, |run| run.start))
}

/// The first value whose place is at least that fraction of their number.
fn discrete(values: &ArrayRef, fraction: f64) -> Result<ScalarValue> {
    let place = (fraction * values.len() as f64).ceil().max(1.0) as usize;
    ScalarValue::try_from_array(values, place - 1)
}

/// The value at that fraction of the way, between two neighbours by the rule of proportion.
fn continuous(values: &ArrayRef, fraction: f64) -> Result<ScalarValue> {
    let place = fraction * (values.len() - 1) as f64;
    let (first, second) = (place.floor() as usize, place.ceil() as usize);
    let part = place - first as f64;
    if let Some(values) = values.as_primitive_opt::<IntervalMonthDayNanoType>() {
        let (low, high) = (values.value(first), values.value(second));
        if first == second {
            return Ok(ScalarValue::IntervalMonthDayNano(Some(low)));
        }
        let difference = IntervalMonthDayNano::new(
            high.months.saturating_sub(low.months),
            high.days.saturating_sub(low.days),
            high.nanoseconds.saturating_sub(low.nanoseconds),
        );
        let step = scale_interval(difference, |unit| unit * part).map_err(into_datafusion)?;
        let sum = IntervalMonthDayNano::new(
            low.months.saturating_add(step.months),
            low.days.saturating_add(step.days),
            low.nanoseconds.saturating_add(step.nanoseconds),
        );
        return Ok(ScalarValue::IntervalMonthDayNano(Some(sum)));
    }
    let values = values.as_primitive::<Float64Type>();
    let (low, high) = (values.value(first), values.value(second));
    Ok(ScalarValue::Float64(Some(if first == second { low } else { low + part * (high - low) })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_counts_its_own_rows_and_not_the_batch_they_lie_in() {
        let batch: ArrayRef = Arc::new(StringArray::from_iter_values((0..8192).map(|n| format!("text {n}"))));
        let mut rows = Rows {
            kind: Kind::String,
            arguments: vec![SqlType::Text; 2],
            result: DataType::Utf8,
            chunks: vec![Vec::new(); 2],
            bytes: 0,
            types: vec![DataType::Utf8; 2],
            order: Vec::new(),
            distinct: false,
        };
        rows.update_batch(&[batch.slice(7, 2), batch.slice(0, 2)]).unwrap();
        assert!(rows.size() < 1024, "{} bytes for four texts", rows.size());
        assert_eq!(rows.evaluate().unwrap(), ScalarValue::Utf8(Some("text 7text 1text 8".to_owned())));
    }
}
