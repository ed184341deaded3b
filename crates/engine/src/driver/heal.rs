//! What the driver does when the log fails: a failed fsync must not be felt by more than those who waited for it.
//!
//! The epoch runs beside the sync, so live state may hold groups that the log has lost. Then it is thrown away and built
//! again, out of the newest checkpoint and the log's durable part, before anything more is published. Only then is the log
//! made to take appends again, because writers read what is published. Readers keep the last snapshot all the time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::Receiver;
use millpond_catalog::Catalog;
use millpond_log::CommittedGroup;
use millpond_types::{Commit, SqlError, SqlState};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use super::{Command, Driver};
use crate::open;
use crate::reject::Refused;

const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// When the log is tried again.
#[derive(Default)]
pub(super) struct Retry {
    pause: Duration,
}

impl Retry {
    fn next(&mut self) -> Duration {
        self.pause = (self.pause * 2).clamp(RETRY_MIN, RETRY_MAX);
        self.pause
    }
}

pub(super) fn refuse_checkpoint(reply: Option<oneshot::Sender<Result<(), SqlError>>>) {
    if let Some(reply) = reply {
        let why =
            SqlError::new(SqlState::IO_ERROR, "live state is being built again after a failure of the log")
                .hint("Try again.");
        let _ = reply.send(Err(why));
    }
}

impl Driver {
    /// Waits until the cut is durable; false if that will not be, because the log has failed.
    pub(super) fn wait_durable(&mut self) -> bool {
        let (cut, term) = (self.cut, self.term);
        let (mut durable, mut failures) = (self.durable.clone(), self.failures.clone());
        futures::executor::block_on(async move {
            loop {
                if *failures.borrow_and_update() != term {
                    return false;
                }
                if *durable.borrow_and_update() >= cut {
                    return true;
                }
                let closed = tokio::select! {
                    changed = durable.changed() => changed.is_err(),
                    changed = failures.changed() => changed.is_err(),
                };
                if closed {
                    return false;
                }
            }
        })
    }

    /// Brings live state back to what is durable, and the log back to work; where either fails, it is tried again later.
    pub(super) fn follow_failure(
        &mut self,
        groups: &Receiver<Arc<CommittedGroup>>,
        commands: &Receiver<Command>,
    ) {
        if self.log.failure().is_none() {
            return;
        }
        self.log.settle();
        let term = self.log.term();
        let durable = *self.durable.borrow();
        // What is beyond the durable end does not exist; what is not, was acknowledged.
        let kept: Vec<_> = groups.try_iter().filter(|group| group.commit <= durable).collect();
        if self.term != term {
            self.term = term;
            self.dirty |= self.cut > durable;
        }
        if self.dirty {
            if let Err(why) = self.rebuild(durable, commands) {
                error!(%why, detail = why.detail_text(), "live state could not be built again; it will be tried again");
                return self.retry_later();
            }
            info!(cut = %self.cut, "live state was built again, without what the log has lost");
            self.publish();
        } else if !kept.is_empty() {
            self.process(kept.iter().map(Arc::as_ref));
            self.publish();
        }
        match self.log.heal() {
            Ok(commit) => {
                info!(%commit, "the log takes writes again");
                self.retry = Retry::default();
            }
            Err(why) => {
                warn!(%why, "the log still fails and will be tried again");
                self.retry_later();
            }
        }
    }

    fn retry_later(&mut self) {
        let (sleep, commands) = (self.env.clock.sleep(self.retry.next()), self.commands.clone());
        self.runtime.spawn(async move {
            sleep.await;
            // A driver that has stopped needs no log.
            let _ = commands.send(Command::LogFailed);
        });
    }

    /// Throws live state away and makes it again.
    fn rebuild(&mut self, durable: Commit, commands: &Receiver<Command>) -> Result<(), SqlError> {
        self.await_checkpoint(commands);
        let rows_in = self.counters.rows_in.load(Ordering::Relaxed);
        self.forget();
        let checkpoints = self.checkpointer.begin_anew();
        let manifest = checkpoints.current();
        let runtime = self.runtime.clone();
        runtime.block_on(open::restore(self, &checkpoints, &manifest))?;
        open::replay(self, durable)?;
        self.resting_sinks.clear();
        self.counters.rows_in.store(rows_in, Ordering::Relaxed);
        (self.quiet, self.dirty) = (false, false);
        Ok(())
    }

    /// A checkpoint that is under way holds durable state only, and the next one must know whether it was published.
    fn await_checkpoint(&mut self, commands: &Receiver<Command>) {
        let mut later = Vec::new();
        while self.checkpointer.is_busy() {
            match commands.recv() {
                Ok(Command::CheckpointDone(done)) => self.checkpointer.finished(*done, &self.counters),
                Ok(command) => later.push(command),
                Err(_) => break,
            }
        }
        for command in later {
            let _ = self.commands.send(command);
        }
    }

    fn forget(&mut self) {
        self.generation += 1;
        self.quiet = true;
        self.catalog = Arc::new(Catalog::new());
        self.cut = Commit(0);
        self.views.clear();
        self.tables.clear();
        // A number that was given to a lost relation may go to another one.
        self.shapes.clear();
        self.resting_sinks.append(&mut self.sinks);
        self.outgoing.clear();
        self.waiting_sinks.clear();
        self.spool.clear();
        (self.number, self.cut_before) = (0, Commit(0));
        if let Some(gathering) = self.gathering.take() {
            refuse_checkpoint(gathering.into_reply());
        }
        self.source_rows.clear();
        self.watermarks = BTreeMap::new();
        self.errors = Refused::default();
        self.late = Refused::default();
        self.touched.clear();
        self.contents.clear();
    }
}
