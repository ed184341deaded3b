//! What happens to a delta of a join before it is split by hash.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, UInt32Array};
use arrow::compute::{and, is_not_null, not};
use millpond_types::Delta;
use millpond_types::hash::hash_columns;

use super::Shape;
use super::output::Values;
use crate::fault::Cause;
use crate::operator::{Output, Piece, Router};

/// Hashes the keys of one side. Rows with a NULL in their key have no match, now or ever: they go straight to the output,
/// if the join gives rows without a match, or nowhere.
pub(super) struct JoinRouter {
    shape: Arc<Shape>,
    side: usize,
}

impl JoinRouter {
    pub(super) fn new(shape: Arc<Shape>, side: usize) -> Self {
        Self { shape, side }
    }

    fn pass_by(&self, delta: &Delta, out: &mut Output) -> Result<(), Cause> {
        let Some(mark) = self.shape.alone(self.side, false) else { return Ok(()) };
        let all = UInt32Array::from_iter_values(0..delta.rows() as u32);
        let values = Values::Delta(delta.batch.columns(), all);
        let weights = (0..delta.rows()).map(|row| delta.weight(row)).collect();
        self.shape.emit_alone(self.side, &values, weights, vec![mark; delta.rows()], out)
    }
}

/// Where no column is NULL; `None` if that is everywhere.
fn without_nulls<'a>(columns: impl Iterator<Item = &'a ArrayRef>) -> Result<Option<BooleanArray>, Cause> {
    let mut mask: Option<BooleanArray> = None;
    for column in columns.filter(|column| column.null_count() > 0) {
        let valid = is_not_null(column)?;
        mask = Some(match mask {
            Some(mask) => and(&mask, &valid)?,
            None => valid,
        });
    }
    Ok(mask)
}

impl Router for JoinRouter {
    fn route(&self, delta: &Delta, out: &mut Output) -> Result<Piece, Cause> {
        let places = &self.shape.keys[self.side];
        let keys =
            |delta: &Delta| places.iter().map(|c| Arc::clone(delta.batch.column(*c))).collect::<Vec<_>>();
        let mut keyed = None;
        if !self.shape.nulls_equal
            && let Some(mask) = without_nulls(keys(delta).iter())?
        {
            self.pass_by(&delta.filter(&not(&mask)?)?, out)?;
            keyed = Some(delta.filter(&mask)?);
        }
        let delta = keyed.as_ref().unwrap_or(delta);
        Ok(Piece {
            port: self.side,
            columns: delta.batch.columns().to_vec(),
            weights: delta.weights().map(Arc::from),
            hashes: hash_columns(&keys(delta), delta.rows())?,
        })
    }
}
