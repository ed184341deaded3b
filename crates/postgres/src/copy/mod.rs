//! COPY … FROM STDIN and TO STDOUT: bytes of a client to batches and back.
//!
//! In: a [`Records`] cuts the bytes into records and these into fields, however the client has cut them into messages;
//! [`Fields`] collects the fields column by column and turns some thousands of rows into a batch at once. Out: each row
//! is a message, because that is what clients expect.

mod binary;
mod csv;
mod fields;
mod out;
mod text;

pub(crate) use out::send;

use std::io;

use millpond_engine::{CancelHandle, CopyFormat, CopyIn, OnError};
use millpond_types::{SqlError, SqlState};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::copy::CopyInResponse;

use self::fields::{BadRow, Fields};
use crate::connection::too_long;
use crate::error::{Failure, Stop};
use crate::frontend::{Message, decode, violation};
use crate::socket::{Frame, Socket};

/// A batch is made of this many rows, or of rows with this many bytes.
const BATCH_ROWS: usize = 16 << 10;
const BATCH_BYTES: usize = 8 << 20;
/// Records are looked for when so many bytes have come.
const CHUNK_BYTES: usize = 64 << 10;

/// The layout of the bytes: cuts them into records and fields.
enum Records {
    Text(text::TextRecords),
    Csv(csv::CsvRecords),
    Binary(binary::BinaryRecords),
}

/// What one call of `read` came to.
#[derive(Debug, PartialEq, Eq)]
enum Read {
    /// All complete records are read.
    Hungry,
    /// `fields` has a batch full.
    Full,
    /// The end-of-data marker has come.
    End,
}

impl Records {
    /// Moves complete records from the front of `input` to `fields`; returns the bytes used.
    fn read(&mut self, input: &[u8], end: bool, fields: &mut Fields) -> Result<(usize, Read), Failure> {
        match self {
            Self::Text(records) => records.read(input, end, fields),
            Self::Csv(records) => records.read(input, end, fields),
            Self::Binary(records) => records.read(input, end, fields),
        }
    }
}

/// The bytes of one COPY FROM STDIN on their way into `copy_in`.
struct Incoming {
    copy_in: CopyIn,
    records: Records,
    fields: Fields,
    input: Vec<u8>,
    /// Grows while a record does not end, so that its beginning is not looked through again and again.
    wanted_bytes: usize,
    record_bytes_max: usize,
    ended: bool,
}

impl Incoming {
    fn new(copy_in: CopyIn, record_bytes_max: usize) -> Self {
        let binary = matches!(copy_in.format(), CopyFormat::Binary);
        let tolerant = copy_in.on_error() == OnError::Ignore;
        let fields = Fields::new(copy_in.table(), copy_in.columns(), binary, tolerant);
        let records = match copy_in.format() {
            CopyFormat::Text { delimiter, null, header } => {
                Records::Text(text::TextRecords::new(*delimiter, null, *header, copy_in.columns()))
            }
            csv @ CopyFormat::Csv { .. } => Records::Csv(csv::CsvRecords::new(csv, copy_in.columns())),
            CopyFormat::Binary => Records::Binary(binary::BinaryRecords::default()),
        };
        Self {
            copy_in,
            records,
            fields,
            input: Vec::new(),
            wanted_bytes: CHUNK_BYTES,
            record_bytes_max,
            ended: false,
        }
    }

    async fn push(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.input.extend_from_slice(bytes);
        match self.input.len() >= self.wanted_bytes {
            true => self.read(false).await,
            false => Ok(()),
        }
    }

    async fn read(&mut self, end: bool) -> Result<(), Failure> {
        let mut used = 0;
        while !self.ended {
            let (bytes, read) = self.records.read(&self.input[used..], end, &mut self.fields)?;
            used += bytes;
            match read {
                Read::Full => self.write().await?,
                Read::Hungry => break,
                Read::End => self.ended = true,
            }
        }
        if self.ended {
            self.input.clear(); // what comes after the end is nobody's
        } else {
            self.input.drain(..used);
        }
        if self.input.len() > self.record_bytes_max {
            let failure = too_long(self.input.len(), self.record_bytes_max);
            return Err(self.fields.failure(failure));
        }
        self.wanted_bytes = CHUNK_BYTES.max(2 * self.input.len());
        Ok(())
    }

    /// Hands the collected rows to the engine.
    async fn write(&mut self) -> Result<(), Failure> {
        let (batch, bad) = self.fields.take(self.copy_in.columns())?;
        for BadRow { line, text, error } in bad {
            self.copy_in.reject(line, &text, error).await?;
        }
        if batch.num_rows() > 0 {
            self.copy_in.write(batch).await?;
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<String, Failure> {
        self.read(true).await?;
        self.write().await?;
        Ok(self.copy_in.finish().await?)
    }
}

/// Asks the client for the rows and takes them; the command tag.
pub(crate) async fn receive(
    socket: &mut Socket,
    cancel: &CancelHandle,
    copy_in: CopyIn,
) -> Result<String, Stop> {
    let columns = copy_in.columns().len();
    let code: i16 = matches!(copy_in.format(), CopyFormat::Binary).into();
    let response = CopyInResponse::new(code as i8, columns as i16, vec![code; columns]);
    socket.send(PgWireBackendMessage::CopyInResponse(response));
    socket.flush().await?;
    let mut incoming = Incoming::new(copy_in, socket.message_bytes_max());
    loop {
        let (tag, body) = match socket.read().await {
            Ok(Some(Frame::Message { tag, body })) => (tag, body),
            Ok(Some(Frame::TooLong { bytes, .. })) => {
                return Err(too_long(bytes, socket.message_bytes_max()).into());
            }
            Ok(None) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Err(error) => return Err(error.into()),
        };
        match decode(tag, body)? {
            Message::CopyData(bytes) => incoming.push(&bytes).await?,
            Message::CopyDone => return Ok(socket.watch(cancel, incoming.finish()).await??),
            Message::CopyFail(fail) => {
                let error = SqlError::new(
                    SqlState::QUERY_CANCELED,
                    format!("COPY from stdin failed: {}", fail.message),
                );
                return Err(incoming.fields.failure(error).into());
            }
            // Clients send them right after Execute, before they know that it is a COPY.
            Message::Flush | Message::Sync => {}
            _ => {
                let message = format!("unexpected message type 0x{tag:02X} during COPY from stdin");
                return Err(violation(message).into());
            }
        }
    }
}
