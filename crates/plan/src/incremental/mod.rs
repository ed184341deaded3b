//! The incremental plan: what the dataflow must do to keep a view up to date, as plain printable data.
//!
//! A [`Plan`] is a graph of [`Node`]s in an array, inputs before users: what is computed twice is one node. A node's columns have unique names, so an
//! [`Expr`] over a node's schema names a column by its bare name; operators that need no expression (grouping, aggregate
//! arguments) name columns by index. `Display` prints what EXPLAIN shows; [`Plan::fingerprint`] is the text that a
//! checkpoint is compared with.
//!
//! **Lateness.** Rows of a source carry `_watermark` ([`crate::Metadata::Watermark`]): the topic's watermark before their
//! own frame. An operator with a [`WindowClose`] refuses a row iff its `end` is not NULL, its `watermark` is not NULL, and
//! `end + lateness_us <= watermark`. No other operator refuses rows. The column is threaded from the [`Input`] to the
//! operator that needs it and is dropped there.

mod display;
mod grouping;
mod lower;
mod lower_asof;
mod lower_flat_map;
mod lower_join;
mod lower_multi_join;
mod lower_order;
mod lower_values;
mod order;
mod share;
mod sorted;
mod temporal;
mod text;

use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::Expr;
use millpond_functions::aggregate::moments::Spread;
use millpond_types::{RelationId, SqlType};

pub use lower::{LowerOptions, lower};
pub use order::{
    Frame, FrameBound, FrameUnits, OrderColumn, Over, OverCall, OverFunction, Ranking, Repeat, TopN,
};
pub(crate) use sorted::depends_on_order;
pub use sorted::{Argument, SortedAggregate, SortedCall};

pub use temporal::{ClockBound, ClockStep, Comparison, Temporal, TimeSpan, TimeUnit};

use crate::Metadata;
use crate::window::WindowKind;

/// The place of a node in [`Plan::nodes`].
pub type NodeId = usize;

#[derive(Clone, Debug)]
pub struct Plan {
    /// Inputs come before the nodes that use them; the last one is the result.
    pub nodes: Vec<Node>,
    /// Names (may repeat) and types of the result's columns, which are the last node's columns in order.
    pub columns: Vec<(String, SqlType)>,
}

#[derive(Clone, Debug)]
pub struct Node {
    pub operator: Operator,
    pub inputs: Vec<NodeId>,
    /// Output columns; names are unique within the node.
    pub schema: SchemaRef,
    /// No row is ever retracted: deltas need no weights.
    pub append_only: bool,
    /// Columns of which no two rows have the same values (NULLs equal), where planning can prove it. Empty: at most one row.
    pub key: Option<Vec<usize>>,
    /// The column of event time that the watermark bounds, where planning can trace it.
    pub event_time: Option<usize>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Operator {
    Input(Input),
    Map(Map),
    Aggregate(Aggregate),
    HopAggregate(HopAggregate),
    SortedAggregate(SortedAggregate),
    Window(Window),
    Join(Join),
    MultiJoin(MultiJoin),
    /// One row that is there from the beginning: a SELECT without FROM. Its only column means nothing.
    OneRow,
    /// UNION ALL of inputs with equal column types.
    Union,
    TopN(TopN),
    Over(Over),
    Repeat(Repeat),
    Temporal(Temporal),
    Asof(Asof),
    FlatMap(SetColumns),
}

/// Each row once per row of its sets, which go in step; shorter ones are filled up with NULL. Output columns: those of `kept`, those
/// of the sets, and with `ordinality` a bigint that counts the rows of a row from 1. Linear: no state.
#[derive(Clone, Debug, PartialEq)]
pub struct SetColumns {
    /// Input columns that stand beside the sets' rows.
    pub kept: Vec<usize>,
    /// Input columns that hold answers of set-returning functions.
    pub sets: Vec<usize>,
    pub ordinality: bool,
    /// A row whose sets are all empty stays once, with NULLs.
    pub outer: bool,
}

/// The deltas of a relation of the catalog.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    pub relation: RelationId,
    pub name: String,
    pub columns: Vec<InputColumn>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputColumn {
    /// The n-th declared column of the relation.
    Stored(usize),
    /// A column that the log knows of each row; `_watermark` is the last where an operator above closes by time.
    Metadata(Metadata),
}

/// Keeps the rows for which `filter` is true, then computes `projection` from them. Linear: no state.
#[derive(Clone, Debug, PartialEq)]
pub struct Map {
    /// Over the input's columns; NULL is not true.
    pub filter: Option<Expr>,
    /// One expression per output column, over the input's columns, without aliases.
    pub projection: Vec<Expr>,
}

/// GROUP BY. Output columns: the group's, then one per call.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    /// Input columns; NULLs are equal to each other.
    pub group: Vec<usize>,
    pub calls: Vec<AggregateCall>,
    /// No GROUP BY at all: exactly one row, also over an empty input.
    pub global: bool,
    pub close: Option<WindowClose>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AggregateFunction {
    CountStar,
    /// Rows whose argument is not NULL.
    Count,
    /// Values that are not NULL, equal ones once.
    CountDistinct,
    Sum,
    Avg,
    Min,
    Max,
    /// stddev and variance.
    Spread(Spread),
}

#[derive(Clone, Debug, PartialEq)]
pub struct AggregateCall {
    pub function: AggregateFunction,
    /// Input column; `None` for `count(*)` alone.
    pub argument: Option<usize>,
    /// FILTER (WHERE …): a boolean input column; only rows where it is true count.
    pub filter: Option<usize>,
    pub result: SqlType,
}

/// When a group's window is over: its state is freed, and later rows are refused as late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowClose {
    /// The source whose watermark closes the window.
    pub source: RelationId,
    /// Input column with the window's end (timestamp). In a [`HopAggregate`] there is no such column: `None`, and the end
    /// is that of the window a row is counted into.
    pub end: Option<usize>,
    /// Input column with the row's `_watermark`.
    pub watermark: usize,
    /// `allowed_lateness` of the view.
    pub lateness_us: i64,
    /// EMIT ON WINDOW CLOSE: a group's row appears when its window is over, and not before.
    pub emit_on_close: bool,
}

/// GROUP BY straight over HOP or CUMULATE, to be computed per slice: rows are not copied size/slide times. A row whose time is NULL
/// belongs to no window. Output columns: the group's, then one per call.
#[derive(Clone, Debug, PartialEq)]
pub struct HopAggregate {
    /// [`WindowKind::Hop`], or [`WindowKind::Cumulate`] with the window's end in the group.
    pub window: WindowKind,
    /// Input column of type timestamp or timestamptz.
    pub time: usize,
    /// In output order; at least one is the window's start or end.
    pub group: Vec<HopColumn>,
    pub calls: Vec<AggregateCall>,
    pub close: Option<WindowClose>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HopColumn {
    Input(usize),
    WindowStart,
    WindowEnd,
}

/// TUMBLE or HOP as a function of rows: each row once per window that it belongs to, with `window_start` and `window_end`
/// after the input's columns. A row whose time is NULL belongs to no window. Linear: no state.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    pub window: WindowKind,
    /// Input column of type timestamp or timestamptz.
    pub time: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinKind {
    Inner,
    Left,
    Right,
    Full,
    /// Rows of the left input with a match, once each: IN, EXISTS.
    LeftSemi,
    /// Rows of the left input without a match: NOT EXISTS.
    LeftAnti,
    /// All rows of the left input, with a last column that says whether there is a match.
    LeftMark,
}

/// When a row of one input of a join is over. It is late iff its time + `late_us` + the lateness <= its `watermark`, and freed
/// when the watermarks of both sources have passed its time + `free_us` + the lateness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SideClose {
    /// Input column of type timestamp or timestamptz.
    pub time: usize,
    /// Input column with the row's `_watermark`.
    pub watermark: usize,
    pub late_us: i64,
    pub free_us: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinClose {
    pub sides: [SideClose; 2],
    pub lateness_us: i64,
}

/// Rows of two inputs that belong together. Output columns: see `output`, then the mark of a [`JoinKind::LeftMark`].
#[derive(Clone, Debug, PartialEq)]
pub struct Join {
    pub kind: JoinKind,
    /// Columns of the left and of the right input that are equal in a pair; of equal types.
    pub keys: Vec<(usize, usize)>,
    /// NULL equals NULL in the keys. Otherwise a NULL equals nothing.
    pub nulls_equal: bool,
    /// What else must be true of a pair, over the columns of `pair`; NULL is not true.
    pub residual: Option<Expr>,
    /// The condition lets rows meet only within some time: late ones are refused, and those that are over are freed.
    pub close: Option<JoinClose>,
    /// The left input's columns and the right's, under unique names.
    pub pair: SchemaRef,
    /// Columns of `pair`.
    pub output: Vec<usize>,
}

/// Rows of three and more inputs that belong together. Each input is kept once, and its rows are looked up in the others along a
/// path.
#[derive(Clone, Debug, PartialEq)]
pub struct MultiJoin {
    /// Classes of columns that are equal, by input and column, each input once; of equal types. NULL equals nothing.
    pub equal: Vec<Vec<(usize, usize)>>,
    /// Of each input: the others, in the order in which its rows are looked up in them.
    pub paths: Vec<Vec<usize>>,
    /// What else must be true, over the columns of `pair`; NULL is not true.
    pub residual: Option<Expr>,
    /// The columns of all inputs, under unique names.
    pub pair: SchemaRef,
    /// Columns of `pair`.
    pub output: Vec<usize>,
}

/// Each left row with the right row of an equal key that is nearest in time: the last one before it, or the first one behind. Of
/// right rows of one time the one that is nearest by all other columns is taken. Output columns: those of the left input, then
/// of the right.
#[derive(Clone, Debug, PartialEq)]
pub struct Asof {
    /// Columns of the left and of the right input, of equal types; NULL equals nothing.
    pub keys: Vec<(usize, usize)>,
    pub times: (usize, usize),
    /// The left time is less (…) than the right one.
    pub comparison: Comparison,
    /// Left rows without a match stay, with NULLs.
    pub outer: bool,
    /// Columns of the left input, then those of the right.
    pub output: Vec<usize>,
}

impl Plan {
    pub fn root(&self) -> &Node {
        self.nodes.last().expect("a plan has at least its input")
    }

    /// The relations read, each once.
    pub fn relations(&self) -> Vec<RelationId> {
        let mut relations = Vec::new();
        for node in &self.nodes {
            if let Operator::Input(input) = &node.operator
                && !relations.contains(&input.relation)
            {
                relations.push(input.relation);
            }
        }
        relations
    }

    /// Some operator needs the time.
    pub fn follows_clock(&self) -> bool {
        self.nodes.iter().any(|node| matches!(node.operator, Operator::Temporal(_)))
    }

    /// A text that is equal for plans whose state on disk is interchangeable.
    pub fn fingerprint(&self) -> String {
        self.verbose().to_string()
    }
}
