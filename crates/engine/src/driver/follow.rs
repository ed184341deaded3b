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

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::bounded;
use millpond_catalog::{Relation, RelationKind};
use millpond_types::{Commit, RelationId};
use tracing::{info, warn};

use super::{Command, Driver, LiveView, Phase, guarded};
use crate::backfill::{Followed, History, Job};
use crate::changes::{Changes, Piece};
use crate::snapshot::Snapshot;
use crate::view::View;

/// Rows of an epoch that are worth another budget.
const BUDGET_ROWS: usize = 8_192;
/// How long CREATE lets the driver wait for a view with little history.
const PATIENCE: Duration = Duration::from_millis(100);

/// The same at the start, when nobody else waits.
const PATIENCE_QUIET: Duration = Duration::from_secs(5);

/// How long the others wait for a view.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    pub time: Duration,
}

impl Budget {
    /// For an epoch of so many rows.
    pub fn of(&self, rows: usize) -> Duration {
        let parts = u32::try_from(rows / BUDGET_ROWS).unwrap_or(u32::MAX - 1) + 1;
        self.time.saturating_mul(parts)
    }
}

/// What an epoch of the driver brings to followers, and what followers that others read have made of it.
struct Spooled {
    number: u64,
    cut: Commit,
    changes: Changes,
}

/// Epochs that followers have not all taken.
#[derive(Default)]
pub(super) struct Spool {
    epochs: VecDeque<Spooled>,
    bytes: usize,
}

impl Spool {
    fn push(&mut self, epoch: Spooled) {
        self.bytes += epoch.changes.bytes;
        self.epochs.push_back(epoch);
    }

    /// Forgets what is before `number`.
    fn trim(&mut self, number: u64) {
        while self.epochs.front().is_some_and(|epoch| epoch.number < number) {
            let epoch = self.epochs.pop_front().expect("it was just seen");
            self.bytes -= epoch.changes.bytes;
        }
    }

    fn add(&mut self, number: u64, relation: RelationId, piece: Piece) {
        if let Ok(at) = self.epochs.binary_search_by_key(&number, |epoch| epoch.number) {
            let changes = &mut self.epochs[at].changes;
            let before = changes.bytes;
            changes.push(relation, piece);
            self.bytes += changes.bytes - before;
        }
    }

    /// The cut of an epoch that is here.
    fn cut(&self, number: u64) -> Option<Commit> {
        let at = self.epochs.binary_search_by_key(&number, |epoch| epoch.number).ok()?;
        Some(self.epochs[at].cut)
    }

    fn from(&self, number: u64) -> impl Iterator<Item = &Spooled> {
        let at = self.epochs.partition_point(|epoch| epoch.number < number);
        self.epochs.range(at..)
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// A view outside of the driver's epochs.
pub(super) struct Follower {
    /// The epoch that it takes next: it has all before.
    pub next: u64,
    /// The cut that its contents reflect.
    pub reached: Commit,
    /// What it has to see first.
    history: Option<Waiting>,
    /// It has seen its history.
    pub built: bool,
    pub rows_done: Arc<AtomicU64>,
    /// Its last epochs took longer than the driver would have waited.
    slow: bool,
    away: Option<Away>,
    /// What was published with the cut that it has reached, if that is not the newest.
    pub beside: Option<Arc<Snapshot>>,
}

/// History that lacks the contents of views which have not come so far.
struct Waiting {
    history: History,
    wants: BTreeSet<RelationId>,
}

/// The view is with a thread.
struct Away {
    ticket: u64,
    /// What is `next` when it comes back.
    next: u64,
    reached: Commit,
    /// What was published when it had all that was there.
    beside: Option<Arc<Snapshot>>,
    stop: Arc<AtomicBool>,
}

impl Drop for Away {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Follower {
    pub fn new(next: u64, reached: Commit) -> Self {
        Self {
            next,
            reached,
            history: None,
            built: true,
            rows_done: Arc::default(),
            slow: false,
            away: None,
            beside: None,
        }
    }

    /// The view is at the end of an epoch, here.
    pub fn is_settled(&self, view: Option<&View>) -> bool {
        self.built && view.is_some_and(|view| !view.is_passing())
    }
}

impl LiveView {
    fn follower(&self) -> Option<&Follower> {
        match &self.phase {
            Phase::Following(follower) => Some(follower),
            _ => None,
        }
    }

    pub(super) fn follower_mut(&mut self) -> Option<&mut Follower> {
        match &mut self.phase {
            Phase::Following(follower) => Some(follower),
            _ => None,
        }
    }

    /// Where a follower is at the end of an epoch, here.
    fn settled_at(&self) -> Option<u64> {
        self.follower().filter(|follower| follower.is_settled(self.view.as_ref())).map(|f| f.next)
    }
}

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

    fn attend_to(&mut self, id: RelationId) {
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
            Some(_) => self.units % 3 == 0,
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

    /// Starts to follow: first what the inputs held at the cut, then what the epochs bring.
    pub(super) fn start_following(&mut self, relation: &Arc<Relation>, view: View) {
        let (id, reads) = (relation.id, view.reads());
        let mut live =
            LiveView { relation: Arc::clone(relation), reads, view: Some(view), phase: Phase::Running };
        match self.history(&live) {
            Ok((history, wants)) => {
                let mut follower = Follower::new(self.number + 1, self.cut);
                follower.built = false;
                follower.history = Some(Waiting { history, wants });
                live.phase = Phase::Following(Box::new(follower));
            }
            Err(phase) => (live.phase, live.view) = (phase, None),
        }
        self.views.insert(id, live);
        self.attend_to(id);
    }

    /// What the relations that a view reads hold at the cut, and which of them have not come so far.
    fn history(&mut self, live: &LiveView) -> Result<(History, BTreeSet<RelationId>), Phase> {
        let mut history = History::default();
        let mut wants = BTreeSet::new();
        for id in &live.reads {
            let Some(relation) = self.catalog.relation(*id).cloned() else {
                return Err(Phase::Failed(format!("its input {id} does not exist")));
            };
            let name = &relation.name;
            if let Some(table) = self.tables.get_mut(id) {
                history.heaps.push((*id, table.rows.snapshot(), relation.columns.len()));
            } else if let Some(input) = self.views.get(id) {
                match &input.phase {
                    Phase::Failed(_) => {
                        return Err(Phase::Failed(format!("its input \"{name}\" has failed")));
                    }
                    Phase::Paused(_) => return Err(Phase::Paused(format!("its input \"{name}\" is paused"))),
                    Phase::Running | Phase::Following(_) if self.is_current(input) => {
                        let input = self.views.get_mut(id).and_then(|live| live.view.as_mut());
                        let heap = input.expect("what is current is here").contents.snapshot();
                        history.heaps.push((*id, heap, relation.columns.len()));
                    }
                    Phase::Running | Phase::Following(_) => {
                        wants.insert(*id);
                    }
                }
            } else {
                let conditions = live.view.as_ref().map(|view| &view.conditions);
                let failed = |why: String| Phase::Failed(why);
                let shape = self.shape(&relation).map_err(|e| failed(e.to_string()))?;
                let frames = self.log.frames(*id, Commit(0), self.cut).map_err(|e| failed(e.to_string()))?;
                let frames = match conditions {
                    Some(conditions) => conditions.keep(*id, frames),
                    None => frames,
                };
                history.topics.push((*id, shape, frames));
            }
            if let Some(watermark) = self.watermarks.get(id) {
                history.watermarks.insert(*id, *watermark);
            }
        }
        Ok((history, wants))
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

    /// Stops a view and those that read it; what was published of them stays.
    pub(super) fn pause(&mut self, id: RelationId, why: String) {
        let name = self.views.get(&id).map_or_else(String::new, |live| live.relation.name.clone());
        warn!(view = %name, %why, "a materialized view is paused");
        for other in self.catalog.transitive_dependants(id) {
            let Some(live) = self.views.get_mut(&other) else { continue };
            if matches!(live.phase, Phase::Running | Phase::Following(_)) {
                let why = if other == id { why.clone() } else { format!("its input \"{name}\" is paused") };
                (live.phase, live.view) = (Phase::Paused(why), None);
                self.touched.insert(other);
            }
        }
    }

    /// ALTER MATERIALIZED VIEW … PAUSE | RESUME. What is resumed is built again from its inputs, with all that has stopped
    /// because of it.
    pub(super) fn set_paused(&mut self, id: RelationId, paused: bool) {
        if paused {
            self.pause(id, "ALTER MATERIALIZED VIEW … RESUME lets it go on".to_owned());
            return self.attend();
        }
        for other in self.catalog.transitive_dependants(id) {
            let Some(relation) = self.catalog.relation(other).cloned() else { continue };
            let stopped = self
                .views
                .get(&other)
                .is_some_and(|live| matches!(live.phase, Phase::Paused(_) | Phase::Failed(_)));
            if stopped {
                self.errors.forget(other);
                self.late.forget(other);
                self.create_view(&relation);
            }
        }
        self.attend();
    }

    /// Builds a view from the history of its inputs up to the cut.
    pub fn create_view(&mut self, relation: &Arc<Relation>) {
        self.touched.insert(relation.id);
        let stopped = |phase| LiveView {
            relation: Arc::clone(relation),
            reads: relation.dependencies.clone(),
            view: None,
            phase,
        };
        if matches!(&relation.kind, RelationKind::MaterializedView(definition) if definition.paused) {
            let phase = Phase::Paused("ALTER MATERIALIZED VIEW … RESUME lets it go on".to_owned());
            self.views.insert(relation.id, stopped(phase));
            return;
        }
        let made =
            View::new(&self.catalog, Arc::clone(relation), self.new_graph()).map_err(|why| why.to_string());
        let started = made.and_then(|mut view| {
            guarded(|| view.start())?;
            view.skip_retraction = self.config.skip_retraction;
            view.bytes_max = self.config.memory_limit;
            Ok(view)
        });
        match started {
            Ok(view) => self.start_following(relation, view),
            Err(why) => {
                self.views.insert(relation.id, stopped(Phase::Failed(why)));
            }
        }
    }

    /// Puts a restored view in its place.
    pub fn add_running(&mut self, relation: &Arc<Relation>, mut view: View) {
        view.bytes_max = self.config.memory_limit;
        self.touched.insert(relation.id);
        let reads = view.reads();
        // What it reads may have to be built again: to the same contents, but later.
        let follows = reads
            .iter()
            .filter_map(|id| self.views.get(id))
            .any(|live| !matches!(live.phase, Phase::Running));
        let phase = match follows {
            true => Phase::Following(Box::new(Follower::new(self.number + 1, self.cut))),
            false => Phase::Running,
        };
        let live = LiveView { relation: Arc::clone(relation), reads, view: Some(view), phase };
        self.views.insert(relation.id, live);
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

/// A sink over a follower, which begins with its contents before an epoch.
pub(super) struct WaitingSink {
    pub input: RelationId,
    pub next: u64,
}

pub(super) type WaitingSinks = BTreeMap<RelationId, WaitingSink>;
