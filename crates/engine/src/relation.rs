//! From a relation of the catalog to the rows that state keeps of it.

use millpond_catalog::{Relation, RelationKind};
use millpond_state::Identity;

use crate::target::Key;

/// How its rows are told apart in a heap.
pub(crate) fn identity(relation: &Relation) -> Identity {
    match &relation.kind {
        RelationKind::MaterializedView(view) => match &view.unique_key {
            Some(columns) => Identity::UniqueKey(columns.clone()),
            None => Identity::Multiset,
        },
        _ => match Key::of(relation) {
            Key::AppendOnly => Identity::AppendOnly,
            key => Identity::UniqueKey(key.columns()),
        },
    }
}
