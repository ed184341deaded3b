//! Checked decoding of the client's messages into pgwire's structs. pgwire's own decoders trust lengths and counts, and
//! replace bytes that are not UTF-8; here both are errors (08P01, 22021).

use bytes::{Buf, Bytes};
use millpond_types::{SqlError, SqlState};
use pgwire::messages::copy::CopyFail;
use pgwire::messages::extendedquery::{Bind, Close, Describe, Execute, Parse};

#[derive(Debug)]
pub(crate) enum Message {
    Query(String),
    Parse(Parse),
    Bind(Bind),
    Describe(Describe),
    Execute(Execute),
    Close(Close),
    Flush,
    Sync,
    Terminate,
    CopyData(Bytes),
    CopyDone,
    CopyFail(CopyFail),
}

/// # Errors
/// 08P01 for an unknown type or a body that does not have its form, 22021 for text that is not UTF-8.
pub(crate) fn decode(tag: u8, body: Bytes) -> Result<Message, SqlError> {
    let mut body = Body(body);
    let message = match tag {
        b'd' => return Ok(Message::CopyData(body.0)),
        b'Q' => Message::Query(body.text()?),
        b'P' => {
            let (name, query) = (body.name()?, body.text()?);
            let count = body.count(4)?;
            let types = (0..count).map(|_| body.0.get_u32()).collect();
            Message::Parse(Parse::new(name, query, types))
        }
        b'B' => Message::Bind(body.bind()?),
        b'D' => Message::Describe(Describe::new(body.byte()?, body.name()?)),
        b'C' => Message::Close(Close::new(body.byte()?, body.name()?)),
        b'E' => {
            let name = body.name()?;
            body.need(4)?;
            Message::Execute(Execute::new(name, body.0.get_i32()))
        }
        b'H' => Message::Flush,
        b'S' => Message::Sync,
        b'X' => Message::Terminate,
        b'c' => Message::CopyDone,
        b'f' => Message::CopyFail(CopyFail::new(body.text()?)),
        other => {
            return Err(violation(format!("invalid frontend message type {other}")));
        }
    };
    match body.0.is_empty() {
        true => Ok(message),
        false => Err(violation("invalid message format")),
    }
}

pub(crate) fn violation(message: impl Into<String>) -> SqlError {
    SqlError::new(SqlState::PROTOCOL_VIOLATION, message)
}

struct Body(Bytes);

impl Body {
    fn need(&self, bytes: usize) -> Result<(), SqlError> {
        match self.0.len() >= bytes {
            true => Ok(()),
            false => Err(violation("insufficient data left in message")),
        }
    }

    fn byte(&mut self) -> Result<u8, SqlError> {
        self.need(1)?;
        Ok(self.0.get_u8())
    }

    /// A count of things of which each takes at least `bytes`.
    fn count(&mut self, bytes: usize) -> Result<usize, SqlError> {
        self.need(2)?;
        let count = usize::from(self.0.get_u16());
        self.need(count * bytes)?;
        Ok(count)
    }

    fn text(&mut self) -> Result<String, SqlError> {
        let end =
            self.0.iter().position(|b| *b == 0).ok_or_else(|| violation("invalid string in message"))?;
        let bytes = self.0.split_to(end);
        self.0.advance(1);
        match std::str::from_utf8(&bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(error) => Err(not_utf8(&bytes[error.valid_up_to()..])),
        }
    }

    /// A name; the empty one is `None`.
    fn name(&mut self) -> Result<Option<String>, SqlError> {
        Ok(Some(self.text()?).filter(|n| !n.is_empty()))
    }

    fn codes(&mut self) -> Result<Vec<i16>, SqlError> {
        let count = self.count(2)?;
        let codes: Vec<i16> = (0..count).map(|_| self.0.get_i16()).collect();
        match codes.iter().find(|c| !matches!(c, 0 | 1)) {
            Some(bad) => Err(SqlError::new(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("unsupported format code: {bad}"),
            )),
            None => Ok(codes),
        }
    }

    fn bind(&mut self) -> Result<Bind, SqlError> {
        let (portal, statement, formats) = (self.name()?, self.name()?, self.codes()?);
        let count = self.count(4)?;
        let mut parameters = Vec::with_capacity(count);
        for _ in 0..count {
            self.need(4)?;
            parameters.push(match usize::try_from(self.0.get_i32()) {
                Ok(length) => {
                    self.need(length)?;
                    Some(self.0.split_to(length))
                }
                Err(_) => None,
            });
        }
        Ok(Bind::new(portal, statement, formats, parameters, self.codes()?))
    }
}

/// 22021, as PostgreSQL says it.
pub(crate) fn not_utf8(from_bad: &[u8]) -> SqlError {
    let bytes: Vec<String> = from_bad.iter().take(4).map(|b| format!("0x{b:02x}")).collect();
    SqlError::new(
        SqlState::CHARACTER_NOT_IN_REPERTOIRE,
        format!("invalid byte sequence for encoding \"UTF8\": {}", bytes.join(" ")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bytes_panic() {
        // Each prefix, and each single wrong byte, of a Bind that uses every field.
        let good = b"p\0s\0\0\x01\0\x01\0\x02\0\0\0\x02ab\xff\xff\xff\xff\0\x01\0\x01";
        assert!(matches!(decode(b'B', Bytes::from_static(good)), Ok(Message::Bind(_))));
        for tag in 0..=255u8 {
            for end in 0..good.len() {
                let _ = decode(tag, Bytes::copy_from_slice(&good[..end]));
            }
            for at in 0..good.len() {
                for byte in [0, 1, 0x7f, 0x80, 0xff] {
                    let mut bad = good.to_vec();
                    bad[at] = byte;
                    let _ = decode(tag, bad.into());
                }
            }
        }
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let state = |tag, body: &'static [u8]| decode(tag, Bytes::from_static(body)).unwrap_err().state();
        assert_eq!(state(b'Q', b"select 1"), SqlState::PROTOCOL_VIOLATION);
        assert_eq!(state(b'Q', b"select '\xff'\0"), SqlState::CHARACTER_NOT_IN_REPERTOIRE);
        assert_eq!(state(b'Q', b"select 1\0more"), SqlState::PROTOCOL_VIOLATION);
        assert_eq!(state(b'!', b""), SqlState::PROTOCOL_VIOLATION);
        assert_eq!(state(b'B', b"\0\0\0\x01\0\x07\0\0\0\0"), SqlState::INVALID_PARAMETER_VALUE);
    }
}
