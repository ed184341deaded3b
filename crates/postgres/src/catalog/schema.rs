//! Which system relations there are and what columns they have: read once from PostgreSQL's own list.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{Schema, SchemaRef};
use millpond_types::SqlType;

/// A relation of pg_catalog or information_schema.
pub(super) struct SystemRelation {
    pub schema: &'static str,
    pub name: &'static str,
    pub oid: u32,
    /// `r` or `v`, as pg_class has it.
    pub kind: &'static str,
    pub columns: Vec<(&'static str, SqlType)>,
    pub arrow: SchemaRef,
}

/// In alphabetical order.
pub(super) static RELATIONS: LazyLock<Vec<Arc<SystemRelation>>> = LazyLock::new(|| {
    let lines = include_str!("data/relations.txt").lines();
    lines.filter(|line| !line.starts_with('#')).map(|line| Arc::new(relation(line))).collect()
});

static BY_NAME: LazyLock<HashMap<(&str, &str), Arc<SystemRelation>>> =
    LazyLock::new(|| RELATIONS.iter().map(|r| ((r.schema, r.name), Arc::clone(r))).collect());

pub(super) fn find(schema: &str, name: &str) -> Option<Arc<SystemRelation>> {
    BY_NAME.get(&(schema, name)).cloned()
}

fn relation(line: &'static str) -> SystemRelation {
    let mut words = line.split(' ');
    let mut word = || words.next().expect("each line has a name, an oid and a kind");
    let (schema, name) = word().split_once('.').expect("names are qualified");
    let (oid, kind) = (word().parse().expect("oids are numbers"), word());
    let columns: Vec<(&str, SqlType)> = words
        .map(|column| {
            let (name, ty) = column.split_once(':').expect("a column has a type");
            (name, column_type(ty))
        })
        .collect();
    let fields = columns.iter().map(|(name, ty)| ty.field(*name, true));
    let arrow = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    SystemRelation { schema, name, oid, kind, columns, arrow }
}

/// How we hold a type of PostgreSQL's catalogs. Object identifiers of all kinds are numbers; what is opaque is text.
fn column_type(name: &str) -> SqlType {
    if let Some(element) = name.strip_suffix("[]") {
        return SqlType::Array(Box::new(column_type(element)));
    }
    match name {
        "bool" => SqlType::Boolean,
        "int2" => SqlType::Int2,
        "int4" => SqlType::Int4,
        "int8" => SqlType::Int8,
        "float4" => SqlType::Float4,
        "float8" => SqlType::Float8,
        "numeric" => SqlType::Numeric(38, 10),
        "oid" | "regproc" | "regtype" | "xid" => SqlType::Oid,
        "name" => SqlType::Name,
        "\"char\"" => SqlType::InternalChar,
        "varchar" => SqlType::Varchar(None),
        "timestamptz" => SqlType::Timestamptz,
        "interval" => SqlType::Interval,
        "bytea" => SqlType::Bytea,
        "int2vector" => SqlType::Array(Box::new(SqlType::Int2)),
        "oidvector" => SqlType::Array(Box::new(SqlType::Oid)),
        _ => SqlType::Text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_readable() {
        assert!(RELATIONS.len() > 190);
        let class = find("pg_catalog", "pg_class").unwrap();
        assert_eq!((class.oid, class.kind, class.columns[0].clone()), (1259, "r", ("oid", SqlType::Oid)));
        assert_eq!(class.columns.len(), class.arrow.fields().len());
        assert!(find("information_schema", "columns").is_some());
    }
}
