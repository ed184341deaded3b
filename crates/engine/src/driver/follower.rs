//! A view outside of the driver's epochs, and what waits for it.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use millpond_types::{Commit, RelationId};

use super::{LiveView, Phase};
use crate::backfill::History;
use crate::changes::{Changes, Piece};
use crate::snapshot::Snapshot;
use crate::view::View;

/// Rows of an epoch that are worth another budget.
const BUDGET_ROWS: usize = 8_192;
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
pub(super) struct Spooled {
    pub number: u64,
    pub cut: Commit,
    pub changes: Changes,
}

/// Epochs that followers have not all taken.
#[derive(Default)]
pub(super) struct Spool {
    epochs: VecDeque<Spooled>,
    bytes: usize,
}

impl Spool {
    pub fn push(&mut self, epoch: Spooled) {
        self.bytes += epoch.changes.bytes;
        self.epochs.push_back(epoch);
    }

    /// Forgets what is before `number`.
    pub fn trim(&mut self, number: u64) {
        while self.epochs.front().is_some_and(|epoch| epoch.number < number) {
            let epoch = self.epochs.pop_front().expect("it was just seen");
            self.bytes -= epoch.changes.bytes;
        }
    }

    pub fn add(&mut self, number: u64, relation: RelationId, piece: Piece) {
        if let Ok(at) = self.epochs.binary_search_by_key(&number, |epoch| epoch.number) {
            let changes = &mut self.epochs[at].changes;
            let before = changes.bytes;
            changes.push(relation, piece);
            self.bytes += changes.bytes - before;
        }
    }

    /// The cut of an epoch that is here.
    pub fn cut(&self, number: u64) -> Option<Commit> {
        let at = self.epochs.binary_search_by_key(&number, |epoch| epoch.number).ok()?;
        Some(self.epochs[at].cut)
    }

    pub fn from(&self, number: u64) -> impl Iterator<Item = &Spooled> {
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
    pub history: Option<Waiting>,
    /// It has seen its history.
    pub built: bool,
    pub rows_done: Arc<AtomicU64>,
    /// Its last epochs took longer than the driver would have waited.
    pub slow: bool,
    pub away: Option<Away>,
    /// What was published with the cut that it has reached, if that is not the newest.
    pub beside: Option<Arc<Snapshot>>,
}

/// History that lacks the contents of views which have not come so far.
pub(super) struct Waiting {
    pub history: History,
    pub wants: BTreeSet<RelationId>,
}

/// The view is with a thread.
pub(super) struct Away {
    pub ticket: u64,
    /// What is `next` when it comes back.
    pub next: u64,
    pub reached: Commit,
    /// What was published when it had all that was there.
    pub beside: Option<Arc<Snapshot>>,
    pub stop: Arc<AtomicBool>,
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
    pub fn follower(&self) -> Option<&Follower> {
        match &self.phase {
            Phase::Following(follower) => Some(follower),
            _ => None,
        }
    }

    pub fn follower_mut(&mut self) -> Option<&mut Follower> {
        match &mut self.phase {
            Phase::Following(follower) => Some(follower),
            _ => None,
        }
    }

    /// Where a follower is at the end of an epoch, here.
    pub fn settled_at(&self) -> Option<u64> {
        self.follower().filter(|follower| follower.is_settled(self.view.as_ref())).map(|f| f.next)
    }
}
