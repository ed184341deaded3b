//! Operators over rows in order.

use arrow::datatypes::DataType;

use super::{AggregateFunction, SortedCall};

/// A column of the input that rows are ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderColumn {
    pub column: usize,
    pub descending: bool,
    pub nulls_first: bool,
}

/// How rows of a partition are numbered, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ranking {
    RowNumber,
    Rank,
    DenseRank,
}

impl Ranking {
    pub fn name(self) -> &'static str {
        match self {
            Self::RowNumber => "row_number",
            Self::Rank => "rank",
            Self::DenseRank => "dense_rank",
        }
    }
}

/// The rows of each partition whose number is beyond `skip` and at most `end`. Output columns: the input's, then perhaps the
/// number. The order is total for rows that can be told apart.
#[derive(Clone, Debug, PartialEq)]
pub struct TopN {
    /// Input columns; NULLs are equal to each other. Empty: all rows are one partition.
    pub partition: Vec<usize>,
    pub order: Vec<OrderColumn>,
    pub ranking: Ranking,
    pub skip: u64,
    pub end: u64,
    pub number: bool,
}

/// Window functions over the rows of each partition. Output columns: the input's, then one per call.
#[derive(Clone, Debug, PartialEq)]
pub struct Over {
    pub partition: Vec<usize>,
    pub order: Vec<OrderColumn>,
    pub calls: Vec<OverCall>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverFunction {
    RowNumber,
    Rank,
    DenseRank,
    PercentRank,
    CumeDist,
    Ntile(u64),
    /// So many rows before (negative: after) the row.
    Lag(i64),
    FirstValue,
    LastValue,
    NthValue(u64),
    Aggregate(AggregateFunction),
    /// An aggregate without an accumulator for frames: it is given the rows of each.
    OfFrame,
    /// Where the row's session begins: rows of a session are at most so many microseconds after the one before, by the only
    /// order column, a timestamp that is never NULL.
    SessionStart(i64),
    /// The last time of the row's session, and so much later.
    SessionEnd(i64),
}

#[derive(Clone, Debug, PartialEq)]
pub struct OverCall {
    pub function: OverFunction,
    /// Of [`OverFunction::OfFrame`]; without an order of its own, its filter stands beside.
    pub of_frame: Option<SortedCall>,
    /// Input columns.
    pub argument: Option<usize>,
    pub default: Option<usize>,
    pub filter: Option<usize>,
    pub frame: Frame,
    pub result: DataType,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    pub units: FrameUnits,
    pub start: FrameBound,
    pub end: FrameBound,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameUnits {
    Rows,
    Range,
    Groups,
}

/// Offsets are not negative; those of RANGE are in the units of the order column (a decimal's without its scale,
/// microseconds of a timestamp, days of a date).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameBound {
    UnboundedPreceding,
    Preceding(i128),
    CurrentRow,
    Following(i128),
    UnboundedFollowing,
}

/// Each row as often as a bigint column says, which is dropped. Linear: no state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Repeat {
    pub times: usize,
}
