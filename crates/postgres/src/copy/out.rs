//! COPY … TO STDOUT: a message per row.

use arrow::array::RecordBatch;
use datafusion::execution::SendableRecordBatchStream;
use millpond_engine::text::Formatter;
use millpond_engine::{CancelHandle, Column, CopyFormat, Header};
use millpond_types::SqlError;
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::copy::{CopyDone, CopyOutResponse};

use super::binary::SIGNATURE;
use crate::error::Stop;
use crate::rows;
use crate::socket::Socket;
use crate::value::{Format, Writer};

const ROWS_BETWEEN_LOOKS: usize = 256;

/// Sends everything; the command tag.
pub(crate) async fn send(
    socket: &mut Socket,
    cancel: &CancelHandle,
    columns: &[Column],
    mut stream: SendableRecordBatchStream,
    format: &CopyFormat,
) -> Result<String, Stop> {
    let code: i16 = matches!(format, CopyFormat::Binary).into();
    let response = CopyOutResponse::new(code as i8, columns.len() as i16, vec![code; columns.len()]);
    socket.send(PgWireBackendMessage::CopyOutResponse(response));
    header(columns, format, socket.output());
    // The signature of the binary format is no message of its own: clients look for it in front of the first row.
    let mut signature = Vec::new();
    if matches!(format, CopyFormat::Binary) {
        signature.extend_from_slice(SIGNATURE);
        signature.extend_from_slice(&[0; 8]);
    }
    let mut rows = 0;
    while let Some(batch) = rows::next(&mut stream, socket, cancel).await? {
        for start in (0..batch.num_rows()).step_by(ROWS_BETWEEN_LOOKS) {
            let length = ROWS_BETWEEN_LOOKS.min(batch.num_rows() - start);
            write(&batch.slice(start, length), columns, format, &mut signature, socket.output())?;
            socket.flush_if_full().await?;
        }
        rows += batch.num_rows();
    }
    if matches!(format, CopyFormat::Binary) {
        message(socket.output(), |out| {
            out.append(&mut signature);
            out.extend_from_slice(&(-1i16).to_be_bytes());
        });
    }
    socket.send(PgWireBackendMessage::CopyDone(CopyDone::new()));
    Ok(format!("COPY {rows}"))
}

/// Writes a CopyData message.
fn message(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(b"d\0\0\0\0");
    body(out);
    let length = (out.len() - start - 1) as u32;
    out[start + 1..start + 5].copy_from_slice(&length.to_be_bytes());
}

/// The line with the names of the columns.
fn header(columns: &[Column], format: &CopyFormat, out: &mut Vec<u8>) {
    match format {
        CopyFormat::Csv { header: Header::Present | Header::Match, .. } => message(out, |out| {
            let csv = Csv::of(format, columns);
            for (i, column) in columns.iter().enumerate() {
                if i > 0 {
                    out.push(csv.delimiter);
                }
                csv.write(column.name.as_bytes(), false, out);
            }
            out.push(b'\n');
        }),
        CopyFormat::Text { delimiter, header: Header::Present | Header::Match, .. } => message(out, |out| {
            for (i, column) in columns.iter().enumerate() {
                if i > 0 {
                    out.push(*delimiter);
                }
                escape_text(column.name.as_bytes(), *delimiter, out);
            }
            out.push(b'\n');
        }),
        _ => {}
    }
}

fn write(
    batch: &RecordBatch,
    columns: &[Column],
    format: &CopyFormat,
    signature: &mut Vec<u8>,
    out: &mut Vec<u8>,
) -> Result<(), SqlError> {
    let arrays = batch.columns().iter().zip(columns);
    match format {
        CopyFormat::Binary => {
            let writers: Vec<Writer> =
                arrays.map(|(a, c)| Writer::new(a, c, Format::Binary)).collect::<Result<_, _>>()?;
            for row in 0..batch.num_rows() {
                message(out, |out| {
                    out.append(signature);
                    out.extend_from_slice(&(writers.len() as i16).to_be_bytes());
                    writers.iter().for_each(|writer| writer.write_sized(row, out));
                });
            }
        }
        CopyFormat::Text { delimiter, null, .. } => {
            let escape = |_: usize, value: Option<&[u8]>, out: &mut Vec<u8>| match value {
                Some(value) => escape_text(value, *delimiter, out),
                None => out.extend_from_slice(null.as_bytes()),
            };
            let formatters =
                arrays.map(|(a, c)| Formatter::in_zone(a, &c.ty, c.zone)).collect::<Result<Vec<_>, _>>()?;
            lines(&formatters, batch.num_rows(), *delimiter, escape, out);
        }
        CopyFormat::Csv { null, .. } => {
            let csv = Csv::of(format, columns);
            let quote = |column: usize, value: Option<&[u8]>, out: &mut Vec<u8>| match value {
                Some(value) => csv.write(value, csv.force_quote.contains(&column), out),
                None => out.extend_from_slice(null.as_bytes()),
            };
            let formatters =
                arrays.map(|(a, c)| Formatter::in_zone(a, &c.ty, c.zone)).collect::<Result<Vec<_>, _>>()?;
            lines(&formatters, batch.num_rows(), csv.delimiter, quote, out);
        }
    }
    Ok(())
}

fn lines(
    columns: &[Formatter],
    rows: usize,
    delimiter: u8,
    write: impl Fn(usize, Option<&[u8]>, &mut Vec<u8>),
    out: &mut Vec<u8>,
) {
    let mut value = Vec::new();
    for row in 0..rows {
        message(out, |out| {
            for (i, column) in columns.iter().enumerate() {
                if i > 0 {
                    out.push(delimiter);
                }
                value.clear();
                let there = column.write(row, &mut value);
                write(i, there.then_some(&value), out);
            }
            out.push(b'\n');
        });
    }
}

fn escape_text(value: &[u8], delimiter: u8, out: &mut Vec<u8>) {
    for byte in value {
        let escape = match byte {
            8 => b'b',
            12 => b'f',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            11 => b'v',
            b'\\' => b'\\',
            other if *other == delimiter => delimiter,
            other => {
                out.push(*other);
                continue;
            }
        };
        out.extend_from_slice(&[b'\\', escape]);
    }
}

struct Csv<'a> {
    delimiter: u8,
    quote: u8,
    escape: u8,
    null: &'a str,
    force_quote: &'a [usize],
    single: bool,
}

impl<'a> Csv<'a> {
    fn of(format: &'a CopyFormat, columns: &[Column]) -> Self {
        let CopyFormat::Csv { delimiter, null, quote, escape, force_quote, .. } = format else {
            unreachable!("the caller has matched the format");
        };
        let single = columns.len() == 1;
        Self { delimiter: *delimiter, quote: *quote, escape: *escape, null, force_quote, single }
    }

    fn write(&self, value: &[u8], force: bool, out: &mut Vec<u8>) {
        let special = |b: &u8| *b == self.delimiter || *b == self.quote || *b == b'\n' || *b == b'\r';
        // A quoted null string is text, and a lone \. would end the data.
        let ambiguous = value == self.null.as_bytes() || (self.single && value == b"\\.");
        if !force && !ambiguous && !value.iter().any(special) {
            out.extend_from_slice(value);
            return;
        }
        out.push(self.quote);
        for byte in value {
            if *byte == self.quote || *byte == self.escape {
                out.push(self.escape);
            }
            out.push(*byte);
        }
        out.push(self.quote);
    }
}
