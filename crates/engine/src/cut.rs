//! Which snapshot a statement reads: one that holds what its session has seen, with all that it names at one cut.

use std::sync::Arc;

use datafusion::logical_expr::LogicalPlan;
use millpond_types::{Commit, RelationId, SqlError, SqlState};

use crate::outcome::Severity;
use crate::read;
use crate::session::{Action, Block, Prepared, Session};
use crate::snapshot::Snapshot;

/// Which cut a statement reads.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Cut {
    /// The newest: for what is written on the ground of it.
    Newest,
    /// Any that holds what the session has seen.
    Any,
}

/// Says which views a statement reads, by the catalog of a snapshot.
pub(crate) type Named<'a> =
    dyn FnMut(&Session, &Arc<Snapshot>) -> Result<Vec<RelationId>, SqlError> + Send + 'a;

impl Session {
    /// The snapshot that a statement reads, by `millpond.read`.
    ///
    /// In mode `session` it holds what this session wrote and read. It also waits for what other sessions were told is
    /// committed, as one would expect of a database behind a pool of connections; but only for its own does it fail.
    pub(crate) async fn read_snapshot(&mut self) -> Result<Arc<Snapshot>, SqlError> {
        self.snapshot_of(Cut::Newest, &mut |_, _| Ok(Vec::new())).await
    }

    /// As [`Session::read_snapshot`], with all views that the statement names at one cut: it waits for those that follow alone.
    pub(crate) async fn read_snapshot_of(
        &mut self,
        prepared: &Prepared,
        cut: Cut,
    ) -> Result<Arc<Snapshot>, SqlError> {
        self.snapshot_of(cut, &mut |session, snapshot| {
            let prepared = session.refreshed(prepared, snapshot)?;
            let plans: Vec<&LogicalPlan> = match &*prepared.action {
                Action::Query(plan) => vec![&plan.logical],
                Action::Insert(plan) => vec![&plan.rows],
                Action::Update(_) | Action::Delete(_) | Action::Utility => Vec::new(),
            };
            Ok(read::views_of(snapshot, &plans))
        })
        .await
    }

    /// `named` says which views the statement reads, by the catalog of a snapshot that is not whole.
    pub(crate) async fn snapshot_of(
        &mut self,
        cut: Cut,
        named: &mut Named<'_>,
    ) -> Result<Arc<Snapshot>, SqlError> {
        if let Some(snapshot) = &self.block_snapshot {
            return Ok(Arc::clone(snapshot));
        }
        let latest = self.settings.show("millpond.read")? == "latest";
        let (needed, wanted) = match self.settings.show("millpond.read")?.as_str() {
            "latest" => (Commit(0), Commit(0)),
            "strict" => {
                let all = self.inner.log.last_commit().max(self.seen);
                (all, all)
            }
            // A log that has failed may never show what others were told; what is published stays readable.
            _ if self.inner.log.failure().is_some() => (self.seen, self.seen),
            _ => (self.seen, self.inner.acknowledged().max(self.seen)),
        };
        let limit = self.settings.time("millpond.read_timeout");
        let deadline = limit.map(|limit| tokio::time::Instant::now() + limit);
        let wait = self.inner.wait_published(wanted);
        let mut snapshot = match deadline {
            Some(deadline) => match tokio::time::timeout_at(deadline, wait).await {
                Ok(snapshot) => snapshot?,
                Err(_) => {
                    let newest = self.inner.snapshot();
                    if newest.cut < needed {
                        return Err(read::too_slow(&newest, needed));
                    }
                    newest
                }
            },
            None => wait.await?,
        };
        if latest {
            snapshot = self.latest_of(&snapshot, named)?;
        }
        let mut published = self.inner.published.clone();
        let mut expired = false;
        while !latest && !snapshot.whole {
            // Before it is looked at, so that no later one is missed.
            let newest = Arc::clone(&published.borrow_and_update());
            snapshot = if newest.cut >= snapshot.cut { newest } else { snapshot };
            let ids = named(self, &snapshot)?;
            let least = if expired { needed } else { wanted };
            let together = match cut {
                Cut::Any => snapshot.at_one_cut(&ids).filter(|then| then.cut >= least),
                Cut::Newest => snapshot.behind(&ids).is_none().then(|| Arc::clone(&snapshot)),
            };
            if let Some(together) = together {
                snapshot = together;
                break;
            }
            if expired {
                return Err(snapshot.behind(&ids).unwrap_or_else(|| read::too_slow(&snapshot, needed)));
            }
            let changed = published.changed();
            match deadline {
                Some(deadline) => expired = tokio::time::timeout_at(deadline, changed).await.is_err(),
                None => {
                    let _ = changed.await;
                }
            }
        }
        self.seen = self.seen.max(snapshot.cut);
        if matches!(self.block, Block::Explicit(_)) {
            self.block_snapshot = Some(Arc::clone(&snapshot));
        }
        Ok(snapshot)
    }

    /// What is there, with a warning for each view that is not at the newest cut.
    fn latest_of(
        &mut self,
        snapshot: &Arc<Snapshot>,
        named: &mut Named<'_>,
    ) -> Result<Arc<Snapshot>, SqlError> {
        if snapshot.whole {
            return Ok(Arc::clone(snapshot));
        }
        let ids = named(self, snapshot)?;
        let snapshot = snapshot.at_one_cut(&ids).unwrap_or_else(|| Arc::clone(snapshot));
        for id in ids {
            let (Some(contents), Some(relation)) =
                (snapshot.contents.get(&id), snapshot.catalog.relation(id))
            else {
                continue;
            };
            if !snapshot.is_current(contents) && contents.epoch > Commit(0) {
                let message = format!(
                    "materialized view \"{}\" is {}: its rows are those of commit {}, others of {}",
                    relation.name,
                    contents.state.name(),
                    contents.epoch,
                    snapshot.cut
                );
                self.notice(Severity::Warning, SqlState::new("01000"), message);
            }
        }
        let mut lenient = Snapshot::clone(&snapshot);
        lenient.lenient = true;
        Ok(Arc::new(lenient))
    }
}
