//! What a node computes, as plain data over column numbers of its source.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use datafusion::physical_plan::PhysicalExpr;
pub use millpond_functions::aggregate::moments::Spread;
pub use millpond_functions::window::{Cumulate, Hop, Tumble};

/// Keeps the rows for which `filter` is true (NULL is not true), then computes one column per pair of `projection`.
#[derive(Clone, Debug)]
pub struct MapSpec {
    pub filter: Option<Arc<dyn PhysicalExpr>>,
    /// Expressions over the source's columns, each with the name and type of its output column.
    pub projection: Vec<(Arc<dyn PhysicalExpr>, FieldRef)>,
}

/// Each row once per row of its sets, which go in step; shorter ones are filled up with NULL. Output columns: those of `kept`, those
/// of the sets, and with `ordinality` a bigint that counts the rows of a row from 1.
#[derive(Clone, Debug)]
pub struct FlatMapSpec {
    /// Columns of the source that stand beside the sets' rows.
    pub kept: Vec<usize>,
    /// Columns of the source that hold answers of set-returning functions ([`millpond_functions::sets`]).
    pub sets: Vec<usize>,
    pub ordinality: bool,
    /// A row whose sets are all empty stays once, with NULLs.
    pub outer: bool,
    pub schema: SchemaRef,
}

/// Each row once per window that its time belongs to, with `window_start` and `window_end` (of the type of the time
/// column, not null) after the columns of the source. A row whose time is NULL belongs to no window and is dropped; a row
/// whose window is out of range is rejected (22008).
#[derive(Clone, Copy, Debug)]
pub struct WindowSpec {
    /// A column of microsecond timestamps.
    pub time: usize,
    pub kind: WindowKind,
}

#[derive(Clone, Copy, Debug)]
pub enum WindowKind {
    Tumble(Tumble),
    Hop(Hop),
    Cumulate(Cumulate),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AggregateFunction {
    CountStar,
    /// Rows whose argument is not NULL.
    Count,
    /// Values of the argument that are not NULL, equal ones once.
    CountDistinct,
    Sum,
    Avg,
    Min,
    Max,
    /// stddev and variance.
    Spread(Spread),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AggregateCall {
    pub function: AggregateFunction,
    /// A column of the source; `None` for `count(*)` alone.
    pub argument: Option<usize>,
    /// A boolean column of the source: only rows where it is true count.
    pub filter: Option<usize>,
    /// The type of the result, as `functions::aggregate` gives it for the argument's type: `sum(int2|int4)` Int64,
    /// `sum(int8)` Decimal128(38, 0), `sum(numeric)` Decimal of the same scale, `avg(int*)` Decimal128(38, 16),
    /// and so on.
    pub result: DataType,
}

/// When the window of a group is over.
///
/// A row is refused as late iff `window_end + lateness_micros <= W`, where W is the value of its column `watermark`; a NULL
/// in either is not late. The state of a window is freed at the end of the epoch in which the watermark of the source passes
/// `window_end + lateness_micros`; what was published stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseSpec {
    /// Column of the source: the end of the row's window. The columns of the group must determine it.
    pub window_end: usize,
    /// Column of the source that holds the start of the same window, where there is one: it need not be stored per group.
    pub window_start: Option<usize>,
    /// Column of the source (Int64 or timestamp): W before the row's frame, NULL before the first watermark.
    pub watermark: usize,
    pub lateness_micros: i64,
    /// A group's row appears when the watermark passes `window_end`, and not before; then rows that come within the
    /// allowed lateness correct it.
    pub emit_on_close: bool,
}

/// GROUP BY.
#[derive(Clone, Debug)]
pub struct AggregateSpec {
    /// Columns of the source; NULLs are equal to each other.
    pub keys: Vec<usize>,
    pub calls: Vec<AggregateCall>,
    /// The source never retracts; a negative weight is then a [`crate::Fault`].
    pub append_only: bool,
    pub close: Option<CloseSpec>,
    /// No GROUP BY: one row also over an empty input, from the first epoch on.
    pub global: bool,
    /// Output columns: the keys, then one per call.
    pub schema: SchemaRef,
}

/// Which rows a join gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinKind {
    /// Pairs that match.
    Inner,
    /// And left rows without a match, with NULLs in the right columns.
    Left,
    Right,
    Full,
    /// Left rows with a match, once each.
    LeftSemi,
    /// Left rows without one.
    LeftAnti,
    /// All left rows, with a last column that says whether there is a match.
    LeftMark,
}

/// What must be true of a pair beside its equal keys.
#[derive(Clone, Debug)]
pub struct Residual {
    /// The columns that the expression is over: those of the left source, then those of the right.
    pub columns: Vec<usize>,
    /// Over these columns, in this order; NULL is not true.
    pub expression: Arc<dyn PhysicalExpr>,
}

/// When a row of one side of a join can have no more matches. Both sides are append-only.
///
/// A row is refused as late iff its time + `late_micros` + the lateness of the join <= W, its column `watermark`; a NULL W is not
/// late. Its state is freed when the watermarks of both sources have passed its time + `free_micros` + the lateness. A row whose
/// time is NULL has no match. With a residual condition, rows that matter by whether they match count their matches, and
/// counts are made again from the rows after a restart: `free_micros` of the other side must reach until such a row has no
/// more matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SideClose {
    /// Column of the side: a timestamp.
    pub time: usize,
    /// Column of the side: W before the row's frame, NULL before the first watermark.
    pub watermark: usize,
    pub late_micros: i64,
    pub free_micros: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinClose {
    pub sides: [SideClose; 2],
    pub lateness_micros: i64,
}

/// JOIN.
#[derive(Clone, Debug)]
pub struct JoinSpec {
    pub kind: JoinKind,
    /// Columns of left and right, of equal types, that are equal in a pair. Without any, every row meets every other.
    pub keys: Vec<(usize, usize)>,
    /// NULL equals NULL in keys; otherwise it equals nothing.
    pub nulls_equal: bool,
    pub residual: Option<Residual>,
    /// The condition lets rows of both sides meet only within some time.
    pub close: Option<JoinClose>,
    /// The source never retracts; a negative weight is then a [`crate::Fault`].
    pub append_only: [bool; 2],
    /// The output: columns of the left source, then of the right; of a semi, anti or mark join left ones only.
    pub output: Vec<usize>,
    /// The output's columns, then the mark of a mark join. What a missing match fills with NULL must be nullable.
    pub schema: SchemaRef,
}

/// Inner joins of several sources at once.
#[derive(Clone, Debug)]
pub struct MultiJoinSpec {
    /// The source never retracts; a negative weight is then a [`crate::Fault`].
    pub append_only: Vec<bool>,
    /// Of each source: the sets of columns that its rows are looked up by.
    pub indexes: Vec<Vec<Vec<usize>>>,
    /// Of each source: in which order its rows are looked up in all others.
    pub paths: Vec<Vec<Lookup>>,
    /// A column of each source, if there are such that are equal in all of them.
    pub shard_by: Option<Vec<usize>>,
    /// Over the columns of all sources, one after the other.
    pub residual: Option<Residual>,
    /// Likewise.
    pub output: Vec<usize>,
    pub schema: SchemaRef,
}

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    pub source: usize,
    /// Which of the source's indexes.
    pub index: usize,
    /// For each column of the index the one that it equals: a source that is known by then, and a column there.
    pub by: Vec<(usize, usize)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupColumn {
    Input(usize),
    WindowStart,
    WindowEnd,
}

/// As [`CloseSpec`], where the windows are made by the operator itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HopClose {
    pub watermark: usize,
    pub lateness_micros: i64,
    pub emit_on_close: bool,
}

/// GROUP BY straight over HOP, per slice of gcd(slide, size), or over CUMULATE, per step. A row whose time is NULL belongs to no window.
#[derive(Clone, Debug)]
pub struct HopSpec {
    /// A column of microsecond timestamps.
    pub time: usize,
    /// Windows start at `offset_micros` + n × `slide_micros` since 1970-01-01.
    pub slide_micros: i64,
    pub size_micros: i64,
    pub offset_micros: i64,
    /// Windows start at `offset_micros` + n × `size_micros` and end after each `slide_micros`. The window's end is then a key.
    pub cumulative: bool,
    /// In output order; at least one is the window's start or end.
    pub keys: Vec<GroupColumn>,
    pub calls: Vec<AggregateCall>,
    pub append_only: bool,
    pub close: Option<HopClose>,
    /// Output columns: the keys, then one per call.
    pub schema: SchemaRef,
}
