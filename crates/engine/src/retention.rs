//! How long sources keep their rows: options of the statement, policies of the log.

use std::collections::BTreeMap;

use millpond_catalog::{Catalog, Relation, RelationKind};
use millpond_log::{Log, TopicPolicy};
use millpond_sql::{Options, parse_bytes, parse_duration};
use millpond_types::{RelationId, SqlError, SqlState};

use crate::target::ROW_ID;

pub(crate) const RETENTION: &str = "retention";
pub(crate) const RETENTION_BYTES: &str = "retention_bytes";

/// Takes the options of retention out of a statement's, checked; the catalog keeps them as they were written.
///
/// # Errors
/// 22023 for values that are none, 0A000 for a table whose rows change.
pub(crate) fn take(options: &mut Options, append_only: bool) -> Result<(), SqlError> {
    for name in [RETENTION, RETENTION_BYTES] {
        let Some(entry) = options.entries().iter().find(|entry| entry.name == name).cloned() else {
            continue;
        };
        if !append_only {
            return Err(SqlError::unsupported(format!("a table whose rows change has no {name}"))
                .hint("A changelog is kept as long as its rows are. Declare the table APPEND ONLY, or use CREATE SOURCE.")
                .at(entry.position));
        }
        let positive = match name {
            RETENTION => options.take_duration(name)?.is_some_and(|micros| micros > 0),
            _ => options.take_bytes(name)?.is_some_and(|bytes| bytes > 0),
        };
        if !positive {
            let message = format!("option \"{name}\" must be more than nothing");
            return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message)
                .hint(format!("RESET ({name}) keeps rows for ever."))
                .at(entry.value_position));
        }
    }
    Ok(())
}

fn policy(relation: &Relation) -> TopicPolicy {
    let option = |name| relation.options.get(name);
    TopicPolicy {
        retention_micros: option(RETENTION).and_then(|text| parse_duration(text)),
        retention_bytes: option(RETENTION_BYTES).and_then(|text| parse_bytes(text)),
        key: key(relation),
    }
}

/// The stored columns by which the log tells the rows of a table apart; none of what is append-only.
fn key(relation: &Relation) -> Vec<String> {
    match &relation.kind {
        RelationKind::Table(table) if table.append_only => Vec::new(),
        RelationKind::Table(table) if table.primary_key.is_empty() => vec![ROW_ID.to_owned()],
        RelationKind::Table(table) => {
            table.primary_key.iter().map(|column| relation.columns[*column].name.clone()).collect()
        }
        _ => Vec::new(),
    }
}

/// Of every topic that there is.
pub(crate) fn policies(catalog: &Catalog) -> BTreeMap<RelationId, TopicPolicy> {
    let topics = catalog.relations().filter(|relation| relation.is_topic());
    let own = (crate::reject::ERRORS_TOPIC, TopicPolicy::default());
    topics.map(|relation| (relation.id, policy(relation))).chain([own]).collect()
}

/// The first of the relations that a query reads directly of which rows have gone.
pub(crate) fn trimmed<'a>(log: &Log, catalog: &'a Catalog, inputs: &[RelationId]) -> Option<&'a Relation> {
    let gone = inputs.iter().filter(|id| log.is_trimmed(**id));
    gone.filter_map(|id| catalog.relation(*id)).find(|relation| relation.is_append_only()).map(|r| &**r)
}
