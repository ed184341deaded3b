//! Views come, stand still, and go on.

use std::collections::BTreeSet;
use std::sync::Arc;

use millpond_catalog::{Relation, RelationKind};
use millpond_types::{Commit, RelationId};
use tracing::warn;

use super::follower::{Follower, Waiting};
use super::{Driver, LiveView, Phase, guarded};
use crate::backfill::History;
use crate::clock::CLOCK;
use crate::view::View;

impl Driver {
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
            if let Some(watermark) = self.watermarks.get(id) {
                history.watermarks.insert(*id, *watermark);
            }
            if *id == CLOCK {
                continue;
            }
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
        }
        Ok((history, wants))
    }

    /// Some view asks for the time.
    pub(super) fn follows_clock(&self) -> bool {
        let goes_on = |live: &LiveView| matches!(live.phase, Phase::Running | Phase::Following(_));
        self.views.values().any(|live| goes_on(live) && live.reads.contains(&CLOCK))
    }
}
