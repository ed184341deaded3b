//! A result on its way to the client: batches become DataRow messages, as many as asked for, and the rest waits.

use datafusion::arrow::array::RecordBatch;
use datafusion::execution::SendableRecordBatchStream;
use futures::{FutureExt, StreamExt};
use millpond_engine::{CancelHandle, Column, RowsTag, stream_error};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::data::{FieldDescription, RowDescription};

use crate::error::Stop;
use crate::socket::Socket;
use crate::value::{Format, Writer};

/// Rows encoded between two looks at the amount of waiting output.
const ROWS_BETWEEN_LOOKS: usize = 256;

/// A running query, and what of its newest batch is not sent yet.
pub(crate) struct Rows {
    columns: Vec<Column>,
    formats: Vec<Format>,
    stream: SendableRecordBatchStream,
    tag: RowsTag,
    batch: Option<(RecordBatch, usize)>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// So many rows were asked for, and more may come.
    Suspended,
    /// All is sent; the command tag.
    Done(String),
}

pub(crate) fn description(columns: &[Column], formats: &[Format]) -> PgWireBackendMessage {
    let field = |(column, format): (&Column, &Format)| {
        let (table, attribute) = match column.origin {
            Some((relation, attribute)) => (crate::catalog::oid(relation) as i32, attribute as i16),
            None => (0, 0),
        };
        let ty = &column.ty;
        let name = column.name.clone();
        FieldDescription::new(name, table, attribute, ty.oid(), ty.length(), ty.modifier(), format.code())
    };
    PgWireBackendMessage::RowDescription(RowDescription::new(
        columns.iter().zip(formats).map(field).collect(),
    ))
}

impl Rows {
    pub fn new(
        columns: Vec<Column>,
        formats: Vec<Format>,
        stream: SendableRecordBatchStream,
        tag: RowsTag,
    ) -> Self {
        Self { columns, formats, stream, tag, batch: None }
    }

    pub fn describe(&self) -> PgWireBackendMessage {
        description(&self.columns, &self.formats)
    }

    /// Sends `limit` rows (0: all). What waits in the output is flushed whenever the query makes us wait, so the rows of a
    /// slow stream arrive as they come.
    pub async fn send(
        &mut self,
        socket: &mut Socket,
        cancel: &CancelHandle,
        limit: u64,
    ) -> Result<Progress, Stop> {
        let mut sent = 0;
        loop {
            if limit > 0 && sent == limit {
                return Ok(Progress::Suspended);
            }
            let (batch, start) = match self.batch.take() {
                Some(rest) => rest,
                None => match next(&mut self.stream, socket, cancel).await? {
                    Some(batch) => (batch, 0),
                    None => return Ok(Progress::Done(self.tag.text(sent))),
                },
            };
            let wanted = if limit > 0 { (limit - sent).min(usize::MAX as u64) as usize } else { usize::MAX };
            let end = start.saturating_add(wanted.min(ROWS_BETWEEN_LOOKS)).min(batch.num_rows());
            self.write(&batch, start, end, socket.output())?;
            sent += (end - start) as u64;
            if end < batch.num_rows() {
                self.batch = Some((batch, end));
            }
            socket.flush_if_full().await?;
        }
    }

    fn write(&self, batch: &RecordBatch, start: usize, end: usize, out: &mut Vec<u8>) -> Result<(), Stop> {
        let columns = batch.columns().iter().zip(&self.columns).zip(&self.formats);
        let writers: Vec<Writer> = columns
            .map(|((array, column), format)| Writer::new(array, column, *format))
            .collect::<Result<_, _>>()?;
        for row in start..end {
            let at = out.len();
            out.extend_from_slice(b"D\0\0\0\0");
            out.extend_from_slice(&(writers.len() as u16).to_be_bytes());
            for writer in &writers {
                writer.write_sized(row, out);
            }
            let length = (out.len() - at - 1) as u32;
            out[at + 1..at + 5].copy_from_slice(&length.to_be_bytes());
        }
        Ok(())
    }
}

/// The next batch of a stream. The client sees what it has so far if it must be waited for.
pub(crate) async fn next(
    stream: &mut SendableRecordBatchStream,
    socket: &mut Socket,
    cancel: &CancelHandle,
) -> Result<Option<RecordBatch>, Stop> {
    let ready = match stream.next().now_or_never() {
        Some(ready) => ready,
        None => {
            socket.flush().await?;
            socket.watch(cancel, stream.next()).await?
        }
    };
    match ready {
        Some(Ok(batch)) => Ok(Some(batch)),
        Some(Err(error)) => Err(stream_error(error).into()),
        None => Ok(None),
    }
}
