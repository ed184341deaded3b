//! `generate_series(start, stop [, step])` in FROM (PostgreSQL 15, chapter 9.25), and `range`, which leaves out the end.
//!
//! Rows are made when they are read, batch by batch: a long series costs no memory.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, Decimal128Array, Int32Array, Int64Array, TimestampMicrosecondArray};
use arrow::datatypes::{IntervalMonthDayNano, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use millpond_functions::Zone;
use millpond_functions::error::into_datafusion;
use millpond_functions::rewrite::{cast_expr, in_zone, postgres_literal};
use millpond_types::{SqlError, SqlState, SqlType};

use crate::rules;

const BATCH_ROWS: usize = 8192;

/// What is counted, and by what.
#[derive(Clone, Debug, PartialEq)]
enum Steps {
    /// An argument is NULL: no rows.
    None,
    /// Integers, and numerics in units of their last digit.
    Numbers {
        start: i128,
        stop: i128,
        step: i128,
    },
    Times {
        start: i64,
        stop: i64,
        step: IntervalMonthDayNano,
        zone: Zone,
    },
}

/// One call with constant arguments.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    ty: SqlType,
    steps: Steps,
    /// Whether the end belongs to it.
    inclusive: bool,
    schema: SchemaRef,
}

impl Series {
    /// `arguments` are constants.
    ///
    /// # Errors
    /// 42883 for types that cannot be counted; 22023 for a step of zero.
    pub fn new(
        name: &str,
        column: &str,
        arguments: Vec<Expr>,
        zone: Zone,
    ) -> std::result::Result<Self, SqlError> {
        let schema = DFSchema::empty();
        let literals = arguments
            .into_iter()
            .map(|argument| match postgres_literal(argument) {
                Expr::Literal(value, _) => Ok(value),
                other => match rules::typed(vec![other.clone()], &schema, zone)
                    .map(|mut typed| typed.swap_remove(0))
                {
                    Ok(Expr::Literal(value, _)) => Ok(value),
                    _ => Err(SqlError::unsupported(format!(
                        "an argument of {name} must be a constant, not {other}"
                    ))
                    .hint("Join with a series of constants instead.")),
                },
            })
            .collect::<std::result::Result<Vec<_>, _>>()?;
        let types: Vec<SqlType> = literals.iter().map(type_of).collect();
        let shared = shared_type(name, &types).ok_or_else(|| {
            let names: Vec<String> = types.iter().map(SqlType::to_string).collect();
            SqlError::new(
                SqlState::UNDEFINED_FUNCTION,
                format!("function {name}({}) does not exist", names.join(", ")),
            )
            .hint("No function matches the given name and argument types. You might need to add explicit type casts.")
        })?;
        let times = matches!(shared, SqlType::Timestamp | SqlType::Timestamptz);
        let wanted = |i: usize| if times && i == 2 { SqlType::Interval } else { shared.clone() };
        let cast = |(i, value): (usize, ScalarValue)| {
            let expr = cast_expr(Expr::Literal(value, None), &wanted(i), &schema)
                .and_then(|expr| in_zone(expr, &schema, zone))
                .and_then(|expr| rules::typed(vec![expr], &schema, zone))
                .map_err(millpond_functions::error::from_datafusion)?
                .swap_remove(0);
            match expr {
                Expr::Literal(value, _) => Ok(value),
                other => Err(SqlError::internal(format!("{other} was not folded"))),
            }
        };
        let values =
            literals.into_iter().enumerate().map(cast).collect::<std::result::Result<Vec<_>, _>>()?;
        let steps = steps(&values, &shared, zone)?;
        let schema = Arc::new(Schema::new(vec![shared.field(column, false)]));
        Ok(Self { ty: shared, steps, inclusive: name == "generate_series", schema })
    }

    fn batches(&self) -> Box<dyn Iterator<Item = Result<RecordBatch>> + Send> {
        let series = self.clone();
        match self.steps.clone() {
            Steps::None => Box::new(std::iter::empty()),
            Steps::Numbers { start, stop, step } => {
                let inclusive = self.inclusive;
                let mut next = Some(start);
                let mut values = std::iter::from_fn(move || {
                    let value = next.filter(|v| is_inside(*v, stop, step > 0, inclusive))?;
                    next = value.checked_add(step);
                    Some(value)
                });
                Box::new(std::iter::from_fn(move || {
                    let values: Vec<i128> = values.by_ref().take(BATCH_ROWS).collect();
                    (!values.is_empty()).then(|| series.numbers(&values))
                }))
            }
            Steps::Times { start, stop, step, zone } => {
                let (inclusive, up) = (self.inclusive, is_forward(step));
                let mut next = Some(start);
                let mut values = std::iter::from_fn(move || {
                    let value =
                        next.filter(|v| is_inside(i128::from(*v), i128::from(stop), up, inclusive))?;
                    // A step that leads nowhere (a month less 31 days, say) ends it.
                    next = zone.later(value, step).filter(|after| (*after > value) == up);
                    Some(value)
                });
                Box::new(std::iter::from_fn(move || {
                    let values: Vec<i64> = values.by_ref().take(BATCH_ROWS).collect();
                    (!values.is_empty()).then(|| {
                        let array = TimestampMicrosecondArray::from(values).with_data_type(series.ty.arrow());
                        series.batch(Arc::new(array))
                    })
                }))
            }
        }
    }

    fn numbers(&self, values: &[i128]) -> Result<RecordBatch> {
        // The end and the start fit their type, and so does all between.
        let array: ArrayRef = match self.ty {
            SqlType::Int4 => Arc::new(values.iter().map(|v| *v as i32).collect::<Int32Array>()),
            SqlType::Int8 => Arc::new(values.iter().map(|v| *v as i64).collect::<Int64Array>()),
            _ => {
                Arc::new(values.iter().copied().collect::<Decimal128Array>().with_data_type(self.ty.arrow()))
            }
        };
        self.batch(array)
    }

    fn batch(&self, array: ArrayRef) -> Result<RecordBatch> {
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), vec![array])?)
    }
}

fn is_inside(value: i128, stop: i128, up: bool, inclusive: bool) -> bool {
    (inclusive && value == stop) || (if up { value < stop } else { value > stop })
}

fn is_forward(step: IntervalMonthDayNano) -> bool {
    let days = i128::from(step.months) * 30 + i128::from(step.days);
    days * 86_400_000_000_000 + i128::from(step.nanoseconds) > 0
}

fn type_of(value: &ScalarValue) -> SqlType {
    match value {
        ScalarValue::Null | ScalarValue::Utf8(_) => SqlType::Unknown,
        other => SqlType::of_arrow(&other.data_type()).unwrap_or(SqlType::Unknown),
    }
}

/// What PostgreSQL's overloads make of the arguments.
fn shared_type(name: &str, types: &[SqlType]) -> Option<SqlType> {
    use SqlType::*;
    let (ends, step) = match types {
        [start, stop] => ([start, stop], None),
        [start, stop, step] => ([start, stop], Some(step)),
        _ => return None,
    };
    let all = ends.into_iter().chain(step);
    if ends.iter().any(|ty| matches!(ty, Date | Timestamp | Timestamptz)) {
        step?;
        let spans = matches!(step, Some(Interval | Unknown));
        let times = ends.iter().all(|ty| matches!(ty, Date | Timestamp | Timestamptz | Unknown));
        // PostgreSQL prefers timestamptz for dates; `range` is not one of its functions.
        let zoned = ends.iter().any(|ty| **ty == Timestamptz || (**ty == Date && name == "generate_series"));
        return (spans && times).then_some(if zoned { Timestamptz } else { Timestamp });
    }
    let mut shared = Int4;
    for ty in all {
        shared = match (ty, &shared) {
            (Int2 | Int4 | Unknown, _) => shared,
            (Int8, Int4) => Int8,
            (Int8, _) => shared,
            (Numeric(_, s), Numeric(_, t)) => Numeric(38, *s.max(t)),
            (Numeric(_, s), _) => Numeric(38, *s),
            _ => return None,
        };
    }
    Some(shared)
}

fn steps(values: &[ScalarValue], ty: &SqlType, zone: Zone) -> std::result::Result<Steps, SqlError> {
    if values.iter().any(ScalarValue::is_null) {
        return Ok(Steps::None);
    }
    let zero = || SqlError::new(SqlState::INVALID_PARAMETER_VALUE, "step size cannot equal zero");
    let number = |value: &ScalarValue| match value {
        ScalarValue::Int32(Some(v)) => Some(i128::from(*v)),
        ScalarValue::Int64(Some(v)) => Some(i128::from(*v)),
        ScalarValue::Decimal128(Some(v), ..) => Some(*v),
        _ => None,
    };
    let time = |value: &ScalarValue| match value {
        ScalarValue::TimestampMicrosecond(Some(v), _) => Some(*v),
        _ => None,
    };
    let unexpected = || SqlError::internal("a series got arguments of another type");
    match (ty, values) {
        (
            SqlType::Timestamp | SqlType::Timestamptz,
            [start, stop, ScalarValue::IntervalMonthDayNano(Some(step))],
        ) => {
            if step.months == 0 && step.days == 0 && step.nanoseconds == 0 {
                return Err(zero());
            }
            let zone = if *ty == SqlType::Timestamptz { zone } else { Zone::UTC };
            let (start, stop) = (time(start).ok_or_else(unexpected)?, time(stop).ok_or_else(unexpected)?);
            Ok(Steps::Times { start, stop, step: *step, zone })
        }
        (_, [start, stop, rest @ ..]) => {
            let one = match ty {
                SqlType::Numeric(_, scale) => 10_i128.pow(u32::from(scale.unsigned_abs())),
                _ => 1,
            };
            let step = rest.first().map_or(Some(one), number).ok_or_else(unexpected)?;
            if step == 0 {
                return Err(zero());
            }
            let (start, stop) = (number(start).ok_or_else(unexpected)?, number(stop).ok_or_else(unexpected)?);
            Ok(Steps::Numbers { start, stop, step })
        }
        _ => Err(unexpected()),
    }
}

/// A series as a table.
#[derive(Debug)]
pub(crate) struct SeriesTable(pub Series);

#[async_trait]
impl TableProvider for SeriesTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.0.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let projected = match projection {
            Some(columns) => Arc::new(self.0.schema.project(columns)?),
            None => Arc::clone(&self.0.schema),
        };
        let part = Part { series: self.0.clone(), schema: Arc::clone(&projected) };
        Ok(Arc::new(StreamingTableExec::try_new(
            projected,
            vec![Arc::new(part)],
            None,
            std::iter::empty(),
            false,
            limit,
        )?))
    }
}

struct Part {
    series: Series,
    schema: SchemaRef,
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.series.steps)
    }
}

impl PartitionStream for Part {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let schema = Arc::clone(&self.schema);
        let narrow = schema.fields().is_empty();
        let batches = self.series.batches().map(move |batch| {
            let batch = batch?;
            if !narrow {
                return Ok(batch);
            }
            let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
            Ok(RecordBatch::try_new_with_options(Arc::clone(&schema), Vec::new(), &options)?)
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), futures::stream::iter(batches)))
    }
}

/// As DataFusion's planner wants errors.
pub(crate) fn planned(name: &str, column: &str, arguments: Vec<Expr>, zone: Zone) -> Result<SeriesTable> {
    Series::new(name, column, arguments, zone).map(SeriesTable).map_err(into_datafusion)
}
