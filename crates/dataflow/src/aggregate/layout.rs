//! What the words of a slot mean, for one operator: fixed when it is built, shared by its tables.
//!
//! ```text
//! | hash | mark | key … | rows | accumulator … | accumulator … |
//! ```
//! `mark` holds the epoch in which the slot was last touched and the flags [`DIRTY`] and [`PERSISTED`]. `rows` is the weight of
//! all rows of the group: a group lives while it is not 0.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use millpond_types::SqlError;

use super::accumulator::{Accumulator, Kind};
use super::call::{Call, accumulator_of};
use super::key::KeyCodec;
use crate::spec::{AggregateCall, AggregateFunction};

pub(super) const HASH: usize = 0;
pub(super) const MARK: usize = 1;
pub(super) const KEY: usize = 2;

/// The slot stands in the list of slots for the next freeze.
pub(super) const DIRTY: u64 = 1;
/// An earlier freeze has written the slot, so its end must be written too.
pub(super) const PERSISTED: u64 = 2;
pub(super) const FLAGS: u64 = DIRTY | PERSISTED;
/// Epochs are counted above the flags.
pub(super) const EPOCH_SHIFT: u32 = 2;

/// Where a column of the output's key comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeySource {
    /// The n-th column of the codec.
    Stored(usize),
    WindowStart,
    WindowEnd,
}

pub(super) struct Layout {
    pub(super) codec: KeyCodec,
    /// The stored key columns, for checkpoints.
    pub(super) key_fields: Vec<FieldRef>,
    pub(super) key_sources: Vec<KeySource>,
    pub(super) accumulators: Vec<Accumulator>,
    pub(super) calls: Vec<Call>,
    /// Words of a slot.
    pub(super) stride: usize,
    /// Where `rows` and the accumulators begin in a slot, and how many words they are.
    pub(super) accumulators_at: usize,
    pub(super) accumulator_words: usize,
    pub(super) append_only: bool,
    pub(super) global: bool,
    pub(super) schema: SchemaRef,
    /// The key's columns alone, for rejected groups.
    pub(super) key_schema: SchemaRef,
    /// Some accumulator keeps multisets.
    pub(super) has_multisets: bool,
}

impl Layout {
    /// `input` is the operator's projected input; columns of `calls` refer to it.
    ///
    /// # Errors
    /// 0A000 for a type that cannot be grouped by or aggregated; XX000 if the output schema does not fit.
    pub(super) fn new(
        input: &SchemaRef,
        key_fields: Vec<FieldRef>,
        key_sources: Vec<KeySource>,
        calls: &[AggregateCall],
        append_only: bool,
        global: bool,
        schema: SchemaRef,
    ) -> Result<Arc<Self>, SqlError> {
        check_schema(&key_fields, &key_sources, calls, &schema)?;
        let codec = KeyCodec::new(&key_fields).map_err(|error| {
            SqlError::unsupported("grouping by a value of this type is not supported")
                .detail(error.to_string())
        })?;
        let accumulators_at = KEY + codec.words();
        let mut accumulators = Accumulators { all: Vec::new(), end: accumulators_at + 1 };
        let mut finals = Vec::with_capacity(calls.len());
        for call in calls {
            let field = call.argument.map(|column| input.field(column));
            let (argument, filter) = (call.argument, call.filter);
            let count = |accumulators: &mut Accumulators| match (filter, field) {
                // Each row counts, as for `count(*)`.
                (None, None) => accumulators_at,
                (None, Some(field)) if !field.is_nullable() => accumulators_at,
                _ => {
                    let at = accumulators.place(Accumulator::count(argument, filter, field));
                    accumulators.all[at].at
                }
            };
            if matches!(call.function, AggregateFunction::CountStar | AggregateFunction::Count) {
                let at = count(&mut accumulators) - accumulators_at;
                finals.push(Call::new(call, None, at, at)?);
                continue;
            }
            let data_type = field.map_or(DataType::Null, |field| field.data_type().clone());
            let kind = accumulator_of(call, &data_type, append_only)?;
            let index = accumulators.place(Accumulator { kind, data_type, argument, filter, at: 0 });
            let at = accumulators.all[index].at;
            let count_at = match kind.count_word() {
                Some(word) => at + word,
                None => count(&mut accumulators),
            };
            let accumulator = &accumulators.all[index];
            finals.push(Call::new(
                call,
                Some(accumulator),
                at - accumulators_at,
                count_at - accumulators_at,
            )?);
        }
        let Accumulators { all: accumulators, end } = accumulators;
        let has_multisets = accumulators
            .iter()
            .any(|a| matches!(a.kind, Kind::Retracting { .. } | Kind::RetractingBytes { .. }));
        let key_columns: Vec<usize> = (0..key_sources.len()).collect();
        let key_schema = schema.project(&key_columns).map_err(|e| SqlError::internal(e.to_string()))?;
        Ok(Arc::new(Self {
            codec,
            key_fields,
            key_sources,
            accumulators,
            calls: finals,
            stride: end,
            accumulators_at,
            accumulator_words: end - accumulators_at,
            append_only,
            global,
            schema,
            key_schema: Arc::new(key_schema),
            has_multisets,
        }))
    }
}

/// Accumulators that are laid out one after the other.
struct Accumulators {
    all: Vec<Accumulator>,
    end: usize,
}

impl Accumulators {
    /// The place of `wanted`, perhaps one that is there for another call.
    fn place(&mut self, wanted: Accumulator) -> usize {
        let known = self.all.iter().position(|known| Accumulator { at: 0, ..known.clone() } == wanted);
        known.unwrap_or_else(|| {
            let words = wanted.kind.words();
            self.all.push(Accumulator { at: self.end, ..wanted });
            self.end += words;
            self.all.len() - 1
        })
    }
}

fn check_schema(
    key_fields: &[FieldRef],
    key_sources: &[KeySource],
    calls: &[AggregateCall],
    schema: &SchemaRef,
) -> Result<(), SqlError> {
    let keys_fit = key_sources.iter().zip(schema.fields()).all(|(source, field)| match source {
        KeySource::Stored(at) => key_fields[*at].data_type() == field.data_type(),
        KeySource::WindowStart | KeySource::WindowEnd => crate::exchange::is_time(field.data_type()),
    });
    let results = schema.fields().iter().skip(key_sources.len());
    let calls_fit = calls.iter().zip(results).all(|(call, field)| call.result == *field.data_type());
    if !keys_fit || !calls_fit || schema.fields().len() != key_sources.len() + calls.len() {
        return Err(SqlError::internal("the output columns of an aggregate do not fit its keys and calls"));
    }
    Ok(())
}
