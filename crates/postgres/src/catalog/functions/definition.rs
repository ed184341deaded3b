//! Objects as SQL text: what `\d`, dumps and IDEs show of views, indexes, constraints and defaults.

use millpond_catalog::{Relation, RelationKind};
use millpond_sql::quote_identifier;
use millpond_types::{SqlError, SqlType};

use super::super::cell::Cell;
use super::super::facts::{Facts, KEY_CONSTRAINT, What, format_type, primary_key, type_by_oid};
use super::super::relations::PROCEDURES;
use super::{Function, constant, lenient, strict};

pub(super) fn functions() -> Vec<Function> {
    let text = || SqlType::Text;
    vec![
        lenient("format_type", text(), 1..=2, |_, a| {
            let modifier = a.get(1).and_then(Cell::int).and_then(|m| i32::try_from(m).ok());
            Ok(a[0].oid().map(|oid| format_type(oid, modifier)).into())
        }),
        // What adbin and its like hold is the text already.
        lenient("pg_get_expr", text(), 2..=3, |_, a| Ok(a[0].clone())),
        strict("pg_get_viewdef", text(), 1..=2, |facts, a| {
            let class = super::names::class_of(facts, &a[0])?;
            Ok(class
                .and_then(|class| match &class.what {
                    What::Relation(relation) => view_definition(relation),
                    _ => None,
                })
                .into())
        }),
        strict("pg_get_indexdef", text(), 1..=3, |facts, a| {
            let Some(oid) = a[0].oid() else { return Ok(Cell::Null) };
            match a.get(1).and_then(Cell::int) {
                None | Some(0) => Ok(index_definition(facts, oid).into()),
                Some(column) => Ok(index_column(facts, oid, column).into()),
            }
        }),
        strict("pg_get_constraintdef", text(), 1..=2, |facts, a| {
            Ok(constraint_definition(facts, &a[0]).into())
        }),
        constant("pg_get_ruledef", text(), 1..=2, null),
        constant("pg_get_triggerdef", text(), 1..=2, null),
        constant("pg_get_partkeydef", text(), 1..=1, null),
        constant("pg_get_partition_constraintdef", text(), 1..=1, null),
        constant("pg_get_statisticsobjdef", text(), 1..=1, null),
        constant("pg_get_statisticsobjdef_columns", text(), 1..=1, null),
        constant("pg_get_serial_sequence", text(), 2..=2, null),
        constant("pg_get_functiondef", text(), 1..=1, null),
        constant("pg_get_function_sqlbody", text(), 1..=1, null),
        strict("pg_get_function_arguments", text(), 1..=1, |_, a| Ok(arguments(&a[0]).into())),
        strict("pg_get_function_identity_arguments", text(), 1..=1, |_, a| Ok(arguments(&a[0]).into())),
        strict("pg_get_function_result", text(), 1..=1, |_, a| {
            let result = procedure(&a[0]).and_then(|f| f[4].parse().ok());
            Ok(result.map(|oid| format_type(oid, None)).into())
        }),
        strict("obj_description", text(), 1..=2, |facts, a| {
            let about_relations = a.get(1).is_none_or(|catalog| catalog.text() == Some("pg_class"));
            let relation = a[0].oid().filter(|_| about_relations).and_then(|oid| relation(facts, oid));
            Ok(relation.and_then(|r| r.comment.clone()).into())
        }),
        strict("col_description", text(), 2..=2, |facts, a| {
            let relation = a[0].oid().and_then(|oid| relation(facts, oid));
            let column = a[1].int().and_then(|number| usize::try_from(number - 1).ok());
            let column = relation.and_then(|r| r.columns.get(column?));
            Ok(column.and_then(|c| c.comment.clone()).into())
        }),
        constant("shobj_description", text(), 2..=2, null),
    ]
}

fn null(_: &Facts, _: &[Cell]) -> Result<Cell, SqlError> {
    Ok(Cell::Null)
}

fn relation(facts: &Facts, oid: u32) -> Option<&Relation> {
    match &facts.class(oid)?.what {
        What::Relation(relation) => Some(relation),
        _ => None,
    }
}

/// The query of a view, as it was written.
pub(crate) fn view_definition(relation: &Relation) -> Option<String> {
    let query = match &relation.kind {
        RelationKind::View(view) => &view.query,
        RelationKind::MaterializedView(view) => &view.query,
        _ => return None,
    };
    Some(format!(" {};", query.trim().trim_end_matches(';')))
}

/// The table of an index, its key's columns, the other columns, and whether it is unique.
fn index_parts(facts: &Facts, oid: u32) -> Option<(&Relation, Vec<usize>, &[usize], bool)> {
    match &facts.class(oid)?.what {
        What::KeyIndex(table) => Some((table, primary_key(table)?.1.to_vec(), &[], true)),
        What::Relation(relation) => match &relation.kind {
            RelationKind::Index(index) => {
                let table = facts.context.catalog.relation(index.relation)?;
                Some((table, index.columns.clone(), &index.include, index.unique))
            }
            _ => None,
        },
        What::System(_) => None,
    }
}

fn names(table: &Relation, columns: &[usize]) -> String {
    columns.iter().map(|c| quote_identifier(&table.columns[*c].name)).collect::<Vec<_>>().join(", ")
}

pub(crate) fn index_definition(facts: &Facts, oid: u32) -> Option<String> {
    let (table, columns, include, unique) = index_parts(facts, oid)?;
    let unique = if unique { "UNIQUE " } else { "" };
    let index = quote_identifier(&facts.class(oid)?.name);
    let (schema, name) = (quote_identifier(&table.schema), quote_identifier(&table.name));
    let include = match include {
        [] => String::new(),
        include => format!(" INCLUDE ({})", names(table, include)),
    };
    Some(format!(
        "CREATE {unique}INDEX {index} ON {schema}.{name} USING btree ({}){include}",
        names(table, &columns)
    ))
}

fn index_column(facts: &Facts, oid: u32, number: i64) -> Option<String> {
    let (table, columns, include, _) = index_parts(facts, oid)?;
    let column = columns.iter().chain(include).nth(usize::try_from(number - 1).ok()?)?;
    Some(names(table, &[*column]))
}

fn constraint_definition(facts: &Facts, oid: &Cell) -> Option<String> {
    let table = oid.oid().filter(|oid| oid & KEY_CONSTRAINT != 0)? & !KEY_CONSTRAINT;
    let table = relation(facts, table)?;
    Some(format!("PRIMARY KEY ({})", names(table, primary_key(table)?.1)))
}

/// The line of a function in pg_proc.
fn procedure(oid: &Cell) -> Option<Vec<&'static str>> {
    let wanted = oid.oid()?.to_string();
    PROCEDURES.lines().map(|line| line.split('\t').collect::<Vec<_>>()).find(|f| f[0] == wanted)
}

fn arguments(oid: &Cell) -> Option<String> {
    let types = procedure(oid)?[5].split(' ').filter_map(|oid| type_by_oid(oid.parse().ok()?));
    Some(types.map(|ty| format_type(ty.oid, None)).collect::<Vec<_>>().join(", "))
}
