//! A sink that writes files: each change is in exactly one file, once.
//!
//! A view that only grows is written as its rows; any other as its changes, with the columns `mp_epoch` (the commit number
//! of the epoch) and `mp_diff` (how many times the row appears; negative: disappears) before its own. The sum of `mp_diff`
//! per row over all files is the view.
//!
//! **Guarantee: exactly once.** A file holds the changes after one commit up to and including another, and is named by both:
//! `00000000000000000017-00000000000000000042.parquet`. It is put under that name only if the name is free, in one step,
//! so that readers see all of a file or nothing. When the sink is opened again, the largest second number is where it goes
//! on; what replay brings again before that is skipped, and a file that is there already is not written again. The folder
//! belongs to one sink: [`prepare`] refuses one that holds files of this form.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use futures::TryStreamExt;
use millpond_env::Env;
use millpond_types::{Commit, Delta, SqlError, SqlState, SqlType};
use object_store::path::Path;
use object_store::{ObjectStore, PutMode, PutOptions, PutPayload};
use tracing::info;

use super::encode::{COMPRESSIONS, Encoder, compression};
use super::location::{Location, check_path};
use super::{Format, check_belong, format, read_options};
use crate::options::Known;
use crate::sink::Sequence;
use crate::{ConnectError, Guarantee, ResolvedSink, Sink, SinkSpec};

#[rustfmt::skip]
const OPTIONS: &[Known] = &[
    Known { name: "path", aliases: &["url", "location"], help: "the folder; required" },
    Known { name: "format", aliases: &[], help: "csv, json or parquet, if ENCODE does not say it" },
    Known { name: "file_bytes", aliases: &[], help: "a file is closed when so many bytes wait for it, or at a checkpoint; 64 MiB" },
    Known { name: "header", aliases: &[], help: "csv: whether the first line names the columns; true" },
    Known { name: "delimiter", aliases: &[], help: "csv: comma" },
    Known { name: "compression", aliases: &[], help: "parquet: zstd, snappy, lz4 or none; zstd" },
];

#[rustfmt::skip]
const BELONG: &[(&str, Format)] =
    &[("header", Format::Csv), ("delimiter", Format::Csv), ("compression", Format::Parquet)];

const EPOCH: &str = "mp_epoch";
const DIFF: &str = "mp_diff";

struct Settings {
    path: String,
    encoder: Encoder,
    file_bytes: usize,
}

impl Settings {
    fn read(spec: &SinkSpec) -> Result<Self, SqlError> {
        let options = read_options(&spec.options, spec.encoding.as_ref(), OPTIONS)?;
        let path =
            options.required("path", "Give a folder of the server, file:///…, or s3://bucket/….")?.to_owned();
        check_path(&path)?;
        if path.contains(['*', '?', '[']) {
            return Err(options.refuse("path", "must be a folder, without wildcards"));
        }
        let format = format(&options, spec.encoding.as_ref(), "")?;
        check_belong(&options, format, BELONG)?;
        let delimiter = options.character("delimiter")?.unwrap_or(b',');
        if delimiter == b'"' {
            return Err(options.refuse("delimiter", "must not be the quote"));
        }
        let encoder = Encoder {
            format,
            delimiter,
            has_header: options.boolean("header")?.unwrap_or(true),
            compression: compression(options.choice("compression", &COMPRESSIONS)?.unwrap_or(0)),
        };
        let file_bytes = options.integer("file_bytes", 1, 1 << 30)?.map_or(64 << 20, |n| n as usize);
        for field in spec.schema.fields() {
            encoder.check(field)?;
        }
        let reserved = |name: &&str| spec.schema.column_with_name(name).is_some();
        if !spec.append_only
            && let Some(name) = [EPOCH, DIFF].iter().find(|name| reserved(name))
        {
            return Err(SqlError::new(
                SqlState::DUPLICATE_COLUMN,
                format!("column \"{name}\" is taken by the sink itself"),
            )
            .hint("Rename that column in the view."));
        }
        Ok(Self { path, encoder, file_bytes })
    }
}

pub(crate) fn validate(spec: &SinkSpec, _env: &Env) -> Result<ResolvedSink, SqlError> {
    Settings::read(spec)?;
    Ok(ResolvedSink { guarantee: Guarantee::ExactlyOnce })
}

/// Refuses a folder that another sink has written to.
pub(crate) async fn prepare(spec: &SinkSpec) -> Result<(), SqlError> {
    let settings = Settings::read(spec)?;
    let location = Location::of_sink(&settings.path)?;
    let last = newest(&*location.store, &location.root, Commit(0)).await?;
    if last > Commit(0) {
        return Err(SqlError::new(
            SqlState::OBJECT_IN_USE,
            format!("the folder \"{}\" holds the files of another sink", location.root),
        )
        .hint("Give each sink a folder of its own."));
    }
    Ok(())
}

pub(crate) async fn open(spec: &SinkSpec, _env: &Env, known: Commit) -> Result<Box<dyn Sink>, SqlError> {
    let location = Location::of_sink(&Settings::read(spec)?.path)?;
    Ok(Box::new(FileSink::open(spec, location, known).await?))
}

/// The commit that the files of a folder reach, at least `known`.
async fn newest(store: &dyn ObjectStore, root: &str, known: Commit) -> Result<Commit, ConnectError> {
    // Names sort by number, so that files before the known place need not be listed.
    let after = Path::from(format!("{:020}", known.0));
    let unavailable = |e| ConnectError::unavailable(format!("list the files of \"{root}\""), e);
    let mut names = store.list_with_offset(None, &after);
    let mut last = known;
    while let Some(meta) = names.try_next().await.map_err(unavailable)? {
        if let Some((_, through)) = range_of(meta.location.as_ref()) {
            last = last.max(through);
        }
    }
    Ok(last)
}

fn name_of(after: Commit, through: Commit, format: Format) -> String {
    format!("{:020}-{:020}.{}", after.0, through.0, format.name())
}

fn range_of(name: &str) -> Option<(Commit, Commit)> {
    let (range, ending) = name.split_once('.')?;
    let (after, through) = range.split_once('-')?;
    let number = |text: &str| (text.len() == 20).then(|| text.parse().ok().map(Commit)).flatten();
    Format::NAMES.contains(&ending).then_some(())?;
    Some((number(after)?, number(through)?))
}

pub(super) struct FileSink {
    location: Location,
    settings: Settings,
    append_only: bool,
    /// The columns of the files.
    schema: SchemaRef,
    sequence: Sequence,
    /// What is written and not committed, with its bytes.
    waiting: Vec<RecordBatch>,
    waiting_bytes: usize,
    rows: u64,
}

impl FileSink {
    pub async fn open(spec: &SinkSpec, location: Location, known: Commit) -> Result<Self, SqlError> {
        let settings = Settings::read(spec)?;
        let committed = newest(&*location.store, &location.root, known).await?;
        let mut fields: Vec<_> = spec.schema.fields().iter().map(|f| f.as_ref().clone()).collect();
        if !spec.append_only {
            fields.insert(0, SqlType::Int8.field(EPOCH, false));
            fields.insert(1, SqlType::Int8.field(DIFF, false));
        }
        Ok(Self {
            location,
            settings,
            append_only: spec.append_only,
            schema: Arc::new(Schema::new(fields)),
            sequence: Sequence::from(committed),
            waiting: Vec::new(),
            waiting_bytes: 0,
            rows: 0,
        })
    }

    /// The rows of a delta as they stand in a file.
    fn rows_of(&self, epoch: Commit, delta: &Delta) -> Result<RecordBatch, SqlError> {
        let internal = |e| SqlError::internal(format!("a delta does not fit its sink: {e}"));
        if !self.append_only {
            let epochs = Int64Array::from_value(i64::try_from(epoch.0).unwrap_or(i64::MAX), delta.rows());
            let diffs = match &delta.weights {
                Some(weights) => weights.clone(),
                None => Int64Array::from_value(1, delta.rows()),
            };
            let mut columns: Vec<ArrayRef> = vec![Arc::new(epochs), Arc::new(diffs)];
            columns.extend_from_slice(delta.batch.columns());
            return RecordBatch::try_new(self.schema.clone(), columns).map_err(internal);
        }
        let Some(weights) = delta.weights() else {
            return RecordBatch::try_new(self.schema.clone(), delta.batch.columns().to_vec())
                .map_err(internal);
        };
        let mut rows: Vec<u32> = Vec::with_capacity(weights.len());
        for (row, weight) in weights.iter().enumerate() {
            let times = usize::try_from(*weight).map_err(|_| {
                SqlError::internal("a sink of rows that only appear was given one that disappears")
            })?;
            rows.extend(std::iter::repeat_n(row as u32, times));
        }
        let taken = take_record_batch(&delta.batch, &UInt32Array::from(rows)).map_err(internal)?;
        RecordBatch::try_new(self.schema.clone(), taken.columns().to_vec()).map_err(internal)
    }

    async fn put(&self, name: &str, bytes: Vec<u8>) -> Result<(), ConnectError> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let path = Path::from(name);
        match self.location.store.put_opts(&path, PutPayload::from(bytes), options).await {
            Ok(_) => Ok(()),
            Err(object_store::Error::AlreadyExists { .. }) => {
                info!(file = %self.location.show(name), "the file of these commits was written before");
                Ok(())
            }
            Err(e) => {
                Err(ConnectError::unavailable(format!("write the file \"{}\"", self.location.show(name)), e))
            }
        }
    }
}

#[async_trait]
impl Sink for FileSink {
    fn committed(&self) -> Commit {
        self.sequence.committed
    }

    async fn write(&mut self, after: Commit, epoch: Commit, deltas: &[Delta]) -> Result<(), ConnectError> {
        let mut batches = Vec::with_capacity(deltas.len());
        if epoch > self.sequence.written {
            for delta in deltas.iter().filter(|d| !d.is_empty()) {
                batches.push(self.rows_of(epoch, delta)?);
            }
        }
        // Nothing of the epoch is taken before all of it has been made.
        if self.sequence.admit(after, epoch)? {
            for batch in batches {
                self.rows += batch.num_rows() as u64;
                self.waiting_bytes += batch.get_array_memory_size();
                self.waiting.push(batch);
            }
        }
        Ok(())
    }

    fn wants_commit(&self) -> bool {
        self.waiting_bytes >= self.settings.file_bytes
    }

    async fn commit(&mut self, through: Commit) -> Result<(), ConnectError> {
        if !self.sequence.may_commit(through)? {
            return Ok(());
        }
        if !self.waiting.is_empty() {
            let (encoder, schema) = (self.settings.encoder.clone(), self.schema.clone());
            // Batches are shared, not copied; they stay here until the file is there.
            let batches = self.waiting.clone();
            let encoded = tokio::task::spawn_blocking(move || encoder.encode(&schema, &batches)).await;
            let bytes =
                encoded.map_err(|e| SqlError::internal(format!("a file could not be encoded: {e}")))??;
            let name = name_of(self.sequence.committed, through, self.settings.encoder.format);
            self.put(&name, bytes).await?;
            self.waiting.clear();
            self.waiting_bytes = 0;
        }
        self.sequence.committed = through;
        Ok(())
    }

    fn rows_written(&self) -> u64 {
        self.rows
    }
}

#[cfg(test)]
mod tests;
