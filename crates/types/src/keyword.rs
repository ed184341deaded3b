//! PostgreSQL's words, and names and texts in quotes.

/// Words that cannot name a table or column without quotes (PostgreSQL 15: reserved, and those for types and functions).
const RESERVED: &str = "all analyse analyze and any array as asc asymmetric authorization binary both case cast check \
     collate collation column concurrently constraint create cross current_catalog current_date current_role \
     current_schema current_time current_timestamp current_user default deferrable desc distinct do else end except \
     false fetch for foreign freeze from full grant group having ilike in initially inner intersect into is isnull join \
     lateral leading left like limit localtime localtimestamp natural not notnull null offset on only or order outer \
     overlaps placing primary references returning right select session_user similar some symmetric table tablesample \
     then to trailing true union unique user using variadic verbose when where window with";

/// Words that can, and that quote_ident quotes all the same.
const COLUMN_NAMES: &str = "between bigint bit boolean char character coalesce dec decimal exists extract float greatest \
     grouping inout int integer interval least national nchar none normalize nullif numeric out overlay position \
     precision real row setof smallint substring time timestamp treat trim values varchar xmlattributes xmlconcat \
     xmlelement xmlexists xmlforest xmlnamespaces xmlparse xmlpi xmlroot xmlserialize xmltable";

/// True for a word that is a name only in quotes.
pub fn is_reserved(lower: &str) -> bool {
    RESERVED.split_ascii_whitespace().any(|word| word == lower)
}

/// As quote_ident: in double quotes unless it is a plain lower-case word that is no keyword.
pub fn quote_identifier(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    let keyword = || is_reserved(name) || COLUMN_NAMES.split_ascii_whitespace().any(|word| word == name);
    if plain && !keyword() { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// As quote_literal, for texts without NUL.
pub fn quote_literal(value: &str) -> String {
    let doubled = value.replace('\'', "''");
    if value.contains('\\') {
        format!("E'{}'", doubled.replace('\\', "\\\\"))
    } else {
        format!("'{doubled}'")
    }
}
