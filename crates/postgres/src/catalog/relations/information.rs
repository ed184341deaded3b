//! information_schema. Unlike PostgreSQL it lists materialized views, as views: tools that know only the standard find
//! them there.

use millpond_catalog::{Column, Relation, RelationKind};
use millpond_types::SqlType;

use super::super::cell::{Cell, Rows};
use super::super::facts::{Facts, format_type, primary_key, type_of};
use super::super::functions::definition::view_definition;

fn yes_or_no(yes: bool) -> Cell {
    if yes { "YES" } else { "NO" }.into()
}

fn is_view(relation: &Relation) -> bool {
    matches!(relation.kind, RelationKind::View(_) | RelationKind::MaterializedView(_))
}

pub(super) fn catalog_name(facts: &Facts, rows: &mut Rows) {
    rows.push([("catalog_name", facts.context.database.as_str().into())]);
}

pub(super) fn schemata(facts: &Facts, rows: &mut Rows) {
    for (_, name, owner) in facts.schemas() {
        rows.push([
            ("catalog_name", facts.context.database.as_str().into()),
            ("schema_name", name.into()),
            ("schema_owner", owner.into()),
        ]);
    }
}

pub(super) fn enabled_roles(facts: &Facts, rows: &mut Rows) {
    for (_, name) in facts.roles() {
        rows.push([("role_name", name.into())]);
    }
}

pub(super) fn character_sets(facts: &Facts, rows: &mut Rows) {
    rows.push([
        ("character_set_name", "UTF8".into()),
        ("character_repertoire", "UCS".into()),
        ("form_of_use", "UTF8".into()),
        ("default_collate_catalog", facts.context.database.as_str().into()),
        ("default_collate_schema", "pg_catalog".into()),
        ("default_collate_name", "default".into()),
    ]);
}

pub(super) fn tables(facts: &Facts, rows: &mut Rows) {
    for class in facts.classes().iter().filter(|class| matches!(class.kind, "r" | "v" | "m")) {
        rows.push([
            ("table_catalog", facts.context.database.as_str().into()),
            ("table_schema", class.schema.as_str().into()),
            ("table_name", class.name.as_str().into()),
            ("table_type", if class.kind == "r" { "BASE TABLE" } else { "VIEW" }.into()),
            ("is_insertable_into", yes_or_no(class.kind == "r")),
            ("is_typed", yes_or_no(false)),
        ]);
    }
}

pub(super) fn views(facts: &Facts, rows: &mut Rows) {
    for (_, relation) in facts.readable().filter(|(_, r)| is_view(r)) {
        rows.push([
            ("table_catalog", facts.context.database.as_str().into()),
            ("table_schema", relation.schema.as_str().into()),
            ("table_name", relation.name.as_str().into()),
            ("view_definition", view_definition(relation).into()),
            ("check_option", "NONE".into()),
            ("is_updatable", yes_or_no(false)),
            ("is_insertable_into", yes_or_no(false)),
            ("is_trigger_updatable", yes_or_no(false)),
            ("is_trigger_deletable", yes_or_no(false)),
            ("is_trigger_insertable_into", yes_or_no(false)),
        ]);
    }
}

/// Precision, its radix, and scale of a number.
fn number_shape(ty: &SqlType) -> [Cell; 3] {
    let shape = match ty {
        SqlType::Int2 => Some((16, 2, Some(0))),
        SqlType::Int4 => Some((32, 2, Some(0))),
        SqlType::Int8 => Some((64, 2, Some(0))),
        SqlType::Float4 => Some((24, 2, None)),
        SqlType::Float8 => Some((53, 2, None)),
        SqlType::Numeric(p, s) => Some((i64::from(*p), 10, Some(i64::from(*s)))),
        _ => None,
    };
    match shape {
        Some((precision, radix, scale)) => [Cell::Int(precision), Cell::Int(radix), scale.into()],
        None => [Cell::Null, Cell::Null, Cell::Null],
    }
}

pub(super) fn columns(facts: &Facts, rows: &mut Rows) {
    for (_, relation) in facts.readable() {
        let key = primary_key(relation).map_or(&[][..], |(_, key)| key);
        for (at, column) in relation.columns.iter().enumerate() {
            push_column(facts, rows, relation, column, at, key.contains(&at));
        }
    }
}

fn push_column(facts: &Facts, rows: &mut Rows, relation: &Relation, column: &Column, at: usize, key: bool) {
    let ty = &column.ty;
    let data_type = match ty {
        SqlType::Array(_) => "ARRAY".to_owned(),
        other => format_type(other.oid(), None),
    };
    let length = match ty {
        SqlType::Varchar(Some(n)) | SqlType::Char(n) => Some(i64::from(*n)),
        _ => None,
    };
    let datetime = match ty {
        SqlType::Date => Some(0i64),
        SqlType::Time | SqlType::Timestamp | SqlType::Timestamptz | SqlType::Interval => Some(6),
        _ => None,
    };
    let [precision, radix, scale] = number_shape(ty);
    let database = || Cell::from(facts.context.database.as_str());
    rows.push([
        ("table_catalog", database()),
        ("table_schema", relation.schema.as_str().into()),
        ("table_name", relation.name.as_str().into()),
        ("column_name", column.name.as_str().into()),
        ("ordinal_position", (at + 1).into()),
        ("column_default", column.default.as_deref().into()),
        ("is_nullable", yes_or_no(column.nullable && !key)),
        ("data_type", data_type.into()),
        ("character_maximum_length", length.into()),
        ("character_octet_length", Cell::Null),
        ("numeric_precision", precision),
        ("numeric_precision_radix", radix),
        ("numeric_scale", scale),
        ("datetime_precision", datetime.into()),
        ("interval_precision", Cell::Null),
        ("udt_catalog", database()),
        ("udt_schema", "pg_catalog".into()),
        ("udt_name", type_of(ty).name.into()),
        ("maximum_cardinality", Cell::Null),
        ("dtd_identifier", (at + 1).to_string().into()),
        ("is_self_referencing", yes_or_no(false)),
        ("is_identity", yes_or_no(false)),
        ("identity_cycle", yes_or_no(false)),
        ("is_generated", if column.generated.is_some() { "ALWAYS" } else { "NEVER" }.into()),
        ("generation_expression", column.generated.as_deref().into()),
        ("is_updatable", yes_or_no(!is_view(relation))),
    ]);
}

pub(super) fn table_constraints(facts: &Facts, rows: &mut Rows) {
    for (_, relation) in facts.readable() {
        let Some((name, _)) = primary_key(relation) else { continue };
        let database = || Cell::from(facts.context.database.as_str());
        rows.push([
            ("constraint_catalog", database()),
            ("constraint_schema", relation.schema.as_str().into()),
            ("constraint_name", name.into()),
            ("table_catalog", database()),
            ("table_schema", relation.schema.as_str().into()),
            ("table_name", relation.name.as_str().into()),
            ("constraint_type", "PRIMARY KEY".into()),
            ("is_deferrable", yes_or_no(false)),
            ("initially_deferred", yes_or_no(false)),
            ("enforced", yes_or_no(true)),
        ]);
    }
}

pub(super) fn key_column_usage(facts: &Facts, rows: &mut Rows) {
    for (_, relation) in facts.readable() {
        let Some((name, key)) = primary_key(relation) else { continue };
        for (at, column) in key.iter().enumerate() {
            let database = || Cell::from(facts.context.database.as_str());
            rows.push([
                ("constraint_catalog", database()),
                ("constraint_schema", relation.schema.as_str().into()),
                ("constraint_name", name.as_str().into()),
                ("table_catalog", database()),
                ("table_schema", relation.schema.as_str().into()),
                ("table_name", relation.name.as_str().into()),
                ("column_name", relation.columns[*column].name.as_str().into()),
                ("ordinal_position", (at + 1).into()),
                ("position_in_unique_constraint", Cell::Null),
            ]);
        }
    }
}
