//! The server as such: database, roles, settings, sessions, statistics.

use millpond_types::RelationId;

use super::super::cell::{Cell, Rows};
use super::super::facts::{DATABASE, Facts, oid};

/// pg_default
const TABLESPACE: u32 = 1663;
const UTF8: i64 = 6;

pub(super) fn pg_database(facts: &Facts, rows: &mut Rows) {
    rows.push([
        ("oid", DATABASE.into()),
        ("datname", facts.context.database.as_str().into()),
        ("datdba", facts.roles()[0].0.into()),
        ("encoding", Cell::Int(UTF8)),
        ("datlocprovider", "c".into()),
        ("datallowconn", true.into()),
        ("datconnlimit", Cell::Int(-1)),
        ("dattablespace", TABLESPACE.into()),
        ("datcollate", "C.UTF-8".into()),
        ("datctype", "C.UTF-8".into()),
    ]);
}

pub(super) fn pg_tablespace(facts: &Facts, rows: &mut Rows) {
    let owner = facts.roles()[0].0;
    rows.push([("oid", TABLESPACE.into()), ("spcname", "pg_default".into()), ("spcowner", owner.into())]);
}

/// Every role may do everything: there are no privileges yet.
pub(super) fn pg_roles(facts: &Facts, rows: &mut Rows) {
    for (oid, name) in facts.roles() {
        rows.push([
            ("rolname", name.into()),
            ("rolsuper", true.into()),
            ("rolinherit", true.into()),
            ("rolcreaterole", true.into()),
            ("rolcreatedb", true.into()),
            ("rolcanlogin", true.into()),
            ("rolconnlimit", Cell::Int(-1)),
            ("rolpassword", "********".into()),
            ("oid", oid.into()),
        ]);
    }
}

pub(super) fn pg_authid(facts: &Facts, rows: &mut Rows) {
    for (oid, name) in facts.roles() {
        rows.push([
            ("oid", oid.into()),
            ("rolname", name.into()),
            ("rolsuper", true.into()),
            ("rolinherit", true.into()),
            ("rolcreaterole", true.into()),
            ("rolcreatedb", true.into()),
            ("rolcanlogin", true.into()),
            ("rolconnlimit", Cell::Int(-1)),
        ]);
    }
}

pub(super) fn pg_user(facts: &Facts, rows: &mut Rows) {
    for (oid, name) in facts.roles() {
        rows.push([
            ("usename", name.into()),
            ("usesysid", oid.into()),
            ("usecreatedb", true.into()),
            ("usesuper", true.into()),
            ("passwd", "********".into()),
        ]);
    }
}

pub(super) fn pg_settings(facts: &Facts, rows: &mut Rows) {
    for (name, value) in facts.context.settings.iter() {
        rows.push([
            ("name", name.as_str().into()),
            ("setting", value.as_str().into()),
            ("category", "Millpond".into()),
            ("context", "user".into()),
            ("vartype", "string".into()),
            ("source", "session".into()),
            ("reset_val", value.as_str().into()),
        ]);
    }
}

pub(super) fn pg_stat_activity(facts: &Facts, rows: &mut Rows) {
    for connection in &facts.context.connections {
        rows.push([
            ("datid", DATABASE.into()),
            ("datname", connection.database.as_str().into()),
            ("pid", connection.pid.into()),
            ("leader_pid", Cell::Null),
            ("usesysid", facts.role_oid(&connection.user).into()),
            ("usename", connection.user.as_str().into()),
            ("application_name", connection.application_name.as_str().into()),
            ("client_addr", connection.client_address.as_deref().map(without_port).into()),
            ("client_port", connection.client_address.as_deref().and_then(port).into()),
            ("backend_start", connection.backend_start_micros.into()),
            ("state", connection.state.into()),
            ("query", connection.query.as_str().into()),
            ("query_id", Cell::Null),
            ("backend_type", "client backend".into()),
        ]);
    }
}

fn without_port(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

fn port(address: &str) -> Option<i64> {
    address.rsplit_once(':')?.1.parse().ok()
}

pub(super) fn pg_stat_tables(facts: &Facts, rows: &mut Rows) {
    for (relation_oid, relation) in facts.readable() {
        if !relation.is_topic() {
            continue;
        }
        let estimate = facts.context.row_estimates.get(&(relation_oid - oid(RelationId(0))));
        rows.push([
            ("relid", relation_oid.into()),
            ("schemaname", relation.schema.as_str().into()),
            ("relname", relation.name.as_str().into()),
            ("n_live_tup", estimate.map_or(Cell::Int(0), |rows| Cell::Int(*rows as i64))),
        ]);
    }
}
