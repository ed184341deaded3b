//! Views that go their own way, so that no view's size keeps the others waiting.
//!
//! A view that is being built, or that has not passed an epoch within its budget, leaves the driver's epochs together with
//! the views that read it: it is a *follower*. The driver's epochs are numbered; what they bring to followers waits in the
//! *spool*, one entry per epoch. A follower takes entries in order, on a thread of its own, each when all followers that it
//! reads have left their output of that epoch in it; the first entry may be an epoch that the driver's thread had begun. Once
//! nothing waits for it and its last epochs were within the budget, it takes part in the driver's epochs again.
//!
//! Whatever needs a follower at the end of a certain epoch makes it stop there: a checkpoint that freezes it, a view or a
//! sink that was created over it and begins with its contents.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crossbeam_channel::bounded;
use millpond_types::RelationId;
use tracing::info;

use super::follower::{Away, Follower, Spooled};
use super::{Command, Driver, LiveView, Phase};
use crate::backfill::{Followed, History, Job};
use crate::changes::{Changes, Piece};
use crate::snapshot::Snapshot;
use crate::view::View;

/// How long CREATE lets the driver wait for a view with little history.
const PATIENCE: Duration = Duration::from_millis(100);

/// The same at the start, when nobody else waits.
const PATIENCE_QUIET: Duration = Duration::from_secs(5);

impl Driver {
    /// Lets a view and all that read it follow alone from an epoch on: this one, which the view may have begun, or the next.
    pub(super) fn cut_out(&mut self, id: RelationId, next: u64) {
        let reached = if next > self.number { self.cut } else { self.cut_before };
        let mut out: Vec<RelationId> = Vec::new();
        // Until they have come further, they can be read as they were published last.
        let published = (!self.quiet).then(|| Arc::new(self.publisher.borrow().without_besides()));
        for (other, live) in &mut self.views {
            let leaves = *other == id || live.reads.iter().any(|input| out.contains(input));
            if leaves && matches!(live.phase, Phase::Running) {
                info!(view = %live.relation.name, "it leaves the epochs of the others and follows alone");
                let mut follower = Follower::new(next, reached);
                follower.slow = *other == id;
                follower.beside = published.clone().filter(|published| published.cut == reached);
                if let (Some(contents), Some(published)) = (self.contents.get_mut(other), &published)
                    && contents.epoch == published.cut
                {
                    contents.beside = Some(Arc::clone(published));
                }
                live.phase = Phase::Following(Box::new(follower));
                self.touched.insert(*other);
                out.push(*other);
            }
        }
    }

    /// Keeps what the epoch brings to followers.
    pub(super) fn spool(&mut self, changes: &Changes) {
        let mut reads: Vec<RelationId> = Vec::new();
        for live in self.views.values().filter(|live| live.follower().is_some()) {
            reads.extend(&live.reads);
        }
        reads.sort_unstable();
        reads.dedup();
        let changes = changes.of(&reads);
        if !changes.is_empty() {
            self.spool.push(Spooled { number: self.number, cut: self.cut, changes });
        }
    }

    /// Whether the view's contents are those of the newest cut.
    pub(super) fn is_current(&self, live: &LiveView) -> bool {
        match &live.phase {
            Phase::Running => true,
            Phase::Following(_) => live.settled_at().is_some_and(|next| next > self.number),
            Phase::Paused(_) | Phase::Failed(_) => false,
        }
    }

    /// Gives every follower that is here something to do, or its place back.
    pub(super) fn attend(&mut self) {
        let ids: Vec<RelationId> =
            self.views.iter().filter(|(_, live)| live.follower().is_some()).map(|(id, _)| *id).collect();
        for id in ids {
            self.attend_to(id);
        }
        let needed = self.views.values().filter_map(|live| live.follower().map(|f| f.next)).min();
        match needed {
            Some(number) => self.spool.trim(number),
            None => self.spool.clear(),
        }
        self.gathered();
    }

    pub(super) fn attend_to(&mut self, id: RelationId) {
        let Some(live) = self.views.get(&id) else { return };
        let Some(follower) = live.follower() else { return };
        if live.view.is_none() {
            return;
        }
        if let Some(waiting) = &follower.history {
            if waiting.wants.is_empty() {
                self.launch(id);
            }
            return;
        }
        if let Some(next) = live.settled_at() {
            self.stop_at(id, next);
            self.skip(id);
        }
        let limit = self.limit(id);
        let live = &self.views[&id];
        let Some(follower) = live.follower() else { return };
        let passing = live.view.as_ref().is_some_and(View::is_passing);
        if follower.next < limit && (passing || self.spool.from(follower.next).any(|e| e.number < limit)) {
            self.launch(id);
        } else if follower.next > self.number && self.may_rejoin(id) {
            let live = self.views.get_mut(&id).expect("it was just seen");
            info!(view = %live.relation.name, "it takes part in the epochs of the others");
            live.phase = Phase::Running;
            self.touched.insert(id);
        }
    }

    /// Passes over epochs that bring nothing to a view.
    fn skip(&mut self, id: RelationId) {
        loop {
            let limit = self.limit(id);
            let (number, cut) = (self.number, self.cut);
            let Some(live) = self.views.get_mut(&id) else { return };
            let Phase::Following(follower) = &mut live.phase else { return };
            if follower.next >= limit {
                return;
            }
            match self.spool.from(follower.next).next() {
                Some(epoch) if epoch.number < limit => {
                    let concerns = |r: &RelationId| {
                        epoch.changes.relations.contains_key(r) || epoch.changes.watermarks.contains_key(r)
                    };
                    if live.reads.iter().any(concerns) {
                        return;
                    }
                    (follower.next, follower.reached) = (epoch.number + 1, epoch.cut);
                }
                _ => {
                    follower.next = limit;
                    if limit > number {
                        follower.reached = cut;
                    }
                }
            }
            follower.beside = None;
            self.touched.insert(id);
            let next = follower.next;
            self.stop_at(id, next);
        }
    }

    /// The epoch before which a follower has to stop for now.
    fn limit(&self, id: RelationId) -> u64 {
        let live = &self.views[&id];
        let inputs = live.reads.iter().filter_map(|input| self.views.get(input)?.follower());
        let mut limit = inputs.map(|input| input.next).min().unwrap_or(u64::MAX).min(self.number + 1);
        if let Some(gathering) = self.gathering.as_ref().filter(|g| g.waits_for(id)) {
            limit = limit.min(gathering.number + 1);
        }
        for other in self.views.values().filter_map(LiveView::follower) {
            if other.history.as_ref().is_some_and(|waiting| waiting.wants.contains(&id)) {
                limit = limit.min(other.next);
            }
        }
        let sinks = self.waiting_sinks.iter().filter(|(_, sink)| sink.input == id);
        sinks.map(|(_, sink)| sink.next).fold(limit, u64::min)
    }

    /// Does what a settled follower was to stop for before epoch `next`.
    fn stop_at(&mut self, id: RelationId, next: u64) {
        self.freeze_follower(id, next);
        let columns = self.views[&id].relation.columns.len();
        let waits = |live: &LiveView| {
            live.follower().is_some_and(|f| {
                f.next == next && f.history.as_ref().is_some_and(|waiting| waiting.wants.contains(&id))
            })
        };
        let waiting: Vec<RelationId> =
            self.views.iter().filter(|(_, live)| waits(live)).map(|(id, _)| *id).collect();
        for other in waiting {
            let Some(heap) = self.views.get_mut(&id).and_then(|live| live.view.as_mut()) else { return };
            let heap = heap.contents.snapshot();
            let other = self.views.get_mut(&other).and_then(LiveView::follower_mut);
            if let Some(waiting) = other.and_then(|follower| follower.history.as_mut()) {
                waiting.wants.remove(&id);
                waiting.history.heaps.push((id, heap, columns));
            }
        }
        self.start_waiting_sinks(id, next);
    }

    fn may_rejoin(&mut self, id: RelationId) -> bool {
        let live = &self.views[&id];
        let settled = live.settled_at().is_some();
        let slow = live.follower().is_none_or(|follower| follower.slow);
        let inputs = live.reads.iter().filter_map(|input| self.views.get(input));
        let alone = inputs.filter(|input| !matches!(input.phase, Phase::Running)).count() == 0;
        let slow = match self.config.cut_out_every {
            // Without a clock that moves, a draw.
            Some(_) => self.units.is_multiple_of(3),
            None => slow,
        };
        settled && alone && !slow
    }

    /// Sends a follower off with all that it can take now.
    fn launch(&mut self, id: RelationId) {
        let limit = self.limit(id);
        self.tickets += 1;
        let ticket = self.tickets;
        let live = self.views.get_mut(&id).expect("the caller has seen it");
        let Phase::Following(follower) = &mut live.phase else { return };
        let Some(mut view) = live.view.take() else { return };
        let stop = Arc::new(AtomicBool::new(false));
        let history = follower.history.take().map(|waiting| waiting.history);
        let small = history.as_ref().is_some_and(History::is_small);
        let (mut next, mut reached, mut epochs) = (follower.next, follower.reached, Vec::new());
        if history.is_none() {
            for epoch in self.spool.from(follower.next).take_while(|epoch| epoch.number < limit) {
                epochs.push((epoch.number, epoch.changes.of(&live.reads)));
                reached = epoch.cut;
            }
            next = limit;
            if limit > self.number {
                reached = self.cut;
            }
        }
        view.graph.set_pool(Arc::clone(&self.pool_aside));
        let job = Job {
            view,
            history,
            epochs,
            log: self.log.clone(),
            pool: Arc::clone(&self.pool_aside),
            clock: Arc::clone(&self.env.clock),
            budget: self.budget.clone(),
            epoch_rows: self.config.epoch_rows,
            generation: self.generation,
            ticket,
            rows_done: Arc::clone(&follower.rows_done),
            stop: Arc::clone(&stop),
        };
        follower.away = Some(Away { ticket, next, reached, beside: None, stop });
        self.touched.insert(id);
        let name = live.relation.name.clone();
        let commands = self.commands.clone();
        let (hand, take) = bounded(0);
        let spawned = std::thread::Builder::new().name(format!("view {name}")).spawn(move || {
            let Some(followed) = job.run() else { return };
            // To whoever waits for it, or to who will.
            if let Err(returned) = hand.send(Box::new(followed)) {
                let _ = commands.send(Command::Followed(returned.0));
            }
        });
        if let Err(why) = spawned {
            return self.fail(id, format!("no thread could be started for it: {why}"));
        }
        let patience = if self.quiet { PATIENCE_QUIET } else { PATIENCE };
        if small && let Ok(followed) = take.recv_timeout(patience) {
            drop(take);
            self.followed(*followed);
        }
    }

    /// A follower comes back from its thread.
    pub(super) fn followed(&mut self, followed: Followed) {
        let id = followed.id;
        let Some(live) = self.views.get_mut(&id) else { return };
        let Phase::Following(follower) = &mut live.phase else { return };
        let Some(away) = follower.away.take_if(|away| away.ticket == followed.ticket) else { return };
        self.touched.insert(id);
        let mut view = match followed.view {
            Ok(view) => view,
            Err(why) => {
                match followed.full {
                    true => self.pause(id, why),
                    false => self.fail(id, why),
                }
                return self.attend();
            }
        };
        if !follower.built {
            info!(view = %live.relation.name, rows = view.contents.rows(), "built");
        }
        view.graph.set_pool(Arc::clone(&self.pool));
        (follower.next, follower.reached) = (away.next, away.reached);
        follower.beside = away.beside.clone();
        follower.built = true;
        follower.slow = followed.slow;
        live.view = Some(view);
        let read = self.views.values().any(|live| live.follower().is_some() && live.reads.contains(&id));
        self.refuse(id, followed.history.errors, followed.history.late);
        for (number, stepped) in followed.epochs {
            self.refuse(id, stepped.errors, stepped.late);
            let cut = self.spool.cut(number).unwrap_or(self.cut);
            for (_, sink) in self.sinks.iter_mut().filter(|(_, sink)| sink.input == id) {
                if !stepped.deltas.is_empty() {
                    sink.write(cut, stepped.deltas.clone());
                }
            }
            if read {
                for delta in stepped.deltas {
                    self.spool.add(number, id, Piece { delta, facts: None });
                }
            }
        }
        self.attend();
    }

    /// Too much waits for followers. One that is being built must catch up first: true, and the epochs wait for it. Any other
    /// that is furthest behind is paused.
    pub(super) fn is_overtaxed(&mut self) -> bool {
        let most = self.config.spool_bytes;
        while self.spool.bytes() > most {
            let followers =
                self.views.iter().filter_map(|(id, live)| Some((live.follower()?.next, *id, live)));
            let Some((_, id, live)) = followers.min_by_key(|(next, id, _)| (*next, *id)) else {
                return false;
            };
            if live.follower().is_some_and(|follower| !follower.built) {
                return true;
            }
            self.pause(id, format!("it is too slow: more than {most} bytes of changes waited for it"));
            self.attend();
            self.publish();
        }
        false
    }

    /// After a publish: followers that are on their way to its cut will be readable beside it.
    pub(super) fn stand_beside(&mut self, snapshot: &Arc<Snapshot>) {
        let number = self.number;
        let mut bare: Option<Arc<Snapshot>> = None;
        for live in self.views.values_mut() {
            let Some(away) = live.follower_mut().and_then(|follower| follower.away.as_mut()) else {
                continue;
            };
            if away.next == number + 1 && away.beside.is_none() {
                let bare = bare.get_or_insert_with(|| Arc::new(snapshot.without_besides()));
                away.beside = Some(Arc::clone(bare));
            }
        }
    }
}
