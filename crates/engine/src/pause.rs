//! ALTER MATERIALIZED VIEW … PAUSE | RESUME.
//!
//! A view that stands still, by this statement, by its size or by a fault, keeps the rows that it showed last, for who asks
//! for them with `millpond.read = 'latest'`, and gives back everything else. It is resumed by being built again.

use std::sync::Arc;

use millpond_catalog::{Change, Relation, RelationKind};
use millpond_types::{Commit, SqlError, SqlState};

use crate::ddl;
use crate::outcome::Severity;
use crate::session::Session;
use crate::snapshot::Snapshot;
use crate::status::RelationState;

pub(crate) async fn run(
    session: &mut Session,
    snapshot: &Arc<Snapshot>,
    relation: &Arc<Relation>,
    paused: bool,
) -> Result<(), SqlError> {
    let RelationKind::MaterializedView(definition) = &relation.kind else {
        return Err(SqlError::internal("not a materialized view"));
    };
    let name = &relation.name;
    let state = snapshot.contents.get(&relation.id).map(|contents| &contents.state);
    let stands = matches!(state, Some(RelationState::Paused(_) | RelationState::Failed(_)));
    if paused == definition.paused && (paused || !stands) {
        let message =
            format!("materialized view \"{name}\" is {}, skipping", state.map_or("running", |s| s.name()));
        session.notice(Severity::Notice, SqlState::new("00000"), message);
        return Ok(());
    }
    refuse_sinks(snapshot, relation, if paused { "pause" } else { "resume" })?;
    if !paused {
        for input in relation.dependencies.iter().filter_map(|id| snapshot.catalog.relation(*id)) {
            snapshot.usable(input)?;
        }
        if let Some(source) =
            crate::retention::trimmed(&session.inner.log, &snapshot.catalog, &relation.dependencies)
        {
            let message = format!(
                "{} has not kept its oldest rows: the view begins with those that are there",
                source.described()
            );
            session.notice(Severity::Notice, SqlState::new("00000"), message);
        }
    }
    let change = Change::SetPaused { id: relation.id, paused };
    snapshot.catalog.apply(&change, Commit(0))?;
    ddl::commit(session, &change).await?;
    if !paused {
        let dependants = snapshot.catalog.transitive_dependants(relation.id);
        for dependant in dependants.into_iter().filter_map(|id| snapshot.catalog.relation(id)) {
            let rests = matches!(&dependant.kind, RelationKind::MaterializedView(view) if view.paused);
            if dependant.id == relation.id || !rests {
                ddl::wait_built(session, dependant.id, &dependant.name).await?;
            }
        }
    }
    Ok(())
}

/// What is built again does not say what has changed since it stopped.
fn refuse_sinks(snapshot: &Snapshot, relation: &Relation, verb: &str) -> Result<(), SqlError> {
    let catalog = &snapshot.catalog;
    let dependants = catalog.transitive_dependants(relation.id);
    let sink = dependants
        .into_iter()
        .filter_map(|id| catalog.relation(id))
        .find(|dependant| matches!(dependant.kind, RelationKind::Sink(_)));
    match sink {
        None => Ok(()),
        Some(sink) => Err(SqlError::unsupported(format!(
            "cannot {verb} materialized view \"{}\" because {} follows its changes",
            relation.name,
            sink.described()
        ))
        .hint("Drop the sink first, and create it again afterwards: it begins with the whole contents.")),
    }
}
