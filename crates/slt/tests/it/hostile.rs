//! Texts and bytes that want to do harm: an error each, and the server lives.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use millpond_slt::file::{Mode, binary};
use millpond_slt::server::Server;

use crate::{Outcome, block_on, connect, ensure, told};

pub fn deep_texts_are_refused() -> Outcome {
    const DEEP: usize = 10_000;
    let mut server = Server::start(&binary()?, &Mode::default())?;
    let wrapped = |open: &str, inner: &str, close: &str| {
        format!("SELECT {}{inner}{}", open.repeat(DEEP), close.repeat(DEEP))
    };
    let texts = [
        wrapped("(", "1", ")"),
        wrapped("NOT ", "true", ""),
        wrapped("CASE WHEN true THEN ", "1", " END"),
        wrapped("(SELECT ", "1", ")"),
        wrapped("- ", "1", ""),
        wrapped("1 + ", "1", ""),
        wrapped("ARRAY[", "1", "]"),
        wrapped("abs(", "1", ")"),
        format!("{}SELECT 1{}", "SELECT * FROM (".repeat(DEEP), ") t".repeat(DEEP)),
        format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(DEEP)),
    ];
    for text in texts {
        let start: String = text.chars().take(40).collect();
        let outcome =
            block_on(async { connect(&server.config()).await?.batch_execute(&text).await.map_err(told) });
        let error = outcome.err().unwrap_or_default();
        ensure(error.starts_with("54001"), || format!("{start} …: {error:?}, not 54001"))?;
    }
    lives(&mut server)?;

    // What is just within the bounds is planned and answered, or refused, on the stack that there is.
    for depth in [9, 20, 60, 120] {
        for (open, close) in [("(", ")"), ("(SELECT ", ")"), ("1 + ", ""), ("abs(", ")")] {
            let text = format!("SELECT {}1{}", open.repeat(depth), close.repeat(depth));
            let outcome =
                block_on(async { connect(&server.config()).await?.batch_execute(&text).await.map_err(told) });
            let is_answer = outcome.as_ref().err().is_none_or(|error| !error.starts_with("connection"));
            ensure(is_answer, || format!("{depth} times {open:?}: {outcome:?}"))?;
        }
    }
    lives(&mut server)
}

/// A Query message of 100 MB: refused before or after it is read, but never by dying.
pub fn a_message_of_100_megabytes_is_refused() -> Outcome {
    let mut server = Server::start(&binary()?, &Mode::default())?;
    let text = format!("SELECT '{}'", "x".repeat(100 << 20));
    let outcome =
        block_on(async { connect(&server.config()).await?.batch_execute(&text).await.map_err(told) });
    ensure(outcome.is_err(), || "a text of 100 MB was taken".to_owned())?;
    lives(&mut server)
}

pub fn bytes_that_are_no_protocol_end_their_connection() -> Outcome {
    let mut server = Server::start(&binary()?, &Mode::default())?;
    let startup = b"\0\0\0\x16\0\x03\0\0user\0millpond\0\0".to_vec();
    let message = |kind: u8, length: u32, body: &[u8]| [&[kind][..], &length.to_be_bytes(), body].concat();
    let inputs: [Vec<u8>; 7] = [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0xff; 4096],
        vec![0; 4096],
        b"\x7f\xff\xff\xff\0\x03\0\0".to_vec(),
        [startup.clone(), message(b'Q', 0x7fff_ffff, b"SELECT")].concat(),
        [startup.clone(), message(b'Q', 2, b"")].concat(),
        [startup, message(b'B', 12, b"\0\0\xff\xff\xff\xff\xff\xff")].concat(),
    ];
    for input in inputs {
        let address = format!("127.0.0.1:{}", server.port());
        let mut stream = TcpStream::connect(address).map_err(|e| e.to_string())?;
        stream.set_read_timeout(Some(Duration::from_millis(300))).map_err(|e| e.to_string())?;
        // The server may close before all is written; what it answers does not matter here.
        let _ = stream.write_all(&input);
        let _ = stream.read(&mut [0; 1024]);
    }
    lives(&mut server)
}

fn lives(server: &mut Server) -> Outcome {
    ensure(server.is_running(), || format!("the server died:\n{}", server.log_tail()))?;
    block_on(async { connect(&server.config()).await?.batch_execute("SELECT 1").await.map_err(told) })
}
