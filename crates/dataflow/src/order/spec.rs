//! What the operators over ordered rows compute.

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;

use super::frame_aggregate::FrameAggregate;
use crate::spec::{AggregateFunction, CloseSpec};

/// A column of the source that rows are ordered by. Rows that it leaves equal are ordered by all other columns, ascending
/// with NULLs last, so that the order is total for all rows that can be told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OrderColumn {
    pub column: usize,
    pub descending: bool,
    pub nulls_first: bool,
}

/// How rows of a partition are numbered, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ranking {
    RowNumber,
    /// Peers share the number of their first row.
    Rank,
    /// Peers share a number, and none is left out.
    DenseRank,
}

/// The rows whose number within their partition is beyond `skip`, and at most `end`.
#[derive(Clone, Debug)]
pub struct TopNSpec {
    /// Columns of the source; NULLs are equal to each other. Empty: all rows are one partition.
    pub partition: Vec<usize>,
    pub order: Vec<OrderColumn>,
    pub ranking: Ranking,
    pub skip: u64,
    pub end: u64,
    /// The number is the last output column.
    pub number: bool,
    pub append_only: bool,
    /// The columns of the source, and perhaps the number.
    pub schema: SchemaRef,
}

/// Window functions over the rows of each partition.
#[derive(Clone, Debug)]
pub struct OverSpec {
    pub partition: Vec<usize>,
    pub order: Vec<OrderColumn>,
    pub calls: Vec<OverCall>,
    pub append_only: bool,
    /// The columns of the source, then one per call.
    pub schema: SchemaRef,
}

/// GROUP BY with functions of a group's rows in order.
#[derive(Clone, Debug)]
pub struct SortedAggregateSpec {
    /// Columns of the source; NULLs are equal to each other.
    pub keys: Vec<usize>,
    pub calls: Vec<SortedCall>,
    pub append_only: bool,
    /// [`CloseSpec::window_start`] is not used.
    pub close: Option<CloseSpec>,
    /// No GROUP BY: one row also over an empty input, from the first epoch on.
    pub global: bool,
    /// Output columns: the keys, then one per call.
    pub schema: SchemaRef,
}

#[derive(Clone, Debug)]
pub struct SortedCall {
    /// Makes accumulators. It is without ORDER BY and DISTINCT, unless the order is its own (WITHIN GROUP).
    pub function: Arc<AggregateFunctionExpr>,
    pub arguments: Vec<SortedArgument>,
    /// A boolean column of the source: only rows where it is true count.
    pub filter: Option<usize>,
    /// What the result depends on, if on any order, is ordered by it.
    pub order: Vec<OrderColumn>,
    /// Of rows with equal arguments the first counts.
    pub distinct: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum SortedArgument {
    /// Of the source.
    Column(usize),
    Constant(ScalarValue),
}

impl SortedArgument {
    pub(super) fn map(self, place: impl FnOnce(usize) -> usize) -> Self {
        match self {
            Self::Column(column) => Self::Column(place(column)),
            constant @ Self::Constant(_) => constant,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverFunction {
    RowNumber,
    Rank,
    DenseRank,
    PercentRank,
    CumeDist,
    Ntile(u64),
    /// The argument so many rows before (negative: after) the row, or the default where there is none.
    Lag(i64),
    FirstValue,
    LastValue,
    /// From 1.
    NthValue(u64),
    Aggregate(AggregateFunction),
    /// An aggregate of the rows of the frame that has no shorter way.
    OfFrame,
    /// The first time of the row's session, by the only order column: a timestamp, ascending, never NULL. A row is in the
    /// session of the one before it if it is at most so many microseconds later.
    SessionStart(i64),
    /// The last time of the row's session, and so much later.
    SessionEnd(i64),
}

#[derive(Clone, Debug)]
pub struct OverCall {
    pub function: OverFunction,
    /// Of [`OverFunction::OfFrame`].
    pub of_frame: Option<FrameAggregate>,
    /// A column of the source.
    pub argument: Option<usize>,
    /// A column of the source, of [`OverFunction::Lag`].
    pub default: Option<usize>,
    /// A boolean column of the source: an aggregate takes only rows where it is true.
    pub filter: Option<usize>,
    pub frame: Frame,
    pub result: DataType,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameUnits {
    Rows,
    /// By value of the only order column, in its own units (of a decimal: without its scale; of a timestamp: microseconds).
    Range,
    /// Peers count as one.
    Groups,
}

/// Offsets are not negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameBound {
    UnboundedPreceding,
    Preceding(i128),
    CurrentRow,
    Following(i128),
    UnboundedFollowing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    pub units: FrameUnits,
    pub start: FrameBound,
    pub end: FrameBound,
}

impl Frame {
    /// All rows of the partition.
    pub const WHOLE: Self = Self {
        units: FrameUnits::Rows,
        start: FrameBound::UnboundedPreceding,
        end: FrameBound::UnboundedFollowing,
    };
}

/// How far the result of a row looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// At most so many rows before and after it.
    Rows {
        before: usize,
        after: usize,
    },
    /// The rows before and after it up to the first that is more than this away from its neighbour.
    Session(i64),
    Partition,
}

impl OverCall {
    pub(super) fn reach(&self) -> Reach {
        let near = |rows: i128| usize::try_from(rows).ok().filter(|rows| *rows < 1 << 20);
        match (self.function, self.frame) {
            (OverFunction::Lag(rows), _) => match near(i128::from(rows.unsigned_abs())) {
                Some(rows_away) if rows >= 0 => Reach::Rows { before: rows_away, after: 0 },
                Some(rows_away) => Reach::Rows { before: 0, after: rows_away },
                None => Reach::Partition,
            },
            (
                OverFunction::FirstValue
                | OverFunction::LastValue
                | OverFunction::NthValue(_)
                | OverFunction::Aggregate(_)
                | OverFunction::OfFrame,
                Frame { units: FrameUnits::Rows, start, end },
            ) => {
                // A frame that lies on one side of its row still begins or ends within that distance.
                let distance = |bound: FrameBound| match bound {
                    FrameBound::CurrentRow => Some((0, 0)),
                    FrameBound::Preceding(rows) => Some((near(rows)?, 0)),
                    FrameBound::Following(rows) => Some((0, near(rows)?)),
                    FrameBound::UnboundedPreceding | FrameBound::UnboundedFollowing => None,
                };
                match (distance(start), distance(end)) {
                    (Some(start), Some(end)) => {
                        Reach::Rows { before: start.0.max(end.0), after: start.1.max(end.1) }
                    }
                    _ => Reach::Partition,
                }
            }
            (OverFunction::SessionStart(gap) | OverFunction::SessionEnd(gap), _) => Reach::Session(gap),
            _ => Reach::Partition,
        }
    }
}

impl OverSpec {
    pub(super) fn reach(&self) -> Reach {
        self.calls.iter().map(OverCall::reach).fold(Reach::Rows { before: 0, after: 0 }, |a, b| {
            match (a, b) {
                (Reach::Session(gap), Reach::Session(other)) if gap == other => a,
                (Reach::Rows { before: 0, after: 0 }, Reach::Session(_)) => b,
                (Reach::Rows { before, after }, Reach::Rows { before: b, after: a }) => {
                    Reach::Rows { before: before.max(b), after: after.max(a) }
                }
                _ => Reach::Partition,
            }
        })
    }
}
