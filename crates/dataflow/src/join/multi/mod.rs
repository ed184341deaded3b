//! Inner joins of three and more sources in one operator: delta joins.
//!
//! A tree of binary joins keeps what each of them gives as the state of the next. Here only the sources' rows are kept, each
//! once, behind one index for each set of columns that they are looked up by; a row that comes is looked up from source to
//! source along the *path* of the source it came from (McSherry et al., "Shared Arrangements", VLDB 2020, section 6.2).
//!
//! **The algebra.** The output is linear in each source: F(.., A + ΔA, ..) = F(.., A, ..) + F(.., ΔA, ..). Deltas are taken one after
//! the other: one meets the rows of the other sources as they are, and then joins those of its own. So no versions of
//! indexes are needed, and a source that stands on two ports is right for the reason that a binary self-join is.
//!
//! A trace of `a JOIN b ON a.x = b.x JOIN c ON b.y = c.y`; paths: a → b → c, b → a → c, c → b → a:
//!
//! | delta | looked up | out |
//! |---|---|---|
//! | a +(x: 1) | b by x: nothing | |
//! | c +(y: 7) | b by y: nothing | |
//! | b +(x: 1, y: 7) | a by x: one; c by y: one | (1, 1, 7, 7) +1 |
//! | c +(y: 7) | b by y: one; a by x: one | (1, 1, 7, 7) +1 |
//! | b -(x: 1, y: 7) | a by x: one; c by y: two | (1, 1, 7, 7) -2 |
//!
//! A row with a NULL in a column that must equal another is in no result, and never becomes state.
//!
//! Where one value is equal in all sources, it decides the shard of a row. Otherwise a row is looked up by several values that
//! belong to different shards, and all rows are in one.

mod input;
mod operator;

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use millpond_types::hash::hash_columns;
use millpond_types::{Delta, SqlError};

use super::router::without_nulls;
use crate::aggregate::key::KeyCodec;
use crate::fault::Cause;
use crate::operator::{Built, Operator, Output, Piece, Router};
use crate::spec::{Lookup, MultiJoinSpec, Residual};

/// The sources of one join, at most.
pub const SOURCES_MAX: usize = 16;

/// The rows of each source, as those of a binary join's sides.
const STATES: [&str; SOURCES_MAX] = [
    "source0", "source1", "source2", "source3", "source4", "source5", "source6", "source7", "source8",
    "source9", "source10", "source11", "source12", "source13", "source14", "source15",
];

struct Source {
    /// All columns nullable.
    schema: SchemaRef,
    append_only: bool,
    /// Each by these columns.
    indexes: Vec<Vec<usize>>,
    /// Columns that equal others.
    keys: Vec<usize>,
}

/// What the shards of one join have in common.
struct Shape {
    sources: Vec<Source>,
    paths: Vec<Vec<Lookup>>,
    shard_by: Option<Vec<usize>>,
    residual: Option<Residual>,
    residual_schema: SchemaRef,
    /// Source and column of the residual's columns, and of those of the output.
    residual_columns: Vec<(usize, usize)>,
    output: Vec<(usize, usize)>,
    schema: SchemaRef,
}

/// The routers and the shards of a join.
///
/// # Errors
/// 0A000 for a type that cannot be a key; XX000 if the specification contradicts the sources.
pub(crate) fn build(inputs: &[SchemaRef], spec: &MultiJoinSpec, shards: usize) -> Result<Built, SqlError> {
    let shape = Arc::new(Shape::new(inputs, spec)?);
    let operators = (0..shards).map(|shard| -> Result<Box<dyn Operator>, SqlError> {
        Ok(Box::new(operator::MultiJoin::new(Arc::clone(&shape), shard, shards)?))
    });
    let operators = operators.collect::<Result<_, _>>()?;
    let router = |port| -> Arc<dyn Router> { Arc::new(MultiRouter { shape: Arc::clone(&shape), port }) };
    Ok(Built {
        routers: (0..inputs.len()).map(router).collect(),
        shards: operators,
        states: &STATES[..inputs.len()],
    })
}

impl Shape {
    fn new(inputs: &[SchemaRef], spec: &MultiJoinSpec) -> Result<Self, SqlError> {
        let wrong = || SqlError::internal("a join of several sources contradicts them");
        let counts = [spec.append_only.len(), spec.indexes.len(), spec.paths.len()];
        if inputs.len() > SOURCES_MAX || counts != [inputs.len(); 3] {
            return Err(wrong());
        }
        let field = |source: usize, column: usize| -> Result<&FieldRef, SqlError> {
            inputs.get(source).and_then(|schema| schema.fields().get(column)).ok_or_else(wrong)
        };
        for (at, path) in spec.paths.iter().enumerate() {
            let mut known = vec![at];
            for lookup in path {
                let index =
                    spec.indexes.get(lookup.source).and_then(|i| i.get(lookup.index)).ok_or_else(wrong)?;
                if index.is_empty() || index.len() != lookup.by.len() || known.contains(&lookup.source) {
                    return Err(wrong());
                }
                for (column, by) in index.iter().zip(&lookup.by) {
                    let types = [field(lookup.source, *column)?, field(by.0, by.1)?].map(|f| f.data_type());
                    if types[0] != types[1] || !known.contains(&by.0) {
                        return Err(wrong());
                    }
                }
                known.push(lookup.source);
            }
            if known.len() != inputs.len() {
                return Err(wrong());
            }
        }
        if let Some(columns) = &spec.shard_by {
            if columns.len() != inputs.len() {
                return Err(wrong());
            }
            columns.iter().enumerate().try_for_each(|(at, column)| field(at, *column).map(drop))?;
        }
        let place = |column: &usize| {
            let mut column = *column;
            inputs.iter().enumerate().find_map(|(source, schema)| {
                let width = schema.fields().len();
                match column.checked_sub(width) {
                    None => Some((source, column)),
                    Some(rest) => {
                        column = rest;
                        None
                    }
                }
            })
        };
        let places = |columns: &[usize]| -> Result<Vec<(usize, usize)>, SqlError> {
            columns.iter().map(|column| place(column).ok_or_else(wrong)).collect()
        };
        let output = places(&spec.output)?;
        let types = output.iter().map(|at| inputs[at.0].field(at.1).data_type());
        if !types.eq(spec.schema.fields().iter().map(|field| field.data_type())) {
            return Err(wrong());
        }
        let residual_columns = places(spec.residual.as_ref().map_or(&[][..], |r| &r.columns))?;
        let nullable = |field: &Field| field.clone().with_nullable(true);
        let residual_fields = residual_columns.iter().map(|at| nullable(inputs[at.0].field(at.1)));
        let residual_schema = Arc::new(Schema::new(residual_fields.collect::<Vec<_>>()));
        let sources = inputs.iter().zip(&spec.indexes).zip(&spec.append_only);
        let sources = sources.map(|((schema, indexes), append_only)| Source {
            schema: Arc::new(Schema::new(schema.fields().iter().map(|f| nullable(f)).collect::<Vec<_>>())),
            append_only: *append_only,
            indexes: indexes.clone(),
            keys: indexes.iter().flatten().copied().collect::<BTreeSet<_>>().into_iter().collect(),
        });
        Ok(Self {
            sources: sources.collect(),
            paths: spec.paths.clone(),
            shard_by: spec.shard_by.clone(),
            residual: spec.residual.clone(),
            residual_schema,
            residual_columns,
            output,
            schema: Arc::clone(&spec.schema),
        })
    }

    fn codec(&self, source: usize, index: usize) -> Result<KeyCodec, SqlError> {
        let source = &self.sources[source];
        let field = |column: &usize| Arc::new(source.schema.field(*column).clone().with_nullable(false));
        let fields: Vec<FieldRef> = source.indexes[index].iter().map(field).collect();
        KeyCodec::new(&fields).map_err(|error| {
            SqlError::unsupported("joining by a value of this type is not supported")
                .detail(error.to_string())
        })
    }

    /// The columns of a source that decide the shard of its rows.
    fn shard_columns(&self, source: usize) -> &[usize] {
        self.shard_by.as_ref().map_or(&[], |columns| std::slice::from_ref(&columns[source]))
    }
}

/// Lets the rows through that can be in the result.
struct MultiRouter {
    shape: Arc<Shape>,
    port: usize,
}

impl Router for MultiRouter {
    fn route(&self, delta: &Delta, _: &mut Output) -> Result<Piece, Cause> {
        let keys = self.shape.sources[self.port].keys.iter().map(|column| delta.batch.column(*column));
        let whole = without_nulls(keys)?.map(|mask| delta.filter(&mask)).transpose()?;
        let delta = whole.as_ref().unwrap_or(delta);
        let by = self.shape.shard_columns(self.port).iter();
        let by: Vec<ArrayRef> = by.map(|column| Arc::clone(delta.batch.column(*column))).collect();
        Ok(Piece {
            port: self.port,
            columns: delta.batch.columns().to_vec(),
            weights: delta.weights().map(Arc::from),
            hashes: hash_columns(&by, delta.rows())?,
        })
    }
}
