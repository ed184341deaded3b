//! A client's socket as a sequence of messages, with limits: no byte is believed before it is checked, and no memory is
//! taken for a message before its bytes arrive.

use std::future::Future;
use std::io;

use bytes::{Buf, Bytes, BytesMut};
use millpond_engine::CancelHandle;
use pgwire::messages::PgWireBackendMessage;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Output is handed to the operating system when this much of it waits.
const OUTPUT_BYTES: usize = 64 << 10;
/// While a statement runs, what the client sends is read up to here, to notice that it is gone.
const AHEAD_BYTES_MAX: usize = 64 << 10;
const READ_BYTES: usize = 32 << 10;

/// One message of the client: its type byte and its body.
#[derive(Debug)]
pub(crate) enum Frame {
    Message {
        tag: u8,
        body: Bytes,
    },
    /// A message over the limit; its bytes have been skipped.
    TooLong {
        tag: u8,
        bytes: usize,
    },
}

/// A length that no message can have: the client does not speak the protocol, or has lost its place in it.
pub(crate) const BAD_LENGTH: &str = "invalid message length";

pub(crate) struct Socket {
    stream: TcpStream,
    input: BytesMut,
    output: Vec<u8>,
    /// Where pgwire encodes one message.
    scratch: BytesMut,
    message_bytes_max: usize,
}

impl Socket {
    pub fn new(stream: TcpStream, message_bytes_max: usize) -> Self {
        let (input, scratch) = (BytesMut::new(), BytesMut::new());
        Self { stream, input, output: Vec::new(), scratch, message_bytes_max }
    }

    /// The next message with a type byte; `None` when the client has closed the connection.
    ///
    /// # Errors
    /// `InvalidData` for an impossible length; else what the socket says.
    pub async fn read(&mut self) -> io::Result<Option<Frame>> {
        if !self.fill(5).await? {
            return Ok(None);
        }
        let tag = self.input[0];
        let length = (&self.input[1..5]).get_i32();
        let Some(body) = usize::try_from(length).ok().and_then(|l| l.checked_sub(4)) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, BAD_LENGTH));
        };
        self.input.advance(5);
        if body > self.message_bytes_max {
            self.skip(body).await?;
            return Ok(Some(Frame::TooLong { tag, bytes: body }));
        }
        if !self.fill(body).await? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Some(Frame::Message { tag, body: self.input.split_to(body).freeze() }))
    }

    /// A packet of the time before authentication: without a type byte, and short.
    pub async fn read_startup(&mut self, bytes_max: usize) -> io::Result<Option<Bytes>> {
        if !self.fill(4).await? {
            return Ok(None);
        }
        let length = (&self.input[..4]).get_i32();
        match usize::try_from(length) {
            Ok(length) if (8..=bytes_max).contains(&length) => {
                if !self.fill(length).await? {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(Some(self.input.split_to(length).freeze()))
            }
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "invalid length of startup packet")),
        }
    }

    /// Whether the next message lies here already, complete, and is of this type.
    pub fn next_is(&self, tag: u8) -> bool {
        let complete = |length: i32| usize::try_from(length).is_ok_and(|l| self.input.len() > l);
        self.input.len() >= 5 && self.input[0] == tag && complete((&self.input[1..5]).get_i32())
    }

    async fn fill(&mut self, bytes: usize) -> io::Result<bool> {
        while self.input.len() < bytes {
            self.input.reserve(READ_BYTES);
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return match self.input.is_empty() {
                    true => Ok(false),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
        }
        Ok(true)
    }

    async fn skip(&mut self, mut bytes: usize) -> io::Result<()> {
        loop {
            let here = bytes.min(self.input.len());
            self.input.advance(here);
            bytes -= here;
            if bytes == 0 {
                return Ok(());
            }
            if !self.fill(1).await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    pub fn message_bytes_max(&self) -> usize {
        self.message_bytes_max
    }

    /// Appends a message to the output.
    pub fn send(&mut self, message: PgWireBackendMessage) {
        self.scratch.clear();
        match message.encode(&mut self.scratch) {
            Ok(()) => self.output.extend_from_slice(&self.scratch),
            // Only a message of ours that is too long for any client gets here.
            Err(error) => tracing::error!(%error, "a message to a client could not be encoded"),
        }
    }

    /// The output, for messages that are written without a struct between.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    pub fn is_full(&self) -> bool {
        self.output.len() >= OUTPUT_BYTES
    }

    pub async fn flush(&mut self) -> io::Result<()> {
        if !self.output.is_empty() {
            self.stream.write_all(&self.output).await?;
            self.output.clear();
            if self.output.capacity() > 16 * OUTPUT_BYTES {
                self.output = Vec::new(); // one huge row must not stay with the connection
            }
        }
        Ok(())
    }

    pub async fn flush_if_full(&mut self) -> io::Result<()> {
        match self.is_full() {
            true => self.flush().await,
            false => Ok(()),
        }
    }

    /// Runs `work` and watches the client meanwhile: when it is gone, the work is cancelled (and still awaited, so that it
    /// ends in order), and the result is an error.
    pub async fn watch<T>(&mut self, cancel: &CancelHandle, work: impl Future<Output = T>) -> io::Result<T> {
        tokio::pin!(work);
        loop {
            let room = self.input.len() < AHEAD_BYTES_MAX;
            if room {
                self.input.reserve(READ_BYTES);
            }
            let read = tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                read = self.stream.read_buf(&mut self.input), if room => read,
            };
            if !matches!(read, Ok(1..)) {
                cancel.cancel();
                work.await;
                return Err(read.err().unwrap_or_else(|| io::ErrorKind::ConnectionAborted.into()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn pair(message_bytes_max: usize) -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Socket::new(listener.accept().await.unwrap().0, message_bytes_max), client)
    }

    #[tokio::test]
    async fn a_long_message_is_skipped_and_the_next_one_read() {
        let (mut socket, mut client) = pair(1000).await;
        let sender = tokio::spawn(async move {
            client.write_all(b"Q").await.unwrap();
            client.write_all(&5_000_004i32.to_be_bytes()).await.unwrap();
            client.write_all(&vec![b'x'; 5_000_000]).await.unwrap();
            client.write_all(b"S\0\0\0\x04").await.unwrap();
        });
        assert!(matches!(socket.read().await, Ok(Some(Frame::TooLong { tag: b'Q', bytes: 5_000_000 }))));
        assert!(socket.input.capacity() < 1 << 20, "{}", socket.input.capacity());
        assert!(matches!(socket.read().await, Ok(Some(Frame::Message { tag: b'S', .. }))));
        sender.await.unwrap();
        assert!(matches!(socket.read().await, Ok(None)));
    }

    #[tokio::test]
    async fn impossible_lengths_are_refused() {
        for length in [3i32, 0, -1, i32::MIN] {
            let (mut socket, mut client) = pair(1000).await;
            client.write_all(b"Q").await.unwrap();
            client.write_all(&length.to_be_bytes()).await.unwrap();
            assert_eq!(socket.read().await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }

    #[tokio::test]
    async fn work_is_cancelled_when_the_client_goes() {
        let (mut socket, client) = pair(1000).await;
        drop(client);
        let gone = socket.watch(&CancelHandle::default(), tokio::task::yield_now()).await;
        // The work may have been quicker than the news.
        assert!(gone.is_ok() || gone.is_err());
        let (tell, told) = tokio::sync::oneshot::channel::<()>();
        let waiting = async {
            tokio::time::timeout(std::time::Duration::from_millis(200), told).await.ok();
        };
        assert!(socket.watch(&CancelHandle::default(), waiting).await.is_err());
        drop(tell);
    }
}
