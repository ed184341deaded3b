//! Files as a source.
//!
//! Files are read in the order of their names, each once; the position is a file and a place in it. A bounded source (the
//! default) reads the files that are there when it is first opened. With `follow = true` it goes on with files whose names
//! sort after those that it has read: name them by time or number. A file that appears too late in that order is reported
//! to `millpond.errors`, never skipped in silence. A file must not change once it is there.
//!
//! A row that cannot be read goes to `millpond.errors` with its text and place. A CSV file whose header, or a Parquet file
//! whose schema, lacks a column stops the source.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use millpond_env::Env;
use millpond_types::{SqlError, SqlState, SqlType};
use object_store::ObjectMeta;
use serde::{Deserialize, Serialize};

use super::csv::Dialect;
use super::location::{Location, check_path};
use super::parquet_rows::{self, ParquetRows};
use super::text_reader::TextReader;
use super::{Format, OWNER, check_belong, format, read_options};
use crate::options::{Known, Options, invalid};
use crate::{ConnectError, RejectedRow, ResolvedSource, Source, SourceRows, SourceSpec, SourceStep};

#[rustfmt::skip]
const OPTIONS: &[Known] = &[
    Known { name: "path", aliases: &["url", "location"], help: "a file, a folder, or a pattern with * ? [a-z] and **; required" },
    Known { name: "format", aliases: &[], help: "csv, json or parquet, if neither ENCODE nor the path says it" },
    Known { name: "follow", aliases: &[], help: "whether to wait for new files; false" },
    Known { name: "poll_interval", aliases: &[], help: "how often to look for new files; 5s" },
    Known { name: "batch_rows", aliases: &[], help: "most rows of one batch" },
    Known { name: "header", aliases: &[], help: "csv: whether the first line names the columns; true" },
    Known { name: "without_header", aliases: &[], help: "csv: the opposite of header" },
    Known { name: "delimiter", aliases: &[], help: "csv: comma" },
    Known { name: "quote", aliases: &[], help: "csv: double quote" },
    Known { name: "escape", aliases: &[], help: "csv: the quote" },
    Known { name: "null", aliases: &["null_string"], help: "csv: an unquoted field that means NULL; empty" },
];

#[rustfmt::skip]
const BELONG: &[(&str, Format)] = &[
    ("header", Format::Csv), ("without_header", Format::Csv), ("delimiter", Format::Csv),
    ("quote", Format::Csv), ("escape", Format::Csv), ("null", Format::Csv),
];

/// What the options come to.
struct Settings {
    path: String,
    format: Format,
    dialect: Dialect,
    /// How often to look for new files; `None` reads those that are there.
    follow: Option<Duration>,
    batch_rows: usize,
}

impl Settings {
    fn read(spec: &SourceSpec) -> Result<Self, SqlError> {
        let options = read_options(&spec.options, spec.encoding.as_ref(), OPTIONS)?;
        let path =
            options.required("path", "Give a path of the server, file:///…, or s3://bucket/….")?.to_owned();
        check_path(&path)?;
        let format = format(&options, spec.encoding.as_ref(), &path)?;
        check_belong(&options, format, BELONG)?;
        let interval = options.duration("poll_interval")?;
        let follow = options.boolean("follow")?.unwrap_or(false);
        if interval.is_some() && !follow {
            return Err(options.refuse("poll_interval", "goes with follow = true only"));
        }
        let batch_rows = options.integer("batch_rows", 1, 1 << 20)?.map_or(usize::MAX, |n| n as usize);
        let follow = follow.then(|| interval.unwrap_or(Duration::from_secs(5)));
        Ok(Self { path, format, dialect: dialect(&options)?, follow, batch_rows })
    }
}

fn dialect(options: &Options) -> Result<Dialect, SqlError> {
    if options.is_given("header") && options.is_given("without_header") {
        return Err(options.refuse("without_header", "says the same as \"header\""));
    }
    let without = options.boolean("without_header")?;
    let has_header = options.boolean("header")?.or(without.map(|w| !w)).unwrap_or(true);
    let delimiter = options.character("delimiter")?.unwrap_or(b',');
    let quote = options.character("quote")?.unwrap_or(b'"');
    let escape = options.character("escape")?.unwrap_or(quote);
    if delimiter == quote {
        return Err(options.refuse("quote", "must not be the delimiter"));
    }
    let null = options.text("null").unwrap_or("").to_owned();
    Ok(Dialect { delimiter, quote, escape, null, has_header })
}

pub(crate) async fn validate(spec: &SourceSpec, env: &Env) -> Result<ResolvedSource, SqlError> {
    let settings = Settings::read(spec)?;
    let location = Location::of_source(&settings.path, env)?;
    let files = location.list().await?;
    if files.is_empty() && settings.follow.is_none() {
        return Err(SqlError::new(
            SqlState::UNDEFINED_FILE,
            format!("there is no file at \"{}\"", settings.path),
        )
        .hint("The path is one of the server. With follow = true the source waits for files."));
    }
    let schema = resolve_schema(spec, &settings, &location, &files).await?;
    Ok(ResolvedSource { schema, watermark: None, bounded: settings.follow.is_none() })
}

async fn resolve_schema(
    spec: &SourceSpec,
    settings: &Settings,
    location: &Location,
    files: &[ObjectMeta],
) -> Result<SchemaRef, SqlError> {
    if !spec.columns.is_empty() {
        let schema = Arc::new(Schema::new(spec.columns.clone()));
        schema.fields().iter().try_for_each(|field| SqlType::of(field).map(drop))?;
        return Ok(schema);
    }
    match (settings.format, files) {
        (Format::Parquet, [first, ..]) => Ok(parquet_rows::infer(location, first).await?),
        (Format::Parquet, []) => Err(SqlError::new(
            SqlState::SYNTAX_ERROR,
            format!("{OWNER} needs columns where there is no file yet to take them from"),
        )
        .hint("Declare them, as in CREATE SOURCE s (id bigint, name text) WITH (…).")),
        (format, _) => Err(SqlError::new(
            SqlState::SYNTAX_ERROR,
            format!("{OWNER} needs columns for the format {}", format.name()),
        )
        .hint("Declare them, as in CREATE SOURCE s (id bigint, name text) WITH (…).")),
    }
}

pub(crate) async fn open(
    spec: &SourceSpec,
    env: &Env,
    position: Option<&[u8]>,
) -> Result<Box<dyn Source>, SqlError> {
    let location = Location::of_source(&Settings::read(spec)?.path, env)?;
    Ok(Box::new(FileSource::open(spec, location, position).await?))
}

/// A place among the files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Position {
    /// The file that was read last, empty before the first.
    file: String,
    /// Its size when it was opened.
    size: u64,
    /// Where to go on: a byte, or for Parquet a row.
    offset: u64,
    /// Lines before it.
    line: u64,
    /// Whether the file has nothing more.
    done: bool,
    /// How many files there were up to this one, to notice any that appear among them later.
    files: u64,
    /// The last file of a bounded source.
    until: Option<String>,
}

pub(super) struct FileSource {
    location: Location,
    settings: Settings,
    schema: SchemaRef,
    position: Position,
    /// Files after the position, in order.
    queue: VecDeque<ObjectMeta>,
    reader: Option<Reader>,
    /// Names up to the position that are known.
    known: HashSet<String>,
}

impl FileSource {
    pub async fn open(
        spec: &SourceSpec,
        location: Location,
        position: Option<&[u8]>,
    ) -> Result<Self, SqlError> {
        let settings = Settings::read(spec)?;
        let files = location.list().await?;
        let schema = resolve_schema(spec, &settings, &location, &files).await?;
        let mut source = Self {
            location,
            settings,
            schema,
            position: Position::default(),
            queue: VecDeque::new(),
            reader: None,
            known: HashSet::new(),
        };
        match position {
            Some(bytes) => {
                source.position = serde_json::from_slice(bytes)
                    .map_err(|_| invalid(format!("a position is not one of {OWNER}")))?;
                let last = source.position.file.as_str();
                let names = files.iter().map(|f| f.location.as_ref());
                source.known = names.filter(|name| *name <= last).map(str::to_owned).collect();
                source.resume(&files).await?;
            }
            None if source.settings.follow.is_none() => {
                source.position.until = files.last().map(|f| f.location.to_string());
            }
            None => {}
        }
        source.enqueue(files);
        Ok(source)
    }

    /// Opens the file of the position, unless it was read to its end.
    async fn resume(&mut self, files: &[ObjectMeta]) -> Result<(), ConnectError> {
        if self.position.done || self.position.file.is_empty() {
            return Ok(());
        }
        let name = self.location.show(&self.position.file);
        let Some(meta) = files.iter().find(|f| f.location.as_ref() == self.position.file) else {
            let message = format!("file \"{name}\" is gone, and was not read to its end");
            return Err(SqlError::new(SqlState::UNDEFINED_FILE, message).into());
        };
        if meta.size != self.position.size {
            let message = format!("file \"{name}\" has changed while it was being read");
            return Err(SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message)
                .detail(format!("It had {} bytes, and has {} now.", self.position.size, meta.size))
                .hint("Write files under another name first, and rename them when they are complete.")
                .into());
        }
        self.reader = Some(
            open_file(
                &self.location,
                &self.settings,
                &self.schema,
                meta,
                self.position.offset,
                self.position.line,
            )
            .await?,
        );
        Ok(())
    }

    /// Queues the files after the position and up to the end.
    fn enqueue(&mut self, files: Vec<ObjectMeta>) {
        let last = self.position.file.as_str();
        let is_new = |name: &str| {
            name > last
                && (self.settings.follow.is_some()
                    || self.position.until.as_deref().is_some_and(|u| name <= u))
        };
        self.queue = files.into_iter().filter(|f| is_new(f.location.as_ref())).collect();
    }

    /// Files that appeared before the position: a row of complaint, once.
    fn latecomers(&mut self, files: &[ObjectMeta]) -> Option<RejectedRow> {
        let last = self.position.file.as_str();
        let before: Vec<&str> =
            files.iter().map(|f| f.location.as_ref()).filter(|name| *name <= last).collect();
        let count = before.len() as u64;
        let is_more = count > self.position.files;
        let missed = count.saturating_sub(self.position.files);
        self.position.files = count;
        let late: Vec<String> = before
            .iter()
            .filter(|name| !self.known.contains(**name))
            .map(|name| (*name).to_owned())
            .collect();
        self.known = before.into_iter().map(str::to_owned).collect();
        if !is_more && late.is_empty() {
            return None;
        }
        let names = if late.is_empty() { format!("{missed} files") } else { late.join(", ") };
        let message = format!("files came after \"{}\" was read, and sort before it", self.position.file);
        Some(RejectedRow {
            raw: names.into(),
            place: self.location.root.clone(),
            error: SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message),
        })
    }

    fn step(&self, batch: RecordBatch, rejected: Vec<RejectedRow>) -> SourceStep {
        let position = serde_json::to_vec(&self.position).expect("names and numbers are always JSON");
        SourceStep::Rows(SourceRows { batch, position: position.into(), rejected })
    }
}

#[async_trait]
impl Source for FileSource {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    async fn next(&mut self, rows_max: usize) -> Result<SourceStep, ConnectError> {
        let rows_max = rows_max.min(self.settings.batch_rows).max(1);
        loop {
            if let Some(reader) = &mut self.reader {
                if let Some((batch, rejected)) = reader.next(rows_max).await? {
                    (self.position.offset, self.position.line) = reader.place();
                    self.position.done = reader.is_done();
                    return Ok(self.step(batch, rejected));
                }
                self.reader = None;
                self.position.done = true;
            } else if let Some(meta) = self.queue.front().cloned() {
                self.reader =
                    Some(open_file(&self.location, &self.settings, &self.schema, &meta, 0, 0).await?);
                self.queue.pop_front();
                self.known.insert(meta.location.to_string());
                self.position = Position {
                    file: meta.location.to_string(),
                    size: meta.size,
                    files: self.position.files + 1,
                    until: self.position.until.take(),
                    ..Position::default()
                };
            } else if let Some(interval) = self.settings.follow {
                let files = self.location.list().await?;
                let late = self.latecomers(&files);
                self.enqueue(files);
                match late {
                    Some(late) => {
                        return Ok(self.step(RecordBatch::new_empty(self.schema.clone()), vec![late]));
                    }
                    None if self.queue.is_empty() => return Ok(SourceStep::Wait(interval)),
                    None => {}
                }
            } else {
                return Ok(SourceStep::End);
            }
        }
    }
}

async fn open_file(
    location: &Location,
    settings: &Settings,
    schema: &SchemaRef,
    meta: &ObjectMeta,
    offset: u64,
    line: u64,
) -> Result<Reader, ConnectError> {
    Ok(match settings.format {
        Format::Parquet => {
            Reader::Parquet(Box::new(ParquetRows::open(location, meta, schema, offset).await?))
        }
        format => {
            let dialect = (format == Format::Csv).then(|| settings.dialect.clone());
            Reader::Text(TextReader::open(location, meta, schema, dialect, offset, line).await?)
        }
    })
}

/// The file that is being read.
enum Reader {
    Text(TextReader),
    Parquet(Box<ParquetRows>),
}

impl Reader {
    async fn next(
        &mut self,
        rows_max: usize,
    ) -> Result<Option<(RecordBatch, Vec<RejectedRow>)>, ConnectError> {
        match self {
            Self::Text(reader) => reader.next(rows_max).await,
            Self::Parquet(reader) => Ok(reader.next(rows_max).await?.map(|part| (part.batch, part.rejected))),
        }
    }

    /// Where to go on, and lines before it.
    fn place(&self) -> (u64, u64) {
        match self {
            Self::Text(reader) => reader.place(),
            Self::Parquet(reader) => (reader.position(), 0),
        }
    }

    fn is_done(&self) -> bool {
        match self {
            Self::Text(reader) => reader.is_done(),
            Self::Parquet(reader) => reader.is_done(),
        }
    }
}

#[cfg(test)]
mod tests;
