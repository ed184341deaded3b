//! Types and what clients read to understand them. Type rows are PostgreSQL's own, so that drivers find the oids, names
//! and conversion functions that they know.

use millpond_types::SqlType;

use super::super::cell::{Cell, Rows};
use super::super::facts::{Facts, PG_CATALOG, TYPES};

const OWNER: u32 = 10;

fn flag(text: &str) -> Cell {
    (text == "t").into()
}

pub(super) fn pg_type(_facts: &Facts, rows: &mut Rows) {
    for ty in TYPES.iter() {
        let f = |i: usize| Cell::from(ty.fields[i]);
        rows.push([
            ("oid", f(0)),
            ("typname", f(1)),
            ("typnamespace", PG_CATALOG.into()),
            ("typowner", OWNER.into()),
            ("typlen", f(2)),
            ("typbyval", flag(ty.fields[3])),
            ("typtype", f(4)),
            ("typcategory", f(5)),
            ("typispreferred", flag(ty.fields[6])),
            ("typisdefined", true.into()),
            ("typdelim", f(7)),
            ("typrelid", f(8)),
            ("typelem", f(9)),
            ("typarray", f(10)),
            ("typinput", f(11)),
            ("typoutput", f(12)),
            ("typreceive", f(13)),
            ("typsend", f(14)),
            ("typmodin", f(15)),
            ("typmodout", f(16)),
            ("typanalyze", f(17)),
            ("typsubscript", f(18)),
            ("typalign", f(19)),
            ("typstorage", f(20)),
            ("typtypmod", Cell::Int(-1)),
            ("typcollation", f(21)),
        ]);
    }
}

/// The functions that pg_type names; drivers join with them.
pub(in super::super) const PROCEDURES: &str = include_str!("../data/pg_proc.tsv");

pub(super) fn pg_proc(_facts: &Facts, rows: &mut Rows) {
    for line in PROCEDURES.lines() {
        let f: Vec<&str> = line.split('\t').collect();
        let arguments: Vec<i64> = f[5].split(' ').filter_map(|oid| oid.parse().ok()).collect();
        rows.push([
            ("oid", f[0].into()),
            ("proname", f[1].into()),
            ("pronamespace", PG_CATALOG.into()),
            ("proowner", OWNER.into()),
            ("prolang", Cell::Int(12)),
            ("procost", Cell::Float(1.0)),
            ("prokind", "f".into()),
            ("proisstrict", flag(f[7])),
            ("provolatile", f[2].into()),
            ("proparallel", "s".into()),
            ("pronargs", f[3].into()),
            ("prorettype", f[4].into()),
            ("proargtypes", arguments.into()),
            ("prosrc", f[6].into()),
        ]);
    }
}

pub(super) fn pg_range(_facts: &Facts, rows: &mut Rows) {
    // Range type, subtype, multirange type, operator class of the subtype.
    let ranges = [
        (3904, 23, 4451, 1978),
        (3906, 1700, 4532, 3125),
        (3908, 1114, 4533, 3128),
        (3910, 1184, 4534, 3127),
        (3912, 1082, 4535, 3122),
        (3926, 20, 4536, 3124),
    ];
    for (range, subtype, multirange, class) in ranges {
        rows.push([
            ("rngtypid", Cell::Int(range)),
            ("rngsubtype", Cell::Int(subtype)),
            ("rngmultitypid", Cell::Int(multirange)),
            ("rngsubopc", Cell::Int(class)),
        ]);
    }
}

pub(super) fn pg_am(_facts: &Facts, rows: &mut Rows) {
    for (oid, name, handler, kind) in [(2, "heap", 3, "t"), (403, "btree", 330, "i"), (405, "hash", 331, "i")]
    {
        let (oid, handler) = (Cell::Int(oid), Cell::Int(handler));
        rows.push([("oid", oid), ("amname", name.into()), ("amhandler", handler), ("amtype", kind.into())]);
    }
}

pub(super) fn pg_collation(_facts: &Facts, rows: &mut Rows) {
    for (oid, name, provider, locale) in
        [(100, "default", "d", None), (950, "C", "c", Some("C")), (951, "POSIX", "c", Some("C"))]
    {
        rows.push([
            ("oid", Cell::Int(oid)),
            ("collname", name.into()),
            ("collnamespace", PG_CATALOG.into()),
            ("collowner", OWNER.into()),
            ("collprovider", provider.into()),
            ("collisdeterministic", true.into()),
            ("collencoding", Cell::Int(-1)),
            ("collcollate", locale.into()),
            ("collctype", locale.into()),
        ]);
    }
}

pub(super) fn pg_language(_facts: &Facts, rows: &mut Rows) {
    for (oid, name, trusted) in [(12, "internal", false), (14, "sql", true)] {
        let trusted = ("lanpltrusted", trusted.into());
        rows.push([("oid", Cell::Int(oid)), ("lanname", name.into()), ("lanowner", OWNER.into()), trusted]);
    }
}

/// Oid, name and input type of the default operator classes of btree for our types, as PostgreSQL numbers them.
const OPERATOR_CLASSES: [(u32, &str, u32); 16] = [
    (424, "bool_ops", 16),
    (10_003, "bytea_ops", 17),
    (1979, "int2_ops", 21),
    (1978, "int4_ops", 23),
    (3124, "int8_ops", 20),
    (10_020, "float4_ops", 700),
    (3123, "float8_ops", 701),
    (3125, "numeric_ops", 1700),
    (3126, "text_ops", 25),
    (426, "bpchar_ops", 1042),
    (3122, "date_ops", 1082),
    (10_039, "time_ops", 1083),
    (3128, "timestamp_ops", 1114),
    (3127, "timestamptz_ops", 1184),
    (10_024, "interval_ops", 1186),
    (10_065, "uuid_ops", 2950),
];

pub(super) fn operator_class(ty: &SqlType) -> u32 {
    let oid = if matches!(ty, SqlType::Varchar(_)) { 25 } else { ty.oid() };
    OPERATOR_CLASSES.iter().find(|(_, _, input)| *input == oid).map_or(3126, |(class, ..)| *class)
}

pub(super) fn pg_opclass(_facts: &Facts, rows: &mut Rows) {
    for (oid, name, input) in OPERATOR_CLASSES {
        rows.push([
            ("oid", oid.into()),
            ("opcmethod", Cell::Int(403)),
            ("opcname", name.into()),
            ("opcnamespace", PG_CATALOG.into()),
            ("opcowner", OWNER.into()),
            ("opcintype", input.into()),
            ("opcdefault", true.into()),
        ]);
    }
}
