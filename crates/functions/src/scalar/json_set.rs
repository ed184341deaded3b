//! jsonb_set, jsonb_insert and `#-`: a value in another's place (PostgreSQL 15, table 9.47).

use arrow::array::*;
use millpond_types::{SqlError, SqlState, SqlType};

use super::{Function, Kind, Texts, assignable, texts};
use crate::kernel::Side;
use crate::text::json::normal_form;
use crate::text::json_path;

pub(crate) fn functions() -> Vec<Function> {
    vec![
        Function::new("jsonb_set", Kind::Immutable, arguments, |_| SqlType::Jsonb, |s, _| change(s, false)),
        Function::new("jsonb_insert", Kind::Immutable, arguments, |_| SqlType::Jsonb, |s, _| change(s, true)),
    ]
}

/// `(jsonb, text[], jsonb [, boolean])`; an untyped path is an array, too.
fn arguments(types: &[SqlType]) -> Option<Vec<SqlType>> {
    let (given, flag) = types.split_at_checked(3)?;
    let path = SqlType::Array(Box::new(SqlType::Text));
    let fits = assignable(&given[0], &SqlType::Text)
        && (given[1] == path || matches!(given[1], SqlType::Text | SqlType::Unknown))
        && assignable(&given[2], &SqlType::Text)
        && flag.len() <= 1
        && flag.iter().all(|ty| assignable(ty, &SqlType::Boolean));
    let mut wanted = vec![SqlType::Text, path, SqlType::Text];
    wanted.extend(flag.iter().map(|_| SqlType::Boolean));
    fits.then_some(wanted)
}

fn change(sides: &[Side], insert: bool) -> Result<ArrayRef, SqlError> {
    let (targets, values) = (Texts::of(&sides[0]), Texts::of(&sides[2]));
    let paths = sides[1].array.as_list::<i32>();
    let flags = sides.get(3).map(|side| (side.array.as_boolean(), side.constant));
    texts(sides, |row, out| {
        let at = if sides[1].constant { 0 } else { row };
        let flag = match &flags {
            // To create what is missing; to insert before.
            None => Some(!insert),
            Some((flags, constant)) => {
                let at = if *constant { 0 } else { row };
                flags.is_valid(at).then(|| flags.value(at))
            }
        };
        let (Some(target), Some(value), Some(flag)) = (targets.get(row), values.get(row), flag) else {
            return Ok(false);
        };
        if paths.is_null(at) {
            return Ok(false);
        }
        let steps = paths.value(at);
        let steps: Option<Vec<&str>> = steps.as_string::<i32>().iter().collect();
        let Some(steps) = steps else {
            return Err(SqlError::new(SqlState::new("22004"), "path element is null"));
        };
        let to = To { value, insert, flag };
        let changed = match steps.is_empty() {
            true => target.to_owned(),
            false => to.within(target, &steps, 1)?,
        };
        out.push_str(&normal_form(&changed)?);
        Ok(true)
    })
}

struct To<'a> {
    value: &'a str,
    insert: bool,
    /// Of jsonb_set: a key that is missing is made. Of jsonb_insert: behind the place, not before it.
    flag: bool,
}

impl To<'_> {
    fn within(&self, text: &str, path: &[&str], depth: usize) -> Result<String, SqlError> {
        let [step, rest @ ..] = path else { return Ok(self.value.to_owned()) };
        if let Some(members) = json_path::members(text)? {
            let found = members.iter().position(|(key, _)| json_path::unquoted(key) == *step);
            let mut parts = Vec::with_capacity(members.len() + 1);
            for (at, (key, value)) in members.iter().enumerate() {
                let value = match (found == Some(at), rest.is_empty()) {
                    (true, true) if self.insert => {
                        return Err(SqlError::new(
                            SqlState::INVALID_PARAMETER_VALUE,
                            "cannot replace existing key",
                        )
                        .hint("Try using the function jsonb_set to replace key value."));
                    }
                    (true, _) => self.within(value, rest, depth + 1)?,
                    (false, _) => (*value).to_owned(),
                };
                parts.push(format!("{key}: {value}"));
            }
            if found.is_none() && rest.is_empty() && (self.flag || self.insert) {
                let mut key = String::new();
                json_path::quote(step, &mut key);
                parts.push(format!("{key}: {}", self.value));
            }
            return Ok(format!("{{{}}}", parts.join(", ")));
        }
        let Some(elements) = json_path::elements(text)? else {
            if depth == 1 {
                return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, "cannot set path in scalar"));
            }
            return Ok(text.to_owned());
        };
        let place: i64 = step.parse().map_err(|_| {
            let text = format!("path element at position {depth} is not an integer: \"{step}\"");
            SqlError::new(SqlState::INVALID_TEXT_REPRESENTATION, text)
        })?;
        let count = elements.len() as i64;
        let from_start = if place < 0 { place + count } else { place };
        let mut parts: Vec<String> = elements.iter().map(|element| (*element).to_owned()).collect();
        match usize::try_from(from_start).ok().filter(|at| *at < parts.len()) {
            Some(at) if rest.is_empty() && self.insert => {
                parts.insert(at + usize::from(self.flag), self.value.to_owned());
            }
            Some(at) => parts[at] = self.within(&parts[at].clone(), rest, depth + 1)?,
            // Beyond an end: there.
            None if rest.is_empty() && (self.flag || self.insert) => {
                let at = if from_start < 0 { 0 } else { parts.len() };
                parts.insert(at, self.value.to_owned());
            }
            None => {}
        }
        Ok(format!("[{}]", parts.join(", ")))
    }
}
