//! TUMBLE, HOP, CUMULATE and SESSION as a node of the logical plan.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, IntervalMonthDayNano};
use datafusion::common::{DFSchema, DFSchemaRef, Result, internal_err};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};

pub const WINDOW_START: &str = "window_start";
pub const WINDOW_END: &str = "window_end";

/// Which windows a time belongs to. Sizes are positive; `functions::window` has the arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WindowKind {
    Tumble {
        size: IntervalMonthDayNano,
        offset: IntervalMonthDayNano,
    },
    /// slide <= size.
    Hop {
        slide: IntervalMonthDayNano,
        size: IntervalMonthDayNano,
        offset: IntervalMonthDayNano,
    },
    /// The size is a multiple of the step.
    Cumulate {
        step: IntervalMonthDayNano,
        size: IntervalMonthDayNano,
        offset: IntervalMonthDayNano,
    },
    /// Rows of a partition that are at most so many microseconds apart, from the first up to the last and this.
    Session {
        gap_us: i64,
    },
}

impl fmt::Display for WindowKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tumble { size, offset } => {
                write!(f, "TUMBLE size {}", Interval(size))?;
                offset_text(f, offset)
            }
            Self::Hop { slide, size, offset } => {
                write!(f, "HOP slide {} size {}", Interval(slide), Interval(size))?;
                offset_text(f, offset)
            }
            Self::Cumulate { step, size, offset } => {
                write!(f, "CUMULATE step {} size {}", Interval(step), Interval(size))?;
                offset_text(f, offset)
            }
            Self::Session { gap_us } => write!(f, "SESSION gap {}", duration(*gap_us)),
        }
    }
}

fn offset_text(f: &mut fmt::Formatter<'_>, offset: &IntervalMonthDayNano) -> fmt::Result {
    if *offset == IntervalMonthDayNano::ZERO { Ok(()) } else { write!(f, " offset {}", Interval(offset)) }
}

/// An interval as PostgreSQL prints it.
struct Interval<'a>(&'a IntervalMonthDayNano);

impl fmt::Display for Interval<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let IntervalMonthDayNano { months, days, nanoseconds } = *self.0;
        let mut parts = Vec::new();
        for (n, one) in [(months / 12, "year"), (months % 12, "mon"), (days, "day")] {
            match n {
                0 => {}
                1 => parts.push(format!("1 {one}")),
                n => parts.push(format!("{n} {one}s")),
            }
        }
        if nanoseconds != 0 || parts.is_empty() {
            let sign = if nanoseconds < 0 { "-" } else { "" };
            let micros = nanoseconds.unsigned_abs() / 1_000;
            let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
            let mut text =
                format!("{sign}{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
            if micros != 0 {
                text.push_str(format!(".{micros:06}").trim_end_matches('0'));
            }
            parts.push(text);
        }
        f.write_str(&parts.join(" "))
    }
}

/// Microseconds as an interval.
pub(crate) fn duration(us: i64) -> String {
    Interval(&IntervalMonthDayNano::new(0, 0, us.saturating_mul(1_000))).to_string()
}

/// Each row of `input` once per window that its time belongs to, with `window_start` and `window_end` after its columns.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WindowTvf {
    input: Arc<LogicalPlan>,
    kind: WindowKind,
    /// A column of the input, of type timestamp or timestamptz.
    time: Expr,
    /// Columns of the input; sessions are those of one partition.
    partition: Vec<Expr>,
    schema: DFSchemaRef,
}

impl WindowTvf {
    /// # Errors
    /// XX000 if `time` is no column of `input`, or the input has a column `window_start` of the same qualifier.
    pub fn try_new(
        input: Arc<LogicalPlan>,
        kind: WindowKind,
        time: Expr,
        partition: Vec<Expr>,
    ) -> Result<Self> {
        for key in &partition {
            match key {
                Expr::Column(column) => input.schema().index_of_column(column)?,
                other => return internal_err!("sessions are partitioned by {other}, which is no column"),
            };
        }
        let Expr::Column(column) = &time else {
            return internal_err!("the time of a window function is not a column: {time}");
        };
        let at = input.schema().index_of_column(column)?;
        let data_type = input.schema().field(at).data_type().clone();
        let mut fields: Vec<_> =
            input.schema().iter().map(|(q, field)| (q.cloned(), Arc::clone(field))).collect();
        for name in [WINDOW_START, WINDOW_END] {
            fields.push((None, Arc::new(Field::new(name, data_type.clone(), true))));
        }
        let schema = Arc::new(DFSchema::new_with_metadata(fields, input.schema().metadata().clone())?);
        Ok(Self { input, kind, time, partition, schema })
    }

    pub fn input(&self) -> &Arc<LogicalPlan> {
        &self.input
    }

    pub fn kind(&self) -> WindowKind {
        self.kind
    }

    /// The index of the time column in the input.
    pub fn time(&self) -> usize {
        match &self.time {
            Expr::Column(column) => {
                self.input.schema().index_of_column(column).expect("checked when the node was made")
            }
            _ => unreachable!("checked when the node was made"),
        }
    }

    pub(crate) fn time_column(&self) -> &Expr {
        &self.time
    }

    pub(crate) fn partition(&self) -> &[Expr] {
        &self.partition
    }

    /// Whether the windows of a row depend on other rows.
    pub(crate) fn is_session(&self) -> bool {
        matches!(self.kind, WindowKind::Session { .. })
    }

    /// Whether windows of one start have many ends.
    pub(crate) fn is_cumulative(&self) -> bool {
        matches!(self.kind, WindowKind::Cumulate { .. })
    }

    pub fn time_type(&self) -> &DataType {
        self.input.schema().field(self.time()).data_type()
    }

    /// The same window function over another input that has the time column.
    pub(crate) fn over(&self, input: LogicalPlan) -> Result<Self> {
        Self::try_new(Arc::new(input), self.kind, self.time.clone(), self.partition.clone())
    }

    /// Its output columns as expressions.
    pub(crate) fn schema_columns(&self) -> Vec<Expr> {
        self.schema.columns().into_iter().map(Expr::Column).collect()
    }

    pub fn of(plan: &LogicalPlan) -> Option<&Self> {
        match plan {
            LogicalPlan::Extension(Extension { node }) => node.as_any().downcast_ref::<Self>(),
            _ => None,
        }
    }

    pub fn into_plan(self) -> LogicalPlan {
        LogicalPlan::Extension(Extension { node: Arc::new(self) })
    }
}

impl PartialOrd for WindowTvf {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.time.partial_cmp(&other.time).filter(|o| *o != Ordering::Equal || self == other)
    }
}

impl UserDefinedLogicalNodeCore for WindowTvf {
    fn name(&self) -> &str {
        "WindowTvf"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        std::iter::once(self.time.clone()).chain(self.partition.iter().cloned()).collect()
    }

    /// Filters on the input's own columns may run before the windows are made, unless other rows matter.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        let own = self.schema.fields().iter().filter(|_| self.is_session()).map(|f| f.name().clone());
        own.chain([WINDOW_START.to_owned(), WINDOW_END.to_owned()]).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "WindowTvf: {} on {}", self.kind, self.time)?;
        for (at, key) in self.partition.iter().enumerate() {
            write!(f, "{}{key}", if at == 0 { " by " } else { ", " })?;
        }
        Ok(())
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        let mut exprs = exprs.into_iter();
        match (exprs.next(), inputs.pop()) {
            (Some(time), Some(input)) if exprs.len() == self.partition.len() && inputs.is_empty() => {
                Self::try_new(Arc::new(input), self.kind, time, exprs.collect())
            }
            _ => internal_err!("a window function has one input and one time column"),
        }
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let width = self.input.schema().fields().len();
        let mut needed: Vec<usize> = output_columns.iter().copied().filter(|c| *c < width).collect();
        needed.push(self.time());
        needed.extend(self.partition.iter().filter_map(|key| match key {
            Expr::Column(column) => self.input.schema().index_of_column(column).ok(),
            _ => None,
        }));
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
}
