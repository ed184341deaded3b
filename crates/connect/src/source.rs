//! The seam between the engine and what brings rows in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use async_trait::async_trait;
use bytes::Bytes;
use millpond_env::Env;
use millpond_types::{SqlError, SqlState, SqlType};

use crate::options::{nearest, quoted_list};
use crate::{ConnectError, datagen, file, nexmark};

/// The names that `connector = '…'` of a source may have.
pub const CONNECTORS: &[&str] = &["datagen", "file", "nexmark"];

/// What CREATE SOURCE says about where rows come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceSpec {
    /// The value of `connector`.
    pub connector: String,
    /// All other options of WITH that are not the engine's own (`partitions`, `retention`, …): name to value as text.
    pub options: BTreeMap<String, String>,
    /// The declared columns that rows bring with them, so without generated ones; made by [`SqlType::field`]. Empty if
    /// the statement declares none and leaves them to the connector.
    pub columns: Vec<Field>,
    pub encoding: Option<Encoding>,
}

/// FORMAT … ENCODE … (options).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoding {
    /// `PLAIN`, in any case.
    pub format: String,
    /// `CSV`, `JSON`, `PARQUET`, in any case.
    pub encode: String,
    pub options: BTreeMap<String, String>,
}

/// What a valid [`SourceSpec`] comes to.
#[derive(Clone, Debug)]
pub struct ResolvedSource {
    /// The columns that batches will have, in canonical Arrow types: the declared ones, else the connector's.
    pub schema: SchemaRef,
    /// For a source without declared columns: a watermark that fits the connector's rows.
    pub watermark: Option<DefaultWatermark>,
    /// Whether the source ends by itself, which sets its watermark to infinity.
    pub bounded: bool,
}

/// `WATERMARK FOR column AS column - delay`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefaultWatermark {
    /// Index into the schema.
    pub column: usize,
    pub delay_micros: i64,
}

/// Where rows come from.
///
/// One task owns it and calls `next` again and again. Dropping the future of a call, or the source, loses nothing: what
/// counts is the position that was committed.
#[async_trait]
pub trait Source: Send {
    /// The columns of all batches.
    fn schema(&self) -> SchemaRef;

    /// The next rows, at most `rows_max` (at least 1) of them.
    ///
    /// # Errors
    /// The source stays as it was, but should be opened anew at the last committed position.
    async fn next(&mut self, rows_max: usize) -> Result<SourceStep, ConnectError>;
}

/// One step of a source.
#[derive(Debug)]
pub enum SourceStep {
    Rows(SourceRows),
    /// Nothing now; ask again after this long.
    Wait(Duration),
    /// Nothing ever again. A source that has ended says so every time.
    End,
}

/// Rows, and the position after them; commit them together.
#[derive(Clone, Debug)]
pub struct SourceRows {
    /// May be empty, when all rows were rejected or only the position moved.
    pub batch: RecordBatch,
    /// Opaque; not empty.
    pub position: Bytes,
    /// Rows that could not be read, for `millpond.errors`. They count against `rows_max`.
    pub rejected: Vec<RejectedRow>,
}

/// A row that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedRow {
    /// The row as it stands outside, cut to 64 KiB.
    pub raw: Bytes,
    /// Where it stands, such as `s3://bucket/bids.csv, line 17`.
    pub place: String,
    pub error: SqlError,
}

/// Checks a spec as far as that is possible without reading rows. Parquet without declared columns reads one footer.
///
/// # Errors
/// 42704 for an unknown connector, 22023 for an option or its value, 42703 and 42804 for columns that the connector does
/// not have, 42601 where columns must be declared; each with a hint that names what there is.
pub async fn validate_source(spec: &SourceSpec, env: &Env) -> Result<ResolvedSource, SqlError> {
    match spec.connector.as_str() {
        "nexmark" => nexmark::validate(spec),
        "datagen" => datagen::validate(spec),
        "file" => file::source::validate(spec, env).await,
        other => Err(unknown_connector("source", other, CONNECTORS)),
    }
}

/// Opens a source: from its beginning, or exactly after `position`.
///
/// # Errors
/// As [`validate_source`]; 22023 for a position that is not this connector's; 58030 where the outside does not answer.
pub async fn open_source(
    spec: &SourceSpec,
    env: &Env,
    position: Option<&[u8]>,
) -> Result<Box<dyn Source>, SqlError> {
    match spec.connector.as_str() {
        "nexmark" => nexmark::open(spec, env, position),
        "datagen" => datagen::open(spec, env, position),
        "file" => file::source::open(spec, env, position).await,
        other => Err(unknown_connector("source", other, CONNECTORS)),
    }
}

pub(crate) fn unknown_connector(kind: &str, name: &str, known: &[&str]) -> SqlError {
    let error =
        SqlError::new(SqlState::UNDEFINED_OBJECT, format!("{kind} connector \"{name}\" does not exist"));
    match nearest(name, known.iter().copied()) {
        Some(near) => error.hint(format!("Perhaps you meant \"{near}\". There are {}.", quoted_list(known))),
        None => error.hint(format!("There are {}.", quoted_list(known))),
    }
}

/// Matches declared columns with those that a connector makes: any selection, in any order. The result holds for each
/// declared column the index of the connector's, or for no declared columns all.
pub(crate) fn select_columns(
    connector: &str,
    declared: &[Field],
    made: &Schema,
) -> Result<(SchemaRef, Vec<usize>), SqlError> {
    if declared.is_empty() {
        return Ok((Arc::new(made.clone()), (0..made.fields().len()).collect()));
    }
    let names = || made.fields().iter().map(|f| f.name().as_str());
    let mut chosen = Vec::with_capacity(declared.len());
    for field in declared {
        let Some((index, own)) = made.column_with_name(field.name()) else {
            let error = SqlError::new(
                SqlState::UNDEFINED_COLUMN,
                format!("column \"{}\" does not exist in connector \"{connector}\"", field.name()),
            );
            let all = made.fields().iter().map(|f| describe(f)).collect::<Vec<_>>().join(", ");
            let near = nearest(field.name(), names());
            return Err(error.detail(format!("The connector has the columns {all}.")).hint(match near {
                Some(near) => format!("Perhaps you meant the column \"{near}\"."),
                None => "Declare columns of the connector only, or none to have them all.".to_owned(),
            }));
        };
        if own.data_type() != field.data_type() {
            let error = SqlError::new(
                SqlState::DATATYPE_MISMATCH,
                format!("column \"{}\" of connector \"{connector}\" is not of that type", field.name()),
            );
            return Err(error
                .detail(format!("It is declared as {}.", type_name(field)))
                .hint(format!("Declare it as {}.", describe(own))));
        }
        chosen.push(index);
    }
    Ok((Arc::new(Schema::new(declared.to_vec())), chosen))
}

fn describe(field: &Field) -> String {
    format!("{} {}", field.name(), type_name(field))
}

pub(crate) fn type_name(field: &Field) -> String {
    SqlType::of(field).map_or_else(|_| field.data_type().to_string(), |ty| ty.to_string())
}
