//! Running sources: each connector is a thread that commits rows and position together.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::Field;
use bytes::Bytes;
use millpond_catalog::{Connector, RelationKind};
use millpond_connect::{Encoding, SourceSpec, SourceStep};
use millpond_log::{Record, Ticket, Transaction, Write, WriteKind};
use millpond_types::{EventTime, PartitionId, RelationId, SqlError};
use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::inner::Inner;
use crate::partition::spread;
use crate::reject::{ErrorRow, cut, errors_write, row_text};
use crate::target::Target;

/// Rows of one transaction.
const ROWS: usize = 16_384;
/// Transactions that may be on their way to the disk at a time.
const IN_FLIGHT: usize = 8;
/// The longest pause before a source that failed is tried again.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// The running connectors of an engine; dropping an entry's sender stops its thread.
#[derive(Default)]
pub(crate) struct Running(Mutex<HashMap<RelationId, watch::Sender<bool>>>);

impl Running {
    pub fn stop_all(&self) {
        self.0.lock().clear();
    }
}

/// What a connector needs to know, out of the catalog.
pub(crate) fn source_spec(connector: &Connector, columns: Vec<Field>) -> SourceSpec {
    SourceSpec {
        connector: connector.name.clone(),
        options: connector.options.clone(),
        columns,
        encoding: connector.format.as_ref().map(|format| Encoding {
            format: format.clone(),
            encode: connector.encode.clone().unwrap_or_default(),
            options: connector.format_options.clone(),
        }),
    }
}

/// Starts the connector of every source that has one.
pub(crate) fn start_all(inner: &Arc<Inner>) {
    for relation in inner.snapshot().catalog.relations() {
        start(inner, relation.id);
    }
}

/// Starts the connector of a source, if it has one and is not running.
pub(crate) fn start(inner: &Arc<Inner>, id: RelationId) {
    let snapshot = inner.snapshot();
    let Some(relation) = snapshot.catalog.relation(id) else { return };
    let RelationKind::Source(source) = &relation.kind else { return };
    let Some(connector) = source.connector.clone() else { return };
    let mut running = inner.connectors.0.lock();
    if running.contains_key(&id) {
        return;
    }
    let (sender, stop) = watch::channel(false);
    running.insert(id, sender);
    let columns = relation.columns.iter().filter(|c| c.generated.is_none());
    let spec = source_spec(&connector, columns.map(|c| c.ty.field(&c.name, c.nullable)).collect());
    let (weak, name) = (Arc::downgrade(inner), relation.name.clone());
    let runtime = tokio::runtime::Handle::current();
    // Generating and decoding rows is work for a thread of its own, not for those that serve sockets.
    tokio::task::spawn_blocking(move || runtime.block_on(run(weak, id, name, spec, stop)));
}

pub(crate) fn stop(inner: &Inner, id: RelationId) {
    inner.connectors.0.lock().remove(&id);
}

async fn run(
    inner: Weak<Inner>,
    id: RelationId,
    name: String,
    spec: SourceSpec,
    mut stop: watch::Receiver<bool>,
) {
    let mut pause = Duration::from_millis(100);
    loop {
        match pump(&inner, id, &spec, &mut stop).await {
            Ok(()) => return,
            Err(error) => warn!(source = %name, %error, "a source has failed and will be tried again"),
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stop.changed() => return,
        }
        pause = (pause * 2).min(RETRY_MAX);
    }
}

/// Moves rows until the source ends or is stopped.
async fn pump(
    weak: &Weak<Inner>,
    id: RelationId,
    spec: &SourceSpec,
    stop: &mut watch::Receiver<bool>,
) -> Result<(), SqlError> {
    let Some(inner) = weak.upgrade() else { return Ok(()) };
    // Rows follow each other by position: after a failure of the log they begin again where it really ends.
    let term = inner.writable_term()?;
    let position = inner.log.positions(id);
    let mut source = millpond_connect::open_source(spec, &inner.env, position.as_deref()).await?;
    let mut in_flight: VecDeque<Ticket> = VecDeque::new();
    drop(inner);
    loop {
        if stop.has_changed().is_err() {
            return Ok(());
        }
        let step = tokio::select! {
            step = source.next(ROWS) => step.map_err(SqlError::from)?,
            _ = stop.changed() => return Ok(()),
        };
        let Some(inner) = weak.upgrade() else { return Ok(()) };
        match step {
            SourceStep::Rows(rows) => {
                let snapshot = inner.snapshot();
                if snapshot.catalog.relation(id).is_none() {
                    return Ok(());
                }
                let target = inner.target(&snapshot.catalog, id)?;
                let rejected = rows.rejected.iter().map(|row| ErrorRow {
                    operator: "connector".to_owned(),
                    line: None,
                    row: cut(&format!("{}: {}", row.place, String::from_utf8_lossy(&row.raw))),
                    sqlstate: row.error.state().to_string(),
                    message: row.error.message().to_owned(),
                });
                let rejected = rejected.collect();
                let transaction = transaction(&target, &rows.batch, rows.position, rejected)?;
                in_flight.push_back(inner.submit(transaction, Some(term)).await?);
                if in_flight.len() > IN_FLIGHT
                    && let Some(ticket) = in_flight.pop_front()
                {
                    drop(inner);
                    ticket.wait().await.map_err(|e| crate::inner::log_error(&e))?;
                }
            }
            SourceStep::Wait(pause) => {
                drop(inner);
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    _ = stop.changed() => return Ok(()),
                }
            }
            SourceStep::End => {
                if inner.log.watermark(id).is_none_or(|w| w < EventTime::MAX) {
                    let record = Record::AdvanceWatermark { topic: id, to: EventTime::MAX };
                    let end = Transaction { writes: Vec::new(), records: vec![record] };
                    let ticket = inner.submit(end, Some(term)).await?;
                    ticket.wait().await.map_err(|e| crate::inner::log_error(&e))?;
                }
                info!(relation = %id, "a bounded source has ended");
                return Ok(());
            }
        }
    }
}

/// Rows, what could not be read, and the position after both.
fn transaction(
    target: &Target,
    batch: &RecordBatch,
    position: Bytes,
    mut rejected: Vec<ErrorRow>,
) -> Result<Transaction, SqlError> {
    let batch = declared(target, batch)?;
    let complete = complete(target, &batch, &mut rejected)?;
    let mut parts = spread(target, complete, None)?;
    // Positions are all in one partition, where the log keeps their order.
    if parts.first().is_none_or(|(partition, _)| partition.0 != 0) {
        parts.insert(0, (PartitionId(0), RecordBatch::new_empty(Arc::clone(&target.declared))));
    }
    let mut position = Some(position);
    let mut writes = Vec::with_capacity(parts.len() + 1);
    for (partition, batch) in parts {
        writes.push(Write {
            topic: target.id(),
            partition,
            event_time: target.event_time(&batch)?,
            batch,
            schema_version: target.relation.schema_version,
            kind: WriteKind::Append,
            producer: None,
            position: position.take(),
        });
    }
    if !rejected.is_empty() {
        writes.push(errors_write(target.id(), &rejected)?);
    }
    Ok(Transaction { writes, records: Vec::new() })
}

/// The connector's columns among all declared ones; generated columns are NULL until they are computed.
fn declared(target: &Target, batch: &RecordBatch) -> Result<RecordBatch, SqlError> {
    let mut brought = batch.columns().iter();
    let mut columns = Vec::with_capacity(target.declared.fields().len());
    let mut fields = Vec::with_capacity(columns.capacity());
    for (column, field) in target.relation.columns.iter().zip(target.declared.fields()) {
        columns.push(match (&column.generated, brought.len()) {
            (None, 1..) => Arc::clone(brought.next().expect("there is one left")),
            _ => arrow::array::new_null_array(field.data_type(), batch.num_rows()),
        });
        fields.push(field.as_ref().clone().with_nullable(true));
    }
    RecordBatch::try_new(Arc::new(arrow::datatypes::Schema::new(fields)), columns)
        .map_err(crate::target::internal)
}

/// Completes what can be completed; rows that a generated column or NOT NULL refuses are rejected one by one.
fn complete(
    target: &Target,
    batch: &RecordBatch,
    rejected: &mut Vec<ErrorRow>,
) -> Result<RecordBatch, SqlError> {
    match target.complete(batch) {
        Ok(complete) => Ok(complete),
        Err(error) if batch.num_rows() == 1 => {
            rejected.push(ErrorRow {
                operator: "connector".to_owned(),
                line: None,
                row: row_text(batch, 0)?,
                sqlstate: error.state().to_string(),
                message: error.message().to_owned(),
            });
            Ok(RecordBatch::new_empty(Arc::clone(&target.declared)))
        }
        Err(_) => {
            let half = batch.num_rows() / 2;
            let first = complete(target, &batch.slice(0, half), rejected)?;
            let second = complete(target, &batch.slice(half, batch.num_rows() - half), rejected)?;
            arrow::compute::concat_batches(&target.declared, [&first, &second])
                .map_err(crate::target::internal)
        }
    }
}
