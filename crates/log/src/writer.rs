//! The threads that make groups and put them on disk.
//!
//! The *encoder* takes what waits, makes a group, shows it to the observer, and hands it on; the *syncer* writes, syncs and
//! acknowledges, so that the next group is encoded meanwhile. A small group that has nothing before it is synced by the
//! encoder itself: waking another thread would cost more than the overlap saves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, SendTimeoutError, Sender, bounded};
use millpond_env::{DiskFile, Env, Open};
use millpond_types::Commit;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tracing::error;

use crate::group::{Built, Chain};
use crate::heal::Healer;
use crate::index::{Index, JournalFile, Sink};
use crate::queue::{Pending, Queue, Taken, Work};
use crate::segment::worker::Tier;
use crate::ticket::Resolver;
use crate::topic::{Admitted, Topics};
use crate::{CommittedGroup, LogError, Write};

/// How often a blocked observer is looked at for whether the log is closing.
const OBSERVER_POLL: Duration = Duration::from_millis(20);
/// Space is reserved in steps of this, so that a full disk is found before a group is seen by anybody.
const RESERVE_BYTES: u64 = 16 << 20;
/// Larger buffers are given back to the allocator.
const KEPT_BUFFER_BYTES_MAX: usize = 32 << 20;

/// What handles and threads share.
pub(crate) struct Shared {
    pub env: Env,
    pub queue: Queue,
    pub topics: Mutex<Topics>,
    pub index: RwLock<Index>,
    pub durable: watch::Sender<Commit>,
    pub failures: watch::Sender<u64>,
    pub tier: Tier,
    sink: Mutex<Option<Sink>>,
    /// How far the newest file can grow without asking the disk for space.
    reserved: AtomicU64,
    /// The size of the group that failed.
    pub wanted_bytes: AtomicU64,
    buffers: Mutex<Vec<Vec<u8>>>,
}

impl Shared {
    pub fn new(env: Env, queue: Queue, topics: Topics, index: Index, sink: Option<Sink>, tier: Tier) -> Self {
        let durable = watch::Sender::new(index.last());
        Self {
            env,
            queue,
            topics: Mutex::new(topics),
            index: RwLock::new(index),
            durable,
            failures: watch::Sender::new(0),
            tier,
            sink: Mutex::new(sink),
            reserved: AtomicU64::new(0),
            wanted_bytes: AtomicU64::new(0),
            buffers: Mutex::default(),
        }
    }

    /// Takes no more appends until it is healed.
    fn fail(&self, error: &LogError, wanted_bytes: usize) {
        self.wanted_bytes.fetch_max(wanted_bytes as u64, Ordering::Relaxed);
        // First the queue, so that whoever hears of the failure finds the log stopped.
        if let Some(term) = self.queue.fail(error) {
            error!(%error, durable = %*self.durable.borrow(), "the log has failed");
            self.failures.send_replace(term);
        }
    }

    /// Writes one group, syncs it, acknowledges it.
    fn commit(&self, ready: Ready) {
        let Ready { built, tickets } = ready;
        let result = match self.queue.failure() {
            Some(stopped) => Err(stopped),
            None => self.write(&built, &tickets),
        };
        match result {
            Ok(()) => {
                let commit = built.group.commit;
                self.durable.send_replace(commit);
                tickets.into_iter().for_each(|ticket| ticket.finish(Ok(commit)));
            }
            Err(error) => {
                self.fail(&error, built.bytes.len());
                tickets.into_iter().for_each(|ticket| ticket.finish(Err(error.clone())));
            }
        }
        self.recycle(built.bytes);
        self.queue.done();
    }

    fn write(&self, built: &Built, tickets: &[Resolver]) -> Result<(), LogError> {
        let sink = self.sink.lock().clone();
        let Sink { journal, file } = sink.expect("a file is begun before the first group of it");
        debug_assert!(Arc::ptr_eq(&journal, &built.file), "groups come in the order in which they were made");
        file.write_at(&built.bytes, built.at).map_err(|e| LogError::io("write to", &journal.path, e))?;
        let commit = built.group.commit;
        journal.set_written(built.at + built.bytes.len() as u64);
        self.index.write().add(commit, built.at, built.frames.clone());
        tickets.iter().for_each(|ticket| ticket.written(commit));
        file.sync_data().map_err(|e| LogError::io("sync", &journal.path, e))?;
        journal.set_synced(built.at + built.bytes.len() as u64);
        Ok(())
    }

    /// Makes a group's file ready for it: its name, its header, the space on the disk. What can be found wrong here is found
    /// before anybody has seen the group.
    fn prepare(&self, built: &Built, file_bytes_max: u64) -> Result<(), LogError> {
        if let Some(header) = &built.new_file {
            // The file before must be complete, or a crash would leave a torn group behind an older name.
            self.queue.wait_syncing(1);
            if let Some(failure) = self.queue.failure() {
                return Err(failure);
            }
            self.release();
            let file = self.create(&built.file, header)?;
            self.begin(&built.file, Arc::from(file));
            self.index.write().files.push_back(Arc::clone(&built.file));
        }
        let end = built.at + built.bytes.len() as u64;
        if end <= self.reserved.load(Ordering::Relaxed) {
            return Ok(());
        }
        let sink = self.sink.lock().clone();
        let Sink { journal, file } = sink.expect("a file is begun before the first group of it");
        let ahead = (end + RESERVE_BYTES).min(file_bytes_max).max(end);
        let reserved = match reserve(&*file, ahead) {
            Err(error) if millpond_env::is_full(&error) && ahead > end => reserve(&*file, end).map(|()| end),
            other => other.map(|()| ahead),
        };
        let reserved = reserved.map_err(|e| LogError::io("write to", &journal.path, e))?;
        self.reserved.store(reserved, Ordering::Relaxed);
        Ok(())
    }

    /// Groups go to this file from now on.
    pub fn begin(&self, journal: &Arc<JournalFile>, file: Arc<dyn DiskFile>) {
        *self.sink.lock() = Some(Sink { journal: Arc::clone(journal), file });
        self.reserved.store(0, Ordering::Relaxed);
    }

    /// Groups go nowhere until a file is begun.
    pub fn forget_file(&self) {
        *self.sink.lock() = None;
        self.reserved.store(0, Ordering::Relaxed);
    }

    /// Gives back the space that the newest file, which is complete, has not used.
    fn release(&self) {
        let sink = self.sink.lock();
        if let Some(Sink { journal, file }) = &*sink
            && self.reserved.load(Ordering::Relaxed) > journal.written()
            && let Err(error) = file.set_len(journal.written())
        {
            tracing::warn!(%error, file = %journal.path.display(), "could not give back unused space");
        }
    }

    /// Creates a file. Its header and its name are durable before any group is written to it.
    pub fn create(&self, journal: &JournalFile, header: &[u8]) -> Result<Box<dyn DiskFile>, LogError> {
        let path = &journal.path;
        let file = self.env.disk.open(path, Open::Create).map_err(|e| LogError::io("create", path, e))?;
        file.write_at(header, 0).map_err(|e| LogError::io("write to", path, e))?;
        file.sync_data().map_err(|e| LogError::io("sync", path, e))?;
        let dir = path.parent().expect("a file lies in a directory");
        self.env.disk.sync_dir(dir).map_err(|e| LogError::io("sync", dir, e))?;
        Ok(file)
    }

    fn buffer(&self) -> Vec<u8> {
        self.buffers.lock().pop().unwrap_or_default()
    }

    fn recycle(&self, mut buffer: Vec<u8>) {
        if buffer.capacity() <= KEPT_BUFFER_BYTES_MAX {
            buffer.clear();
            self.buffers.lock().push(buffer);
        }
    }
}

/// Reserves space where the file system can; elsewhere the write itself will tell.
pub(crate) fn reserve(file: &dyn DiskFile, len: u64) -> std::io::Result<()> {
    match file.reserve(len) {
        Err(error) if error.kind() == std::io::ErrorKind::Unsupported => Ok(()),
        other => other,
    }
}

/// A group on its way to the disk, and who waits for it.
struct Ready {
    built: Built,
    tickets: Vec<Resolver>,
}

/// The two threads, until they are joined.
pub(crate) struct Threads {
    encoder: JoinHandle<Chain>,
    syncer: JoinHandle<()>,
}

impl Threads {
    pub fn start(
        shared: &Arc<Shared>,
        chain: Chain,
        observer: Sender<Arc<CommittedGroup>>,
    ) -> std::io::Result<Self> {
        let (ready, groups) = bounded(1);
        let for_syncer = Arc::clone(shared);
        let syncer =
            Builder::new().name("log syncer".into()).spawn(move || sync_all(&for_syncer, &groups))?;
        let for_encoder = Arc::clone(shared);
        let encoder = Builder::new()
            .name("log encoder".into())
            .spawn(move || encode_all(&for_encoder, chain, &observer, &ready))?;
        Ok(Self { encoder, syncer })
    }

    /// Waits until everything that was submitted is written, then says in the log that it was closed in order.
    pub fn finish(self, shared: &Shared) {
        shared.queue.close();
        let chain = self.encoder.join();
        let synced = self.syncer.join();
        let (Ok(mut chain), Ok(()), None) = (chain, synced, shared.queue.failure()) else { return };
        let (Some(len), false) = (chain.file.as_ref().map(|open| open.len), chain.sealed) else { return };
        let seal = chain.seal();
        shared.release();
        if let Some(Sink { journal, file }) = &*shared.sink.lock()
            && let Err(error) = file.write_at(&seal, len).and_then(|()| file.sync_data())
        {
            // Nothing is lost: the next start takes a close look at the last group, as after a crash.
            tracing::warn!(%error, file = %journal.path.display(), "could not seal the journal");
        }
    }
}

/// A thread that dies must not leave others waiting.
struct Watch<'a>(&'a Shared);

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.queue.abandon();
        }
    }
}

fn sync_all(shared: &Shared, groups: &Receiver<Ready>) {
    let _watch = Watch(shared);
    for ready in groups {
        shared.commit(ready);
    }
}

fn encode_all(
    shared: &Shared,
    mut chain: Chain,
    observer: &Sender<Arc<CommittedGroup>>,
    syncer: &Sender<Ready>,
) -> Chain {
    let _watch = Watch(shared);
    let mut healer = Healer::default();
    while let Some(work) = shared.queue.take() {
        let Taken { transactions, alone } = match work {
            Work::Group(taken) => taken,
            Work::Heal(waiting) => {
                let healed = healer.heal(shared, &mut chain);
                if let Ok(Some(group)) = &healed {
                    observe(shared, observer, Arc::clone(group));
                }
                let answer = healed.map(|_| shared.index.read().last());
                waiting.iter().for_each(|reply| drop(reply.send(answer.clone())));
                continue;
            }
        };
        let (writes, records, tickets) = admitted(shared, transactions, chain.last.next());
        if tickets.is_empty() {
            shared.queue.done();
            continue;
        }
        let built = match shared.queue.failure() {
            Some(stopped) => Err(stopped),
            None => {
                let now_micros = shared.env.clock.now_micros();
                chain.build(writes, records, &shared.topics, now_micros, shared.buffer())
            }
        };
        let built = built.and_then(|built| match shared.prepare(&built, chain.sizes.file_bytes_max) {
            Ok(()) => Ok(built),
            Err(error) => {
                shared.fail(&error, built.bytes.len());
                Err(error)
            }
        });
        let ready = match built {
            Ok(built) => Ready { built, tickets },
            Err(error) => {
                // The fold in `topics` may have gone ahead of the log: nothing may follow before it is read again.
                shared.fail(&error, 0);
                tickets.into_iter().for_each(|ticket| ticket.finish(Err(error.clone())));
                shared.queue.done();
                continue;
            }
        };
        observe(shared, observer, Arc::clone(&ready.built.group));
        if alone {
            shared.commit(ready);
        } else if syncer.send(ready).is_err() {
            // The syncer has died; its watch has failed the queue, the dropped tickets tell those who wait.
            shared.queue.done();
        }
    }
    chain
}

/// Takes out what a transaction repeats, and the transactions that are fenced.
fn admitted(
    shared: &Shared,
    transactions: Vec<Pending>,
    commit: Commit,
) -> (Vec<(Write, usize)>, Vec<crate::Record>, Vec<Resolver>) {
    let (mut writes, mut records, mut tickets) = (Vec::new(), Vec::new(), Vec::new());
    for Pending { transaction, sizes, resolver, .. } in transactions {
        let admitted = shared.topics.lock().admit(&transaction, commit);
        match admitted {
            Ok(Admitted { new, original }) => {
                let all = transaction.writes.into_iter().zip(sizes).zip(new);
                resolver.repeats(original);
                writes.extend(all.filter(|(_, new)| *new).map(|(write, _)| write));
                records.extend(transaction.records);
                tickets.push(resolver);
            }
            Err(error) => resolver.finish(Err(error)),
        }
    }
    (writes, records, tickets)
}

/// Shows a group to the observer, waiting while it is busy, but not for one that may itself wait for the log to close.
fn observe(shared: &Shared, observer: &Sender<Arc<CommittedGroup>>, mut group: Arc<CommittedGroup>) {
    loop {
        match observer.send_timeout(group, OBSERVER_POLL) {
            Err(SendTimeoutError::Timeout(back))
                if !shared.queue.is_closing() && !shared.queue.is_failed() =>
            {
                group = back;
            }
            // An observer that is gone, or a log that closes or has failed, has no use for it.
            _ => return,
        }
    }
}
