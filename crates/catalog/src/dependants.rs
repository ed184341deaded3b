//! Who depends on whom, and what DROP takes along.

use std::collections::BTreeSet;
use std::sync::Arc;

use millpond_types::{RelationId, SqlError, SqlState};

use crate::relation::{Relation, RelationKind};
use crate::snapshot::Catalog;

/// What a DROP removes: dependants before what they depend on, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropPlan {
    pub ids: Vec<RelationId>,
    /// `drop cascades to materialized view v`, for a NOTICE; with the rest as its detail when there are several.
    pub notice: Option<(String, Option<String>)>,
}

impl Catalog {
    /// Those that name `id` directly, by id.
    pub fn dependants(&self, id: RelationId) -> Vec<&Arc<Relation>> {
        self.relations().filter(|relation| relation.dependencies.contains(&id)).collect()
    }

    /// `id` and everything that depends on it, however far; each after what it depends on.
    pub fn transitive_dependants(&self, id: RelationId) -> Vec<RelationId> {
        let mut found = BTreeSet::from([id]);
        let mut queue = vec![id];
        while let Some(next) = queue.pop() {
            queue.extend(self.dependants(next).iter().map(|r| r.id).filter(|id| found.insert(*id)));
        }
        self.in_order(found)
    }

    /// The same ids, each after what it depends on. Dependencies have no circles: a relation names only what was there.
    fn in_order(&self, mut waiting: BTreeSet<RelationId>) -> Vec<RelationId> {
        let mut ordered = Vec::with_capacity(waiting.len());
        while !waiting.is_empty() {
            let free = |id: &&RelationId| {
                self.relation(**id)
                    .is_none_or(|r| r.dependencies.iter().all(|d| d == *id || !waiting.contains(d)))
            };
            let next = *waiting.iter().find(free).or(waiting.first()).expect("not empty");
            waiting.remove(&next);
            ordered.push(next);
        }
        ordered
    }

    /// What `DROP … [CASCADE]` of these relations removes. Indexes always go with their relation.
    ///
    /// # Errors
    /// 2BP01 `cannot drop table t because other objects depend on it`, each dependant on a line of the detail.
    pub fn plan_drop(&self, ids: &[RelationId], cascade: bool) -> Result<DropPlan, SqlError> {
        let all = self.with_dependants(ids);
        let others: Vec<&Arc<Relation>> = all
            .iter()
            .filter(|id| !ids.contains(id))
            .filter_map(|id| self.relation(*id))
            .filter(|relation| !matches!(&relation.kind, RelationKind::Index(index) if all.contains(&index.relation)))
            .collect();
        if !cascade && !others.is_empty() {
            let named: Vec<String> =
                ids.iter().filter_map(|id| self.relation(*id)).map(|r| r.described()).collect();
            let message = match named.as_slice() {
                [one] => format!("cannot drop {one} because other objects depend on it"),
                _ => "cannot drop desired object(s) because other objects depend on them".to_owned(),
            };
            return Err(self.still_depended_on(message, &others, &all));
        }
        let ids = all.iter().rev().copied().collect();
        Ok(DropPlan { ids, notice: cascades_to(&others) })
    }

    /// What `DROP SCHEMA … [CASCADE]` removes besides the schema.
    ///
    /// # Errors
    /// 3F000; 2BP01 when it is not empty; 42501 for a schema of the system.
    pub fn plan_drop_schema(&self, name: &str, cascade: bool) -> Result<DropPlan, SqlError> {
        self.check_schema(name)?;
        let inside: Vec<RelationId> = self.relations().filter(|r| r.schema == name).map(|r| r.id).collect();
        let all = self.with_dependants(&inside);
        let others: Vec<&Arc<Relation>> = all
            .iter()
            .filter_map(|id| self.relation(*id))
            .filter(|relation| !matches!(relation.kind, RelationKind::Index(_)))
            .collect();
        if !cascade && !others.is_empty() {
            let message = format!("cannot drop schema {name} because other objects depend on it");
            let lines = others.iter().map(|relation| match relation.schema == *name {
                true => format!("{} depends on schema {name}", relation.described()),
                false => self.dependence(relation, &all),
            });
            return Err(depended_on(message, lines.collect()));
        }
        Ok(DropPlan { ids: all.into_iter().rev().collect(), notice: cascades_to(&others) })
    }

    fn with_dependants(&self, ids: &[RelationId]) -> Vec<RelationId> {
        self.in_order(ids.iter().flat_map(|id| self.transitive_dependants(*id)).collect())
    }

    fn still_depended_on(&self, message: String, others: &[&Arc<Relation>], all: &[RelationId]) -> SqlError {
        depended_on(message, others.iter().map(|relation| self.dependence(relation, all)).collect())
    }

    /// `materialized view v depends on table t`: on the first of its own dependencies that goes.
    fn dependence(&self, relation: &Relation, all: &[RelationId]) -> String {
        let on = relation.dependencies.iter().filter(|id| all.contains(id)).find_map(|id| self.relation(*id));
        let on = on.map_or_else(|| "it".to_owned(), |on| on.described());
        format!("{} depends on {on}", relation.described())
    }
}

fn depended_on(message: String, lines: Vec<String>) -> SqlError {
    SqlError::new(SqlState::DEPENDENT_OBJECTS_STILL_EXIST, message)
        .detail(lines.join("\n"))
        .hint("Use DROP ... CASCADE to drop the dependent objects too.")
}

/// As PostgreSQL tells it: one by name, several by number with the names behind.
fn cascades_to(others: &[&Arc<Relation>]) -> Option<(String, Option<String>)> {
    match others {
        [] => None,
        [one] => Some((format!("drop cascades to {}", one.described()), None)),
        many => {
            let lines: Vec<_> = many.iter().map(|r| format!("drop cascades to {}", r.described())).collect();
            Some((format!("drop cascades to {} other objects", many.len()), Some(lines.join("\n"))))
        }
    }
}
