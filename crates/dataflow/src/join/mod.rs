//! Joins of two sources that both change.
//!
//! One shard holds the keys of both sides in one table ([`keys::KeyTable`]); a key has a chain of rows per side, which lie
//! in a heap of Arrow chunks ([`side::Side`]). A row that comes is one look-up: its key's other chain is what it meets, its
//! own chain is where it goes.
//!
//! **The algebra.** The output is a function F(L, R) of two weighted multisets. Deltas of an epoch are taken one after the
//! other, and each gives exactly F after it minus F before it, so the sum does not depend on their order, on where epochs
//! are cut, or on weights that are negative for a while (Budiu et al., DBSP, VLDB 2023). A self-join, whose delta comes on
//! both ports, is right for the same reason: ΔL meets R before, ΔR meets L after.
//!
//! | part of F | the change by a delta of side A against side B |
//! |---|---|
//! | pairs | each row of ΔA with each row of its key's B chain; weights multiply |
//! | rows of A that have (or lack) a match | ΔA, by whether B has rows for it |
//! | rows of B that have (or lack) a match | the chain of each key whose A weight became or ceased to be positive |
//!
//! With a residual condition a match is a matter of two rows, so each row of a side that needs it counts its matches. A trace
//! of `l LEFT JOIN r ON l.k = r.k`:
//!
//! | delta | out |
//! |---|---|
//! | l +(1, a) | (1, a, NULL) +1 |
//! | r +(1, x) | (1, a, x) +1, (1, a, NULL) -1 |
//! | r -(1, x) +(1, y) | (1, a, x) -1, (1, a, y) +1: the key's weight is what it was |
//! | l -(1, a) | (1, a, y) -1 |
//!
//! A row whose key is NULL meets nothing: it never becomes state ([`router`]).
//!
//! Where the condition lets rows meet only within some time of each other ([`JoinClose`]), late rows are refused, and so a row
//! that only late ones could still meet is freed when the watermarks have passed. Nothing is given out then: what it had to
//! give was given when it came.

mod freeze;
mod keys;
pub(crate) mod multi;
mod operator;
mod output;
mod router;
mod side;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use millpond_types::SqlError;

pub(crate) use freeze::FrozenRows;
pub use freeze::{STATE_LEFT, STATE_RIGHT};
pub use multi::SOURCES_MAX;

use crate::aggregate::key::KeyCodec;
use crate::exchange::is_time;
use crate::operator::{Built, Operator, Router};
use crate::spec::{JoinClose, JoinKind, JoinSpec, Residual};

/// Output rows of one poll, give or take a batch.
const OUTPUT_ROWS: usize = 8192;

const JOIN_STATES: [&str; 2] = [STATE_LEFT, STATE_RIGHT];

/// What the shards of one join have in common.
struct Shape {
    kind: JoinKind,
    /// The sources' columns, all of them nullable.
    schemas: [SchemaRef; 2],
    /// The key's columns of each side.
    keys: [Vec<usize>; 2],
    key_fields: Vec<FieldRef>,
    nulls_equal: bool,
    residual: Option<Residual>,
    /// The schema of the residual's columns.
    residual_schema: SchemaRef,
    close: Option<JoinClose>,
    append_only: [bool; 2],
    /// Where each output column comes from: side and column there.
    output: Vec<(usize, usize)>,
    schema: SchemaRef,
}

impl Shape {
    /// The output has rows for pairs.
    fn pairs(&self) -> bool {
        matches!(self.kind, JoinKind::Inner | JoinKind::Left | JoinKind::Right | JoinKind::Full)
    }

    /// What the output has of a row of `side` alone, by whether it has a match: nothing, or the row (with this mark).
    fn alone(&self, side: usize, matched: bool) -> Option<bool> {
        let here = match (self.kind, side) {
            (JoinKind::Left | JoinKind::Full | JoinKind::LeftAnti, 0) => !matched,
            (JoinKind::Right | JoinKind::Full, 1) => !matched,
            (JoinKind::LeftSemi, 0) => matched,
            (JoinKind::LeftMark, 0) => true,
            _ => false,
        };
        here.then_some(matched)
    }

    /// Whether it matters that rows of `side` have a match.
    fn tracks(&self, side: usize) -> bool {
        self.alone(side, true).is_some() || self.alone(side, false).is_some()
    }

    /// Rows of `side` count their matches one by one.
    fn counts(&self, side: usize) -> bool {
        self.residual.is_some() && self.tracks(side)
    }

    /// Equal rows of `side` are one entry with a weight. Needed to find what is retracted; and where only the number of
    /// matches matters, a second entry would be wasted.
    fn consolidates(&self, side: usize) -> bool {
        !self.append_only[side] || (side == 1 && !self.pairs())
    }

    fn width(&self, side: usize) -> usize {
        self.schemas[side].fields().len()
    }
}

/// The routers and the shards of a join.
///
/// # Errors
/// 0A000 for a type that cannot be a key; XX000 if the specification contradicts the sources.
pub(crate) fn build(inputs: &[SchemaRef; 2], spec: &JoinSpec, shards: usize) -> Result<Built, SqlError> {
    let shape = Arc::new(shape(inputs, spec)?);
    let operators = (0..shards).map(|shard| -> Result<Box<dyn Operator>, SqlError> {
        Ok(Box::new(operator::Join::new(Arc::clone(&shape), codec(&shape)?, shard, shards)))
    });
    let operators = operators.collect::<Result<_, _>>()?;
    let router = |side| -> Arc<dyn Router> { Arc::new(router::JoinRouter::new(Arc::clone(&shape), side)) };
    Ok(Built { routers: vec![router(0), router(1)], shards: operators, states: &JOIN_STATES })
}

fn codec(shape: &Shape) -> Result<KeyCodec, SqlError> {
    KeyCodec::new(&shape.key_fields).map_err(|error| {
        SqlError::unsupported("joining by a value of this type is not supported").detail(error.to_string())
    })
}

fn shape(inputs: &[SchemaRef; 2], spec: &JoinSpec) -> Result<Shape, SqlError> {
    let wrong = || SqlError::internal("a join contradicts its sources");
    let left_width = inputs[0].fields().len();
    let place = |column: usize| match column.checked_sub(left_width) {
        None => (0, column),
        Some(column) => (1, column),
    };
    let field = |(side, column): (usize, usize)| inputs[side].fields().get(column).ok_or_else(wrong);
    let mut key_fields = Vec::with_capacity(spec.keys.len());
    for &(left, right) in &spec.keys {
        let (left, right) = (field((0, left))?, field((1, right))?);
        if left.data_type() != right.data_type() {
            return Err(wrong());
        }
        key_fields.push(Arc::new(Field::new(left.name(), left.data_type().clone(), spec.nulls_equal)));
    }
    let output: Vec<(usize, usize)> = spec.output.iter().map(|column| place(*column)).collect();
    let mark = spec.kind == JoinKind::LeftMark;
    let fields = spec.schema.fields();
    if fields.len() != output.len() + usize::from(mark)
        || (mark && fields.last().is_none_or(|f| *f.data_type() != DataType::Boolean))
    {
        return Err(wrong());
    }
    for (place, output) in output.iter().zip(fields) {
        if field(*place)?.data_type() != output.data_type() {
            return Err(wrong());
        }
    }
    let mut residual_fields = Vec::new();
    for column in spec.residual.iter().flat_map(|residual| &residual.columns) {
        residual_fields.push(field(place(*column))?.as_ref().clone().with_nullable(true));
    }
    if let Some(close) = &spec.close {
        for (side, bound) in close.sides.iter().enumerate() {
            let times = is_time(field((side, bound.time))?.data_type())
                && is_time(field((side, bound.watermark))?.data_type());
            if !times || !spec.append_only[side] || close.lateness_micros < 0 {
                return Err(wrong());
            }
        }
    }
    let nullable = |schema: &SchemaRef| -> SchemaRef {
        let fields = schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    };
    Ok(Shape {
        kind: spec.kind,
        schemas: [nullable(&inputs[0]), nullable(&inputs[1])],
        keys: [spec.keys.iter().map(|k| k.0).collect(), spec.keys.iter().map(|k| k.1).collect()],
        key_fields,
        nulls_equal: spec.nulls_equal,
        residual: spec.residual.clone(),
        residual_schema: Arc::new(Schema::new(residual_fields)),
        close: spec.close,
        append_only: spec.append_only,
        output,
        schema: Arc::clone(&spec.schema),
    })
}
