//! One client: its messages one after the other, and the simple query protocol.

use std::collections::HashMap;
use std::io;

use millpond_engine::{CancelHandle, Outcome, ParsedStatement, Session, TransactionStatus};
use millpond_types::{SqlError, SqlState};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::response::{
    CommandComplete, EmptyQueryResponse, ReadyForQuery, TransactionStatus as WireStatus,
};
use pgwire::messages::startup::ParameterStatus;
use tokio::sync::watch;

use crate::copy;
use crate::error::{Failure, Level, Stop, notice, response};
use crate::extended::{Portal, Statement, deallocated};
use crate::frontend::{Message, decode, violation};
use crate::rows::{Progress, Rows};
use crate::server::stopped;
use crate::socket::{Frame, Socket};
use crate::value::Format;

pub(crate) struct Connection {
    pub socket: Socket,
    pub session: Session,
    pub cancel: CancelHandle,
    pub statements: HashMap<String, Statement>,
    pub portals: HashMap<String, Portal>,
    /// Statements since the last Sync form one implicit transaction, and it is open.
    pub implicit: bool,
    /// An extended-protocol message failed: everything up to the next Sync is skipped.
    skipping: bool,
    stopping: watch::Receiver<bool>,
}

enum Next {
    Message(Message),
    TooLong { tag: u8, bytes: usize },
    Gone,
    Stopping,
}

impl Connection {
    pub fn new(socket: Socket, session: Session, stopping: watch::Receiver<bool>) -> Self {
        let cancel = session.cancel_handle();
        Self {
            socket,
            session,
            cancel,
            statements: HashMap::new(),
            portals: HashMap::new(),
            implicit: false,
            skipping: false,
            stopping,
        }
    }

    /// Serves messages until the client or the server ends the conversation.
    pub async fn run(mut self) -> io::Result<()> {
        self.send_beside();
        self.ready().await?;
        loop {
            match self.next().await {
                Ok(Next::Message(Message::Terminate)) | Ok(Next::Gone) => return Ok(()),
                Ok(Next::Message(message)) => self.answer(message).await?,
                Ok(Next::TooLong { tag, bytes }) => self.refuse_long(tag, bytes).await?,
                Ok(Next::Stopping) => {
                    let error = SqlError::new(
                        SqlState::ADMIN_SHUTDOWN,
                        "terminating connection due to administrator command",
                    );
                    return self.last_words(error).await;
                }
                // The place in the stream of bytes is lost.
                Err(Stop::Failed(failure)) => return self.last_words(failure.error).await,
                Err(Stop::Socket(error)) => return Err(error),
            }
        }
    }

    async fn next(&mut self) -> Result<Next, Stop> {
        let frame = tokio::select! {
            biased;
            frame = self.socket.read() => frame,
            _ = stopped(&mut self.stopping) => return Ok(Next::Stopping),
        };
        match frame {
            Ok(Some(Frame::Message { tag, body })) => Ok(Next::Message(decode(tag, body)?)),
            Ok(Some(Frame::TooLong { tag, bytes })) => Ok(Next::TooLong { tag, bytes }),
            Ok(None) => Ok(Next::Gone),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(violation(error.to_string()).into())
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn last_words(&mut self, error: SqlError) -> io::Result<()> {
        self.socket.send(response(Level::Fatal, &error.into()));
        self.socket.flush().await
    }

    async fn refuse_long(&mut self, tag: u8, bytes: usize) -> io::Result<()> {
        let error = too_long(bytes, self.socket.message_bytes_max());
        match tag {
            _ if self.skipping => Ok(()),
            b'Q' => {
                self.fail(&error.into());
                self.ready().await
            }
            b'd' => Ok(()), // of a COPY that has failed already
            _ => {
                self.fail(&error.into());
                self.skipping = true;
                self.socket.flush().await
            }
        }
    }

    async fn answer(&mut self, message: Message) -> io::Result<()> {
        let result = match message {
            Message::Sync => {
                // After an error, `ready` takes back what the pipeline wrote.
                if !std::mem::take(&mut self.skipping) {
                    self.end_implicit().await;
                }
                return self.ready().await;
            }
            _ if self.skipping => return Ok(()),
            Message::Query(text) => {
                self.end_implicit().await;
                match self.simple(&text).await {
                    Ok(()) => {}
                    Err(Stop::Failed(failure)) => self.fail(&failure),
                    Err(Stop::Socket(error)) => return Err(error),
                }
                return self.ready().await;
            }
            Message::Flush => return self.socket.flush().await,
            // A client may still be sending when its COPY has failed.
            Message::CopyData(_) | Message::CopyDone | Message::CopyFail(_) => return Ok(()),
            Message::Terminate => return Ok(()),
            Message::Parse(parse) => self.parse(parse).await,
            Message::Bind(bind) => self.bind(bind),
            Message::Describe(describe) => self.describe(&describe),
            Message::Execute(execute) => self.execute(&execute).await,
            Message::Close(close) => {
                self.close(&close);
                Ok(())
            }
        };
        match result {
            Ok(()) => self.socket.flush_if_full().await,
            Err(Stop::Failed(failure)) => {
                self.fail(&failure);
                self.skipping = true;
                self.socket.flush().await
            }
            Err(Stop::Socket(error)) => Err(error),
        }
    }

    /// A text of any number of statements; several are one transaction, unless they contain transaction commands.
    async fn simple(&mut self, text: &str) -> Result<(), Stop> {
        self.portals.remove("");
        self.statements.remove("");
        let statements = self.session.parse(text)?;
        let Some((last, before)) = statements.split_last() else {
            self.socket.send(PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new()));
            return Ok(());
        };
        if !before.is_empty() {
            self.session.begin_implicit();
            self.implicit = true;
        }
        for statement in before {
            let tag = self.one(statement).await?;
            self.complete(tag);
        }
        let tag = self.one(last).await?;
        // The last statement is complete when the transaction is.
        if std::mem::take(&mut self.implicit) {
            self.session.end_implicit(false).await?;
        }
        self.complete(tag);
        Ok(())
    }

    /// Runs one statement of a simple query and sends its rows; the command tag, or `None` if it was empty.
    async fn one(&mut self, statement: &ParsedStatement) -> Result<Option<String>, Stop> {
        if deallocated(statement).is_some_and(|name| self.statements.remove(name).is_some()) {
            return Ok(Some("DEALLOCATE".to_owned()));
        }
        let prepared = self.socket.watch(&self.cancel, self.session.prepare(statement, &[])).await??;
        let outcome = self.socket.watch(&self.cancel, self.session.execute(&prepared, &[])).await??;
        self.send_beside();
        match outcome {
            Outcome::Rows { columns, stream, tag } => {
                let formats = vec![Format::Text; columns.len()];
                let mut rows = Rows::new(columns, formats, stream, tag);
                let description = rows.describe();
                self.socket.send(description);
                match rows.send(&mut self.socket, &self.cancel, 0).await? {
                    Progress::Done(tag) => Ok(Some(tag)),
                    Progress::Suspended => unreachable!("without a limit nothing is suspended"),
                }
            }
            Outcome::Command { tag } => Ok(Some(tag)),
            Outcome::CopyIn(copy_in) => {
                copy::receive(&mut self.socket, &self.cancel, *copy_in).await.map(Some)
            }
            Outcome::CopyOut { columns, stream, format } => {
                copy::send(&mut self.socket, &self.cancel, &columns, stream, &format).await.map(Some)
            }
            Outcome::Empty => Ok(None),
        }
    }

    /// What a completed command means for this connection, and its message.
    pub fn complete(&mut self, tag: Option<String>) {
        self.send_beside();
        match tag {
            Some(tag) => {
                match tag.as_str() {
                    "DISCARD ALL" => {
                        self.statements.clear();
                        self.portals.clear();
                    }
                    "DEALLOCATE ALL" => self.statements.clear(),
                    _ => {}
                }
                self.socket.send(PgWireBackendMessage::CommandComplete(CommandComplete::new(tag)));
            }
            None => self.socket.send(PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new())),
        }
    }

    /// Ends the implicit transaction of a pipeline, at Sync; its failure is the client's to hear before ReadyForQuery.
    async fn end_implicit(&mut self) {
        if std::mem::take(&mut self.implicit)
            && let Err(error) = self.session.end_implicit(false).await
        {
            self.fail(&error.into());
        }
    }

    fn fail(&mut self, failure: &Failure) {
        self.send_beside();
        self.session.fail_transaction();
        self.socket.send(response(Level::Error, failure));
    }

    async fn ready(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.implicit) {
            // Only after an error: what the statements before it wrote is gone.
            let _ = self.session.end_implicit(true).await;
        }
        self.send_beside();
        let status = match self.session.transaction_status() {
            TransactionStatus::Idle => WireStatus::Idle,
            TransactionStatus::Active => WireStatus::Transaction,
            TransactionStatus::Failed => WireStatus::Error,
        };
        if status == WireStatus::Idle {
            self.portals.clear();
        }
        self.socket.send(PgWireBackendMessage::ReadyForQuery(ReadyForQuery::new(status)));
        self.socket.flush().await
    }

    /// Notices and changed settings.
    pub fn send_beside(&mut self) {
        for said in self.session.take_notices() {
            self.socket.send(notice(&said));
        }
        for (name, value) in self.session.take_parameter_changes() {
            self.socket.send(PgWireBackendMessage::ParameterStatus(ParameterStatus::new(name, value)));
        }
    }

    pub fn report_setting(&mut self, name: &str) {
        if let Some(value) = self.session.setting(name) {
            self.send(PgWireBackendMessage::ParameterStatus(ParameterStatus::new(name.to_owned(), value)));
        }
    }

    pub fn send(&mut self, message: PgWireBackendMessage) {
        self.socket.send(message);
    }
}

pub(crate) fn too_long(bytes: usize, bytes_max: usize) -> SqlError {
    SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, format!("message of {bytes} bytes is too long"))
        .detail(format!("The limit is {bytes_max} bytes."))
        .hint("Send it in parts, or use COPY.")
}
