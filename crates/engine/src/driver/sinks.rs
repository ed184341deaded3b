//! What sinks get, and from when on.

use std::collections::BTreeMap;
use std::sync::Arc;

use millpond_catalog::{Relation, RelationKind};
use millpond_types::{Commit, RelationId};
use tracing::error;

use super::{Driver, LiveView, Phase};
use crate::sinks::SinkHandle;

/// A sink over a follower, which begins with its contents before an epoch.
pub(super) struct WaitingSink {
    pub input: RelationId,
    pub next: u64,
}

pub(super) type WaitingSinks = BTreeMap<RelationId, WaitingSink>;

impl Driver {
    /// Hands the sinks what they have not had yet; everything up to the cut is durable.
    pub fn feed_sinks(&mut self) {
        for (id, sink) in &mut self.sinks {
            let (cut, deltas) = self.outgoing.remove(id).unwrap_or_default();
            if !deltas.is_empty() {
                sink.write(cut, deltas);
            }
        }
        self.outgoing.clear();
    }

    pub fn has_sinks(&self) -> bool {
        !self.sinks.is_empty()
    }

    /// Starts a sink. A new one (`known` 0) first gets what its input holds at the cut, as soon as that is there.
    pub fn add_sink(&mut self, relation: &Arc<Relation>, known: Commit) {
        let RelationKind::Sink(definition) = &relation.kind else { return };
        let Some(input) = definition.input.and_then(|id| self.catalog.relation(id)).cloned() else { return };
        if known == Commit(0)
            && let Some(live) = self.views.get(&input.id)
            && matches!(live.phase, Phase::Following(_))
            && !self.is_current(live)
        {
            let waiting = WaitingSink { input: input.id, next: self.number + 1 };
            self.waiting_sinks.insert(relation.id, waiting);
            return;
        }
        let sink = match self.resting_sinks.remove(&relation.id) {
            // It has had nothing but durable epochs, and knows which ones.
            Some(sink) => Some(sink),
            None => SinkHandle::start(relation, &input, known, &self.env, &self.runtime),
        };
        let Some(sink) = sink else { return };
        if known == Commit(0) {
            let declared = input.columns.len();
            let (heap, cut) = match (self.tables.get_mut(&input.id), self.views.get_mut(&input.id)) {
                (Some(table), _) => (Some(table.rows.snapshot()), self.cut),
                (None, Some(LiveView { view: Some(view), phase, .. })) => {
                    let reached = match phase {
                        Phase::Following(follower) => follower.reached,
                        _ => self.cut,
                    };
                    (Some(view.contents.snapshot()), reached)
                }
                _ => (None, self.cut),
            };
            let mut deltas = Vec::new();
            for batch in heap.iter().flat_map(|heap| heap.batches(None)) {
                match batch
                    .map_err(|f| f.to_string())
                    .and_then(|b| crate::view::history_piece(b, declared).map_err(|e| e.to_string()))
                {
                    Ok(piece) => deltas.push(piece.delta),
                    Err(why) => {
                        error!(sink = %relation.name, %why, "the contents of its input cannot be read")
                    }
                }
            }
            self.outgoing.insert(relation.id, (cut, deltas));
        }
        self.sinks.insert(relation.id, sink);
    }

    /// Starts the sinks over a follower that has come so far.
    pub(super) fn start_waiting_sinks(&mut self, input: RelationId, next: u64) {
        let ready: Vec<RelationId> = self
            .waiting_sinks
            .iter()
            .filter(|(_, sink)| sink.input == input && sink.next == next)
            .map(|(id, _)| *id)
            .collect();
        for id in ready {
            self.waiting_sinks.remove(&id);
            if let Some(relation) = self.catalog.relation(id).cloned() {
                self.add_sink(&relation, Commit(0));
            }
        }
    }
}
