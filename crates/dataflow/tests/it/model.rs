//! Rows as plain values, and the naive answers: recompute everything from the accumulated multiset.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::*;
use millpond_dataflow::{AggregateCall, AggregateFunction};
use millpond_functions::aggregate::avg_from_sum_count;
use millpond_functions::aggregate::moments::FloatMoments;

#[derive(Clone, Debug)]
pub enum Cell {
    Null,
    /// Integers, times, booleans, and decimals without their scale.
    Int(i128),
    Float(f64),
    Text(String),
}

impl Cell {
    pub fn int(&self) -> Option<i128> {
        if let Self::Int(v) = self { Some(*v) } else { None }
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }
}

/// NULL first; floats as PostgreSQL orders them, except that 0.0 and -0.0 cannot be told apart.
impl Ord for Cell {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Null, Self::Null) => Ordering::Equal,
            (Self::Int(a), Self::Int(b)) => a.cmp(b),
            (Self::Text(a), Self::Text(b)) => a.as_bytes().cmp(b.as_bytes()),
            (Self::Float(a), Self::Float(b)) => match (a.is_nan(), b.is_nan()) {
                (false, false) => a.partial_cmp(b).expect("neither is NaN"),
                (x, y) => x.cmp(&y),
            },
            (a, b) => rank(a).cmp(&rank(b)),
        }
    }
}

fn rank(cell: &Cell) -> u8 {
    match cell {
        Cell::Null => 0,
        Cell::Int(_) => 1,
        Cell::Float(_) => 2,
        Cell::Text(_) => 3,
    }
}

impl PartialOrd for Cell {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Cell {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Cell {}

pub type Row = Vec<Cell>;
pub type Multiset = BTreeMap<Row, i64>;

pub fn add(multiset: &mut Multiset, row: Row, weight: i64) {
    let total = multiset.entry(row.clone()).or_insert(0);
    *total += weight;
    if *total == 0 {
        multiset.remove(&row);
    }
}

pub fn batch(schema: &SchemaRef, rows: &[&Row]) -> RecordBatch {
    let columns = schema.fields().iter().enumerate().map(|(at, field)| {
        let ints = || rows.iter().map(|row| row[at].int());
        let column: ArrayRef = match field.data_type() {
            DataType::Boolean => Arc::new(ints().map(|v| v.map(|v| v != 0)).collect::<BooleanArray>()),
            DataType::Int16 => Arc::new(ints().map(|v| v.map(|v| v as i16)).collect::<Int16Array>()),
            DataType::Int32 => Arc::new(ints().map(|v| v.map(|v| v as i32)).collect::<Int32Array>()),
            DataType::Int64 => Arc::new(ints().map(|v| v.map(|v| v as i64)).collect::<Int64Array>()),
            DataType::Timestamp(_, _) => {
                let times = ints().map(|v| v.map(|v| v as i64)).collect::<TimestampMicrosecondArray>();
                Arc::new(times.with_data_type(field.data_type().clone()))
            }
            DataType::Decimal128(_, _) => {
                Arc::new(ints().collect::<Decimal128Array>().with_data_type(field.data_type().clone()))
            }
            DataType::Float64 => Arc::new(
                rows.iter()
                    .map(|r| if let Cell::Float(v) = r[at] { Some(v) } else { None })
                    .collect::<Float64Array>(),
            ),
            DataType::Utf8 => Arc::new(
                rows.iter()
                    .map(|r| if let Cell::Text(v) = &r[at] { Some(v.as_str()) } else { None })
                    .collect::<StringArray>(),
            ),
            other => panic!("the model has no {other}"),
        };
        column
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect()).expect("rows fit the schema")
}

pub fn cell(column: &ArrayRef, row: usize) -> Cell {
    if column.is_null(row) {
        return Cell::Null;
    }
    match column.data_type() {
        DataType::Boolean => Cell::Int(column.as_boolean().value(row).into()),
        DataType::Int16 => Cell::Int(column.as_primitive::<Int16Type>().value(row).into()),
        DataType::Int32 => Cell::Int(column.as_primitive::<Int32Type>().value(row).into()),
        DataType::Int64 => Cell::Int(column.as_primitive::<Int64Type>().value(row).into()),
        DataType::Timestamp(_, _) => {
            Cell::Int(column.as_primitive::<TimestampMicrosecondType>().value(row).into())
        }
        DataType::Decimal256(_, _) => {
            Cell::Text(column.as_primitive::<Decimal256Type>().value(row).to_string())
        }
        DataType::Decimal128(_, _) => Cell::Int(column.as_primitive::<Decimal128Type>().value(row)),
        DataType::Float64 => Cell::Float(column.as_primitive::<Float64Type>().value(row)),
        DataType::Utf8 => Cell::Text(column.as_string::<i32>().value(row).to_owned()),
        other => panic!("the model has no {other}"),
    }
}

pub fn rows(batch: &RecordBatch) -> Vec<Row> {
    (0..batch.num_rows()).map(|row| batch.columns().iter().map(|c| cell(c, row)).collect()).collect()
}

/// GROUP BY over `input`: key then results. `global`: one row even without input.
pub fn group_by(
    input: &Multiset,
    schema: &SchemaRef,
    keys: &[usize],
    calls: &[AggregateCall],
    global: bool,
) -> Multiset {
    let mut groups: BTreeMap<Row, Vec<(&Row, i64)>> = BTreeMap::new();
    if global {
        groups.insert(Vec::new(), Vec::new());
    }
    for (row, weight) in input {
        let key = keys.iter().map(|k| row[*k].clone()).collect();
        groups.entry(key).or_default().push((row, *weight));
    }
    let mut result = Multiset::new();
    for (mut key, members) in groups {
        key.extend(calls.iter().map(|call| aggregate(&members, schema, call)));
        result.insert(key, 1);
    }
    result
}

fn aggregate(members: &[(&Row, i64)], schema: &SchemaRef, call: &AggregateCall) -> Cell {
    let chosen = members.iter().filter(|(row, _)| call.filter.is_none_or(|f| row[f] == Cell::Int(1)));
    let Some(argument) = call.argument else {
        return Cell::Int(chosen.map(|(_, weight)| i128::from(*weight)).sum());
    };
    let chosen: Vec<(&Cell, i64)> =
        chosen.map(|(row, w)| (&row[argument], *w)).filter(|(cell, _)| !cell.is_null()).collect();
    let count: i64 = chosen.iter().map(|(_, weight)| weight).sum();
    if call.function == AggregateFunction::Count {
        return Cell::Int(count.into());
    }
    if call.function == AggregateFunction::CountDistinct {
        let distinct: std::collections::BTreeSet<&Cell> = chosen.iter().map(|(cell, _)| *cell).collect();
        return Cell::Int(distinct.len() as i128);
    }
    if chosen.is_empty() {
        return Cell::Null;
    }
    let is_float = *schema.field(argument).data_type() == DataType::Float64;
    match call.function {
        AggregateFunction::Spread(spread) if is_float => {
            let mut moments = FloatMoments::default();
            for (cell, weight) in &chosen {
                if let Cell::Float(value) = cell {
                    moments.add(*value, *weight);
                }
            }
            spread.of_floats(&moments).expect("test values are small").map_or(Cell::Null, Cell::Float)
        }
        AggregateFunction::Spread(spread) => {
            let value = |cell: &Cell| if let Cell::Int(v) = cell { i256::from_i128(*v) } else { i256::ZERO };
            let total = |term: fn(i256) -> i256| {
                chosen
                    .iter()
                    .fold(i256::ZERO, |sum, (c, w)| sum + term(value(c)) * i256::from_i128((*w).into()))
            };
            let scale = match schema.field(argument).data_type() {
                DataType::Decimal128(_, scale) => *scale,
                _ => 0,
            };
            let result = spread.of_exact(count, total(|v| v), total(|v| v * v), scale);
            match (result.expect("it fits"), &call.result) {
                (None, _) => Cell::Null,
                (Some(value), DataType::Decimal128(..)) => Cell::Int(value.as_i128()),
                (Some(value), _) => Cell::Text(value.to_string()),
            }
        }
        AggregateFunction::Min => chosen.iter().map(|(cell, _)| (*cell).clone()).min().expect("not empty"),
        AggregateFunction::Max => chosen.iter().map(|(cell, _)| (*cell).clone()).max().expect("not empty"),
        AggregateFunction::Sum if is_float => Cell::Float(float_sum(&chosen)),
        AggregateFunction::Avg if is_float => Cell::Float(float_sum(&chosen) / count as f64),
        AggregateFunction::Sum => Cell::Int(int_sum(&chosen)),
        _ => {
            let scale = |t: &DataType| if let DataType::Decimal128(_, s) = t { *s } else { 0 };
            let sum_scale = scale(schema.field(argument).data_type());
            let avg = avg_from_sum_count(int_sum(&chosen), sum_scale, count, scale(&call.result));
            Cell::Int(avg.expect("test values are small"))
        }
    }
}

fn int_sum(chosen: &[(&Cell, i64)]) -> i128 {
    chosen.iter().map(|(cell, weight)| cell.int().expect("a number") * i128::from(*weight)).sum()
}

fn float_sum(chosen: &[(&Cell, i64)]) -> f64 {
    let float = |cell: &Cell| if let Cell::Float(v) = cell { *v } else { panic!("a float") };
    chosen.iter().map(|(cell, weight)| float(cell) * *weight as f64).sum()
}
