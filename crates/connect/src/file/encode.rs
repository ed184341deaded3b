//! Batches as the bytes of one file.

use std::fmt::Write as _;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Field, Float32Type, Float64Type, SchemaRef};
use millpond_functions::text::Formatter;
use millpond_types::{SqlError, SqlType};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::Format;

/// How a sink writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Encoder {
    pub format: Format,
    pub delimiter: u8,
    pub has_header: bool,
    pub compression: Compression,
}

pub(super) const COMPRESSIONS: [&str; 4] = ["zstd", "snappy", "lz4", "none"];

pub(super) fn compression(index: usize) -> Compression {
    match index {
        0 => Compression::ZSTD(ZstdLevel::default()),
        1 => Compression::SNAPPY,
        2 => Compression::LZ4_RAW,
        _ => Compression::UNCOMPRESSED,
    }
}

impl Encoder {
    /// # Errors
    /// 0A000 for a column that the format cannot hold.
    pub fn check(&self, field: &Field) -> Result<(), SqlError> {
        let ty = SqlType::of(field)?;
        if self.format == Format::Parquet && contains_interval(&ty) {
            return Err(SqlError::unsupported(format!(
                "column \"{}\" of type {ty} cannot be written as Parquet",
                field.name()
            ))
            .hint("Cast it to text in the view, or use the format json or csv."));
        }
        Ok(())
    }

    /// The file that holds `batches`; not empty.
    pub fn encode(&self, schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Vec<u8>, SqlError> {
        match self.format {
            Format::Parquet => parquet(schema, batches, self.compression),
            Format::Csv => self.csv(schema, batches),
            Format::Json => json(schema, batches),
        }
    }

    fn csv(&self, schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Vec<u8>, SqlError> {
        let mut out = Vec::new();
        if self.has_header {
            for (i, field) in schema.fields().iter().enumerate() {
                if i > 0 {
                    out.push(self.delimiter);
                }
                self.csv_field(field.name().as_bytes(), &mut out);
            }
            out.push(b'\n');
        }
        let mut text = Vec::new();
        for batch in batches {
            let columns = formatters(schema, batch)?;
            for row in 0..batch.num_rows() {
                for (i, (column, _)) in columns.iter().enumerate() {
                    if i > 0 {
                        out.push(self.delimiter);
                    }
                    text.clear();
                    if column.write(row, &mut text) {
                        self.csv_field(&text, &mut out);
                    }
                }
                out.push(b'\n');
            }
        }
        Ok(out)
    }

    /// Quotes what needs it; an empty text too, because an empty field is NULL.
    fn csv_field(&self, text: &[u8], out: &mut Vec<u8>) {
        let special = |b: &u8| *b == self.delimiter || matches!(b, b'"' | b'\n' | b'\r');
        // Readers may trim blanks at the ends.
        let is_bare =
            !text.is_empty() && !text.iter().any(special) && !text.starts_with(b" ") && !text.ends_with(b" ");
        if is_bare {
            return out.extend_from_slice(text);
        }
        out.push(b'"');
        for byte in text {
            if *byte == b'"' {
                out.push(b'"');
            }
            out.push(*byte);
        }
        out.push(b'"');
    }
}

fn contains_interval(ty: &SqlType) -> bool {
    match ty {
        SqlType::Interval => true,
        SqlType::Array(element) => contains_interval(element),
        _ => false,
    }
}

fn parquet(
    schema: &SchemaRef,
    batches: &[RecordBatch],
    compression: Compression,
) -> Result<Vec<u8>, SqlError> {
    let failed = |e| SqlError::internal(format!("rows could not be written as Parquet: {e}"));
    let properties = WriterProperties::builder()
        .set_compression(compression)
        .set_created_by(format!("millpond {}", env!("CARGO_PKG_VERSION")))
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties)).map_err(failed)?;
    for batch in batches {
        writer.write(batch).map_err(failed)?;
    }
    writer.into_inner().map_err(failed)
}

fn formatters(schema: &SchemaRef, batch: &RecordBatch) -> Result<Vec<(Formatter, Style)>, SqlError> {
    let columns = schema.fields().iter().zip(batch.columns());
    columns
        .map(|(field, array)| {
            let ty = SqlType::of(field)?;
            let style = Style::of(&ty, array);
            Ok((Formatter::new(array, &ty)?, style))
        })
        .collect()
}

/// How a value's text becomes JSON.
enum Style {
    /// As it stands: numbers and JSON.
    Bare,
    /// A float, bare where it is a number and quoted where it is not (`NaN`, `Infinity`): row to finite or not.
    Float(Vec<bool>),
    Boolean,
    Quoted,
}

impl Style {
    fn of(ty: &SqlType, array: &arrow::array::ArrayRef) -> Self {
        match ty {
            SqlType::Int2 | SqlType::Int4 | SqlType::Int8 | SqlType::Numeric(..) => Self::Bare,
            SqlType::Json | SqlType::Jsonb => Self::Bare,
            SqlType::Float4 => Self::Float(
                array.as_primitive::<Float32Type>().values().iter().map(|v| v.is_finite()).collect(),
            ),
            SqlType::Float8 => Self::Float(
                array.as_primitive::<Float64Type>().values().iter().map(|v| v.is_finite()).collect(),
            ),
            SqlType::Boolean => Self::Boolean,
            _ => Self::Quoted,
        }
    }
}

/// One object per row. Timestamps, arrays and all that JSON has no type for are strings in PostgreSQL's text form; NULL is
/// null.
fn json(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Vec<u8>, SqlError> {
    let keys: Vec<String> = schema
        .fields()
        .iter()
        .enumerate()
        .map(|(i, field)| {
            let mut key = String::new();
            let _ = write!(key, "{}{}:", if i == 0 { "{" } else { "," }, quote(field.name()));
            key
        })
        .collect();
    let (mut out, mut text) = (Vec::new(), Vec::new());
    for batch in batches {
        let columns = formatters(schema, batch)?;
        for row in 0..batch.num_rows() {
            for (key, (column, style)) in keys.iter().zip(&columns) {
                out.extend_from_slice(key.as_bytes());
                text.clear();
                if !column.write(row, &mut text) {
                    out.extend_from_slice(b"null");
                    continue;
                }
                match style {
                    Style::Bare => out.extend(text.iter().map(|b| if *b == b'\n' { b' ' } else { *b })),
                    Style::Float(finite) if finite[row] => out.extend_from_slice(&text),
                    Style::Boolean if text == b"t" => out.extend_from_slice(b"true"),
                    Style::Boolean => out.extend_from_slice(b"false"),
                    _ => out.extend_from_slice(quote(&String::from_utf8_lossy(&text)).as_bytes()),
                }
            }
            out.extend_from_slice(b"}\n");
        }
    }
    Ok(out)
}

fn quote(text: &str) -> String {
    serde_json::to_string(text).expect("a string is always JSON")
}
