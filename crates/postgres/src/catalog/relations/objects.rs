//! pg_class and what hangs on it: columns, keys, indexes, defaults, comments, views and their dependencies.

use millpond_catalog::{Relation, RelationKind};

use super::super::cell::{Cell, Rows};
use super::super::facts::{
    Class, Facts, KEY_CONSTRAINT, KEY_INDEX, VIEW_RULE, What, oid, primary_key, type_of,
};
use super::super::functions::definition::{index_definition, view_definition};

/// pg_am: our tables are `heap`, our indexes `btree`, as far as clients need to know.
const HEAP: u32 = 2;
const BTREE: u32 = 403;
/// Oids of catalogs, which pg_depend and pg_description name objects by.
const PG_CLASS: u32 = 1259;
const PG_REWRITE: u32 = 2618;
const PG_CONSTRAINT: u32 = 2606;

pub(super) fn pg_namespace(facts: &Facts, rows: &mut Rows) {
    for (oid, name, owner) in facts.schemas() {
        rows.push([
            ("oid", oid.into()),
            ("nspname", name.into()),
            ("nspowner", facts.role_oid(&owner).into()),
        ]);
    }
}

fn owner(class: &Class) -> &str {
    match &class.what {
        What::Relation(relation) | What::KeyIndex(relation) => &relation.owner,
        What::System(_) => "millpond",
    }
}

pub(super) fn pg_class(facts: &Facts, rows: &mut Rows) {
    for class in facts.classes() {
        let (columns, has_index, method) = match &class.what {
            What::Relation(relation) => match &relation.kind {
                RelationKind::Index(index) => (index.columns.len() + index.include.len(), false, BTREE),
                RelationKind::View(_) => (relation.columns.len(), false, 0),
                _ => (relation.columns.len(), !indexes(facts, relation).is_empty(), HEAP),
            },
            What::KeyIndex(relation) => (primary_key(relation).map_or(0, |(_, key)| key.len()), false, BTREE),
            What::System(relation) => {
                (relation.columns.len(), false, if class.kind == "r" { HEAP } else { 0 })
            }
        };
        let estimate =
            facts.context.row_estimates.get(&class.oid.wrapping_sub(oid(millpond_types::RelationId(0))));
        rows.push([
            ("oid", class.oid.into()),
            ("relname", class.name.as_str().into()),
            ("relnamespace", facts.schema_oid(&class.schema).into()),
            ("relowner", facts.role_oid(owner(class)).into()),
            ("relam", method.into()),
            ("relfilenode", class.oid.into()),
            ("reltuples", estimate.map_or(Cell::Int(-1), |rows| Cell::Int(*rows as i64))),
            ("relhasindex", has_index.into()),
            ("relpersistence", "p".into()),
            ("relkind", class.kind.into()),
            ("relnatts", columns.into()),
            ("relhasrules", (class.kind == "v" || class.kind == "m").into()),
            ("relispopulated", true.into()),
            ("relreplident", if class.kind == "r" || class.kind == "m" { "d" } else { "n" }.into()),
        ]);
    }
}

/// An index with all that pg_index says of it.
struct Indexed<'a> {
    oid: u32,
    columns: Vec<usize>,
    include: &'a [usize],
    unique: bool,
    primary: bool,
}

fn indexes<'a>(facts: &'a Facts, relation: &'a Relation) -> Vec<Indexed<'a>> {
    let key = primary_key(relation).map(|(_, key)| Indexed {
        oid: oid(relation.id) | KEY_INDEX,
        columns: key.to_vec(),
        include: &[],
        unique: true,
        primary: true,
    });
    let others = facts.context.catalog.relations().filter_map(|other| match &other.kind {
        RelationKind::Index(index) if index.relation == relation.id => Some(Indexed {
            oid: oid(other.id),
            columns: index.columns.clone(),
            include: &index.include,
            unique: index.unique,
            primary: false,
        }),
        _ => None,
    });
    key.into_iter().chain(others).collect()
}

/// Attribute numbers count from 1.
fn attribute_numbers(columns: &[usize]) -> Vec<i64> {
    columns.iter().map(|c| *c as i64 + 1).collect()
}

pub(super) fn pg_attribute(facts: &Facts, rows: &mut Rows) {
    let mut push =
        |relation: u32, number: usize, name: &str, ty: &millpond_types::SqlType, facts: [bool; 3]| {
            let [not_null, has_default, generated] = facts;
            let row = type_of(ty);
            rows.push([
                ("attrelid", relation.into()),
                ("attname", name.into()),
                ("atttypid", row.oid.into()),
                ("attstattarget", Cell::Int(-1)),
                ("attlen", row.fields[2].into()),
                ("attnum", number.into()),
                ("attndims", i32::from(row.category == "A").into()),
                ("attcacheoff", Cell::Int(-1)),
                ("atttypmod", ty.modifier().into()),
                ("attbyval", (row.fields[3] == "t").into()),
                ("attalign", row.fields[19].into()),
                ("attstorage", row.fields[20].into()),
                ("attcompression", "".into()),
                ("attnotnull", not_null.into()),
                ("atthasdef", (has_default || generated).into()),
                ("attidentity", "".into()),
                ("attgenerated", if generated { "s" } else { "" }.into()),
                ("attislocal", true.into()),
                ("attcollation", row.fields[21].into()),
            ]);
        };
    for class in facts.classes() {
        match &class.what {
            What::Relation(relation) if !matches!(relation.kind, RelationKind::Index(_)) => {
                let key = primary_key(relation).map_or(&[][..], |(_, key)| key);
                for (at, column) in relation.columns.iter().enumerate() {
                    let not_null = !column.nullable || key.contains(&at);
                    let flags = [not_null, column.default.is_some(), column.generated.is_some()];
                    push(class.oid, at + 1, &column.name, &column.ty, flags);
                }
            }
            What::Relation(relation) => {
                let RelationKind::Index(index) = &relation.kind else { continue };
                let Some(table) = facts.context.catalog.relation(index.relation) else { continue };
                for (at, column) in index.columns.iter().chain(&index.include).enumerate() {
                    let column = &table.columns[*column];
                    push(class.oid, at + 1, &column.name, &column.ty, [false; 3]);
                }
            }
            What::KeyIndex(table) => {
                let key = primary_key(table).map_or(&[][..], |(_, key)| key);
                for (at, column) in key.iter().enumerate() {
                    let column = &table.columns[*column];
                    push(class.oid, at + 1, &column.name, &column.ty, [false; 3]);
                }
            }
            What::System(relation) => {
                for (at, (name, ty)) in relation.columns.iter().enumerate() {
                    push(class.oid, at + 1, name, ty, [*name == "oid", false, false]);
                }
            }
        }
    }
}

pub(super) fn pg_attrdef(facts: &Facts, rows: &mut Rows) {
    for (relation_oid, relation) in facts.readable() {
        for (at, column) in relation.columns.iter().enumerate() {
            if let Some(expression) = column.default.as_ref().or(column.generated.as_ref()) {
                rows.push([
                    // Nothing else names it: any number will do that is not another object's.
                    ("oid", ((1u32 << 31) | (relation.id.0 << 11) | at as u32).into()),
                    ("adrelid", relation_oid.into()),
                    ("adnum", (at + 1).into()),
                    ("adbin", expression.as_str().into()),
                ]);
            }
        }
    }
}

pub(super) fn pg_index(facts: &Facts, rows: &mut Rows) {
    for (relation_oid, relation) in facts.readable() {
        for index in indexes(facts, relation) {
            let keys = index.columns.len();
            let all: Vec<usize> = index.columns.iter().chain(index.include).copied().collect();
            let collations: Vec<i64> = index
                .columns
                .iter()
                .map(|c| type_of(&relation.columns[*c].ty).fields[21].parse().unwrap_or(0))
                .collect();
            let classes: Vec<i64> = index
                .columns
                .iter()
                .map(|c| super::types::operator_class(&relation.columns[*c].ty).into())
                .collect();
            rows.push([
                ("indexrelid", index.oid.into()),
                ("indrelid", relation_oid.into()),
                ("indnatts", all.len().into()),
                ("indnkeyatts", keys.into()),
                ("indisunique", index.unique.into()),
                ("indisprimary", index.primary.into()),
                ("indimmediate", true.into()),
                ("indisvalid", true.into()),
                ("indisready", true.into()),
                ("indislive", true.into()),
                ("indkey", attribute_numbers(&all).into()),
                ("indcollation", collations.into()),
                ("indclass", classes.into()),
                ("indoption", vec![0i64; keys].into()),
            ]);
        }
    }
}

pub(super) fn pg_constraint(facts: &Facts, rows: &mut Rows) {
    for (relation_oid, relation) in facts.readable() {
        if let Some((name, key)) = primary_key(relation) {
            rows.push([
                ("oid", (relation_oid | KEY_CONSTRAINT).into()),
                ("conname", name.into()),
                ("connamespace", facts.schema_oid(&relation.schema).into()),
                ("contype", "p".into()),
                ("convalidated", true.into()),
                ("conrelid", relation_oid.into()),
                ("conindid", (relation_oid | KEY_INDEX).into()),
                ("confupdtype", " ".into()),
                ("confdeltype", " ".into()),
                ("confmatchtype", " ".into()),
                ("conislocal", true.into()),
                ("connoinherit", true.into()),
                ("conkey", attribute_numbers(key).into()),
            ]);
        }
    }
}

pub(super) fn pg_description(facts: &Facts, rows: &mut Rows) {
    for (relation_oid, relation) in facts.readable() {
        let own = relation.comment.as_deref().map(|comment| (0, comment));
        let columns = relation
            .columns
            .iter()
            .enumerate()
            .filter_map(|(at, column)| column.comment.as_deref().map(|comment| (at + 1, comment)));
        for (number, comment) in own.into_iter().chain(columns) {
            rows.push([
                ("objoid", relation_oid.into()),
                ("classoid", PG_CLASS.into()),
                ("objsubid", number.into()),
                ("description", comment.into()),
            ]);
        }
    }
}

/// Each view has its rule, which depends on what the view reads: the graph that dbt and DBeaver follow.
pub(super) fn pg_rewrite(facts: &Facts, rows: &mut Rows) {
    for (relation_oid, relation) in facts.readable() {
        if matches!(relation.kind, RelationKind::View(_) | RelationKind::MaterializedView(_)) {
            rows.push([
                ("oid", (relation_oid | VIEW_RULE).into()),
                ("rulename", "_RETURN".into()),
                ("ev_class", relation_oid.into()),
                ("ev_type", "1".into()),
                ("ev_enabled", "O".into()),
                ("is_instead", true.into()),
            ]);
        }
    }
}

pub(super) fn pg_depend(facts: &Facts, rows: &mut Rows) {
    let mut push = |class: u32, object: u32, on_class: u32, on: u32, kind: &str| {
        rows.push([
            ("classid", class.into()),
            ("objid", object.into()),
            ("refclassid", on_class.into()),
            ("refobjid", on.into()),
            ("deptype", kind.into()),
        ]);
    };
    for (relation_oid, relation) in facts.readable() {
        if matches!(relation.kind, RelationKind::View(_) | RelationKind::MaterializedView(_)) {
            push(PG_REWRITE, relation_oid | VIEW_RULE, PG_CLASS, relation_oid, "i");
            for on in &relation.dependencies {
                push(PG_REWRITE, relation_oid | VIEW_RULE, PG_CLASS, oid(*on), "n");
            }
        }
        if primary_key(relation).is_some() {
            push(PG_CLASS, relation_oid | KEY_INDEX, PG_CONSTRAINT, relation_oid | KEY_CONSTRAINT, "i");
        }
    }
}

pub(super) fn pg_tables(facts: &Facts, rows: &mut Rows) {
    for class in facts.classes().iter().filter(|class| class.kind == "r") {
        let indexed = match &class.what {
            What::Relation(relation) => !indexes(facts, relation).is_empty(),
            _ => false,
        };
        rows.push([
            ("schemaname", class.schema.as_str().into()),
            ("tablename", class.name.as_str().into()),
            ("tableowner", owner(class).into()),
            ("hasindexes", indexed.into()),
        ]);
    }
}

pub(super) fn pg_views(facts: &Facts, rows: &mut Rows) {
    for class in facts.classes().iter().filter(|class| class.kind == "v") {
        let definition = match &class.what {
            What::Relation(relation) => view_definition(relation),
            _ => None,
        };
        rows.push([
            ("schemaname", class.schema.as_str().into()),
            ("viewname", class.name.as_str().into()),
            ("viewowner", owner(class).into()),
            ("definition", definition.into()),
        ]);
    }
}

pub(super) fn pg_matviews(facts: &Facts, rows: &mut Rows) {
    for (_, relation) in facts.readable() {
        if matches!(relation.kind, RelationKind::MaterializedView(_)) {
            rows.push([
                ("schemaname", relation.schema.as_str().into()),
                ("matviewname", relation.name.as_str().into()),
                ("matviewowner", relation.owner.as_str().into()),
                ("hasindexes", (!indexes(facts, relation).is_empty()).into()),
                ("ispopulated", true.into()),
                ("definition", view_definition(relation).into()),
            ]);
        }
    }
}

pub(super) fn pg_indexes(facts: &Facts, rows: &mut Rows) {
    for (_, relation) in facts.readable() {
        for index in indexes(facts, relation) {
            let Some(class) = facts.class(index.oid) else { continue };
            rows.push([
                ("schemaname", relation.schema.as_str().into()),
                ("tablename", relation.name.as_str().into()),
                ("indexname", class.name.as_str().into()),
                ("indexdef", index_definition(facts, index.oid).into()),
            ]);
        }
    }
}
