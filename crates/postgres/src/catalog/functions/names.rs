//! Names to oids and back: the `reg*` types, visibility, privileges.

use millpond_types::{SqlError, SqlState, SqlType};

use super::super::cell::Cell;
use super::super::facts::{Class, Facts, TYPES, format_type, type_by_oid};
use super::super::relations::PROCEDURES;
use super::{Function, constant, strict};

pub(super) fn functions() -> Vec<Function> {
    let (text, oid) = (|| SqlType::Text, || SqlType::Oid);
    let mut functions = vec![
        strict("regclassin", oid(), 1..=1, |facts, a| match class_of(facts, &a[0])? {
            Some(class) => Ok(class.oid.into()),
            None => Ok(a[0].int().into()),
        }),
        strict("regclassout", text(), 1..=1, |facts, a| {
            let Some(oid) = a[0].oid() else {
                return Ok(class_of(facts, &a[0])?.map(|class| facts.class_name(class)).into());
            };
            let name = facts.class(oid).map(|class| facts.class_name(class));
            Ok(name.unwrap_or_else(|| number_or_dash(oid)).into())
        }),
        strict("to_regclass", oid(), 1..=1, |facts, a| {
            Ok(a[0].text().and_then(|name| find_class(facts, name)).map(|class| class.oid).into())
        }),
        strict("regtypein", oid(), 1..=1, |_, a| match (a[0].int(), a[0].text()) {
            (Some(oid), _) => Ok(oid.into()),
            (None, Some(name)) => Ok(type_oid(name)?.into()),
            _ => Ok(Cell::Null),
        }),
        strict("regtypeout", text(), 1..=1, |_, a| {
            let oid = match (a[0].oid(), a[0].text()) {
                (Some(oid), _) => oid,
                (None, Some(name)) => type_oid(name)?,
                _ => return Ok(Cell::Null),
            };
            let known = type_by_oid(oid).map(|_| format_type(oid, None));
            Ok(known.unwrap_or_else(|| number_or_dash(oid)).into())
        }),
        strict("to_regtype", oid(), 1..=1, |_, a| {
            Ok(a[0].text().and_then(|name| type_oid(name).ok()).into())
        }),
        strict("regprocin", oid(), 1..=1, |_, a| match (a[0].int(), a[0].text()) {
            (Some(oid), _) => Ok(oid.into()),
            (None, Some(name)) => Ok(procedure_oid(name)
                .ok_or_else(|| {
                    SqlError::new(SqlState::UNDEFINED_FUNCTION, format!("function \"{name}\" does not exist"))
                })?
                .into()),
            _ => Ok(Cell::Null),
        }),
        strict("regprocout", text(), 1..=1, |_, a| {
            let Some(oid) = a[0].oid() else { return Ok(a[0].clone()) };
            Ok(procedure_name(oid).map_or_else(|| number_or_dash(oid), str::to_owned).into())
        }),
        strict("to_regproc", oid(), 1..=1, |_, a| Ok(a[0].text().and_then(procedure_oid).into())),
        strict("regnamespacein", oid(), 1..=1, |facts, a| match (a[0].int(), a[0].text()) {
            (Some(oid), _) => Ok(oid.into()),
            (None, Some(name)) => match facts.schema_oid(&unquoted(name)) {
                0 => Err(SqlError::new(
                    SqlState::INVALID_SCHEMA_NAME,
                    format!("schema \"{name}\" does not exist"),
                )),
                oid => Ok(oid.into()),
            },
            _ => Ok(Cell::Null),
        }),
        strict("regnamespaceout", text(), 1..=1, |facts, a| {
            let Some(oid) = a[0].oid() else { return Ok(a[0].clone()) };
            let name = facts.schemas().into_iter().find(|(id, ..)| *id == oid).map(|(_, name, _)| name);
            Ok(name.unwrap_or_else(|| number_or_dash(oid)).into())
        }),
        strict("to_regnamespace", oid(), 1..=1, |facts, a| {
            let oid = a[0].text().map(|name| facts.schema_oid(&unquoted(name)));
            Ok(oid.filter(|oid| *oid != 0).into())
        }),
        strict("regrolein", oid(), 1..=1, |facts, a| match (a[0].int(), a[0].text()) {
            (Some(oid), _) => Ok(oid.into()),
            (None, Some(name)) => {
                let name = unquoted(name);
                let found = facts.roles().into_iter().find(|(_, role)| *role == name);
                let missing =
                    || SqlError::new(SqlState::UNDEFINED_OBJECT, format!("role \"{name}\" does not exist"));
                Ok(found.ok_or_else(missing)?.0.into())
            }
            _ => Ok(Cell::Null),
        }),
        strict("regroleout", text(), 1..=1, |facts, a| {
            let Some(oid) = a[0].oid() else { return Ok(a[0].clone()) };
            Ok(role_name(facts, oid).unwrap_or_else(|| number_or_dash(oid)).into())
        }),
        strict("to_regrole", oid(), 1..=1, |facts, a| {
            let name = a[0].text().map(unquoted);
            Ok(facts
                .roles()
                .into_iter()
                .find(|(_, role)| Some(role) == name.as_ref())
                .map(|(oid, _)| oid)
                .into())
        }),
        strict("pg_get_userbyid", SqlType::Name, 1..=1, |facts, a| {
            let Some(oid) = a[0].oid() else { return Ok(Cell::Null) };
            Ok(role_name(facts, oid).unwrap_or_else(|| format!("unknown (OID={oid})")).into())
        }),
        strict("pg_table_is_visible", SqlType::Boolean, 1..=1, |facts, a| {
            let class = a[0].oid().and_then(|oid| facts.class(oid));
            Ok(class.map(|class| facts.is_visible(class)).into())
        }),
    ];
    // Everything of these kinds is PostgreSQL's own, in pg_catalog, and that is always on the path.
    for name in [
        "pg_type_is_visible",
        "pg_function_is_visible",
        "pg_operator_is_visible",
        "pg_opclass_is_visible",
        "pg_opfamily_is_visible",
        "pg_collation_is_visible",
        "pg_conversion_is_visible",
        "pg_statistics_obj_is_visible",
        "pg_ts_config_is_visible",
        "pg_ts_dict_is_visible",
        "pg_ts_parser_is_visible",
        "pg_ts_template_is_visible",
    ] {
        functions.push(strict(name, SqlType::Boolean, 1..=1, |_, _| Ok(true.into())));
    }
    // There are no privileges yet: everybody may do everything.
    for name in [
        "has_table_privilege",
        "has_schema_privilege",
        "has_database_privilege",
        "has_any_column_privilege",
        "has_sequence_privilege",
        "has_function_privilege",
        "has_language_privilege",
        "has_type_privilege",
        "has_tablespace_privilege",
        "has_server_privilege",
        "has_foreign_data_wrapper_privilege",
        "pg_has_role",
    ] {
        functions.push(strict(name, SqlType::Boolean, 2..=3, |_, _| Ok(true.into())));
    }
    functions.push(strict("has_column_privilege", SqlType::Boolean, 3..=4, |_, _| Ok(true.into())));
    functions.push(constant("pg_is_other_temp_schema", SqlType::Boolean, 1..=1, |_, _| Ok(false.into())));
    functions.push(constant("pg_my_temp_schema", SqlType::Oid, 0..=0, |_, _| Ok(Cell::Int(0))));
    functions.push(constant("pg_relation_is_publishable", SqlType::Boolean, 1..=1, |_, _| Ok(false.into())));
    functions
}

fn number_or_dash(oid: u32) -> String {
    if oid == 0 { "-".to_owned() } else { oid.to_string() }
}

fn role_name(facts: &Facts, oid: u32) -> Option<String> {
    facts.roles().into_iter().find(|(id, _)| *id == oid).map(|(_, name)| name)
}

/// The parts of a dotted name, folded unless quoted.
fn parts(name: &str) -> Vec<String> {
    let (mut parts, mut quoted, mut part) = (Vec::new(), false, String::new());
    let mut characters = name.trim().chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                part.push('"');
            }
            '"' => quoted = !quoted,
            '.' if !quoted => parts.push(std::mem::take(&mut part)),
            c if quoted => part.push(c),
            c => part.extend(c.to_lowercase()),
        }
    }
    parts.push(part);
    parts
}

fn unquoted(name: &str) -> String {
    parts(name).pop().unwrap_or_default()
}

fn find_class<'a>(facts: &'a Facts, name: &str) -> Option<&'a Class> {
    match &parts(name)[..] {
        [name] => facts.path().into_iter().find_map(|schema| facts.class_named(schema, name)),
        [schema, name] | [_, schema, name] => facts.class_named(schema, name),
        _ => None,
    }
}

/// The class that an oid or a name stands for; `None` for the oid of nothing.
///
/// # Errors
/// 42P01 for the name of nothing.
pub(super) fn class_of<'a>(facts: &'a Facts, cell: &Cell) -> Result<Option<&'a Class>, SqlError> {
    match (cell.oid(), cell.text()) {
        (Some(oid), _) => Ok(facts.class(oid)),
        (None, Some(name)) => find_class(facts, name).map(Some).ok_or_else(|| {
            SqlError::new(SqlState::UNDEFINED_TABLE, format!("relation \"{name}\" does not exist"))
        }),
        _ => Ok(None),
    }
}

/// # Errors
/// 42704 for an unknown type.
fn type_oid(name: &str) -> Result<u32, SqlError> {
    let bare = name.trim();
    let bare = bare.strip_prefix("pg_catalog.").unwrap_or(bare);
    let unquoted = bare.trim_matches('"');
    if let Some(ty) = TYPES.iter().find(|ty| ty.name == unquoted) {
        return Ok(ty.oid);
    }
    if let Some(element) = bare.strip_suffix("[]") {
        let array = type_by_oid(type_oid(element)?).map_or(0, |ty| ty.array);
        if array != 0 {
            return Ok(array);
        }
    }
    match millpond_sql::parse_type(bare) {
        Ok(ty) => Ok(ty.oid()),
        Err(_) => {
            // Names that our parser refuses because they lack something, such as numeric without a precision.
            let known = TYPES.iter().find(|ty| format_type(ty.oid, None) == bare.to_lowercase());
            let missing =
                || SqlError::new(SqlState::UNDEFINED_OBJECT, format!("type \"{bare}\" does not exist"));
            known.map(|ty| ty.oid).ok_or_else(missing)
        }
    }
}

fn procedure_oid(name: &str) -> Option<u32> {
    let name = unquoted(name.split('(').next().unwrap_or(name));
    let line = PROCEDURES.lines().find(|line| line.split('\t').nth(1) == Some(&name))?;
    line.split('\t').next()?.parse().ok()
}

fn procedure_name(oid: u32) -> Option<&'static str> {
    let wanted = oid.to_string();
    let line = PROCEDURES.lines().find(|line| line.split('\t').next() == Some(&wanted))?;
    line.split('\t').nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_types() {
        let cases = [
            ("int4", 23),
            ("integer", 23),
            ("text[]", 1009),
            ("_text", 1009),
            ("numeric", 1700),
            ("pg_catalog.bool", 16),
        ];
        for (name, oid) in cases {
            assert_eq!(type_oid(name), Ok(oid), "{name}");
        }
        assert_eq!(type_oid("nope").unwrap_err().state(), SqlState::UNDEFINED_OBJECT);
    }

    #[test]
    fn dotted_names() {
        assert_eq!(parts("Public.\"My \"\"T\"\".x\""), ["public", "My \"T\".x"]);
        assert_eq!(parts("t"), ["t"]);
    }

    #[test]
    fn procedures() {
        assert_eq!(procedure_oid("pg_catalog.array_recv"), Some(2400));
        assert_eq!(procedure_name(2400), Some("array_recv"));
    }
}
