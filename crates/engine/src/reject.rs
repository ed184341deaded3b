//! Rows that were refused: kept where SQL can ask for them, capped, and counted without cap.
//!
//! Both `millpond.errors` and `millpond.late_rows` are multisets: a failed row that is retracted takes its error back. Past
//! [`ROWS_PER_RELATION`] a relation's further rows are only counted.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray};
use millpond_functions::text::Formatter;
use millpond_log::{Write, WriteKind};
use millpond_types::{PartitionId, RelationId, SqlError, SqlType};
use serde::{Deserialize, Serialize};

/// Rows kept per relation.
pub(crate) const ROWS_PER_RELATION: usize = 1_000;

/// The longest text of a row that is kept; the rest is cut off and marked.
const ROW_TEXT_BYTES: usize = 1024;

/// A row of `millpond.errors`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct ErrorRow {
    pub operator: String,
    /// The line of the input that a decoder refused, counted from 1.
    pub line: Option<i64>,
    pub row: String,
    pub sqlstate: String,
    pub message: String,
}

/// The topic of rows that were refused before they reached their relation: they are in the log like any other row.
pub(crate) const ERRORS_TOPIC: RelationId = RelationId(u32::MAX);

/// Refused input of a relation, as a write to [`ERRORS_TOPIC`].
pub(crate) fn errors_write(relation: RelationId, rows: &[ErrorRow]) -> Result<Write, SqlError> {
    let text =
        |f: fn(&ErrorRow) -> &str| Arc::new(StringArray::from_iter_values(rows.iter().map(f))) as ArrayRef;
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("relation", Arc::new(Int64Array::from_value(i64::from(relation.0), rows.len()))),
        ("line", Arc::new(rows.iter().map(|r| r.line).collect::<Int64Array>())),
        ("operator", text(|r| &r.operator)),
        ("row", text(|r| &r.row)),
        ("sqlstate", text(|r| &r.sqlstate)),
        ("message", text(|r| &r.message)),
    ];
    let batch =
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, n == "line")))
            .map_err(crate::target::internal)?;
    Ok(Write {
        topic: ERRORS_TOPIC,
        partition: PartitionId(0),
        batch,
        event_time: None,
        schema_version: 0,
        kind: WriteKind::Append,
        producer: None,
        position: None,
    })
}

/// Reads a frame of [`ERRORS_TOPIC`]; rows that are not of that form are passed over.
pub(crate) fn read_errors(batch: &RecordBatch) -> Vec<(RelationId, ErrorRow)> {
    let number =
        |name: &str| batch.column_by_name(name).and_then(|c| c.as_any().downcast_ref::<Int64Array>());
    let text = |name: &str| batch.column_by_name(name).and_then(|c| c.as_any().downcast_ref::<StringArray>());
    let (Some(relation), Some(line)) = (number("relation"), number("line")) else { return Vec::new() };
    let (Some(operator), Some(row)) = (text("operator"), text("row")) else { return Vec::new() };
    let (Some(sqlstate), Some(message)) = (text("sqlstate"), text("message")) else { return Vec::new() };
    let read = |n: usize| {
        let entry = ErrorRow {
            operator: operator.value(n).to_owned(),
            line: line.is_valid(n).then(|| line.value(n)),
            row: row.value(n).to_owned(),
            sqlstate: sqlstate.value(n).to_owned(),
            message: message.value(n).to_owned(),
        };
        (RelationId(relation.value(n) as u32), entry)
    };
    (0..batch.num_rows()).map(read).collect()
}

/// At most [`ROW_TEXT_BYTES`] of a text.
pub(crate) fn cut(text: &str) -> String {
    match text.char_indices().map(|(at, _)| at).find(|at| *at >= ROW_TEXT_BYTES) {
        Some(end) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// A row of `millpond.late_rows`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct LateRow {
    pub window_end: i64,
    /// The watermark that it came after.
    pub watermark: i64,
    pub row: String,
}

/// A capped multiset of rows per relation. Clones share what did not change.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound(serialize = "R: Serialize", deserialize = "R: Deserialize<'de>"))]
pub(crate) struct Refused<R: Ord> {
    relations: BTreeMap<RelationId, Arc<Kept<R>>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound(serialize = "R: Serialize", deserialize = "R: Deserialize<'de>"))]
struct Kept<R: Ord> {
    /// Serialized as pairs, because JSON's keys are texts.
    #[serde(with = "pairs")]
    rows: BTreeMap<R, i64>,
    kept: usize,
    /// The sum of all weights, kept or not.
    count: i64,
}

mod pairs {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<R: Ord + Serialize, S: Serializer>(
        rows: &BTreeMap<R, i64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(rows.iter())
    }

    pub(super) fn deserialize<'de, R: Ord + Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<R, i64>, D::Error> {
        Ok(Vec::<(R, i64)>::deserialize(deserializer)?.into_iter().collect())
    }
}

impl<R: Ord> Default for Refused<R> {
    fn default() -> Self {
        Self { relations: BTreeMap::new() }
    }
}

impl<R: Ord> Default for Kept<R> {
    fn default() -> Self {
        Self { rows: BTreeMap::new(), kept: 0, count: 0 }
    }
}

impl<R: Ord + Clone> Refused<R> {
    pub fn add(&mut self, relation: RelationId, row: R, weight: i64) {
        let kept = Arc::make_mut(self.relations.entry(relation).or_default());
        kept.count += weight;
        match kept.rows.get_mut(&row) {
            Some(present) => {
                *present += weight;
                if *present == 0 {
                    kept.rows.remove(&row);
                    kept.kept -= 1;
                }
            }
            // The retraction of a row that was only counted finds nothing here.
            None if weight < 0 || kept.kept >= ROWS_PER_RELATION => {}
            None => {
                kept.rows.insert(row, weight);
                kept.kept += 1;
            }
        }
    }

    /// How many were refused, kept or not.
    pub fn count(&self, relation: RelationId) -> u64 {
        self.relations.get(&relation).map_or(0, |kept| kept.count.max(0) as u64)
    }

    /// Each kept row with its weight.
    pub fn rows(&self) -> impl Iterator<Item = (RelationId, &R, i64)> {
        self.relations.iter().flat_map(|(id, kept)| kept.rows.iter().map(|(row, weight)| (*id, row, *weight)))
    }

    /// Takes over what another has of a relation.
    pub fn adopt(&mut self, relation: RelationId, other: &Self) {
        match other.relations.get(&relation) {
            Some(kept) => self.relations.insert(relation, Arc::clone(kept)),
            None => self.relations.remove(&relation),
        };
    }

    pub fn forget(&mut self, relation: RelationId) {
        self.relations.remove(&relation);
    }
}

/// A row of a batch as PostgreSQL prints a composite value: `(1,abc,)`.
pub(crate) fn row_text(batch: &RecordBatch, row: usize) -> Result<String, SqlError> {
    let mut out = vec![b'('];
    for (at, (column, field)) in batch.columns().iter().zip(batch.schema().fields()).enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write_field(column, &SqlType::of(field)?, row, &mut out)?;
        if out.len() > ROW_TEXT_BYTES {
            out.truncate(ROW_TEXT_BYTES);
            out.extend_from_slice(b"...");
            break;
        }
    }
    out.push(b')');
    Ok(String::from_utf8_lossy(&out).into_owned())
}

fn write_field(column: &ArrayRef, ty: &SqlType, row: usize, out: &mut Vec<u8>) -> Result<(), SqlError> {
    let mut text = Vec::new();
    if !Formatter::new(column, ty)?.write(row, &mut text) {
        return Ok(());
    }
    let quote = text.is_empty() || text.iter().any(|b| matches!(b, b',' | b'(' | b')' | b'"' | b'\\' | b' '));
    if !quote {
        out.extend_from_slice(&text);
        return Ok(());
    }
    out.push(b'"');
    for byte in text {
        if matches!(byte, b'"' | b'\\') {
            out.push(byte);
        }
        out.push(byte);
    }
    out.push(b'"');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_is_taken_back_is_gone() {
        let mut refused = Refused::default();
        let id = RelationId(7);
        refused.add(id, "a", 2);
        refused.add(id, "a", -1);
        assert_eq!(refused.rows().collect::<Vec<_>>(), [(id, &"a", 1)]);
        refused.add(id, "a", -1);
        assert_eq!((refused.rows().count(), refused.count(id)), (0, 0));
    }

    #[test]
    fn past_the_cap_rows_are_only_counted() {
        let mut refused = Refused::default();
        let id = RelationId(7);
        for n in 0..ROWS_PER_RELATION + 5 {
            refused.add(id, n, 1);
        }
        assert_eq!(
            (refused.rows().count(), refused.count(id)),
            (ROWS_PER_RELATION, ROWS_PER_RELATION as u64 + 5)
        );
        refused.add(id, ROWS_PER_RELATION + 1, -1);
        assert_eq!(refused.count(id), ROWS_PER_RELATION as u64 + 4);
    }
}
