//! Functions about the session and the server.

use millpond_types::{SqlError, SqlState, SqlType};

use super::super::cell::Cell;
use super::super::facts::Facts;
use super::{Function, constant, lenient, strict};

pub(super) fn functions() -> Vec<Function> {
    let (name, text) = (|| SqlType::Name, || SqlType::Text);
    let user: super::Body = |facts, _| Ok(facts.context.user.as_str().into());
    let database: super::Body = |facts, _| Ok(facts.context.database.as_str().into());
    let nothing: super::Body = |_, _| Ok(Cell::Int(0));
    vec![
        constant("version", text(), 0..=0, |facts, _| {
            let version = facts.context.settings.get("server_version").map_or("15", String::as_str);
            Ok(format!("PostgreSQL {version} (Millpond {})", env!("CARGO_PKG_VERSION")).into())
        }),
        constant("current_database", name(), 0..=0, database),
        constant("current_catalog", name(), 0..=0, database),
        constant("current_user", name(), 0..=0, user),
        constant("session_user", name(), 0..=0, user),
        constant("current_role", name(), 0..=0, user),
        constant("user", name(), 0..=0, user),
        constant("current_schema", name(), 0..=0, |facts, _| {
            let mut path = facts.context.search_path.iter();
            Ok(path.find(|schema| facts.schema_oid(schema) != 0).map(String::as_str).into())
        }),
        strict("current_schemas", SqlType::Array(Box::new(SqlType::Text)), 1..=1, |facts, a| {
            let implicit = a[0].bool() == Some(true);
            let path = if implicit {
                facts.path()
            } else {
                facts.context.search_path.iter().map(String::as_str).collect()
            };
            let existing: Vec<&str> =
                path.into_iter().filter(|schema| facts.schema_oid(schema) != 0).collect();
            Ok(existing.into())
        }),
        lenient("current_setting", text(), 1..=2, current_setting),
        lenient("set_config", text(), 3..=3, set_config),
        constant("pg_backend_pid", SqlType::Int4, 0..=0, |facts, _| Ok(facts.context.backend_pid.into())),
        constant("pg_is_in_recovery", SqlType::Boolean, 0..=0, |_, _| Ok(false.into())),
        constant("pg_is_wal_replay_paused", SqlType::Boolean, 0..=0, |_, _| Ok(false.into())),
        constant("getdatabaseencoding", name(), 0..=0, |_, _| Ok("UTF8".into())),
        strict("pg_encoding_to_char", name(), 1..=1, |_, a| {
            Ok(if a[0].int() == Some(6) { "UTF8" } else { "" }.into())
        }),
        strict("pg_char_to_encoding", SqlType::Int4, 1..=1, |_, a| {
            let utf8 = a[0]
                .text()
                .is_some_and(|t| matches!(t.to_ascii_uppercase().as_str(), "UTF8" | "UTF-8" | "UNICODE"));
            Ok(Cell::Int(if utf8 { 6 } else { -1 }))
        }),
        strict("pg_tablespace_location", text(), 1..=1, |_, _| Ok("".into())),
        // Relations have no files of their own whose size could be told.
        strict("pg_table_size", SqlType::Int8, 1..=1, nothing),
        strict("pg_total_relation_size", SqlType::Int8, 1..=1, nothing),
        strict("pg_relation_size", SqlType::Int8, 1..=2, nothing),
        strict("pg_indexes_size", SqlType::Int8, 1..=1, nothing),
        strict("pg_database_size", SqlType::Int8, 1..=1, nothing),
        strict("pg_tablespace_size", SqlType::Int8, 1..=1, nothing),
        strict("pg_size_pretty", text(), 1..=1, |_, a| Ok(a[0].int().map(size_pretty).into())),
        // Of a transaction id: there are none to grow old.
        strict("age", SqlType::Int4, 1..=1, |_, a| match a[0] {
            Cell::Int(_) => Ok(Cell::Int(0)),
            _ => Err(SqlError::unsupported("age() of a timestamp is not supported")
                .hint("Subtract it from now().")),
        }),
        constant("txid_current", SqlType::Int8, 0..=0, |facts, _| {
            Ok(Cell::Int(facts.context.catalog.version() as i64))
        }),
        // No session holds advisory locks.
        constant("pg_advisory_unlock_all", text(), 0..=0, |_, _| Ok("".into())),
    ]
}

/// Settings that catalog queries compare with and that mean nothing here.
const ONLY_ASKED: [(&str, &str); 3] =
    [("default_table_access_method", "heap"), ("default_tablespace", ""), ("default_with_oids", "off")];

fn current_setting(facts: &Facts, arguments: &[Cell]) -> Result<Cell, SqlError> {
    let Some(name) = arguments[0].text() else { return Ok(Cell::Null) };
    let settings = &facts.context.settings;
    let found = settings.iter().find(|(setting, _)| setting.eq_ignore_ascii_case(name));
    let only_asked = ONLY_ASKED.iter().find(|(setting, _)| setting.eq_ignore_ascii_case(name));
    match (found, only_asked) {
        (Some((_, value)), _) => Ok(value.as_str().into()),
        (None, Some((_, value))) => Ok((*value).into()),
        _ if arguments.get(1).and_then(Cell::bool) == Some(true) => Ok(Cell::Null),
        _ => {
            let message = format!("unrecognized configuration parameter \"{name}\"");
            Err(SqlError::new(SqlState::UNDEFINED_OBJECT, message))
        }
    }
}

/// Functions cannot change the session, but many clients only want to be sure of a value.
fn set_config(facts: &Facts, arguments: &[Cell]) -> Result<Cell, SqlError> {
    let current = current_setting(facts, &arguments[..1])?;
    match (current.text(), arguments[1].text()) {
        (Some(current), Some(wanted)) if current.eq_ignore_ascii_case(wanted) => Ok(current.into()),
        _ => Err(SqlError::unsupported("set_config() cannot change a setting").hint("Use SET.")),
    }
}

fn size_pretty(bytes: i64) -> String {
    let mut size = bytes as f64;
    for unit in ["bytes", "kB", "MB", "GB", "TB"] {
        if size.abs() < 10_240.0 {
            return format!("{} {unit}", size.round() as i64);
        }
        size /= 1024.0;
    }
    format!("{} PB", size.round() as i64)
}

#[cfg(test)]
mod tests {
    use super::size_pretty;

    #[test]
    fn sizes() {
        assert_eq!(
            [0, 10_239, 10_240, 1 << 30].map(size_pretty),
            ["0 bytes", "10239 bytes", "10 kB", "1024 MB"]
        );
    }
}
