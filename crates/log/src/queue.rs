//! Transactions that wait for the writer.

use std::collections::VecDeque;

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
}

/// What goes into one group.
pub(crate) struct Taken {
    pub transactions: Vec<Pending>,
    /// Nothing else is under way and the group is small: no other thread is needed to write it.
    pub alone: bool,
}

impl Queue {
    pub fn new(limits: Limits) -> Self {
        Self { state: Mutex::default(), work: Condvar::new(), room: Condvar::new(), limits }
    }

    /// Queues, waiting for room. One transaction may be larger than the limit, if nothing else waits.
    pub fn push(&self, pending: Pending) {
        let mut state = self.state.lock();
        loop {
            let refused = match &state.failed {
                Some(error) => Some(error.clone()),
                None => state.closing.then_some(LogError::Closed),
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

    /// Takes the transactions of the next group; `None` once the queue is closed and empty.
    ///
    /// While a group is being synced, more is worth waiting for: it would only wait elsewhere. Unless there is so much that
    /// encoding it meanwhile pays.
    pub fn take(&self) -> Option<Taken> {
        let mut state = self.state.lock();
        loop {
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
        Some(Taken { transactions, alone })
    }

    /// A group that was taken is durable, or has failed.
    pub fn done(&self) {
        self.state.lock().syncing -= 1;
        self.work.notify_one();
    }

    /// Nothing more is taken in; what waits is still written.
    pub fn close(&self) {
        self.state.lock().closing = true;
        self.work.notify_all();
        self.room.notify_all();
    }

    pub fn is_closing(&self) -> bool {
        self.state.lock().closing
    }

    pub fn failure(&self) -> Option<LogError> {
        self.state.lock().failed.clone()
    }

    /// Everything that waits, and comes, gets this error.
    pub fn fail(&self, error: &LogError) {
        let mut state = self.state.lock();
        let stopped = state.failed.get_or_insert_with(|| error.stopped()).clone();
        state.bytes = 0;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        self.room.notify_all();
        for pending in waiting {
            pending.resolver.finish(Err(stopped.clone()));
        }
    }
}
