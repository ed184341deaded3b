//! Small functions over texts and arrays that catalog queries lean on.

use millpond_types::{SqlError, SqlState, SqlType};

use super::super::cell::Cell;
use super::super::facts::Facts;
use super::{Function, lenient, strict};

pub(super) fn functions() -> Vec<Function> {
    vec![
        strict("array_upper", SqlType::Int4, 2..=2, |_, a| Ok(bound(&a[0], &a[1], |n| n as i64).into())),
        strict("array_lower", SqlType::Int4, 2..=2, |_, a| Ok(bound(&a[0], &a[1], |_| 1).into())),
        // generate_subscripts returns these as rows.
        strict("array_subscripts", SqlType::Array(Box::new(SqlType::Int4)), 2..=2, |_, a| {
            let subscripts =
                bound(&a[0], &a[1], |n| n as i64).map_or(Vec::new(), |n| (1..=n).collect::<Vec<_>>());
            Ok(subscripts.into())
        }),
        lenient("json_build_object", SqlType::Json, 0..=usize::MAX, json_build_object),
        lenient("jsonb_build_object", SqlType::Jsonb, 0..=usize::MAX, json_build_object),
        // The text of ARRAY(SELECT ...) over no rows is an empty array, where array_agg has NULL.
        lenient("text_array_or_empty", SqlType::Array(Box::new(SqlType::Text)), 1..=1, |_, a| match &a[0] {
            Cell::List(cells) => Ok(Cell::List(cells.clone())),
            _ => Ok(Cell::List(Vec::new())),
        }),
    ]
}

fn bound(array: &Cell, dimension: &Cell, of: fn(usize) -> i64) -> Option<i64> {
    match array {
        Cell::List(cells) if !cells.is_empty() && dimension.int() == Some(1) => Some(of(cells.len())),
        _ => None,
    }
}

/// # Errors
/// 0A000 for types whose JSON form is not that of their text: dates and the like.
fn json(cell: &Cell) -> Result<String, SqlError> {
    Ok(match cell {
        Cell::Null => "null".to_owned(),
        Cell::Bool(b) => b.to_string(),
        Cell::Int(i) => i.to_string(),
        Cell::Float(f) => f.to_string(),
        Cell::Number(text) => text.clone(),
        Cell::Text(text) => serde_json::Value::from(text.as_str()).to_string(),
        Cell::Other(_) => {
            return Err(SqlError::unsupported("json_build_object() of this type is not supported")
                .hint("Cast the value to text."));
        }
        Cell::List(cells) => {
            let elements: Vec<String> = cells.iter().map(json).collect::<Result<_, _>>()?;
            format!("[{}]", elements.join(","))
        }
    })
}

fn json_build_object(_: &Facts, arguments: &[Cell]) -> Result<Cell, SqlError> {
    if arguments.len() % 2 == 1 {
        return Err(SqlError::new(
            SqlState::INVALID_PARAMETER_VALUE,
            "argument list must have even number of elements",
        ));
    }
    let mut members = Vec::new();
    for pair in arguments.chunks_exact(2) {
        let key = pair[0].shown().ok_or_else(|| {
            SqlError::new(
                SqlState::INVALID_PARAMETER_VALUE,
                "argument of json_build_object() must not be null",
            )
        })?;
        members.push(format!("{} : {}", json(&key.into())?, json(&pair[1])?));
    }
    Ok(format!("{{{}}}", members.join(", ")).into())
}
