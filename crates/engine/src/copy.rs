//! COPY: its options, and the sink of rows that COPY … FROM STDIN fills.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{Field, Int32Type, Schema};
use datafusion::physical_plan::PhysicalExpr;
use millpond_functions::error::from_datafusion;
use millpond_plan::{Metadata, OnConflict, QueryPlan, physical};
use millpond_sql::statement::{
    Copy, CopyColumns, CopyDirection, CopyFormat as Layout, CopyHeader, CopyOnError, CopyOptions,
    CopyRelation, CopyTarget,
};
use millpond_types::{SqlError, SqlState};
use parking_lot::Mutex;

use crate::cut::Cut;
use crate::dml;
use crate::inner::Inner;
use crate::outcome::{Column, Outcome};
use crate::read::{self, Cancellable};
use crate::reject::{ErrorRow, cut, errors_write};
use crate::session::{Block, Copied, Session, columns};
use crate::snapshot::Snapshot;
use crate::target::{Target, internal};
use crate::txn::Txn;

/// How the bytes of a COPY are laid out (PostgreSQL 15, COPY).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyFormat {
    Text {
        delimiter: u8,
        null: String,
        header: Header,
    },
    Csv {
        delimiter: u8,
        null: String,
        header: Header,
        quote: u8,
        escape: u8,
        /// Columns by position among those copied.
        force_quote: Vec<usize>,
        force_not_null: Vec<usize>,
        force_null: Vec<usize>,
    },
    Binary,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    None,
    /// A first line that is skipped (in) or written (out).
    Present,
    /// A first line that must name the columns.
    Match,
}

/// What to do with a row that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// The whole COPY fails.
    Stop,
    /// The row goes to `millpond.errors`.
    Ignore,
}

/// The receiving end of a COPY … FROM STDIN. Nothing is visible before [`CopyIn::finish`] (or, with `commit_rows`, before
/// a part is full); dropping it aborts.
pub struct CopyIn {
    columns: Vec<Column>,
    format: CopyFormat,
    on_error: OnError,
    inner: Arc<Inner>,
    snapshot: Arc<Snapshot>,
    target: Arc<Target>,
    /// For each declared column: where it comes from.
    sources: Vec<ColumnSource>,
    /// The copied column that is the rows' partition.
    partition: Option<usize>,
    txn: Txn,
    /// The transaction belongs to a block, which gets it back.
    in_block: bool,
    copied: Arc<Mutex<Copied>>,
    commit_rows: Option<u64>,
    uncommitted_rows: u64,
    rows: u64,
    synchronous: bool,
    lock_timeout: Option<Duration>,
}

enum ColumnSource {
    /// The n-th copied column.
    Copied(usize),
    Default(Arc<dyn PhysicalExpr>),
    Null,
}

impl CopyIn {
    /// The columns that each line has, in that order.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    pub fn format(&self) -> &CopyFormat {
        &self.format
    }

    pub fn on_error(&self) -> OnError {
        self.on_error
    }

    /// The name of the target, for the context of error messages (`COPY t, line 3, column c: "x"`).
    pub fn table(&self) -> &str {
        &self.target.relation.name
    }

    /// Takes the next rows; their columns are those of [`CopyIn::columns`] in canonical Arrow types.
    ///
    /// # Errors
    /// 23502, 23505, 54000 and what generated columns raise. The COPY is then over.
    pub async fn write(&mut self, batch: RecordBatch) -> Result<(), SqlError> {
        let rows = batch.num_rows();
        if rows == 0 {
            return Ok(());
        }
        let partition = self.partition.and_then(|n| batch.column(n).as_primitive_opt::<Int32Type>()).cloned();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.sources.len());
        for (source, field) in self.sources.iter().zip(self.target.declared.fields()) {
            columns.push(match source {
                ColumnSource::Copied(n) => Arc::clone(batch.column(*n)),
                ColumnSource::Default(expr) => {
                    let options = arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(rows));
                    let empty =
                        RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options)
                            .map_err(internal)?;
                    expr.evaluate(&empty).and_then(|v| v.into_array(rows)).map_err(from_datafusion)?
                }
                ColumnSource::Null => arrow::array::new_null_array(field.data_type(), rows),
            });
        }
        let nullable: Vec<Field> =
            self.target.declared.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
        let batch = RecordBatch::try_new(Arc::new(Schema::new(nullable)), columns).map_err(internal)?;
        let batch = self.target.complete(&batch)?;
        let cx = dml::Context {
            inner: &self.inner,
            snapshot: &self.snapshot,
            parameters: &[],
            lock_timeout: self.lock_timeout,
        };
        let (txn, target) = (&mut self.txn, &self.target);
        let partition = partition.as_ref();
        dml::insert_batch(&cx, txn, target, batch, partition, &OnConflict::Error, &mut Vec::new()).await?;
        self.rows += rows as u64;
        self.uncommitted_rows += rows as u64;
        self.commit_part().await
    }

    async fn commit_part(&mut self) -> Result<(), SqlError> {
        if self.commit_rows.is_some_and(|n| self.uncommitted_rows >= n) {
            let commit = std::mem::take(&mut self.txn).commit(&self.inner, self.synchronous).await?;
            self.copied.lock().commit = commit;
            self.uncommitted_rows = 0;
        }
        Ok(())
    }

    /// Counts and keeps a line that could not be read, where ON_ERROR is ignore.
    ///
    /// # Errors
    /// As [`CopyIn::write`].
    pub async fn reject(&mut self, line: u64, text: &str, error: SqlError) -> Result<(), SqlError> {
        let row = ErrorRow {
            operator: "copy".to_owned(),
            line: i64::try_from(line).ok(),
            row: cut(text),
            sqlstate: error.state().to_string(),
            message: error.message().to_owned(),
        };
        self.txn.push_raw(errors_write(self.target.id(), &[row])?);
        if self.txn.bytes() > self.inner.config.max_transaction_bytes {
            return Err(SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, "too many rows could not be read"));
        }
        self.uncommitted_rows += 1;
        self.commit_part().await
    }

    /// Makes the rows durable and returns the command tag, `COPY n`.
    ///
    /// # Errors
    /// Those of the log.
    pub async fn finish(mut self) -> Result<String, SqlError> {
        if !self.in_block {
            let commit = std::mem::take(&mut self.txn).commit(&self.inner, self.synchronous).await?;
            let mut copied = self.copied.lock();
            copied.commit = copied.commit.max(commit);
        }
        Ok(format!("COPY {}", self.rows))
    }
}

/// The block gets its transaction back however the COPY ends: a savepoint may want what came before.
impl Drop for CopyIn {
    fn drop(&mut self) {
        if self.in_block {
            self.copied.lock().txn = Some(std::mem::take(&mut self.txn));
        }
    }
}

pub(crate) async fn run(
    session: &mut Session,
    copy: &Copy,
    text: &str,
    deadline: Option<tokio::time::Instant>,
) -> Result<Outcome, SqlError> {
    match &copy.target {
        CopyTarget::Client => {}
        CopyTarget::Location(_) => {
            return Err(SqlError::unsupported("COPY with a file or object of the server is not supported yet")
                .hint("Use COPY … FROM STDIN or psql's \\copy; CREATE SOURCE … WITH (connector = 'file') reads files."));
        }
        CopyTarget::Program(_) => {
            return Err(
                SqlError::unsupported("COPY with a program is not supported").hint("Use psql's \\copy.")
            );
        }
    }
    match copy.direction {
        CopyDirection::From => from(session, copy, text).await,
        CopyDirection::To => to(session, copy, deadline).await,
    }
}

async fn from(session: &mut Session, copy: &Copy, text: &str) -> Result<Outcome, SqlError> {
    session.refuse_read_only(text)?;
    if let Some(filter) = &copy.filter {
        return Err(SqlError::unsupported("COPY … WHERE is not supported yet").at(filter.position));
    }
    let CopyRelation::Table { name, columns: names } = &copy.relation else {
        return Err(SqlError::new(SqlState::SYNTAX_ERROR, "COPY … FROM needs a table or source"));
    };
    let snapshot = session.read_snapshot().await?;
    let path = session.settings.search_path();
    let relation = snapshot.catalog.resolve(name, &path).map_err(|e| name.mark(e))?;
    if !relation.is_topic() {
        return Err(name.mark(SqlError::new(
            SqlState::WRONG_OBJECT_TYPE,
            format!("cannot copy to {} \"{}\"", relation.kind.object().as_str(), relation.name),
        )));
    }
    let target = session.inner.target(&snapshot.catalog, relation.id)?;
    let mut chosen = Vec::new();
    let metadata = Metadata::Partition;
    let mut partition = None;
    for name in names {
        if name.name == metadata.name() && relation.is_append_only() && partition.is_none() {
            partition = Some(chosen.len());
            chosen.push(relation.columns.len());
            continue;
        }
        let index = relation.column_index(&name.name).ok_or_else(|| {
            SqlError::new(
                SqlState::UNDEFINED_COLUMN,
                format!("column \"{}\" of relation \"{}\" does not exist", name.name, relation.name),
            )
            .at(name.position)
        })?;
        if relation.columns[index].generated.is_some() {
            return Err(SqlError::new(
                SqlState::INVALID_COLUMN_REFERENCE,
                format!("column \"{}\" is a generated column", name.name),
            )
            .detail("Generated columns cannot be used in COPY.")
            .at(name.position));
        }
        if chosen.contains(&index) {
            return Err(SqlError::new(
                SqlState::DUPLICATE_COLUMN,
                format!("column \"{}\" specified more than once", name.name),
            )
            .at(name.position));
        }
        chosen.push(index);
    }
    if names.is_empty() {
        chosen = (0..relation.columns.len()).filter(|c| relation.columns[*c].generated.is_none()).collect();
    }
    let planner = session.inner.own_planner(&snapshot.catalog);
    let mut sources = Vec::new();
    for (index, column) in relation.columns.iter().enumerate() {
        sources.push(match (chosen.iter().position(|c| *c == index), &column.default) {
            (Some(at), _) => ColumnSource::Copied(at),
            (None, Some(default)) => {
                let expr = millpond_sql::parse_expression(default)?;
                let planned = planner.plan_column_expression(&[], &expr, Some((&column.name, &column.ty)))?;
                ColumnSource::Default(physical(&planned.expr, &Arc::new(Schema::empty()))?)
            }
            (None, None) => ColumnSource::Null,
        });
    }
    let origin = |index: usize| Some((relation.id, index as u16 + 1));
    let columns: Vec<Column> = chosen
        .iter()
        .map(|c| {
            let zone = session.settings.zone();
            match relation.columns.get(*c) {
                Some(column) => {
                    Column { name: column.name.clone(), ty: column.ty.clone(), origin: origin(*c), zone }
                }
                None => {
                    Column { name: metadata.name().into(), ty: metadata.sql_type(None), origin: None, zone }
                }
            }
        })
        .collect();
    let format = format(&copy.options, &columns)?;
    let on_error = match copy.options.on_error {
        CopyOnError::Stop => OnError::Stop,
        CopyOnError::Ignore => OnError::Ignore,
    };
    let (txn, in_block) = match &mut session.block {
        Block::Explicit(txn) | Block::Implicit(txn) => (std::mem::take(txn), true),
        _ => (Txn::default(), false),
    };
    if in_block && copy.options.commit_rows.is_some() {
        return Err(SqlError::new(
            SqlState::ACTIVE_SQL_TRANSACTION,
            "COPY with commit_rows cannot run inside a transaction block",
        ));
    }
    Ok(Outcome::CopyIn(Box::new(CopyIn {
        columns,
        format,
        on_error,
        inner: Arc::clone(&session.inner),
        target,
        sources,
        partition,
        txn,
        in_block,
        copied: Arc::clone(&session.copied),
        commit_rows: copy.options.commit_rows,
        uncommitted_rows: 0,
        rows: 0,
        synchronous: session.settings.show("synchronous_commit")? != "off",
        lock_timeout: session.settings.time("lock_timeout"),
        snapshot,
    })))
}

/// The query of a COPY TO.
fn plan_to(session: &Session, copy: &Copy, snapshot: &Arc<Snapshot>) -> Result<QueryPlan, SqlError> {
    let (planner, _) = session.planner(snapshot);
    match &copy.relation {
        CopyRelation::Query(query) => planner.plan_query(&query.query, &[]),
        CopyRelation::Table { name, columns } => {
            let list = if columns.is_empty() {
                "*".to_owned()
            } else {
                columns.iter().map(|c| millpond_sql::quote_identifier(&c.name)).collect::<Vec<_>>().join(", ")
            };
            let query = millpond_sql::parse_query(&format!("SELECT {list} FROM {name}"))?;
            planner.plan_query(&query, &[])
        }
        CopyRelation::Subscribe(_) => {
            Err(SqlError::unsupported("SUBSCRIBE is not supported yet").hint("COPY a query instead."))
        }
    }
}

async fn to(
    session: &mut Session,
    copy: &Copy,
    deadline: Option<tokio::time::Instant>,
) -> Result<Outcome, SqlError> {
    let mut named = |session: &Session, snapshot: &Arc<Snapshot>| {
        Ok(read::views_of(snapshot, &[&plan_to(session, copy, snapshot)?.logical]))
    };
    let snapshot = session.snapshot_of(Cut::Any, &mut named).await?;
    let plan = plan_to(session, copy, &snapshot)?;
    if !plan.parameters.is_empty() {
        return Err(SqlError::new(SqlState::UNDEFINED_PARAMETER, "there is no parameter $1"));
    }
    let columns = columns(&plan.columns, session.settings.zone());
    let format = format(&copy.options, &columns)?;
    let inner = Arc::clone(&session.inner);
    let cancel = session.cancel_handle();
    let txn = match &mut session.block {
        Block::Explicit(txn) | Block::Implicit(txn) => Some(txn),
        _ => None,
    };
    let stream = read::stream(&inner, &snapshot, &plan.logical, &[], txn).await?;
    let stream = Cancellable::wrap(stream, cancel, deadline);
    Ok(Outcome::CopyOut { columns, stream, format })
}

fn format(options: &CopyOptions, columns: &[Column]) -> Result<CopyFormat, SqlError> {
    let header = match options.header {
        CopyHeader::None => Header::None,
        CopyHeader::Present => Header::Present,
        CopyHeader::Match => Header::Match,
    };
    let named = |which: &CopyColumns| -> Result<Vec<usize>, SqlError> {
        match which {
            CopyColumns::None => Ok(Vec::new()),
            CopyColumns::All => Ok((0..columns.len()).collect()),
            CopyColumns::Named(names) => {
                let find = |name: &String| {
                    columns.iter().position(|c| c.name == *name).ok_or_else(|| {
                        SqlError::new(SqlState::UNDEFINED_COLUMN, format!("column \"{name}\" is not copied"))
                    })
                };
                names.iter().map(find).collect()
            }
        }
    };
    match options.format {
        Layout::Text => {
            Ok(CopyFormat::Text { delimiter: options.delimiter, null: options.null.clone(), header })
        }
        Layout::Csv => Ok(CopyFormat::Csv {
            delimiter: options.delimiter,
            null: options.null.clone(),
            header,
            quote: options.quote,
            escape: options.escape,
            force_quote: named(&options.force_quote)?,
            force_not_null: named(&options.force_not_null)?,
            force_null: named(&options.force_null)?,
        }),
        Layout::Binary => Ok(CopyFormat::Binary),
        Layout::Parquet | Layout::Json => {
            Err(SqlError::unsupported("this format of COPY is for files and objects")
                .hint("Through the connection there are text, csv and binary."))
        }
    }
}
