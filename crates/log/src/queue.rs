//! Transactions that wait for the writer.

use std::collections::VecDeque;

use crossbeam_channel::{Receiver, Sender, bounded};
use millpond_types::Commit;
use parking_lot::{Condvar, Mutex};

use crate::ticket::Resolver;
use crate::{LogError, Record, Transaction};

/// What a transaction costs beside its rows.
pub(crate) const TRANSACTION_BYTES: usize = 128;

pub(crate) struct Pending {
    pub transaction: Transaction,
    /// Of each write's rows.
    pub sizes: Vec<usize>,
    /// Of everything.
    pub bytes: usize,
    pub resolver: Resolver,
}

impl Pending {
    fn has_ddl(&self) -> bool {
        self.transaction.records.iter().any(|record| matches!(record, Record::Ddl(_)))
    }

    /// Later rows must see what its records do, so it is the last of its group.
    fn ends_group(&self) -> bool {
        self.transaction.records.iter().any(|record| !matches!(record, Record::Tick(_)))
    }
}

/// A bounded queue with one reader.
pub(crate) struct Queue {
    state: Mutex<State>,
    /// The reader waits for work.
    work: Condvar,
    /// Submitters wait for room.
    room: Condvar,
    /// Others wait until nothing is on its way to the disk.
    quiet: Condvar,
    limits: Limits,
}

#[derive(Clone, Copy)]
pub(crate) struct Limits {
    pub queue_bytes_max: usize,
    pub group_bytes_max: usize,
    /// From this size on a group is encoded while the one before it is synced.
    pub overlap_bytes: usize,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Pending>,
    bytes: usize,
    /// Groups that were taken and are not yet durable.
    syncing: usize,
    closing: bool,
    failed: Option<LogError>,
    /// How often it has failed.
    term: u64,
    /// Somebody wants the log to go on.
    heal: Vec<Healing>,
}

/// Who waits for the log to go on.
pub(crate) type Healing = Sender<Result<Commit, LogError>>;

/// What the encoder is to do next.
pub(crate) enum Work {
    Group(Taken),
    /// Make the log take appends again, and tell.
    Heal(Vec<Healing>),
}

/// What goes into one group.
pub(crate) struct Taken {
    pub transactions: Vec<Pending>,
    /// Nothing else is under way and the group is small: no other thread is needed to write it.
    pub alone: bool,
}

impl Queue {
    pub fn new(limits: Limits) -> Self {
        Self {
            state: Mutex::default(),
            work: Condvar::new(),
            room: Condvar::new(),
            quiet: Condvar::new(),
            limits,
        }
    }

    /// Queues, waiting for room. One transaction may be larger than the limit, if nothing else waits. With a `term` it is
    /// refused if the log has failed since that was asked for.
    pub fn push(&self, pending: Pending, term: Option<u64>) {
        let mut state = self.state.lock();
        loop {
            let refused = match &state.failed {
                Some(error) => Some(error.clone()),
                None if state.closing => Some(LogError::Closed),
                None => term.is_some_and(|term| term != state.term).then_some(LogError::Interrupted),
            };
            if let Some(error) = refused {
                drop(state);
                return pending.resolver.finish(Err(error));
            }
            if state.waiting.is_empty() || state.bytes + pending.bytes <= self.limits.queue_bytes_max {
                break;
            }
            self.room.wait(&mut state);
        }
        state.bytes += pending.bytes;
        state.waiting.push_back(pending);
        drop(state);
        self.work.notify_one();
    }

    /// Takes the transactions of the next group, or the order to heal; `None` once the queue is closed and empty.
    ///
    /// While a group is being synced, more is worth waiting for: it would only wait elsewhere. Unless there is so much that
    /// encoding it meanwhile pays.
    pub fn take(&self) -> Option<Work> {
        let mut state = self.state.lock();
        loop {
            if state.syncing == 0 && !state.heal.is_empty() {
                return Some(Work::Heal(std::mem::take(&mut state.heal)));
            }
            let ready = match state.syncing {
                0 => true,
                1 => state.bytes >= self.limits.overlap_bytes,
                _ => false,
            };
            if ready && !state.waiting.is_empty() {
                break;
            }
            if state.waiting.is_empty() && state.closing {
                return None;
            }
            self.work.wait(&mut state);
        }
        let mut transactions = Vec::new();
        let mut bytes = 0;
        while let Some(next) = state.waiting.front() {
            let begins_own = next.has_ddl() && !transactions.is_empty();
            if begins_own || (bytes > 0 && bytes + next.bytes > self.limits.group_bytes_max) {
                break;
            }
            let last = next.ends_group();
            bytes += next.bytes;
            transactions.extend(state.waiting.pop_front());
            if last {
                break;
            }
        }
        state.bytes -= bytes;
        let alone = state.syncing == 0 && bytes < self.limits.overlap_bytes;
        state.syncing += 1;
        drop(state);
        self.room.notify_all();
        Some(Work::Group(Taken { transactions, alone }))
    }

    /// A group that was taken is durable, or has failed.
    pub fn done(&self) {
        let mut state = self.state.lock();
        state.syncing = state.syncing.saturating_sub(1);
        drop(state);
        self.work.notify_one();
        self.quiet.notify_all();
    }

    /// Waits until no more than `groups` are on their way to the disk.
    pub fn wait_syncing(&self, groups: usize) {
        let mut state = self.state.lock();
        while state.syncing > groups {
            self.quiet.wait(&mut state);
        }
    }

    /// Nothing more is taken in; what waits is still written.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.closing = true;
        // Whoever waits for the log to heal hears that it is closed.
        state.heal.clear();
        drop(state);
        self.work.notify_all();
        self.room.notify_all();
    }

    /// A thread has died: nothing that is on its way will arrive.
    pub fn abandon(&self) {
        self.fail(&LogError::Closed);
        self.close();
        self.state.lock().syncing = 0;
        self.quiet.notify_all();
    }

    pub fn is_closing(&self) -> bool {
        self.state.lock().closing
    }

    pub fn failure(&self) -> Option<LogError> {
        self.state.lock().failed.clone()
    }

    pub fn is_failed(&self) -> bool {
        self.state.lock().failed.is_some()
    }

    pub fn term(&self) -> u64 {
        self.state.lock().term
    }

    /// Everything that waits, and comes, gets this error. Returns the new term, if it is the first failure of this one.
    pub fn fail(&self, error: &LogError) -> Option<u64> {
        let mut state = self.state.lock();
        let first = state.failed.is_none();
        state.term += u64::from(first);
        let stopped = state.failed.get_or_insert_with(|| error.stopped()).clone();
        let term = first.then_some(state.term);
        state.bytes = 0;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        self.room.notify_all();
        for pending in waiting {
            pending.resolver.finish(Err(stopped.clone()));
        }
        term
    }

    /// A newer reason, of an attempt to heal, takes the place of the older.
    pub fn still_failed(&self, error: &LogError) {
        let mut state = self.state.lock();
        if state.failed.is_some() {
            state.failed = Some(error.stopped());
        }
    }

    /// Transactions are taken in again.
    pub fn healed(&self) {
        self.state.lock().failed = None;
    }

    /// Asks the encoder to heal the log, once nothing is on its way.
    pub fn ask_to_heal(&self) -> Receiver<Result<Commit, LogError>> {
        let (reply, answer) = bounded(1);
        let mut state = self.state.lock();
        if !state.closing {
            state.heal.push(reply);
        }
        drop(state);
        self.work.notify_all();
        answer
    }
}
