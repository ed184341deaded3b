//! What readers see next.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use millpond_types::{Commit, RelationId};

use super::{Driver, LiveView, Phase};
use crate::snapshot::{Contents, Operators, Snapshot};
use crate::status::RelationState;

impl LiveView {
    fn state(&self) -> RelationState {
        match &self.phase {
            Phase::Running => RelationState::Running,
            Phase::Following(follower) if follower.built => RelationState::Following,
            Phase::Following(follower) => {
                RelationState::Building { rows_done: follower.rows_done.load(Ordering::Relaxed) }
            }
            Phase::Paused(why) => RelationState::Paused(why.clone()),
            Phase::Failed(why) => RelationState::Failed(why.clone()),
        }
    }
}

impl Driver {
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
        let mut whole = true;
        for (id, live) in &self.views {
            let current = self.is_current(live);
            whole &= current;
            if let Some(contents) = self.contents.get_mut(id) {
                if current {
                    (contents.epoch, contents.beside) = (self.cut, None);
                }
                if let (RelationState::Building { rows_done }, Phase::Following(follower)) =
                    (&mut contents.state, &live.phase)
                {
                    *rows_done = follower.rows_done.load(Ordering::Relaxed);
                }
            }
        }
        for id in self.tables.keys() {
            if let Some(contents) = self.contents.get_mut(id) {
                contents.epoch = self.cut;
            }
        }
        let bytes: usize = self.contents.values().map(|c| c.state_bytes).sum();
        self.counters.state_bytes.store(bytes + self.spool.bytes(), Ordering::Relaxed);
        let snapshot = Arc::new(Snapshot {
            cut: self.cut,
            catalog: Arc::clone(&self.catalog),
            contents: self.contents.clone(),
            watermarks: self.watermarks.clone(),
            follows_clock: self.follows_clock(),
            source_rows: self.source_rows.clone(),
            errors: self.errors.clone(),
            late: self.late.clone(),
            whole,
            lenient: false,
        });
        if !whole {
            self.stand_beside(&snapshot);
        }
        self.publisher.send_replace(snapshot);
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
                operators: None,
                beside: None,
            };
            self.contents.insert(id, contents);
        }
        let Some(live) = self.views.get_mut(&id) else { return };
        let (state, relation) = (live.state(), &live.relation);
        let contents = self.contents.entry(id).or_insert_with(|| Contents {
            heap: millpond_state::Heap::new(relation.arrow_schema()).snapshot(),
            state: RelationState::Running,
            state_bytes: 0,
            busy_seconds: 0.0,
            epoch: Commit(0),
            operators: None,
            beside: None,
        });
        contents.state = state;
        // In the middle of an epoch, or away, a view shows what it showed before.
        let settled = match &live.phase {
            Phase::Running => Some((self.cut, None)),
            Phase::Following(follower) if follower.is_settled(live.view.as_ref()) => {
                Some((follower.reached, follower.beside.clone()))
            }
            Phase::Following(_) => None,
            Phase::Paused(_) | Phase::Failed(_) => {
                (contents.state_bytes, contents.beside, contents.operators) = (0, None, None);
                None
            }
        };
        if let (Some((epoch, beside)), Some(view)) = (settled, &mut live.view) {
            contents.heap = view.contents.snapshot();
            let stats = view.graph.node_stats();
            let bytes: u64 = stats.iter().map(|node| node.memory_bytes).sum();
            let busy: u64 = stats.iter().map(|node| node.busy_nanos).sum();
            contents.state_bytes = view.contents.bytes() + bytes as usize;
            contents.busy_seconds = busy as f64 / 1e9;
            contents.operators = Some(Operators { named: Arc::clone(&view.named), stats: stats.into() });
            (contents.epoch, contents.beside) = (epoch, beside);
        }
    }
}
