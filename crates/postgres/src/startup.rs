//! The beginning of a connection: encryption is declined, a version agreed, the client says who it is (trusted, because
//! only this machine can reach us), and hears the settings and its cancel key.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use millpond_engine::SessionInfo;
use millpond_types::{SqlError, SqlState};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::response::{GssEncResponse, SslResponse};
use pgwire::messages::startup::{Authentication, BackendKeyData, NegotiateProtocolVersion, SecretKey};
use tokio::net::TcpStream;

use crate::connection::Connection;
use crate::error::{Level, response};
use crate::frontend::violation;
use crate::server::Shared;
use crate::socket::Socket;

/// As PostgreSQL's MAX_STARTUP_PACKET_LENGTH.
const STARTUP_BYTES_MAX: usize = 10_000;
const CANCEL_CODE: i32 = 80_877_102;
const SSL_CODE: i32 = 80_877_103;
const GSS_CODE: i32 = 80_877_104;
/// The protocol's major version 3.
const MAJOR: i32 = 3;

/// The settings that a client hears of at the start (PostgreSQL 15, "Asynchronous Operations").
const REPORTED: [&str; 13] = [
    "application_name",
    "client_encoding",
    "DateStyle",
    "default_transaction_read_only",
    "in_hot_standby",
    "integer_datetimes",
    "IntervalStyle",
    "is_superuser",
    "server_encoding",
    "server_version",
    "session_authorization",
    "standard_conforming_strings",
    "TimeZone",
];

/// Talks with one client until the end.
pub(crate) async fn converse(stream: TcpStream, peer: SocketAddr, shared: Arc<Shared>) -> io::Result<()> {
    let mut socket = Socket::new(stream, shared.options.max_message_bytes);
    let greeting = tokio::time::timeout(shared.options.startup_timeout, greet(&mut socket, &shared));
    let hello = match greeting.await {
        Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        Ok(Ok(Some(hello))) => hello,
        Ok(Ok(None)) => return Ok(()),
        Ok(Err(Refusal::Socket(error))) => return Err(error),
        Ok(Err(Refusal::Sql(error))) => return refuse(&mut socket, error).await,
    };
    let Some(_place) = shared.place() else {
        let error = SqlError::new(SqlState::TOO_MANY_CONNECTIONS, "sorry, too many clients already")
            .hint("Close some connections, or raise --max-connections.");
        return refuse(&mut socket, error).await;
    };
    let (pid, secret) = shared.new_key();
    let info = SessionInfo {
        user: hello.user,
        database: hello.database,
        application_name: hello.settings.get("application_name").cloned().unwrap_or_default(),
        client_address: Some(peer.to_string()),
        pid,
    };
    let session = shared.engine.session(info).and_then(|mut session| {
        hello.settings.iter().try_for_each(|(name, value)| session.set_startup_parameter(name, value))?;
        Ok(session)
    });
    let session = match session {
        Ok(session) => session,
        Err(error) => return refuse(&mut socket, error).await,
    };
    let _registered = shared.register(pid, secret, session.cancel_handle());
    socket.send(PgWireBackendMessage::Authentication(Authentication::Ok));
    let mut connection = Connection::new(socket, session, shared.stopping.clone());
    for name in REPORTED {
        connection.report_setting(name);
    }
    let key = BackendKeyData::new(pid, SecretKey::I32(secret));
    connection.send(PgWireBackendMessage::BackendKeyData(key));
    connection.run().await
}

async fn refuse(socket: &mut Socket, error: SqlError) -> io::Result<()> {
    socket.send(response(Level::Fatal, &error.into()));
    socket.flush().await
}

struct Hello {
    user: String,
    database: String,
    settings: BTreeMap<String, String>,
}

enum Refusal {
    Socket(io::Error),
    Sql(SqlError),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::InvalidData => Self::Sql(violation(error.to_string())),
            _ => Self::Socket(error),
        }
    }
}

impl From<SqlError> for Refusal {
    fn from(error: SqlError) -> Self {
        Self::Sql(error)
    }
}

/// Up to and including the startup packet; `None` if there is nothing more to say (a cancel request, say).
async fn greet(socket: &mut Socket, shared: &Shared) -> Result<Option<Hello>, Refusal> {
    // A client asks for GSS and for SSL once each at most.
    for _ in 0..3 {
        let Some(mut packet) = socket.read_startup(STARTUP_BYTES_MAX).await? else {
            return Ok(None);
        };
        packet.advance(4);
        match packet.get_i32() {
            SSL_CODE => socket.send(PgWireBackendMessage::SslResponse(SslResponse::Refuse)),
            GSS_CODE => socket.send(PgWireBackendMessage::GssEncResponse(GssEncResponse::Refuse)),
            CANCEL_CODE => {
                if packet.len() == 8 {
                    let (pid, secret) = (packet.get_i32(), packet.get_i32());
                    shared.cancel(pid, secret);
                }
                return Ok(None);
            }
            version if version >> 16 == MAJOR => {
                let (hello, unknown) = hello(packet)?;
                // 3.0 is what we speak: the later minor versions only lengthen the cancel key.
                if version & 0xffff > 0 || !unknown.is_empty() {
                    let negotiate = NegotiateProtocolVersion::new(MAJOR << 16, unknown);
                    socket.send(PgWireBackendMessage::NegotiateProtocolVersion(negotiate));
                }
                return Ok(Some(hello));
            }
            version => {
                let (major, minor) = (version >> 16, version & 0xffff);
                let message =
                    format!("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.0");
                return Err(SqlError::unsupported(message).into());
            }
        }
        socket.flush().await?;
    }
    Err(violation("too many requests for encryption").into())
}

/// The startup packet's parameters, and the protocol options among them, of which we know none.
fn hello(mut packet: Bytes) -> Result<(Hello, Vec<String>), SqlError> {
    let mut texts = Vec::new();
    loop {
        let malformed = || violation("invalid startup packet layout: expected terminator as last byte");
        let end = packet.iter().position(|b| *b == 0).ok_or_else(malformed)?;
        let text = packet.split_to(end);
        packet.advance(1);
        if text.is_empty() && texts.len() % 2 == 0 {
            break;
        }
        let text = std::str::from_utf8(&text).map_err(|_| violation("startup packet is not valid UTF-8"))?;
        texts.push(text.to_owned());
    }
    let (mut user, mut database, mut unknown, mut settings) = (None, None, Vec::new(), BTreeMap::new());
    for pair in texts.chunks_exact(2) {
        let (name, value) = (pair[0].clone(), pair[1].clone());
        match name.as_str() {
            "user" => user = Some(value),
            "database" => database = Some(value),
            "options" => settings.extend(command_line(&value)?),
            "replication" => match value.as_str() {
                "false" | "off" | "no" | "0" => {}
                _ => return Err(SqlError::unsupported("replication connections are not supported")),
            },
            _ if name.starts_with("_pq_.") => unknown.push(name),
            "client_encoding" => {
                settings.insert(name, encoding_name(&value));
            }
            _ => {
                settings.insert(name, value);
            }
        }
    }
    let missing = || {
        SqlError::new(
            SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
            "no PostgreSQL user name specified in startup packet",
        )
    };
    let user = user.filter(|u| !u.is_empty()).ok_or_else(missing)?;
    let database = database.filter(|d| !d.is_empty()).unwrap_or_else(|| user.clone());
    Ok((Hello { user, database, settings }, unknown))
}

/// PostgreSQL reads names of encodings by their letters and digits; asyncpg asks for `'utf-8'`, quotes included.
fn encoding_name(name: &str) -> String {
    let bare: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    match bare.to_ascii_lowercase().as_str() {
        "utf8" | "unicode" => "UTF8".to_owned(),
        _ => name.to_owned(),
    }
}

/// The settings of `-c name=value` and `--name=value`; a backslash takes the next character as it is.
fn command_line(options: &str) -> Result<Vec<(String, String)>, SqlError> {
    let mut words = vec![String::new()];
    let mut characters = options.chars();
    while let Some(c) = characters.next() {
        let word = words.last_mut().expect("there is always a last word");
        match c {
            '\\' => word.extend(characters.next()),
            c if c.is_whitespace() => words.push(String::new()),
            c => word.push(c),
        }
    }
    let mut words = words.into_iter().filter(|w| !w.is_empty());
    let mut settings = Vec::new();
    while let Some(word) = words.next() {
        let bad = || {
            SqlError::new(
                SqlState::SYNTAX_ERROR,
                format!("invalid command-line argument for server process: {word}"),
            )
            .hint("Use -c name=value.")
        };
        let assignment = match (word.strip_prefix("--"), word.strip_prefix("-c")) {
            (Some(rest), _) => rest.to_owned(),
            (None, Some("")) => words.next().ok_or_else(bad)?,
            (None, Some(rest)) => rest.to_owned(),
            (None, None) => return Err(bad()),
        };
        let (name, value) = assignment.split_once('=').ok_or_else(bad)?;
        settings.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_the_command_line() {
        let pairs = command_line(r"-c search_path=a\ b --statement-timeout=5s -cjit=off").unwrap();
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(pairs, [("search_path", "a b"), ("statement_timeout", "5s"), ("jit", "off")]);
        for bad in ["-c", "-c x", "-x", "x=1"] {
            assert_eq!(command_line(bad).unwrap_err().state(), SqlState::SYNTAX_ERROR, "{bad}");
        }
    }

    #[test]
    fn startup_packets() {
        let (hello_, unknown) = hello(Bytes::from_static(b"user\0ann\0_pq_.x\x001\0\0")).unwrap();
        assert_eq!((hello_.user.as_str(), hello_.database.as_str()), ("ann", "ann"));
        assert_eq!(unknown, ["_pq_.x"]);
        for bad in [&b""[..], b"user", b"user\0ann", b"user\0ann\0", b"user\0\xff\0\0"] {
            assert!(hello(Bytes::copy_from_slice(bad)).is_err(), "{bad:?}");
        }
        assert!(hello(Bytes::from_static(b"\0")).is_err(), "a user is needed");
        let (hello_, _) = hello(Bytes::from_static(b"user\0a\0client_encoding\0'utf-8'\0\0")).unwrap();
        assert_eq!(hello_.settings["client_encoding"], "UTF8");
    }
}
