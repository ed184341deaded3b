//! The rows of the system relations that have any; the others exist with all their columns, and are empty.

mod information;
mod objects;
mod server;
mod types;

pub(super) use types::PROCEDURES;

use arrow::array::RecordBatch;

use super::cell::Rows;
use super::facts::Facts;
use super::schema::SystemRelation;

/// Fills the rows of one relation.
type Fill = fn(&Facts, &mut Rows<'_>);

/// Relations with rows.
const FILLED: &[(&str, &str, Fill)] = &[
    ("pg_catalog", "pg_am", types::pg_am),
    ("pg_catalog", "pg_attrdef", objects::pg_attrdef),
    ("pg_catalog", "pg_attribute", objects::pg_attribute),
    ("pg_catalog", "pg_authid", server::pg_authid),
    ("pg_catalog", "pg_class", objects::pg_class),
    ("pg_catalog", "pg_collation", types::pg_collation),
    ("pg_catalog", "pg_constraint", objects::pg_constraint),
    ("pg_catalog", "pg_database", server::pg_database),
    ("pg_catalog", "pg_depend", objects::pg_depend),
    ("pg_catalog", "pg_description", objects::pg_description),
    ("pg_catalog", "pg_index", objects::pg_index),
    ("pg_catalog", "pg_indexes", objects::pg_indexes),
    ("pg_catalog", "pg_language", types::pg_language),
    ("pg_catalog", "pg_matviews", objects::pg_matviews),
    ("pg_catalog", "pg_namespace", objects::pg_namespace),
    ("pg_catalog", "pg_opclass", types::pg_opclass),
    ("pg_catalog", "pg_proc", types::pg_proc),
    ("pg_catalog", "pg_range", types::pg_range),
    ("pg_catalog", "pg_rewrite", objects::pg_rewrite),
    ("pg_catalog", "pg_roles", server::pg_roles),
    ("pg_catalog", "pg_settings", server::pg_settings),
    ("pg_catalog", "pg_stat_activity", server::pg_stat_activity),
    ("pg_catalog", "pg_stat_all_tables", server::pg_stat_tables),
    ("pg_catalog", "pg_stat_user_tables", server::pg_stat_tables),
    ("pg_catalog", "pg_tables", objects::pg_tables),
    ("pg_catalog", "pg_tablespace", server::pg_tablespace),
    ("pg_catalog", "pg_type", types::pg_type),
    ("pg_catalog", "pg_user", server::pg_user),
    ("pg_catalog", "pg_views", objects::pg_views),
    ("information_schema", "character_sets", information::character_sets),
    ("information_schema", "columns", information::columns),
    ("information_schema", "enabled_roles", information::enabled_roles),
    ("information_schema", "information_schema_catalog_name", information::catalog_name),
    ("information_schema", "key_column_usage", information::key_column_usage),
    ("information_schema", "schemata", information::schemata),
    ("information_schema", "table_constraints", information::table_constraints),
    ("information_schema", "tables", information::tables),
    ("information_schema", "views", information::views),
];

/// Whether the relation never has rows.
pub(super) fn is_always_empty(schema: &str, name: &str) -> bool {
    !FILLED.iter().any(|(s, n, _)| *s == schema && *n == name)
}

pub(super) fn rows(relation: &SystemRelation, facts: &Facts) -> RecordBatch {
    let mut rows = Rows::new(relation);
    if let Some((_, _, fill)) = FILLED.iter().find(|(s, n, _)| *s == relation.schema && *n == relation.name) {
        fill(facts, &mut rows);
    }
    rows.finish()
}

#[cfg(test)]
mod tests {
    use super::super::schema::find;
    use super::*;

    #[test]
    fn filled_relations_exist() {
        for (schema, name, _) in FILLED {
            assert!(find(schema, name).is_some(), "{schema}.{name}");
        }
    }
}
