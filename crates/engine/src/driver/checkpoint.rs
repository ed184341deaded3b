//! The driver's part in checkpoints.
//!
//! All states of a checkpoint are of one cut. The views of the driver's epochs are frozen there at once; a follower is when
//! it comes to the end of the same epoch, while the epochs go on. One that is still being built is left out: a restart
//! builds it again.

use std::collections::BTreeSet;
use std::sync::Arc;

use millpond_types::{RelationId, SqlError};
use tokio::sync::oneshot;
use tracing::warn;

use super::{Driver, Phase};
use crate::checkpoint::{Draft, Finished, Frozen, table_state};

type Reply = oneshot::Sender<Result<(), SqlError>>;

/// A checkpoint that lacks followers.
pub(super) struct Gathering {
    /// The newest epoch that is in it.
    pub number: u64,
    waits: BTreeSet<RelationId>,
    draft: Draft,
    reply: Option<Reply>,
}

impl Gathering {
    pub fn waits_for(&self, id: RelationId) -> bool {
        self.waits.contains(&id)
    }

    pub fn into_reply(self) -> Option<Reply> {
        self.reply
    }
}

impl Driver {
    pub(super) fn start_checkpoint(&mut self, reply: Option<Reply>) {
        if self.checkpointer.is_busy() || self.gathering.is_some() {
            self.checkpointer.wait(reply);
            return;
        }
        let start = self.env.clock.monotonic();
        let mut states = Vec::new();
        let mut waits = BTreeSet::new();
        for table in self.tables.values_mut() {
            states.push(Frozen::heap(table_state(&table.relation), "table", table.rows.freeze()));
        }
        for (id, live) in &mut self.views {
            let current = match &live.phase {
                Phase::Running => true,
                Phase::Following(follower) if follower.built => {
                    follower.is_settled(live.view.as_ref()) && follower.next > self.number
                }
                _ => continue,
            };
            match &mut live.view {
                Some(view) if current => Frozen::of_view(*id, view, &mut states),
                _ => {
                    waits.insert(*id);
                }
            }
        }
        self.feed_sinks();
        let cut = self.cut;
        let sinks = self.sinks.values_mut().filter(|sink| !waits.contains(&sink.input));
        let sinks = sinks.map(|sink| (sink.relation.name.clone(), sink.commit(cut))).collect();
        let pause = self.env.clock.monotonic().saturating_sub(start);
        let draft = Draft {
            cut,
            catalog: Arc::clone(&self.catalog),
            watermarks: self.watermarks.clone(),
            source_rows: self.source_rows.clone(),
            errors: self.errors.clone(),
            late: self.late.clone(),
            states,
            sinks,
            pause,
        };
        self.gathering = Some(Gathering { number: self.number, waits, draft, reply });
        self.gathered();
    }

    /// Freezes a follower that a checkpoint waits for, if it is there.
    pub(super) fn freeze_follower(&mut self, id: RelationId, next: u64) {
        let Some(gathering) = self.gathering.as_mut() else { return };
        if next != gathering.number + 1 || !gathering.waits.remove(&id) {
            return;
        }
        let start = self.env.clock.monotonic();
        if let Some(view) = self.views.get_mut(&id).and_then(|live| live.view.as_mut()) {
            Frozen::of_view(id, view, &mut gathering.draft.states);
        }
        gathering.draft.errors.adopt(id, &self.errors);
        gathering.draft.late.adopt(id, &self.late);
        for sink in self.sinks.values_mut().filter(|sink| sink.input == id) {
            gathering.draft.sinks.push((sink.relation.name.clone(), sink.commit(gathering.draft.cut)));
        }
        gathering.draft.pause += self.env.clock.monotonic().saturating_sub(start);
    }

    /// Hands a checkpoint over when it lacks nothing any more.
    pub(super) fn gathered(&mut self) {
        let Some(gathering) = &mut self.gathering else { return };
        // Who has failed meanwhile, or was dropped, is built again after a restart.
        let views = &self.views;
        gathering
            .waits
            .retain(|id| views.get(id).is_some_and(|live| matches!(live.phase, Phase::Following(_))));
        let waits = gathering.waits.len();
        self.counters.checkpoint_waits.store(waits, std::sync::atomic::Ordering::Relaxed);
        if waits == 0
            && let Some(Gathering { draft, reply, .. }) = self.gathering.take()
        {
            self.checkpointer.start(draft, reply, self.commands.clone());
        }
    }

    pub(super) fn checkpoint_done(&mut self, done: Finished) {
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
}
