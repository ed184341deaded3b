//! `connector = 'datagen'`: rows made by a rule per column, for trying things out.
//!
//! A value is a function of the seed, its column and its row's number; the position is the number of the next row. Rules are
//! options named `fields.<column>.<rule>`, in Flink's and RisingWave's spelling:
//!
//! | rule | for | meaning, default |
//! |---|---|---|
//! | `kind` | all | `random`, or `sequence`: the default of timestamps |
//! | `start`, `step`, `end` | sequence | 0 (of times 2020-01-01, or `now`); 1 (of dates a day, of times a millisecond, or with a rate what keeps to the clock); the source ends after the first sequence that reaches its end |
//! | `min`, `max` | random numbers and times | both included; 0 to 32767, the years 2020 to 2029 |
//! | `length` | random text and bytea | 10 |
//! | `null_rate` | all | the share of NULLs, from 0 to 1; 0 |
//! | `seed` | random | the connector's |

mod column;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use bytes::Bytes;
use millpond_env::{Clock, Env};
use millpond_types::{SqlError, SqlState};
use serde::{Deserialize, Serialize};

use self::column::{Context, Generated, RULES};
use crate::options::{Known, Options, invalid, nearest, quoted_list};
use crate::rate::Pace;
use crate::{ConnectError, ResolvedSource, Source, SourceRows, SourceSpec, SourceStep};

const OWNER: &str = "connector \"datagen\"";
/// Batches stay below about this many bytes.
const BATCH_BYTES_MAX: usize = 32 << 20;

#[rustfmt::skip]
const OPTIONS: &[Known] = &[
    Known { name: "rows", aliases: &["number-of-rows", "number_of_rows"], help: "how many rows; without end" },
    Known { name: "rate", aliases: &["rows-per-second", "rows_per_second", "datagen.rows.per.second"], help: "rows per second; 0, the default, is as many as possible" },
    Known { name: "seed", aliases: &[], help: "another seed, other rows; 0" },
    Known { name: "batch_rows", aliases: &[], help: "most rows of one batch" },
    Known { name: "fields.<column>.<rule>", aliases: &[], help: "the rule of a column" },
];

/// What the options come to.
struct Settings {
    columns: Vec<Generated>,
    schema: SchemaRef,
    rows: Option<u64>,
    rate: Option<f64>,
    batch_rows: usize,
}

impl Settings {
    /// `start_micros` is what `now` means.
    fn read(spec: &SourceSpec, start_micros: i64) -> Result<Self, SqlError> {
        if spec.encoding.is_some() {
            return Err(
                invalid(format!("{OWNER} has no FORMAT and no ENCODE")).hint("Leave out that clause.")
            );
        }
        if spec.columns.is_empty() {
            return Err(SqlError::new(SqlState::SYNTAX_ERROR, format!("{OWNER} needs columns")).hint(
                "Declare them, as in CREATE SOURCE s (id bigint, at timestamp) WITH (connector = 'datagen').",
            ));
        }
        let (fields, own): (BTreeMap<_, _>, BTreeMap<_, _>) =
            spec.options.clone().into_iter().partition(|(name, _)| is_rule(name));
        let options = Options::read(OWNER, &own, OPTIONS)?;
        let rate = options.number("rate", 0.0, 1e12)?.filter(|rate| *rate > 0.0);
        let seed = options.integer("seed", i64::MIN, i64::MAX)?.map_or(0, |seed| seed as u64);
        let rows = options.integer("rows", 0, i64::MAX)?.map(|n| n as u64);
        let batch_rows = options.integer("batch_rows", 1, 1 << 20)?.map_or(usize::MAX, |n| n as usize);

        let mut rules = rules_by_column(spec, &fields)?;
        let context = Context { seed, rate, start_micros };
        let columns = spec
            .columns
            .iter()
            .enumerate()
            .map(|(i, field)| {
                let owner = format!("column \"{}\"", field.name());
                let options = Options::read(&owner, &rules.remove(field.name()).unwrap_or_default(), RULES)?;
                Generated::new(field, i, &options, &context)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let sequences = columns.iter().filter_map(Generated::rows);
        let rows = sequences.chain(rows).min();
        let row_bytes: usize = columns.iter().map(Generated::row_bytes).sum();
        let batch_rows = batch_rows.min(BATCH_BYTES_MAX / row_bytes.max(1)).max(1);
        Ok(Self { columns, schema: Arc::new(Schema::new(spec.columns.clone())), rows, rate, batch_rows })
    }
}

fn is_rule(name: &str) -> bool {
    name.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("fields."))
}

/// Takes `fields.<column>.<rule>` apart; a column's name may hold dots itself.
fn rules_by_column(
    spec: &SourceSpec,
    fields: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, BTreeMap<String, String>>, SqlError> {
    let mut rules: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for (name, value) in fields {
        let Some((column, rule)) = name[7..].rsplit_once('.') else {
            return Err(invalid(format!("option \"{name}\" of {OWNER} names no rule"))
                .hint("Write fields.<column>.<rule>, such as fields.id.kind = 'sequence'."));
        };
        let names: Vec<&str> = spec.columns.iter().map(|f| f.name().as_str()).collect();
        if !names.contains(&column) {
            let error = SqlError::new(
                SqlState::UNDEFINED_COLUMN,
                format!("option \"{name}\" names the column \"{column}\", which does not exist"),
            );
            let near = nearest(column, names.iter().copied());
            return Err(error.hint(match near {
                Some(near) => format!("Perhaps you meant the column \"{near}\"."),
                None => format!("There are {}.", quoted_list(&names)),
            }));
        }
        rules.entry(column.to_owned()).or_default().insert(rule.to_owned(), value.clone());
    }
    Ok(rules)
}

pub(crate) fn validate(spec: &SourceSpec) -> Result<ResolvedSource, SqlError> {
    let settings = Settings::read(spec, 0)?;
    Ok(ResolvedSource { schema: settings.schema, watermark: None, bounded: settings.rows.is_some() })
}

pub(crate) fn open(
    spec: &SourceSpec,
    env: &Env,
    position: Option<&[u8]>,
) -> Result<Box<dyn Source>, SqlError> {
    let position = match position {
        Some(bytes) => {
            serde_json::from_slice(bytes).map_err(|_| invalid(format!("a position is not one of {OWNER}")))?
        }
        None => Position { row: 0, start_micros: env.clock.now_micros() },
    };
    let settings = Settings::read(spec, position.start_micros)?;
    let pace = Pace::new(settings.rate);
    Ok(Box::new(DatagenSource { settings, position, pace, clock: env.clock.clone() }))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Position {
    /// The number of the next row.
    row: u64,
    /// When the source was first opened.
    start_micros: i64,
}

struct DatagenSource {
    settings: Settings,
    position: Position,
    pace: Option<Pace>,
    clock: Arc<dyn Clock>,
}

#[async_trait]
impl Source for DatagenSource {
    fn schema(&self) -> SchemaRef {
        self.settings.schema.clone()
    }

    async fn next(&mut self, rows_max: usize) -> Result<SourceStep, ConnectError> {
        let first = self.position.row;
        // A stream without end ends when the numbers of rows do.
        let left = self.settings.rows.unwrap_or(i64::MAX as u64).saturating_sub(first);
        if left == 0 {
            return Ok(SourceStep::End);
        }
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        let mut rows = left.min(rows_max).min(self.settings.batch_rows).max(1);
        if let Some(pace) = &mut self.pace {
            match pace.take(self.clock.monotonic(), rows) {
                Ok(allowed) => rows = allowed,
                Err(wait) => return Ok(SourceStep::Wait(wait)),
            }
        }
        let columns =
            self.settings.columns.iter().map(|column| column.make(first..first + rows as u64)).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(self.schema(), columns, &options)
            .map_err(|e| SqlError::internal(format!("datagen made a wrong batch: {e}")))?;
        self.position.row += rows as u64;
        let position: Bytes = serde_json::to_vec(&self.position).expect("two numbers are always JSON").into();
        Ok(SourceStep::Rows(SourceRows { batch, position, rejected: Vec::new() }))
    }
}

#[cfg(test)]
mod tests;
