//! `connector = 'file'`: CSV, JSON lines and Parquet on any object store, read by [`source`] and written by [`sink`].
//!
//! A path is a folder of the server (`/data/in`), `file:///data/in` or `s3://bucket/prefix`. For CSV and JSON, values are in
//! PostgreSQL's text forms; columns are found by name.

mod chunks;
mod csv;
mod encode;
mod json;
mod location;
mod parquet_rows;
pub mod sink;
pub mod source;
mod text_reader;
mod text_rows;

use millpond_types::SqlError;

use crate::options::{Known, Options, invalid};
use crate::source::Encoding;

/// How rows are written in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Csv,
    Json,
    Parquet,
}

impl Format {
    const NAMES: [&str; 3] = ["csv", "json", "parquet"];
    const ALL: [Self; 3] = [Self::Csv, Self::Json, Self::Parquet];

    fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// The format that a file's name tells.
    fn of_name(name: &str) -> Option<Self> {
        match name.rsplit_once('.')?.1.to_ascii_lowercase().as_str() {
            "csv" => Some(Self::Csv),
            "json" | "jsonl" | "ndjson" => Some(Self::Json),
            "parquet" => Some(Self::Parquet),
            _ => None,
        }
    }
}

const OWNER: &str = "connector \"file\"";

/// Reads the options of WITH and of ENCODE as one list.
fn read_options(
    with: &std::collections::BTreeMap<String, String>,
    encoding: Option<&Encoding>,
    known: &[Known],
) -> Result<Options, SqlError> {
    let mut options = Options::read(OWNER, with, known)?;
    for (name, value) in encoding.iter().flat_map(|e| &e.options) {
        options.add(name, value, known)?;
    }
    Ok(options)
}

/// The format: of ENCODE, of the option `format`, else of the path's ending.
fn format(options: &Options, encoding: Option<&Encoding>, path: &str) -> Result<Format, SqlError> {
    let named = options.choice("format", &Format::NAMES)?.map(|i| Format::ALL[i]);
    let Some(encoding) = encoding else {
        return named.or_else(|| Format::of_name(path)).ok_or_else(|| {
            invalid(format!("{OWNER} needs to know the format of its files"))
                .hint("Write format = 'csv', 'json' or 'parquet'.")
        });
    };
    if !encoding.format.is_empty() && !encoding.format.eq_ignore_ascii_case("plain") {
        return Err(SqlError::unsupported(format!("FORMAT {} is not supported by {OWNER}", encoding.format))
            .hint("Write FORMAT PLAIN."));
    }
    let encoded = Format::NAMES.iter().position(|name| name.eq_ignore_ascii_case(&encoding.encode));
    let Some(encoded) = encoded.map(|i| Format::ALL[i]) else {
        return Err(SqlError::unsupported(format!("ENCODE {} is not supported by {OWNER}", encoding.encode))
            .hint("Write ENCODE CSV, ENCODE JSON or ENCODE PARQUET."));
    };
    if named.is_some_and(|named| named != encoded) {
        return Err(options.refuse("format", &format!("contradicts ENCODE {}", encoding.encode)));
    }
    Ok(encoded)
}

/// Refuses options that belong to another format.
fn check_belong(options: &Options, format: Format, owned: &[(&str, Format)]) -> Result<(), SqlError> {
    match owned.iter().find(|(name, owner)| *owner != format && options.is_given(name)) {
        Some((name, owner)) => {
            Err(options.refuse(name, &format!("goes with the format {} only", owner.name())))
        }
        None => Ok(()),
    }
}
