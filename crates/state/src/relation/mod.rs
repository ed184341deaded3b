//! Relation
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use millpond_types::Delta;

use crate::{Heap, HeapRun, HeapSnapshot, RowId, StateFault};

/// What makes two rows of a relation the same row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Rows are never retracted, so nothing is indexed.
    AppendOnly,
    /// At most one row per value of these columns (NULL equals NULL).
    UniqueKey(Vec<usize>),
    /// All columns; equal rows may be there several times.
    Multiset,
}

/// A heap that applies deltas.
pub struct Relation {}

impl Relation {
    /// `name` is only used in faults.
    pub fn new(_name: impl Into<String>, _schema: SchemaRef, _identity: Identity) -> Self {
        unimplemented!()
    }
    pub fn restore(
        _name: impl Into<String>,
        _schema: SchemaRef,
        _identity: Identity,
        _runs: Vec<HeapRun>,
    ) -> Result<Self, StateFault> {
        unimplemented!()
    }
    pub fn schema(&self) -> &SchemaRef {
        unimplemented!()
    }
    pub fn heap(&self) -> &Heap {
        unimplemented!()
    }
    pub fn rows(&self) -> usize {
        unimplemented!()
    }
    /// Heap and index.
    pub fn bytes(&self) -> usize {
        unimplemented!()
    }
    /// The columns that [`Relation::apply_hashed`] wants hashed: none, the key, or all.
    pub fn identity_columns(&self) -> &[usize] {
        unimplemented!()
    }
    /// Applies a delta as one step: only its net effect counts, so the order of its rows does not matter. After a fault
    /// the relation must be discarded.
    pub fn apply(&mut self, _delta: &Delta) -> Result<(), StateFault> {
        unimplemented!()
    }
    /// [`Relation::apply`] with `millpond_types::hash::hash_columns` of the identity columns already at hand.
    pub fn apply_hashed(&mut self, _delta: &Delta, _hashes: &[u64]) -> Result<(), StateFault> {
        unimplemented!()
    }
    /// The row of each key; `keys` are arrays of the identity columns, in their order. Of equal rows in a multiset, any.
    /// An append-only relation finds nothing.
    pub fn find(&self, _keys: &[ArrayRef]) -> Result<Vec<Option<RowId>>, StateFault> {
        unimplemented!()
    }
    pub fn snapshot(&mut self) -> Arc<HeapSnapshot> {
        unimplemented!()
    }
    pub fn freeze(&mut self) -> Option<HeapRun> {
        unimplemented!()
    }
    pub fn maintain(&mut self, _budget_rows: usize) -> Result<bool, StateFault> {
        unimplemented!()
    }
}
