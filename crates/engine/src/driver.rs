//! The epoch driver: one thread that turns commit groups into published snapshots.
//!
//! It drains what has arrived, takes the newest commit number as the cut, steps every view that is touched in order of
//! dependence, waits until the log has synced the cut (the sync runs beside the epoch), and publishes. There is no timer: an
//! epoch is as small as one client's batch when idle, and grows under load. A view that is being built or too slow follows
//! the epochs on its own ([`follow`]).
//!
//! What it holds is a function of the log's prefix up to the cut; recovery feeds it the same groups again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, select};
use millpond_catalog::{Catalog, Relation};
use millpond_dataflow::Graph;
use millpond_env::Env;
use millpond_log::{CommittedFrame, CommittedGroup, Log, Record, WriteKind};
use millpond_state::Relation as Stored;
use millpond_types::{Commit, Delta, EventTime, RelationId, SqlError};
use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::error;

use crate::backfill::Followed;
use crate::changes::{Changes, Piece};
use crate::checkpoint::Checkpointer;
use crate::clock::CLOCK;
use crate::inner::EngineConfig;
use crate::reject::{ERRORS_TOPIC, ErrorRow, LateRow, Refused, read_errors};
use crate::shape::Shape;
use crate::sinks::SinkHandle;
use crate::snapshot::{Contents, FrameFacts, Snapshot};
use crate::status::CheckpointStatus;
use crate::table::changelog;
use crate::target::Key;
use crate::view::View;

/// Bytes of one epoch, about.
const EPOCH_BYTES: usize = 64 << 20;
/// Rows of one epoch.
const EPOCH_ROWS: usize = 1 << 18;

mod catalog;
mod checkpoint;
mod follow;
mod follower;
mod heal;
mod publish;
mod sinks;
mod views;

pub(crate) use follower::Budget;
use follower::{Follower, Spool};
use sinks::WaitingSinks;

pub(crate) enum Command {
    /// The log has failed, or should be tried again.
    LogFailed,
    /// A view has done what it was sent off for.
    Followed(Box<Followed>),
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
    /// Views that a checkpoint waits for.
    pub checkpoint_waits: AtomicUsize,
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
    /// It takes part in the driver's epochs.
    Running,
    Following(Box<Follower>),
    /// It stands still, and says why.
    Paused(String),
    Failed(String),
}

struct LiveView {
    relation: Arc<Relation>,
    reads: Vec<RelationId>,
    /// `None` while a thread has it, and of one that stands still.
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
    /// Of views that follow alone: they keep no worker of the epochs busy.
    pool_aside: Arc<rayon::ThreadPool>,
    pub catalog: Arc<Catalog>,
    pub cut: Commit,
    /// In order of ids, which is an order of dependence.
    views: BTreeMap<RelationId, LiveView>,
    tables: BTreeMap<RelationId, LiveTable>,
    sinks: BTreeMap<RelationId, SinkHandle>,
    /// Changes for the sinks, until the epoch is durable, with the newest cut that they belong to.
    outgoing: BTreeMap<RelationId, (Commit, Vec<Delta>)>,
    /// Sinks that begin when their input has come so far.
    waiting_sinks: WaitingSinks,
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
    /// Of the newest epoch, counted from the start or from the last time that live state was thrown away.
    number: u64,
    /// The cut of the epoch before the newest.
    cut_before: Commit,
    budget: Budget,
    /// Pieces of work, for `EngineConfig::cut_out_every`.
    units: u64,
    spool: Spool,
    /// Numbers the times that a view was sent off to follow.
    tickets: u64,
    /// A checkpoint that waits for followers.
    gathering: Option<checkpoint::Gathering>,
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
        pool_aside: Arc<rayon::ThreadPool>,
        publisher: watch::Sender<Arc<Snapshot>>,
        checkpointer: Checkpointer,
    ) -> Self {
        let (durable, failures, term) = (log.durable(), log.failures(), log.term());
        let budget = Budget { time: config.epoch_budget };
        Self {
            config,
            env,
            log,
            commands,
            counters,
            pool,
            pool_aside,
            catalog: Arc::new(Catalog::new()),
            cut: Commit(0),
            views: BTreeMap::new(),
            tables: BTreeMap::new(),
            sinks: BTreeMap::new(),
            outgoing: BTreeMap::new(),
            waiting_sinks: WaitingSinks::new(),
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
            number: 0,
            cut_before: Commit(0),
            budget,
            units: 0,
            spool: Spool::default(),
            tickets: 0,
            gathering: None,
        }
    }

    /// The whole life of the driver's thread, after recovery.
    pub fn run(mut self, groups: &Receiver<Arc<CommittedGroup>>, commands: &Receiver<Command>) {
        self.quiet = false;
        self.publish();
        loop {
            if self.is_overtaxed() {
                // A view that is being built must catch up first; the log's queue holds the writers back meanwhile.
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
                Command::Checkpoint(None) | Command::Followed(_) | Command::LogFailed => {}
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
            Command::Followed(followed) if followed.generation == self.generation && !self.dirty => {
                self.followed(*followed);
                self.publish();
            }
            Command::Followed(_) | Command::LogFailed => {}
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
                    Record::Tick(now) => self.advance(CLOCK, *now, &mut changes),
                    // What these raise is among the group's watermarks.
                    Record::AdvanceWatermark { .. } | Record::PartitionIdle { .. } => {}
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

    /// Steps every view that the changes reach, in order of dependence. One that does not pass in time follows alone.
    fn epoch(&mut self, mut changes: Changes) {
        if changes.is_empty() {
            return;
        }
        self.number += 1;
        let mut late = Vec::new();
        let ids: Vec<RelationId> = self.views.keys().copied().collect();
        for id in ids {
            let live = self.views.get_mut(&id).expect("the ids were just read");
            let concerns =
                |r: &RelationId| changes.relations.contains_key(r) || changes.watermarks.contains_key(r);
            if !matches!(live.phase, Phase::Running) || !live.reads.iter().any(concerns) {
                continue;
            }
            let view = live.view.as_mut().expect("a running view is here");
            let clock = &self.env.clock;
            let end = clock.monotonic().saturating_add(self.budget.of(changes.rows));
            let (quiet, every, units) = (self.quiet, self.config.cut_out_every, &mut self.units);
            // What is replayed has nobody who waits.
            let mut more = || {
                *units += 1;
                quiet || every.map_or_else(|| clock.monotonic() < end, |every| !units.is_multiple_of(every))
            };
            let passed = guarded(|| {
                view.begin(&changes, self.config.epoch_rows)?;
                view.resume(&mut more)
            });
            match passed {
                Ok(Some(stepped)) => {
                    if !quiet && every.is_none() && clock.monotonic() > end {
                        late.push(id);
                    }
                    let beyond = view.beyond();
                    self.touched.insert(id);
                    self.took(id, stepped, &mut changes);
                    if let Some(why) = beyond {
                        self.pause(id, why);
                    }
                }
                Ok(None) => self.cut_out(id, self.number),
                Err(why) if view.full => self.pause(id, why),
                Err(why) => self.fail(id, why),
            }
        }
        late.into_iter().for_each(|id| self.cut_out(id, self.number + 1));
        self.spool(&changes);
        for (id, sink) in &self.sinks {
            let pieces = changes.relations.get(&sink.input).into_iter().flatten();
            let (cut, outgoing) = self.outgoing.entry(*id).or_default();
            outgoing.extend(pieces.map(|piece| piece.delta.clone()));
            if !outgoing.is_empty() {
                *cut = self.cut;
            }
        }
        self.attend();
        self.cut_before = self.cut;
    }

    fn took(&mut self, id: RelationId, stepped: crate::view::Stepped, changes: &mut Changes) {
        self.refuse(id, stepped.errors, stepped.late);
        for delta in stepped.deltas {
            changes.push(id, Piece { delta, facts: None });
        }
    }

    fn refuse(&mut self, id: RelationId, errors: Vec<(ErrorRow, i64)>, late: Vec<(LateRow, i64)>) {
        errors.into_iter().for_each(|(row, weight)| self.errors.add(id, row, weight));
        late.into_iter().for_each(|(row, weight)| self.late.add(id, row, weight));
    }

    /// A view stops alone, and with it those that read it. What was published of them stays.
    fn fail(&mut self, id: RelationId, why: String) {
        let name = self.views.get(&id).map_or_else(String::new, |v| v.relation.name.clone());
        error!(view = %name, %why, "a materialized view has failed");
        for dependant in self.catalog.transitive_dependants(id) {
            if let Some(live) = self.views.get_mut(&dependant) {
                let why =
                    if dependant == id { why.clone() } else { format!("its input \"{name}\" has failed") };
                (live.phase, live.view) = (Phase::Failed(why), None);
                self.touched.insert(dependant);
            }
        }
        if let Some(live) = self.views.get_mut(&id) {
            (live.phase, live.view) = (Phase::Failed(why), None);
            self.touched.insert(id);
        }
    }

    fn new_graph(&self) -> Graph {
        let mut graph = Graph::new(self.config.shards, Arc::clone(&self.pool));
        let clock = Arc::clone(&self.env.clock);
        graph.set_clock(Arc::new(move || clock.monotonic().as_nanos() as u64));
        graph
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
