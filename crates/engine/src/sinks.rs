//! Sinks: the changes of a relation on their way out.
//!
//! Each sink is a task with a queue. The driver hands it the changes of durable epochs, in order and without gaps; before a
//! checkpoint is published the sink has committed everything up to its cut, because a checkpoint stands for the log before
//! it. After a crash the epochs since the checkpoint come again, cut at every commit, and the sink skips what its target has.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use millpond_catalog::{Relation, RelationKind, Sink as SinkDefinition, SinkTarget};
use millpond_connect::{Encoding, SinkSpec, open_sink, prepare_sink, validate_sink};
use millpond_env::Env;
use millpond_sql::statement::{CreateSink, SinkInput};
use millpond_types::{Commit, Delta, RelationId, SqlError, SqlState};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use crate::ddl::{create_relation, new_relation, place};
use crate::read::is_heap;
use crate::relation::identity;
use crate::session::Session;

/// Bytes that may wait for one sink; beyond, it has failed until the next start.
const QUEUE_BYTES: usize = 256 << 20;
const RETRY_MAX: Duration = Duration::from_secs(10);

pub(crate) async fn create(
    session: &mut Session,
    create: &CreateSink,
    text: &str,
) -> Result<String, SqlError> {
    let tag = || "CREATE SINK".to_owned();
    let snapshot = session.inner.snapshot();
    let catalog = &snapshot.catalog;
    let Some(schema) = place(session, catalog, &create.name, create.if_not_exists)? else { return Ok(tag()) };
    if let Some(into) = &create.into {
        return Err(into.mark(
            SqlError::unsupported("CREATE SINK … INTO a table is not supported yet")
                .hint("Create a materialized view on the query, and read that."),
        ));
    }
    let input = match &create.input {
        SinkInput::From(name) => {
            catalog.resolve(name, &session.settings.search_path()).map_err(|e| name.mark(e))?.clone()
        }
        SinkInput::As(query) => {
            return Err(SqlError::unsupported("a sink of a query is not supported yet")
                .hint("CREATE MATERIALIZED VIEW v AS the query, then CREATE SINK … FROM v.")
                .at(query.position));
        }
    };
    if !is_heap(&input) {
        return Err(SqlError::unsupported(format!("a sink from {} is not supported yet", input.described()))
            .hint("Create a materialized view over it, and a sink from that."));
    }
    snapshot.usable(&input)?;
    let mut options = create.options.clone();
    let shown = options.to_map();
    let Some(name) = options.take("connector") else {
        return Err(SqlError::new(
            SqlState::INVALID_PARAMETER_VALUE,
            "a sink needs the option \"connector\"",
        )
        .hint("There are 'blackhole' and 'file'."));
    };
    let connector = millpond_catalog::Connector {
        name: name.value.as_text().to_owned(),
        options: options.to_map(),
        format: create.format.as_ref().map(|f| f.format.clone()),
        encode: create.format.as_ref().and_then(|f| f.encode.clone()),
        format_options: create.format.as_ref().map(|f| f.options.to_map()).unwrap_or_default(),
    };
    let checked = spec(&input, &connector);
    validate_sink(&checked, &session.inner.env)?;
    prepare_sink(&checked, &session.inner.env).await?;
    let frozen = millpond_catalog::Frozen::default();
    let kind = RelationKind::Sink(SinkDefinition {
        input: Some(input.id),
        query: None,
        target: SinkTarget::Connector(connector),
        frozen,
    });
    let mut relation = new_relation(session, catalog, schema, &create.name.name, kind, text);
    relation.dependencies = vec![input.id];
    relation.options = shown;
    create_relation(session, catalog, relation).await?;
    Ok(tag())
}

fn spec(input: &Relation, connector: &millpond_catalog::Connector) -> SinkSpec {
    SinkSpec {
        connector: connector.name.clone(),
        options: connector.options.clone(),
        schema: input.arrow_schema(),
        append_only: identity(input) == millpond_state::Identity::AppendOnly,
        encoding: connector.format.as_ref().map(|format| Encoding {
            format: format.clone(),
            encode: connector.encode.clone().unwrap_or_default(),
            options: connector.format_options.clone(),
        }),
    }
}

enum Message {
    Epoch { after: Commit, epoch: Commit, deltas: Vec<Delta>, bytes: usize },
    Commit { through: Commit, reply: oneshot::Sender<()> },
}

/// The driver's end of a sink.
pub(crate) struct SinkHandle {
    pub relation: Arc<Relation>,
    pub input: RelationId,
    queue: mpsc::UnboundedSender<Message>,
    queued_bytes: Arc<AtomicUsize>,
    /// Everything up to here was handed over.
    written: Commit,
    pub failure: Arc<Mutex<Option<String>>>,
}

impl SinkHandle {
    /// Starts the task of a sink whose target has at least everything up to `known`.
    pub fn start(
        relation: &Arc<Relation>,
        input: &Relation,
        known: Commit,
        env: &Env,
        runtime: &tokio::runtime::Handle,
    ) -> Option<Self> {
        let RelationKind::Sink(SinkDefinition { target: SinkTarget::Connector(connector), .. }) =
            &relation.kind
        else {
            return None;
        };
        let (queue, messages) = mpsc::unbounded_channel();
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let failure = Arc::new(Mutex::new(None));
        let task = Task {
            name: relation.name.clone(),
            spec: spec(input, connector),
            env: env.clone(),
            known,
            messages,
            queued_bytes: Arc::clone(&queued_bytes),
            failure: Arc::clone(&failure),
        };
        runtime.spawn(task.run());
        Some(Self {
            relation: Arc::clone(relation),
            input: input.id,
            queue,
            queued_bytes,
            written: known,
            failure,
        })
    }

    /// Hands over the changes since the last call, up to `epoch`.
    pub fn write(&mut self, epoch: Commit, deltas: Vec<Delta>) {
        if epoch <= self.written {
            return;
        }
        let bytes: usize = deltas.iter().map(Delta::memory_bytes).sum();
        if self.queued_bytes.fetch_add(bytes, Ordering::Relaxed) > QUEUE_BYTES {
            self.failure.lock().get_or_insert_with(|| "its target is too slow: the queue is full".to_owned());
        }
        if self.failure.lock().is_some() {
            return;
        }
        let message = Message::Epoch { after: self.written, epoch, deltas, bytes };
        if self.queue.send(message).is_ok() {
            self.written = epoch;
        }
    }

    /// Resolves when the target has everything up to `cut`; an error if that will not happen in this process.
    pub fn commit(&mut self, cut: Commit) -> oneshot::Receiver<()> {
        self.write(cut, Vec::new());
        let (reply, done) = oneshot::channel();
        if self.failure.lock().is_none() && self.written == cut {
            let _ = self.queue.send(Message::Commit { through: cut, reply });
        }
        done
    }
}

struct Task {
    name: String,
    spec: SinkSpec,
    env: Env,
    known: Commit,
    messages: mpsc::UnboundedReceiver<Message>,
    queued_bytes: Arc<AtomicUsize>,
    failure: Arc<Mutex<Option<String>>>,
}

impl Task {
    async fn run(mut self) {
        let mut pause = Duration::from_millis(100);
        let mut sink = loop {
            match open_sink(&self.spec, &self.env, self.known).await {
                Ok(sink) => break sink,
                Err(error) => {
                    warn!(sink = %self.name, %error, "a sink could not be opened and will be tried again")
                }
            }
            if self.messages.is_closed() {
                return;
            }
            self.env.clock.sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        };
        while let Some(message) = self.messages.recv().await {
            match message {
                Message::Epoch { after, epoch, deltas, bytes } => {
                    let result = sink.write(after.max(sink.committed()), epoch, &deltas).await;
                    self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
                    if let Err(error) = result {
                        return self.fail(&error.to_string());
                    }
                    if sink.wants_commit() {
                        self.commit(&mut *sink, epoch).await;
                    }
                }
                Message::Commit { through, reply } => {
                    self.commit(&mut *sink, through).await;
                    let _ = reply.send(());
                }
            }
        }
    }

    /// Tries until the target has it: after an error nothing is lost.
    async fn commit(&self, sink: &mut dyn millpond_connect::Sink, through: Commit) {
        let mut pause = Duration::from_millis(100);
        while let Err(error) = sink.commit(through).await {
            warn!(sink = %self.name, %error, "a sink could not commit and will try again");
            if self.messages.is_closed() {
                return;
            }
            self.env.clock.sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    fn fail(&self, why: &str) {
        warn!(sink = %self.name, why, "a sink has failed; it goes on after a restart");
        *self.failure.lock() = Some(why.to_owned());
    }
}
