//! Who has which oid: the objects of one statement's catalog as PostgreSQL's catalogs number them.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, OnceLock};

use millpond_catalog::{Relation, RelationKind};
use millpond_engine::SystemContext;
use millpond_types::{RelationId, SqlType};

use super::schema::{RELATIONS, SystemRelation};

/// The first oid of users' objects in PostgreSQL.
const FIRST_USER_OID: u32 = 16_384;
/// Primary keys have no ids of their own: their index and constraint take the table's oid with one of these bits.
pub(super) const KEY_INDEX: u32 = 1 << 30;
pub(super) const KEY_CONSTRAINT: u32 = 1 << 29;
/// The rule of a view, likewise.
pub(super) const VIEW_RULE: u32 = 1 << 28;
pub(super) const PG_CATALOG: u32 = 11;
const PUBLIC: u32 = 2200;
const INFORMATION_SCHEMA: u32 = 13_000;
const MILLPOND: u32 = 13_001;
/// The role that PostgreSQL creates first.
const BOOTSTRAP_ROLE: u32 = 10;
pub(super) const DATABASE: u32 = 5;

/// The oid of a relation in pg_class.
pub(crate) fn oid(id: RelationId) -> u32 {
    FIRST_USER_OID.saturating_add(id.0)
}

/// A row of pg_class.
#[derive(Clone)]
pub(super) struct Class {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    pub kind: &'static str,
    pub what: What,
}

#[derive(Clone)]
pub(super) enum What {
    Relation(Arc<Relation>),
    /// The index that carries the primary key of this table.
    KeyIndex(Arc<Relation>),
    System(Arc<SystemRelation>),
}

/// A type of pg_type, from PostgreSQL's list.
pub(super) struct Type {
    pub oid: u32,
    pub name: &'static str,
    pub element: u32,
    pub array: u32,
    pub category: &'static str,
    /// All columns of the line.
    pub fields: Vec<&'static str>,
}

pub(super) static TYPES: LazyLock<Vec<Type>> = LazyLock::new(|| {
    let line = |line: &'static str| {
        let fields: Vec<&str> = line.split('\t').collect();
        let number = |i: usize| fields[i].parse().expect("oids are numbers");
        let (name, category) = (fields[1], fields[5]);
        Type { oid: number(0), name, element: number(9), array: number(10), category, fields }
    };
    include_str!("data/pg_type.tsv").lines().map(line).collect()
});

pub(super) fn type_by_oid(oid: u32) -> Option<&'static Type> {
    static BY_OID: LazyLock<HashMap<u32, &'static Type>> =
        LazyLock::new(|| TYPES.iter().map(|t| (t.oid, t)).collect());
    BY_OID.get(&oid).copied()
}

/// Everything that the relations and functions of one statement answer from.
pub(super) struct Facts {
    pub context: SystemContext,
    classes: OnceLock<Vec<Class>>,
    by_oid: OnceLock<HashMap<u32, usize>>,
}

impl Facts {
    pub fn new(context: SystemContext) -> Self {
        Self { context, classes: OnceLock::new(), by_oid: OnceLock::new() }
    }

    pub fn classes(&self) -> &[Class] {
        self.classes.get_or_init(|| {
            let mut classes = Vec::new();
            for relation in self.context.catalog.relations() {
                let kind = match &relation.kind {
                    RelationKind::Source(_) | RelationKind::Table(_) => "r",
                    RelationKind::View(_) => "v",
                    RelationKind::MaterializedView(_) => "m",
                    RelationKind::Index(_) => "i",
                    // Nothing can be read from it.
                    RelationKind::Sink(_) => continue,
                };
                let class = |oid, name: &str, kind, what| {
                    let schema = relation.schema.clone();
                    Class { oid, schema, name: name.to_owned(), kind, what }
                };
                let id = oid(relation.id);
                classes.push(class(id, &relation.name, kind, What::Relation(Arc::clone(relation))));
                if let Some((name, _)) = primary_key(relation) {
                    classes.push(class(id | KEY_INDEX, &name, "i", What::KeyIndex(Arc::clone(relation))));
                }
            }
            classes.extend(RELATIONS.iter().map(|relation| Class {
                oid: relation.oid,
                schema: relation.schema.to_owned(),
                name: relation.name.to_owned(),
                kind: relation.kind,
                what: What::System(Arc::clone(relation)),
            }));
            classes
        })
    }

    pub fn class(&self, oid: u32) -> Option<&Class> {
        let by_oid = self
            .by_oid
            .get_or_init(|| self.classes().iter().enumerate().map(|(at, class)| (class.oid, at)).collect());
        by_oid.get(&oid).map(|at| &self.classes()[*at])
    }

    pub fn class_named(&self, schema: &str, name: &str) -> Option<&Class> {
        self.classes().iter().find(|class| class.schema == schema && class.name == name)
    }

    /// The user's relations that can be read, with their oids.
    pub fn readable(&self) -> impl Iterator<Item = (u32, &Arc<Relation>)> {
        self.context.catalog.relations().filter(|r| r.is_readable()).map(|r| (oid(r.id), r))
    }

    /// The schemas in the order in which names are looked for.
    pub fn path(&self) -> Vec<&str> {
        let named = self.context.search_path.iter().any(|s| s == "pg_catalog");
        let path = self.context.search_path.iter().map(String::as_str);
        (!named).then_some("pg_catalog").into_iter().chain(path).collect()
    }

    /// Whether the relation is the one that its bare name means.
    pub fn is_visible(&self, class: &Class) -> bool {
        self.path()
            .into_iter()
            .find_map(|schema| self.class_named(schema, &class.name))
            .is_some_and(|found| found.oid == class.oid)
    }

    /// The name as `regclass` prints it: qualified where needed.
    pub fn class_name(&self, class: &Class) -> String {
        let name = millpond_sql::quote_identifier(&class.name);
        match self.is_visible(class) {
            true => name,
            false => format!("{}.{name}", millpond_sql::quote_identifier(&class.schema)),
        }
    }

    /// oid, name, owner.
    pub fn schemas(&self) -> Vec<(u32, String, String)> {
        let system =
            [(PG_CATALOG, "pg_catalog"), (INFORMATION_SCHEMA, "information_schema"), (MILLPOND, "millpond")];
        let bootstrap = self.roles()[0].1.clone();
        let system = system.map(|(oid, name)| (oid, name.to_owned(), bootstrap.clone()));
        let users = self.context.catalog.schemas().map(|schema| {
            let id = if schema.name == "public" { PUBLIC } else { oid(schema.id) };
            (id, schema.name.clone(), schema.owner.clone())
        });
        system.into_iter().chain(users).collect()
    }

    pub fn schema_oid(&self, name: &str) -> u32 {
        match name {
            "pg_catalog" => PG_CATALOG,
            "public" => PUBLIC,
            "information_schema" => INFORMATION_SCHEMA,
            "millpond" => MILLPOND,
            _ => self.context.catalog.schemas().find(|s| s.name == name).map_or(0, |s| oid(s.id)),
        }
    }

    /// oid and name; the session's user is always among them.
    pub fn roles(&self) -> Vec<(u32, String)> {
        let owners = self.context.catalog.relations().map(|r| r.owner.as_str());
        let schemas = self.context.catalog.schemas().map(|s| s.owner.as_str());
        let mut others: Vec<&str> = owners.chain(schemas).chain([self.context.user.as_str()]).collect();
        others.retain(|name| !name.is_empty() && *name != "millpond");
        others.sort_unstable();
        others.dedup();
        // Numbered after their names, so that the same role has the same oid in every statement.
        let oid_of = |name: &str| FIRST_USER_OID + (1 << 24) + (fnv(name) & 0xff_ffff);
        let others = others.into_iter().map(|name| (oid_of(name), name.to_owned()));
        [(BOOTSTRAP_ROLE, "millpond".to_owned())].into_iter().chain(others).collect()
    }

    pub fn role_oid(&self, name: &str) -> u32 {
        self.roles().into_iter().find(|(_, role)| role == name).map_or(BOOTSTRAP_ROLE, |(oid, _)| oid)
    }
}

fn fnv(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// The name and the columns of a table's primary key.
pub(super) fn primary_key(relation: &Relation) -> Option<(String, &[usize])> {
    match &relation.kind {
        RelationKind::Table(table) if !table.primary_key.is_empty() => {
            let name = table.primary_key_name.clone().unwrap_or_else(|| format!("{}_pkey", relation.name));
            Some((name, &table.primary_key))
        }
        _ => None,
    }
}

/// The type of pg_type that a column of this type has.
pub(super) fn type_of(ty: &SqlType) -> &'static Type {
    type_by_oid(ty.oid()).or_else(|| type_by_oid(25)).expect("text is in the list")
}

/// As PostgreSQL's format_type; an unknown oid is `???`.
pub(super) fn format_type(oid: u32, modifier: Option<i32>) -> String {
    let Some(ty) = type_by_oid(oid) else {
        return if oid == 0 { "-".to_owned() } else { "???".to_owned() };
    };
    if ty.category == "A" && ty.element != 0 && ty.name.starts_with('_') {
        return format!("{}[]", format_type(ty.element, modifier));
    }
    let modifier = modifier.filter(|m| *m >= 4);
    match (oid, modifier) {
        (1700, Some(m)) => {
            let (precision, scale) = (((m - 4) >> 16) & 0xffff, (m - 4) & 0x7ff);
            format!("numeric({precision},{scale})")
        }
        (1700, None) => "numeric".to_owned(),
        (1042, Some(m)) => format!("character({})", m - 4),
        (1042, None) => "character".to_owned(),
        (1043, Some(m)) => format!("character varying({})", m - 4),
        (1043, None) => "character varying".to_owned(),
        (1266, _) => "time with time zone".to_owned(),
        (18, _) => "\"char\"".to_owned(),
        (1560, _) => "bit".to_owned(),
        (1562, _) => "bit varying".to_owned(),
        _ => SqlType::from_oid(oid).map_or_else(|| ty.name.to_owned(), |t| t.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_formatted_as_postgresql_does() {
        let cases = [
            (23, None, "integer"),
            (1700, Some(((10 << 16) | 2) + 4), "numeric(10,2)"),
            (1700, None, "numeric"),
            (1043, Some(14), "character varying(10)"),
            (1043, None, "character varying"),
            (1007, None, "integer[]"),
            (1231, None, "numeric[]"),
            (19, None, "name"),
            (2205, None, "regclass"),
            (18, None, "\"char\""),
            (1184, None, "timestamp with time zone"),
            (999_999, None, "???"),
        ];
        for (oid, modifier, expected) in cases {
            assert_eq!(format_type(oid, modifier), expected);
        }
    }
}
