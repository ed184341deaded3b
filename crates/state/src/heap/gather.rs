//! From row ids to places in chunks, and from those to rows.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use std::sync::Arc;

use super::RowId;
use super::directory::{Directory, Key};
use crate::StateFault;
use crate::columns::{self, Place};

impl Directory {
    /// The slot and the row in it; whether the row still lives is not looked at.
    #[inline]
    pub fn locate(&self, id: RowId) -> Option<(Key, u32)> {
        let key = self.find(id.0)?;
        let row = self.slot(key).chunk.ids.position(id.0)?;
        Some((key, row as u32))
    }

    pub fn locate_all(&self, ids: &[RowId]) -> Result<Vec<(Key, u32)>, StateFault> {
        ids.iter().map(|&id| self.locate(id).ok_or(StateFault::UnknownRow(id.0))).collect()
    }

    /// The batches that hold the rows `ids`, each once, and where in them.
    pub fn places(&self, ids: &[RowId]) -> Result<(Vec<&RecordBatch>, Vec<Place>), StateFault> {
        let mut batches = Vec::new();
        let mut places = Vec::with_capacity(ids.len());
        // The number of a slot's batch plus one; zeroed memory comes cheaply, also for thousands of chunks.
        let mut numbers = vec![0_u32; self.keys()];
        for &id in ids {
            let unknown = || StateFault::UnknownRow(id.0);
            let (key, row) = self.locate(id).ok_or_else(unknown)?;
            let slot = self.slot(key);
            if !slot.is_live(row as usize) {
                return Err(unknown());
            }
            let number = &mut numbers[key.0 as usize];
            if *number == 0 {
                batches.push(&slot.chunk.batch);
                *number = batches.len() as u32;
            }
            places.push((*number as usize - 1, row as usize));
        }
        Ok((batches, places))
    }

    pub fn gather(
        &self,
        schema: &SchemaRef,
        ids: &[RowId],
        projection: Option<&[usize]>,
    ) -> Result<RecordBatch, StateFault> {
        let (batches, places) = self.places(ids)?;
        let all: Vec<usize>;
        let (schema, columns) = match projection {
            None => {
                all = (0..schema.fields().len()).collect();
                (schema.clone(), &all[..])
            }
            Some(columns) => (Arc::new(schema.project(columns)?), columns),
        };
        Ok(columns::gather(&schema, &batches, &places, columns.iter().copied())?)
    }
}

/// Orders places by slot: by counting where there are more places than slots, else by sorting.
pub(super) fn sort_by_key(places: &mut Vec<(Key, u32)>, keys: usize) {
    if places.len() < keys {
        places.sort_unstable_by_key(|&(key, _)| key);
        return;
    }
    let mut ends = vec![0_u32; keys + 1];
    for (key, _) in places.iter() {
        ends[key.0 as usize + 1] += 1;
    }
    for index in 0..keys {
        ends[index + 1] += ends[index];
    }
    let mut sorted = vec![(Key(0), 0); places.len()];
    for &(key, row) in places.iter() {
        let position = &mut ends[key.0 as usize];
        sorted[*position as usize] = (key, row);
        *position += 1;
    }
    *places = sorted;
}
