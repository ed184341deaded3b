//! Values on the wire: PostgreSQL's binary form here, its text form from the engine.

pub(crate) mod decode;
pub(crate) mod encode;

use arrow::array::ArrayRef;
use bytes::Bytes;
use datafusion::scalar::ScalarValue;
use millpond_engine::text::{Formatter, parse_scalar_in};
use millpond_engine::{Column, Zone};
use millpond_types::{SqlError, SqlType};

use crate::frontend::not_utf8;

/// The form of one column, as format codes 0 and 1 say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Binary,
}

impl Format {
    pub fn code(self) -> i16 {
        match self {
            Self::Text => 0,
            Self::Binary => 1,
        }
    }

    /// The form of each of `columns` columns: none given means text, one is for all.
    pub fn each(codes: &[i16], columns: usize) -> Option<Vec<Self>> {
        let of = |code: i16| if code == 1 { Self::Binary } else { Self::Text };
        match codes {
            [] => Some(vec![Self::Text; columns]),
            [one] => Some(vec![of(*one); columns]),
            each if each.len() == columns => Some(each.iter().map(|c| of(*c)).collect()),
            _ => None,
        }
    }
}

/// Writes the values of one column of a batch in one form.
pub(crate) enum Writer<'a> {
    Text(Formatter),
    Binary(encode::Encoder<'a>),
}

impl<'a> Writer<'a> {
    pub fn new(array: &'a ArrayRef, column: &Column, format: Format) -> Result<Self, SqlError> {
        Ok(match format {
            Format::Text => Self::Text(Formatter::in_zone(array, &column.ty, column.zone)?),
            Format::Binary => Self::Binary(encode::Encoder::new(array, &column.ty)?),
        })
    }

    /// Appends the value with its length before it, as DataRow and binary COPY have it: -1 and no bytes for NULL.
    pub fn write_sized(&self, row: usize, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        let there = match self {
            Self::Text(formatter) => formatter.write(row, out),
            Self::Binary(encoder) => encoder.write(row, out),
        };
        let length = if there { (out.len() - start - 4) as i32 } else { -1 };
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    }
}

/// A parameter of Bind.
pub(crate) fn parameter(
    bytes: Option<&Bytes>,
    ty: &SqlType,
    format: Format,
    zone: Zone,
) -> Result<ScalarValue, SqlError> {
    let internal = |e: datafusion::error::DataFusionError| SqlError::internal(e.to_string());
    match (bytes, format) {
        (None, _) => ScalarValue::try_from(&ty.arrow()).map_err(internal),
        (Some(bytes), Format::Text) => {
            let text = std::str::from_utf8(bytes).map_err(|e| not_utf8(&bytes[e.valid_up_to()..]))?;
            parse_scalar_in(text, ty, zone)
        }
        (Some(bytes), Format::Binary) => {
            let array = decode::column(&[Some(bytes)], ty).map_err(|bad| bad.error)?;
            ScalarValue::try_from_array(&array, 0).map_err(internal)
        }
    }
}
