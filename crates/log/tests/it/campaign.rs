//! Random lives of a log on a simulated machine.
//!
//! One seed is one life: appends of all kinds, closing and opening, crashes, failing calls, a full disk, each drawn from
//! [`ACTIVITIES`]; a new ability of the log gets a line there. Power goes at a drawn call of whatever is under way, and
//! again during the recovery from that. Half of the lives have an object store; a background thread has none, what it does is
//! done by activities. A model keeps what was acknowledged, and what was sent and not answered. After
//! each start and each healing the log must hold the first, in order, and of the second a beginning, each transaction whole
//! or not at all; what was once found missing never comes back.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray as _, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use bytes::Bytes;
use crossbeam_channel::{Receiver, unbounded};
use millpond_env::Random as _;
use millpond_env::sim::{Fault, Sim, SimRandom, Survivors};
use millpond_log::{
    ColdTier, CommittedGroup, Log, LogOptions, Offline, Producer, Record, Ticket, TopicSpec, Transaction,
    Write, WriteKind,
};
use millpond_types::{Commit, EventTime, PartitionId, RelationId};

const TOPICS: [(RelationId, u32); 3] = [(RelationId(7), 1), (RelationId(8), 3), (PRODUCED, 1)];
/// Written by one idempotent producer only.
const PRODUCED: RelationId = RelationId(9);

type Outcome = Result<(), String>;

/// What a life can be made of: its name, how often it is drawn, and what it does.
pub struct Activity {
    pub name: &'static str,
    weight: u64,
    run: fn(&mut World) -> Outcome,
}

pub const ACTIVITIES: &[Activity] = &[
    Activity { name: "append", weight: 30, run: World::append },
    Activity { name: "append much", weight: 2, run: World::append_much },
    Activity { name: "control records", weight: 6, run: World::records },
    Activity { name: "repeat what may have been lost", weight: 6, run: World::repeat },
    Activity { name: "read", weight: 6, run: World::check },
    Activity { name: "close and open", weight: 5, run: World::reopen },
    Activity { name: "checkpoint", weight: 4, run: World::checkpoint },
    Activity { name: "survey", weight: 2, run: World::survey },
    Activity { name: "crash", weight: 8, run: World::crash },
    Activity { name: "power off at some call", weight: 12, run: World::power_off },
    Activity { name: "a failing call", weight: 10, run: World::failing_call },
    Activity { name: "a full disk", weight: 4, run: World::full_disk },
    Activity { name: "cut into segments", weight: 8, run: World::cut },
    Activity { name: "a failing call of a cut", weight: 5, run: World::failing_cut },
    Activity { name: "power off at some call of a cut", weight: 6, run: World::power_off_in_a_cut },
    Activity { name: "a lost disk", weight: 3, run: World::lose_disk },
];

/// What a life has been through.
#[derive(Debug, Default)]
pub struct Life {
    pub activities: BTreeMap<&'static str, u64>,
    pub acknowledged: u64,
    pub crashes: u64,
    pub healed: u64,
}

/// Rows of one partition: numbers that rise by one.
type Rows = ((RelationId, PartitionId), std::ops::Range<i64>);

/// What a transaction has sent.
#[derive(Clone, Debug, Default)]
struct Sent {
    rows: Vec<Rows>,
    ddl: Option<Bytes>,
}

pub struct World {
    random: SimRandom,
    sim: Sim,
    options: LogOptions,
    open: Option<(Log, Receiver<Arc<CommittedGroup>>)>,
    has_objects: bool,
    /// By partition, all rows that the log must hold.
    rows: BTreeMap<(RelationId, PartitionId), Vec<i64>>,
    ddl: Vec<Bytes>,
    /// Sent after these, in order, and not acknowledged.
    unanswered: Vec<Sent>,
    newest: Commit,
    next_row: i64,
    clock: i64,
    produced: u64,
    /// The newest append of the producer, to be sent again.
    last_produced: Option<(Write, Sent)>,
    life: Life,
    story: String,
}

/// Lives through one seed.
///
/// # Errors
/// What is wrong, with what led there.
pub fn live(seed: u64) -> Result<Life, String> {
    let random = SimRandom::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let draw = |choices: &[u64]| choices[(random.next_u64() % choices.len() as u64) as usize];
    let options = LogOptions {
        file_bytes_max: draw(&[900, 3_000, 20_000, 1 << 20]),
        frame_rows_max: draw(&[20, 200, 10_000]) as usize,
        group_bytes_max: draw(&[200, 5_000, 8 << 20]) as usize,
        overlap_bytes: draw(&[100, 256 << 10]) as usize,
        background: false,
        seal_interval: None,
        ..LogOptions::default()
    };
    let sim = Sim::new(seed);
    let has_objects = draw(&[0, 1]) == 1;
    sim.disk.set_reserves(draw(&[0, 1]) == 1);
    let mut world = World {
        story: format!("seed {seed}, {options:?}\n"),
        random: random.clone(),
        sim,
        options,
        open: None,
        has_objects,
        rows: BTreeMap::new(),
        ddl: Vec::new(),
        unanswered: Vec::new(),
        newest: Commit(0),
        next_row: 0,
        clock: 0,
        produced: 0,
        last_produced: None,
        life: Life::default(),
    };
    match world.run() {
        Ok(()) => Ok(world.life),
        Err(why) => Err(format!("{why}\n{}", world.story)),
    }
}

impl World {
    fn run(&mut self) -> Outcome {
        self.start()?;
        let total: u64 = ACTIVITIES.iter().map(|activity| activity.weight).sum();
        for _ in 0..20 {
            let mut drawn = self.below(total);
            let activity = ACTIVITIES.iter().find(|activity| {
                let found = drawn < activity.weight;
                drawn = drawn.saturating_sub(activity.weight);
                found
            });
            let activity = activity.expect("the weights add up to the total");
            self.note(activity.name);
            *self.life.activities.entry(activity.name).or_default() += 1;
            (activity.run)(self)?;
        }
        self.crash()?;
        self.check()
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random.next_u64() % bound
    }

    fn note(&mut self, what: impl std::fmt::Display) {
        let _ = writeln!(self.story, "{what}");
    }

    fn try_open(&mut self) -> Result<(), millpond_log::LogError> {
        let (observer, groups) = unbounded();
        let cold = self.sim.env().objects.filter(|_| self.has_objects).map(|objects| ColdTier {
            objects,
            prefix: object_store::path::Path::from("pond"),
            local_retention: Some(Duration::from_secs(60)),
        });
        let options = LogOptions { cold, ..self.options.clone() };
        let (log, recovered) = Log::open(self.sim.env(), dir(), options, observer)?;
        for (topic, partitions) in TOPICS {
            log.declare_topic(topic, TopicSpec { partitions });
        }
        self.note(format_args!("open: {} commits, cut {:?}", recovered.last_commit, recovered.cut));
        self.open = Some((log, groups));
        Ok(())
    }

    /// Opens the log and looks at what it holds.
    fn start(&mut self) -> Outcome {
        self.try_open().map_err(|error| format!("it does not open: {error}"))?;
        self.settle_unanswered()?;
        self.check()
    }

    fn log(&self) -> &Log {
        &self.open.as_ref().expect("the log is open").0
    }

    /// What of the unanswered transactions is in the log is there for good, the others are gone for good.
    fn settle_unanswered(&mut self) -> Outcome {
        let (found, ddl) = self.contents()?;
        for sent in std::mem::take(&mut self.unanswered) {
            let is_there = |rows: &Rows| found.get(&rows.0).is_some_and(|all| holds(all, &rows.1));
            let there = sent.rows.iter().filter(|rows| is_there(rows)).count();
            if there != 0 && there != sent.rows.len() {
                return Err(format!("half a transaction is there: {sent:?}"));
            }
            let with_ddl = sent.ddl.as_ref().is_some_and(|record| ddl.contains(record));
            if sent.ddl.is_some() && !sent.rows.is_empty() && with_ddl != (there > 0) {
                return Err(format!("rows without their DDL record, or the reverse: {sent:?}"));
            }
            if there > 0 || with_ddl {
                self.note(format_args!("not answered, and there: {sent:?}"));
                self.take_in(&sent);
            }
        }
        Ok(())
    }

    fn take_in(&mut self, sent: &Sent) {
        for (partition, rows) in &sent.rows {
            self.rows.entry(*partition).or_default().extend(rows.clone());
        }
        self.ddl.extend(sent.ddl.clone());
    }

    /// All rows by partition, and all DDL records.
    #[allow(clippy::type_complexity, reason = "what the model holds, too")]
    fn contents(&self) -> Result<(BTreeMap<(RelationId, PartitionId), Vec<i64>>, Vec<Bytes>), String> {
        let mut rows: BTreeMap<_, Vec<i64>> = BTreeMap::new();
        let mut ddl = Vec::new();
        let mut last = Commit(0);
        for group in self.log().replay(Commit(0), Commit(u64::MAX)) {
            let group = group.map_err(|error| format!("a replay fails: {error}"))?;
            if group.commit <= last {
                return Err(format!("commit {} comes after {last}", group.commit));
            }
            last = group.commit;
            for frame in &group.frames {
                let of = rows.entry((frame.topic, frame.partition)).or_default();
                if frame.base_offset.0 != of.len() as u64 {
                    return Err(format!("commit {} goes on at offset {}", group.commit, frame.base_offset));
                }
                of.extend(frame.batch.column(0).as_primitive::<Int64Type>().values());
            }
            for record in group.records {
                if let Record::Ddl(bytes) = record {
                    ddl.push(bytes);
                }
            }
        }
        Ok((rows, ddl))
    }

    /// The log holds exactly what the model says, whichever way it is read.
    fn check(&mut self) -> Outcome {
        let (found, ddl) = self.contents()?;
        for (topic, partitions) in TOPICS {
            let mut by_frames: BTreeMap<PartitionId, Vec<i64>> = BTreeMap::new();
            let frames = self.log().frames(topic, Commit(0), Commit(u64::MAX));
            for frame in frames.map_err(|error| format!("a segment: {error}"))? {
                let batch =
                    self.log().read(&frame, Some(&[0])).map_err(|error| format!("a read: {error}"))?;
                let ids = batch.column(0).as_primitive::<Int64Type>().values().to_vec();
                by_frames.entry(frame.partition).or_default().extend(ids);
            }
            for partition in (0..partitions).map(PartitionId) {
                let none = Vec::new();
                let key = (topic, partition);
                let expected = self.rows.get(&key).unwrap_or(&none);
                for (way, rows) in [("replay", found.get(&key)), ("frames", by_frames.get(&partition))] {
                    if rows.unwrap_or(&none) != expected {
                        return Err(format!(
                            "topic {topic}, partition {partition}, by {way}: found {rows:?}, expected {expected:?}"
                        ));
                    }
                }
            }
        }
        if ddl != self.ddl {
            return Err(format!("DDL records: found {ddl:?}, expected {:?}", self.ddl));
        }
        Ok(())
    }

    fn write(&mut self, topic: RelationId, partition: PartitionId, rows: i64, sent: &mut Sent) -> Write {
        let first = self.next_row;
        self.next_row += rows;
        if rows > 0 {
            sent.rows.push(((topic, partition), first..first + rows));
        }
        self.clock += self.below(1_000) as i64 - 100;
        let event_time = (self.below(3) > 0).then_some(EventTime(self.clock));
        let position = (self.below(5) == 0).then(|| Bytes::from(self.clock.to_string()));
        Write {
            topic,
            partition,
            batch: batch(first, rows),
            event_time,
            schema_version: 1,
            kind: WriteKind::Append,
            producer: None,
            position,
        }
    }

    fn transaction(&mut self, rows_max: u64) -> (Transaction, Sent) {
        let mut sent = Sent::default();
        let mut transaction = Transaction::default();
        for _ in 0..=self.below(2) {
            let (topic, partitions) = TOPICS[self.below(2) as usize];
            let partition = PartitionId(self.below(u64::from(partitions)) as u32);
            let rows = self.below(rows_max) as i64;
            transaction.writes.push(self.write(topic, partition, rows, &mut sent));
        }
        (transaction, sent)
    }

    /// Submits everything at once, waits, and keeps what was acknowledged. False if something failed.
    fn send(&mut self, transactions: Vec<(Transaction, Sent)>) -> Result<bool, String> {
        let tickets: Vec<(Ticket, Sent)> = transactions
            .into_iter()
            .map(|(transaction, sent)| (self.log().submit(transaction), sent))
            .collect();
        for (ticket, sent) in tickets {
            match ticket.wait_blocking() {
                Ok(commit) if !self.unanswered.is_empty() => {
                    return Err(format!("commit {commit} is acknowledged, although one before it failed"));
                }
                Ok(commit) if commit < self.newest => {
                    return Err(format!("commit {commit} is acknowledged after {}", self.newest));
                }
                Ok(commit) => {
                    self.newest = commit;
                    self.life.acknowledged += 1;
                    self.take_in(&sent);
                }
                Err(error) => {
                    self.note(format_args!("not acknowledged: {error}"));
                    self.unanswered.push(sent);
                }
            }
        }
        Ok(self.unanswered.is_empty())
    }

    fn must_send(&mut self, transactions: Vec<(Transaction, Sent)>) -> Outcome {
        match self.send(transactions)? {
            true => Ok(()),
            false => Err("an append fails although nothing is wrong".to_owned()),
        }
    }

    fn append(&mut self) -> Outcome {
        let transactions = (0..=self.below(5)).map(|_| self.transaction(30)).collect();
        self.must_send(transactions)
    }

    fn append_much(&mut self) -> Outcome {
        let transactions = (0..=self.below(3)).map(|_| self.transaction(400)).collect();
        self.must_send(transactions)
    }

    fn records(&mut self) -> Outcome {
        let (mut transaction, mut sent) = self.transaction(5);
        let (topic, partition) = (RelationId(8), PartitionId(self.below(3) as u32));
        transaction.records.push(match self.below(4) {
            0 => Record::Tick(EventTime(self.clock)),
            1 => Record::AdvanceWatermark { topic, to: EventTime(self.clock + 500) },
            2 => Record::PartitionIdle { topic, partition },
            _ => {
                let ddl = Bytes::from(format!("ddl {}", self.next_row));
                self.next_row += 1;
                sent.ddl = Some(ddl.clone());
                Record::Ddl(ddl)
            }
        });
        self.must_send(vec![(transaction, sent)])
    }

    /// A producer sends its last rows again, in case they were lost, then new ones.
    fn repeat(&mut self) -> Outcome {
        if let Some((write, sent)) = self.last_produced.clone() {
            let of = (PRODUCED, PartitionId(0));
            let there =
                sent.rows.iter().all(|rows| self.rows.get(&of).is_some_and(|all| holds(all, &rows.1)));
            let transaction = Transaction { writes: vec![write], records: Vec::new() };
            match there {
                true => self.is_answered_again(transaction, &sent)?,
                false => self.must_send(vec![(transaction, sent)])?,
            }
        }
        let made = self.produce();
        self.must_send(vec![made])
    }

    /// A repetition appends nothing, and is told the commit of the first.
    fn is_answered_again(&mut self, transaction: Transaction, sent: &Sent) -> Outcome {
        let answer = self.log().submit(transaction).wait_blocking();
        let commit = answer.map_err(|error| format!("a repetition fails: {error}"))?;
        let before = Commit(commit.0.saturating_sub(1));
        let mut found = Vec::new();
        let frames = self.log().frames(PRODUCED, before, commit);
        for frame in frames.map_err(|error| format!("a segment: {error}"))? {
            let batch = self.log().read(&frame, Some(&[0])).map_err(|error| format!("a read: {error}"))?;
            found.extend_from_slice(batch.column(0).as_primitive::<Int64Type>().values());
        }
        match sent.rows.iter().all(|rows| holds(&found, &rows.1)) {
            true => self.check(),
            false => {
                Err(format!("a repetition is told commit {commit}, which holds {found:?}, not {sent:?}"))
            }
        }
    }

    fn produce(&mut self) -> (Transaction, Sent) {
        let mut sent = Sent::default();
        self.produced += 1;
        let rows = 1 + self.below(4) as i64;
        let mut write = self.write(PRODUCED, PartitionId(0), rows, &mut sent);
        write.producer = Some(Producer { id: 1, epoch: 1, sequence: self.produced });
        self.last_produced = Some((write.clone(), sent.clone()));
        (Transaction { writes: vec![write], records: Vec::new() }, sent)
    }

    fn reopen(&mut self) -> Outcome {
        self.open = None;
        self.start()
    }

    /// A checkpoint covers everything so far: the next start checks less.
    fn checkpoint(&mut self) -> Outcome {
        self.options.verify_from = *self.log().durable().borrow();
        Ok(())
    }

    /// Nothing is damaged that no fault has damaged.
    fn survey(&mut self) -> Outcome {
        self.open = None;
        let journal = Offline::open(&self.sim.env(), dir()).map_err(|error| error.to_string())?;
        let survey = journal.survey(true, &mut |_| ()).map_err(|error| error.to_string())?;
        drop(journal);
        if let Some(file) = survey.files.iter().find(|file| !file.damages.is_empty()) {
            return Err(format!("damaged without a cause: {file:?}"));
        }
        let rows: u64 = survey.topics.values().map(|topic| topic.rows).sum();
        if rows != self.rows.values().map(|rows| rows.len() as u64).sum::<u64>() {
            return Err(format!("a survey counts {rows} rows"));
        }
        self.start()
    }

    fn survivors(&mut self) -> Survivors {
        match self.below(6) {
            0 => Survivors::None,
            1 => Survivors::All,
            2 => Survivors::Sectors,
            3 => {
                let (changes, torn_bytes) = (self.below(3) as usize, self.below(300) as usize);
                Survivors::Prefix { changes, torn_bytes }
            }
            _ => Survivors::Random,
        }
    }

    /// The machine stops now; the next process finds what it finds.
    fn lose_power(&mut self) {
        let survivors = self.survivors();
        self.life.crashes += 1;
        self.sim.disk.power_off();
        self.open = None;
        self.sim = self.sim.crash(survivors);
        self.note(format_args!("crash, {survivors:?}"));
    }

    fn crash(&mut self) -> Outcome {
        self.lose_power();
        self.start()
    }

    /// Power goes at a call of an append, a roll, a close; and perhaps again at a call of the recovery.
    fn power_off(&mut self) -> Outcome {
        let call = self.sim.disk.changes() + self.below(12);
        self.sim.disk.fault_at(call, Fault::PowerOff);
        for _ in 0..4 {
            let mut transactions: Vec<_> = (0..=self.below(2)).map(|_| self.transaction(40)).collect();
            transactions.push(self.produce());
            if !self.send(transactions)? {
                break;
            }
        }
        self.lose_power();
        while self.below(2) == 0 {
            let call = self.sim.disk.changes() + self.below(6);
            self.sim.disk.fault_at(call, Fault::PowerOff);
            let opened = self.try_open();
            self.note(format_args!("a second crash during recovery: {opened:?}"));
            self.lose_power();
        }
        self.start()
    }

    /// Any call fails once; the log heals, and perhaps another call fails meanwhile.
    fn failing_call(&mut self) -> Outcome {
        let kinds = [std::io::ErrorKind::Other, std::io::ErrorKind::StorageFull];
        for _ in 0..=self.below(2) {
            let kind = kinds[self.below(2) as usize];
            let call = self.sim.disk.changes() + self.below(10);
            let torn = self.below(400) as usize;
            let fault = if self.below(2) == 0 { Fault::Error(kind) } else { Fault::Torn(torn, kind) };
            self.sim.disk.fault_at(call, fault);
        }
        for _ in 0..4 {
            let mut transactions: Vec<_> = (0..=self.below(3)).map(|_| self.transaction(40)).collect();
            transactions.push(self.produce());
            if !self.send(transactions)? {
                self.heal()?;
            }
        }
        self.sim.disk.heal();
        // Where the fault has hit what nobody waits for, the log must have gone on, too.
        if self.log().failure().is_some() { self.heal() } else { self.check() }
    }

    fn heal(&mut self) -> Outcome {
        self.log().settle();
        let durable = *self.log().durable().borrow();
        let (_, groups) = self.open.as_ref().expect("the log is open");
        let shown: Vec<Commit> = groups.try_iter().map(|group| group.commit).collect();
        self.note(format_args!("healing at {durable}; the observer has {shown:?}"));
        let mut healed = Err(millpond_log::LogError::Closed);
        for _ in 0..10 {
            healed = self.log().heal();
            if healed.is_ok() {
                break;
            }
        }
        let commit = healed.map_err(|error| format!("it does not heal: {error}"))?;
        self.life.healed += 1;
        if shown.iter().any(|shown| *shown >= commit) {
            return Err(format!("commit {commit} means two things"));
        }
        // In the same process nothing of what failed may be there.
        self.unanswered.clear();
        self.check()
    }

    fn full_disk(&mut self) -> Outcome {
        let room = self.below(6_000);
        self.sim.disk.set_capacity(Some(self.sim.disk.used() + room));
        let mut full = false;
        for _ in 0..6 {
            let transactions = (0..=self.below(3)).map(|_| self.transaction(200)).collect();
            if !self.send(transactions)? {
                full = true;
                break;
            }
        }
        if full {
            self.log().settle();
            if !self.log().failure().is_some_and(|failure| failure.is_disk_full()) {
                return Err("a full disk is told as something else".to_owned());
            }
            let _ = self.log().heal();
            if self.below(4) == 0 {
                self.lose_power();
                self.sim.disk.set_capacity(None);
                return self.start();
            }
        }
        self.sim.disk.set_capacity(None);
        if full { self.heal() } else { Ok(()) }
    }
}

impl World {
    /// Full files that a checkpoint covers become segments, are uploaded, and leave the disk after a minute.
    fn cut(&mut self) -> Outcome {
        self.log().checkpointed(*self.log().durable().borrow());
        let pause = Duration::from_secs(self.below(50));
        self.sim.clock.advance(pause);
        self.log().maintain().map_err(|error| format!("nothing was wrong: {error}"))?;
        self.check()
    }

    /// A call fails, of the disk or of the object store: readers see what they saw, and the next start goes on.
    fn failing_cut(&mut self) -> Outcome {
        if self.has_objects && self.below(2) == 0 {
            let other = Fault::Error(std::io::ErrorKind::Other);
            let fault = if self.below(2) == 0 { Fault::LostAnswer } else { other };
            let call = self.sim.objects.calls() + self.below(12);
            self.sim.objects.fault_at(call, fault);
        } else {
            let kinds = [std::io::ErrorKind::Other, std::io::ErrorKind::StorageFull];
            let (kind, torn) = (kinds[self.below(2) as usize], self.below(400) as usize);
            let fault = if self.below(2) == 0 { Fault::Error(kind) } else { Fault::Torn(torn, kind) };
            let call = self.sim.disk.changes() + self.below(40);
            self.sim.disk.fault_at(call, fault);
        }
        self.log().checkpointed(*self.log().durable().borrow());
        let passes: Vec<_> = (0..3).map(|_| self.log().maintain()).collect();
        self.note(format_args!("{passes:?}"));
        self.sim.disk.heal();
        self.sim.objects.heal();
        self.check()?;
        // What failed is done without a restart.
        self.cut()
    }

    fn power_off_in_a_cut(&mut self) -> Outcome {
        let call = self.sim.disk.changes() + self.below(60);
        self.sim.disk.fault_at(call, Fault::PowerOff);
        self.log().checkpointed(*self.log().durable().borrow());
        let pass = self.log().maintain();
        self.note(format_args!("{pass:?}"));
        self.lose_power();
        self.start()
    }

    /// Another machine with the same object store has everything that was uploaded.
    fn lose_disk(&mut self) -> Outcome {
        if !self.has_objects {
            return Ok(());
        }
        self.log().upload_journal().map_err(|error| format!("nothing was wrong: {error}"))?;
        let objects = self.sim.objects.clone();
        self.open = None;
        self.sim = Sim { objects, ..Sim::new(self.random.next_u64()) };
        self.start()
    }
}

/// Whether all of the rows are there, one after the other.
fn holds(all: &[i64], rows: &std::ops::Range<i64>) -> bool {
    let Some(at) = all.iter().rposition(|row| *row == rows.start) else { return false };
    all[at..].iter().copied().take(rows.clone().count()).eq(rows.clone())
}

fn dir() -> &'static Path {
    Path::new("/data/journal")
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("text", DataType::Utf8, true),
    ]))
}

fn batch(first: i64, rows: i64) -> RecordBatch {
    let ids = Int64Array::from_iter_values(first..first + rows);
    let texts: StringArray =
        (first..first + rows).map(|id| (id % 3 != 0).then(|| format!("row {id}"))).collect();
    RecordBatch::try_new(schema(), vec![Arc::new(ids), Arc::new(texts)]).expect("two columns of one length")
}
