//! The epoch driver: one thread that turns commit groups into published snapshots.
//!
//! It drains what has arrived, takes the newest commit number as the cut, steps every view that is touched in order of
//! dependence, waits until the log has synced the cut (the sync runs beside the epoch), and publishes. There is no timer: an
//! epoch is as small as one client's batch when idle, and grows under load.
//!
//! What it holds is a function of the log's prefix up to the cut; recovery feeds it the same groups again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, select};
use millpond_catalog::{Catalog, Relation, RelationKind};
use millpond_dataflow::Graph;
use millpond_env::Env;
use millpond_log::{CommittedFrame, CommittedGroup, Log, Record, WriteKind};
use millpond_state::Relation as Stored;
use millpond_types::{Commit, Delta, EventTime, RelationId, SqlError};
use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::backfill::{self, Built, History, SpooledEpoch};
use crate::changes::{Changes, Piece};
use crate::checkpoint::{Checkpointer, Frozen, table_state};
use crate::inner::EngineConfig;
use crate::prune::Conditions;
use crate::reject::{ERRORS_TOPIC, ErrorRow, LateRow, Refused, read_errors};
use crate::shape::Shape;
use crate::sinks::SinkHandle;
use crate::snapshot::{Contents, FrameFacts, Snapshot};
use crate::status::{CheckpointStatus, RelationState};
use crate::table::changelog;
use crate::target::Key;
use crate::view::View;

/// Bytes of one epoch, about.
const EPOCH_BYTES: usize = 64 << 20;
/// Rows of one epoch.
const EPOCH_ROWS: usize = 1 << 18;
/// Bytes that may wait for a view that is being built, before epochs wait for it.
const SPOOL_BYTES: usize = 1 << 30;

mod catalog;
mod heal;

pub(crate) enum Command {
    /// The log has failed, or should be tried again.
    LogFailed,
    /// A view has caught up with the history that it was given.
    Built(Box<Built>),
    /// Take a checkpoint at the next epoch boundary.
    Checkpoint(Option<tokio::sync::oneshot::Sender<Result<(), SqlError>>>),
    CheckpointDone(Box<crate::checkpoint::Finished>),
    Stop(tokio::sync::oneshot::Sender<()>),
}

/// Numbers that others read while the driver runs.
#[derive(Default)]
pub(crate) struct Counters {
    pub epochs: AtomicU64,
    pub epoch_nanos: AtomicU64,
    pub rows_in: AtomicU64,
    pub state_bytes: AtomicUsize,
    pub checkpoint: Mutex<Option<CheckpointStatus>>,
    pub checkpoint_failures: AtomicU64,
    pub recent: Mutex<std::collections::VecDeque<f64>>,
}

#[derive(Clone)]
pub(crate) struct DriverHandle {
    pub commands: Sender<Command>,
    pub counters: Arc<Counters>,
}

impl DriverHandle {
    pub fn state_bytes(&self) -> usize {
        self.counters.state_bytes.load(Ordering::Relaxed)
    }
}

enum Phase {
    Running,
    /// The view is with a thread that feeds it history; what happens meanwhile waits here.
    Building {
        spool: Vec<SpooledEpoch>,
        bytes: usize,
        rows_done: Arc<AtomicU64>,
        reads: Vec<RelationId>,
    },
    Failed(String),
}

struct LiveView {
    relation: Arc<Relation>,
    /// `None` while a thread builds it.
    view: Option<View>,
    phase: Phase,
}

struct LiveTable {
    relation: Arc<Relation>,
    key: Key,
    shape: Arc<Shape>,
    rows: Stored,
}

pub(crate) struct Driver {
    pub config: EngineConfig,
    pub env: Env,
    pub log: Log,
    pub commands: Sender<Command>,
    pub counters: Arc<Counters>,
    pub pool: Arc<rayon::ThreadPool>,
    pub catalog: Arc<Catalog>,
    pub cut: Commit,
    /// In order of ids, which is an order of dependence.
    views: BTreeMap<RelationId, LiveView>,
    tables: BTreeMap<RelationId, LiveTable>,
    sinks: BTreeMap<RelationId, SinkHandle>,
    /// Changes for the sinks, until the epoch is durable.
    outgoing: BTreeMap<RelationId, Vec<Delta>>,
    runtime: tokio::runtime::Handle,
    source_rows: HashMap<RelationId, u64>,
    /// Of the catalog's relations, as they are needed.
    shapes: HashMap<RelationId, Arc<Shape>>,
    watermarks: BTreeMap<RelationId, EventTime>,
    pub errors: Refused<ErrorRow>,
    pub late: Refused<LateRow>,
    publisher: watch::Sender<Arc<Snapshot>>,
    durable: watch::Receiver<Commit>,
    pub checkpointer: Checkpointer,
    /// Changed since the last snapshot was made.
    touched: HashSet<RelationId>,
    contents: HashMap<RelationId, Contents>,
    /// Recovery: nobody reads yet.
    quiet: bool,
    /// Of the log, to which live state belongs.
    term: u64,
    failures: watch::Receiver<u64>,
    /// Live state holds what the log has lost: nothing may be shown or kept before it is built again.
    dirty: bool,
    /// How often live state was thrown away; who was sent off before brings nothing back.
    generation: u64,
    /// Sinks that live state will ask for when it is built again.
    resting_sinks: BTreeMap<RelationId, SinkHandle>,
    retry: heal::Retry,
    /// Of which the log has the policies.
    told: Option<Arc<Catalog>>,
}

impl Driver {
    #[allow(clippy::too_many_arguments, reason = "the parts of a driver, put together once")]
    pub fn new(
        config: EngineConfig,
        env: Env,
        log: Log,
        commands: Sender<Command>,
        counters: Arc<Counters>,
        pool: Arc<rayon::ThreadPool>,
        publisher: watch::Sender<Arc<Snapshot>>,
        checkpointer: Checkpointer,
    ) -> Self {
        let (durable, failures, term) = (log.durable(), log.failures(), log.term());
        Self {
            config,
            env,
            log,
            commands,
            counters,
            pool,
            catalog: Arc::new(Catalog::new()),
            cut: Commit(0),
            views: BTreeMap::new(),
            tables: BTreeMap::new(),
            sinks: BTreeMap::new(),
            outgoing: BTreeMap::new(),
            runtime: tokio::runtime::Handle::current(),
            source_rows: HashMap::new(),
            shapes: HashMap::new(),
            watermarks: BTreeMap::new(),
            errors: Refused::default(),
            late: Refused::default(),
            publisher,
            durable,
            checkpointer,
            touched: HashSet::new(),
            contents: HashMap::new(),
            quiet: true,
            term,
            failures,
            dirty: false,
            generation: 0,
            resting_sinks: BTreeMap::new(),
            retry: heal::Retry::default(),
            told: None,
        }
    }

    /// The whole life of the driver's thread, after recovery.
    pub fn run(mut self, groups: &Receiver<Arc<CommittedGroup>>, commands: &Receiver<Command>) {
        self.quiet = false;
        self.publish();
        loop {
            if self.is_overtaxed() {
                // The view that is being built must catch up first; the log's queue holds the writers back meanwhile.
                match commands.recv() {
                    Ok(Command::Stop(done)) => {
                        let _ = done.send(());
                        return;
                    }
                    Ok(Command::LogFailed) => self.follow_failure(groups, commands),
                    Ok(command) => self.command(command),
                    Err(_) => return,
                }
                continue;
            }
            select! {
                recv(groups) -> group => match group {
                    Ok(group) => {
                        let mut batch = vec![group];
                        let mut rows = group_rows(&batch[0]);
                        let mut bytes = group_bytes(&batch[0]);
                        while rows < EPOCH_ROWS && bytes < EPOCH_BYTES {
                            let Ok(group) = groups.try_recv() else { break };
                            rows += group_rows(&group);
                            bytes += group_bytes(&group);
                            batch.push(group);
                        }
                        let start = self.env.clock.monotonic();
                        self.process(batch.iter().map(Arc::as_ref));
                        let busy = self.env.clock.monotonic().saturating_sub(start);
                        if self.wait_durable() {
                            self.publish();
                            self.count(busy);
                        } else {
                            self.follow_failure(groups, commands);
                        }
                    }
                    Err(_) => {
                        self.drain_commands(commands);
                        return;
                    }
                },
                recv(commands) -> command => match command {
                    Ok(Command::Stop(done)) => {
                        let _ = done.send(());
                        return;
                    }
                    Ok(Command::LogFailed) => self.follow_failure(groups, commands),
                    Ok(command) => self.command(command),
                    Err(_) => return,
                },
            }
        }
    }

    /// Answers commands although no epoch will come again.
    fn drain_commands(&mut self, commands: &Receiver<Command>) {
        while let Ok(command) = commands.recv() {
            match command {
                Command::Stop(done) => {
                    let _ = done.send(());
                    return;
                }
                Command::Checkpoint(Some(reply)) => {
                    let _ = reply
                        .send(Err(SqlError::new(millpond_types::SqlState::IO_ERROR, "the log is closed")));
                }
                Command::Checkpoint(None) | Command::Built(_) | Command::LogFailed => {}
                Command::CheckpointDone(done) => self.checkpoint_done(*done),
            }
        }
    }

    fn count(&self, busy: Duration) {
        self.counters.epochs.fetch_add(1, Ordering::Relaxed);
        self.counters.epoch_nanos.fetch_add(busy.as_nanos() as u64, Ordering::Relaxed);
        let mut recent = self.counters.recent.lock();
        if recent.len() == 1000 {
            recent.pop_front();
        }
        recent.push_back(busy.as_secs_f64());
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Built(built) if built.generation == self.generation => {
                self.built(*built);
                self.publish();
            }
            Command::Built(_) | Command::LogFailed => {}
            Command::Checkpoint(reply) if self.dirty => heal::refuse_checkpoint(reply),
            Command::Checkpoint(reply) => self.start_checkpoint(reply),
            Command::CheckpointDone(done) => self.checkpoint_done(*done),
            Command::Stop(_) => {}
        }
    }

    /// One epoch: data first, then at its end the DDL of its last group. A group with DDL ends the epoch before it.
    pub fn process<'a>(&mut self, groups: impl Iterator<Item = &'a CommittedGroup>) {
        let mut changes = Changes::default();
        for group in groups {
            for frame in &group.frames {
                self.frame(group, frame, &mut changes);
            }
            for (topic, watermark) in &group.watermarks {
                self.advance(*topic, *watermark, &mut changes);
            }
            self.cut = group.commit;
            for record in &group.records {
                match record {
                    Record::Ddl(bytes) => {
                        self.epoch(std::mem::take(&mut changes));
                        self.ddl(bytes, group.commit);
                    }
                    // What these raise is among the group's watermarks; nothing here asks for the time yet.
                    Record::Tick(_) | Record::AdvanceWatermark { .. } | Record::PartitionIdle { .. } => {}
                }
            }
        }
        self.epoch(changes);
    }

    fn frame(&mut self, group: &CommittedGroup, frame: &CommittedFrame, changes: &mut Changes) {
        if frame.topic == ERRORS_TOPIC {
            for (relation, row) in read_errors(&frame.batch) {
                if self.catalog.relation(relation).is_some() {
                    self.errors.add(relation, row, 1);
                }
            }
            return;
        }
        let Some(relation) = self.catalog.relation(frame.topic).cloned() else {
            // Written while its relation was being dropped.
            return;
        };
        self.counters.rows_in.fetch_add(frame.batch.num_rows() as u64, Ordering::Relaxed);
        match frame.kind {
            WriteKind::Append => {
                *self.source_rows.entry(frame.topic).or_default() += frame.batch.num_rows() as u64;
                let facts = FrameFacts {
                    partition: frame.partition.0,
                    base_offset: frame.base_offset.0,
                    rows: frame.batch.num_rows(),
                    commit: group.commit,
                    ingest_time: frame.ingest_time,
                    watermark: frame.watermark,
                };
                let batch = match self.shape(&relation).and_then(|shape| shape.complete(&frame.batch)) {
                    Ok(batch) => batch,
                    Err(fault) => {
                        error!(relation = %relation.name, %fault, "a frame cannot be read");
                        return;
                    }
                };
                let delta = Delta::insert(batch);
                changes.push(frame.topic, Piece { delta, facts: Some(facts) });
            }
            WriteKind::Upsert => {
                let Some(table) = self.tables.get_mut(&frame.topic) else { return };
                match changelog(&mut table.rows, &table.key, &table.shape, &frame.batch) {
                    Ok(delta) => {
                        self.touched.insert(frame.topic);
                        let declared: Vec<usize> = (0..table.relation.columns.len()).collect();
                        match delta.batch.project(&declared) {
                            Ok(batch) => {
                                changes
                                    .push(frame.topic, Piece { delta: delta.with_batch(batch), facts: None });
                            }
                            Err(fault) => {
                                error!(table = %table.relation.name, %fault, "a changelog cannot be read")
                            }
                        }
                    }
                    Err(fault) => {
                        // The writer checked the same change against the same image: this is a bug or a damaged log.
                        error!(table = %table.relation.name, %fault, "a table's changelog does not fit its contents");
                    }
                }
            }
        }
    }

    fn advance(&mut self, topic: RelationId, to: EventTime, changes: &mut Changes) {
        let now = self.watermarks.entry(topic).or_insert(EventTime::MIN);
        if to > *now {
            *now = to;
            changes.watermarks.insert(topic, to);
        }
    }

    /// Steps every view that the changes reach, in order of dependence.
    fn epoch(&mut self, mut changes: Changes) {
        if changes.is_empty() {
            return;
        }
        let ids: Vec<RelationId> = self.views.keys().copied().collect();
        for id in ids {
            let live = self.views.get_mut(&id).expect("the ids were just read");
            match &mut live.phase {
                Phase::Failed(_) => {}
                Phase::Building { spool, bytes, reads, .. } => {
                    let part = changes.of(reads);
                    if !part.is_empty() {
                        *bytes += part.bytes;
                        spool.push(SpooledEpoch { changes: part });
                    }
                }
                Phase::Running => {
                    let view = live.view.as_mut().expect("a running view is at home");
                    let reads = view.reads();
                    if !reads
                        .iter()
                        .any(|r| changes.relations.contains_key(r) || changes.watermarks.contains_key(r))
                    {
                        continue;
                    }
                    match guarded(|| view.step(&changes, self.config.epoch_rows)) {
                        Ok(stepped) => {
                            self.touched.insert(id);
                            self.took(id, stepped, &mut changes);
                        }
                        Err(why) => self.fail(id, why),
                    }
                }
            }
        }
        for (id, sink) in &self.sinks {
            let pieces = changes.relations.get(&sink.input).into_iter().flatten();
            self.outgoing.entry(*id).or_default().extend(pieces.map(|piece| piece.delta.clone()));
        }
    }

    /// Hands the sinks what they have not had yet; everything up to the cut is durable.
    pub fn feed_sinks(&mut self) {
        for (id, sink) in &mut self.sinks {
            let deltas = self.outgoing.remove(id).unwrap_or_default();
            if !deltas.is_empty() {
                sink.write(self.cut, deltas);
            }
        }
        self.outgoing.clear();
    }

    pub fn has_sinks(&self) -> bool {
        !self.sinks.is_empty()
    }

    /// Starts a sink. A new one (`known` 0) first gets what its input holds at the cut.
    pub fn add_sink(&mut self, relation: &Arc<Relation>, known: Commit) {
        let RelationKind::Sink(definition) = &relation.kind else { return };
        let Some(input) = definition.input.and_then(|id| self.catalog.relation(id)).cloned() else { return };
        let sink = match self.resting_sinks.remove(&relation.id) {
            // It has had nothing but durable epochs, and knows which ones.
            Some(sink) => Some(sink),
            None => SinkHandle::start(relation, &input, known, &self.env, &self.runtime),
        };
        let Some(sink) = sink else { return };
        if known == Commit(0) {
            let declared = input.columns.len();
            let heap = match (self.tables.get_mut(&input.id), self.views.get_mut(&input.id)) {
                (Some(table), _) => Some(table.rows.snapshot()),
                (None, Some(LiveView { view: Some(view), .. })) => Some(view.contents.snapshot()),
                _ => None,
            };
            let mut deltas = Vec::new();
            for batch in heap.iter().flat_map(|heap| heap.batches(None)) {
                match batch
                    .map_err(|f| f.to_string())
                    .and_then(|b| crate::view::history_piece(b, declared).map_err(|e| e.to_string()))
                {
                    Ok(piece) => deltas.push(piece.delta),
                    Err(why) => {
                        error!(sink = %relation.name, %why, "the contents of its input cannot be read")
                    }
                }
            }
            self.outgoing.insert(relation.id, deltas);
        }
        self.sinks.insert(relation.id, sink);
    }

    fn took(&mut self, id: RelationId, stepped: crate::view::Stepped, changes: &mut Changes) {
        for (row, weight) in stepped.errors {
            self.errors.add(id, row, weight);
        }
        for (row, weight) in stepped.late {
            self.late.add(id, row, weight);
        }
        for delta in stepped.deltas {
            changes.push(id, Piece { delta, facts: None });
        }
    }

    /// A view stops alone, and with it those that read it.
    fn fail(&mut self, id: RelationId, why: String) {
        let name = self.views.get(&id).map_or_else(String::new, |v| v.relation.name.clone());
        error!(view = %name, %why, "a materialized view has failed");
        for dependant in self.catalog.transitive_dependants(id) {
            if let Some(live) = self.views.get_mut(&dependant) {
                let why =
                    if dependant == id { why.clone() } else { format!("its input \"{name}\" has failed") };
                live.phase = Phase::Failed(why);
                self.touched.insert(dependant);
            }
        }
        if let Some(live) = self.views.get_mut(&id) {
            live.phase = Phase::Failed(why);
            self.touched.insert(id);
        }
    }

    /// Builds a view from the history of its inputs up to the cut: at once if it is small, else on a thread.
    pub fn create_view(&mut self, relation: &Arc<Relation>) {
        self.touched.insert(relation.id);
        let made =
            View::new(&self.catalog, Arc::clone(relation), self.new_graph()).map_err(|why| why.to_string());
        let started = made.and_then(|mut view| {
            guarded(|| view.start())?;
            view.skip_retraction = self.config.skip_retraction;
            Ok(view)
        });
        let view = match started {
            Ok(view) => view,
            Err(why) => {
                let phase = Phase::Failed(why);
                self.views
                    .insert(relation.id, LiveView { relation: Arc::clone(relation), view: None, phase });
                return;
            }
        };
        let reads = view.reads();
        let history = match self.history(&reads, &view.conditions) {
            Ok(history) => history,
            Err(why) => {
                let phase = Phase::Failed(why);
                self.views
                    .insert(relation.id, LiveView { relation: Arc::clone(relation), view: None, phase });
                return;
            }
        };
        self.build(relation, view, history);
    }

    fn build(&mut self, relation: &Arc<Relation>, view: View, history: History) {
        let rows_done = Arc::new(AtomicU64::new(0));
        let reads = view.reads();
        let id = relation.id;
        let phase = Phase::Building { spool: Vec::new(), bytes: 0, rows_done: Arc::clone(&rows_done), reads };
        let small = history.is_small();
        let job = backfill::Job {
            view,
            history,
            log: self.log.clone(),
            pool: Arc::clone(&self.pool),
            epoch_rows: self.config.epoch_rows,
            generation: self.generation,
            rows_done,
        };
        self.views.insert(id, LiveView { relation: Arc::clone(relation), view: None, phase });
        if small {
            let built = job.run();
            self.built(built);
            return;
        }
        let commands = self.commands.clone();
        let spawned = std::thread::Builder::new().name(format!("build {}", relation.name)).spawn(move || {
            let built = job.run();
            let _ = commands.send(Command::Built(Box::new(built)));
        });
        if let Err(why) = spawned {
            self.fail(id, format!("no thread could be started to build it: {why}"));
        }
    }

    /// What the relations hold at the cut.
    fn history(&mut self, reads: &[RelationId], conditions: &Conditions) -> Result<History, String> {
        let mut history = History::default();
        for id in reads {
            let Some(relation) = self.catalog.relation(*id).cloned() else {
                return Err(format!("its input {id} does not exist"));
            };
            if let Some(table) = self.tables.get_mut(id) {
                history.heaps.push((*id, table.rows.snapshot(), relation.columns.len()));
            } else if let Some(live) = self.views.get_mut(id) {
                match (&live.phase, &mut live.view) {
                    (Phase::Running, Some(view)) => {
                        history.heaps.push((*id, view.contents.snapshot(), relation.columns.len()));
                    }
                    _ => return Err(format!("its input \"{}\" is not running", relation.name)),
                }
            } else {
                let shape = self.shape(&relation).map_err(|e| e.to_string())?;
                let frames = self.log.frames(*id, Commit(0), self.cut).map_err(|e| e.to_string())?;
                history.topics.push((*id, shape, conditions.keep(*id, frames)));
            }
            if let Some(watermark) = self.watermarks.get(id) {
                history.watermarks.insert(*id, *watermark);
            }
        }
        Ok(history)
    }

    /// A view comes back from its thread: it follows what it has missed, and joins.
    fn built(&mut self, built: Built) {
        let id = built.id;
        let Some(live) = self.views.get_mut(&id) else { return };
        self.touched.insert(id);
        let view = match built.view {
            Ok(view) => view,
            Err(why) => return self.fail(id, why),
        };
        for (row, weight) in built.errors {
            self.errors.add(id, row, weight);
        }
        for (row, weight) in built.late {
            self.late.add(id, row, weight);
        }
        let Phase::Building { spool, .. } = &mut live.phase else { return };
        let spool = std::mem::take(spool);
        if spool.is_empty() {
            info!(view = %live.relation.name, rows = view.contents.rows(), "built");
            live.view = Some(view);
            live.phase = Phase::Running;
            return;
        }
        let relation = Arc::clone(&live.relation);
        self.build(&relation, view, History::spooled(spool));
    }

    fn new_graph(&self) -> Graph {
        let mut graph = Graph::new(self.config.shards, Arc::clone(&self.pool));
        let clock = Arc::clone(&self.env.clock);
        graph.set_clock(Arc::new(move || clock.monotonic().as_nanos() as u64));
        graph
    }

    /// Whether epochs should wait, because a view that is being built has too much to catch up with.
    fn is_overtaxed(&self) -> bool {
        self.views
            .values()
            .any(|live| matches!(&live.phase, Phase::Building { bytes, .. } if *bytes > SPOOL_BYTES))
    }

    pub fn publish(&mut self) {
        if self.quiet || self.dirty {
            return;
        }
        if !self.told.as_ref().is_some_and(|told| Arc::ptr_eq(told, &self.catalog)) {
            // The cut is durable: what this catalog does not have any more will not come back.
            self.log.set_policies(crate::retention::policies(&self.catalog), self.cut);
            self.told = Some(Arc::clone(&self.catalog));
        }
        self.feed_sinks();
        for id in std::mem::take(&mut self.touched) {
            self.refresh(id);
        }
        let cut = self.cut;
        for contents in self.contents.values_mut() {
            if contents.state == RelationState::Running {
                contents.epoch = cut;
            }
        }
        self.counters
            .state_bytes
            .store(self.contents.values().map(|c| c.state_bytes).sum(), Ordering::Relaxed);
        self.publisher.send_replace(Arc::new(Snapshot {
            cut,
            catalog: Arc::clone(&self.catalog),
            contents: self.contents.clone(),
            watermarks: self.watermarks.clone(),
            source_rows: self.source_rows.clone(),
            errors: self.errors.clone(),
            late: self.late.clone(),
        }));
    }

    /// What readers see of a relation from the next snapshot on.
    fn refresh(&mut self, id: RelationId) {
        if let Some(table) = self.tables.get_mut(&id) {
            let contents = Contents {
                heap: table.rows.snapshot(),
                state: RelationState::Running,
                state_bytes: table.rows.bytes(),
                busy_seconds: 0.0,
                epoch: self.cut,
            };
            self.contents.insert(id, contents);
        }
        let Some(live) = self.views.get_mut(&id) else { return };
        let state = match &live.phase {
            Phase::Running => RelationState::Running,
            Phase::Building { rows_done, .. } => {
                RelationState::Building { rows_done: rows_done.load(Ordering::Relaxed) }
            }
            Phase::Failed(why) => RelationState::Failed(why.clone()),
        };
        let contents = match &mut live.view {
            Some(view) => Contents {
                heap: view.contents.snapshot(),
                state,
                state_bytes: view.bytes(),
                busy_seconds: view.busy_seconds(),
                epoch: self.cut,
            },
            None => Contents {
                heap: millpond_state::Heap::new(live.relation.arrow_schema()).snapshot(),
                state,
                state_bytes: 0,
                busy_seconds: 0.0,
                epoch: Commit(0),
            },
        };
        self.contents.insert(id, contents);
    }

    fn start_checkpoint(&mut self, reply: Option<tokio::sync::oneshot::Sender<Result<(), SqlError>>>) {
        if self.checkpointer.is_busy() {
            self.checkpointer.wait(reply);
            return;
        }
        let start = self.env.clock.monotonic();
        let mut states = Vec::new();
        for table in self.tables.values_mut() {
            states.push(Frozen::heap(table_state(&table.relation), "table", table.rows.freeze()));
        }
        for (id, live) in &mut self.views {
            if let (Phase::Running, Some(view)) = (&live.phase, &mut live.view) {
                Frozen::of_view(*id, view, &mut states);
            }
        }
        self.feed_sinks();
        let sinks =
            self.sinks.values_mut().map(|sink| (sink.relation.name.clone(), sink.commit(self.cut))).collect();
        let pause = self.env.clock.monotonic().saturating_sub(start);
        let draft = crate::checkpoint::Draft {
            cut: self.cut,
            catalog: Arc::clone(&self.catalog),
            watermarks: self.watermarks.clone(),
            source_rows: self.source_rows.clone(),
            errors: self.errors.clone(),
            late: self.late.clone(),
            states,
            sinks,
            pause,
        };
        self.checkpointer.start(draft, reply, self.commands.clone());
    }

    fn checkpoint_done(&mut self, done: crate::checkpoint::Finished) {
        self.checkpointer.finished(done, &self.counters);
        if let Some(checkpoint) = &*self.counters.checkpoint.lock() {
            self.log.checkpointed(checkpoint.cut);
        }
        if !self.config.background
            && let Err(why) = self.log.maintain()
        {
            warn!(%why, "segments could not be looked after");
        }
    }

    /// Puts a restored view in its place.
    pub fn add_running(&mut self, relation: &Arc<Relation>, view: View) {
        self.touched.insert(relation.id);
        let live = LiveView { relation: Arc::clone(relation), view: Some(view), phase: Phase::Running };
        self.views.insert(relation.id, live);
    }

    pub fn restored(
        &mut self,
        watermarks: BTreeMap<RelationId, EventTime>,
        source_rows: HashMap<RelationId, u64>,
    ) {
        self.watermarks = watermarks;
        self.source_rows = source_rows;
    }

    pub fn graph(&self) -> Graph {
        self.new_graph()
    }
}

/// Makes a panic of a view's operators a failure of that view alone.
pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let what =
            panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(format!("an operator panicked: {}", what.unwrap_or("without a message")))
    })
}

pub(crate) fn group_rows(group: &CommittedGroup) -> usize {
    group.frames.iter().map(|f| f.batch.num_rows()).sum()
}

fn group_bytes(group: &CommittedGroup) -> usize {
    group.frames.iter().map(|f| f.batch.get_array_memory_size()).sum()
}
