//! Texts in pieces, and what regular expressions find in them.

use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::{DataType, Field};
use millpond_types::{SqlError, SqlType};

use super::{SetFunction, list_of};
use crate::error::from_arrow;
use crate::kernel::Side;
use crate::scalar::pattern::{Compiled, split_by};
use crate::scalar::{Texts, assignable};

pub(super) fn functions() -> Vec<SetFunction> {
    let texts = |_: &[SqlType], _: &[DataType]| list_of(&SqlType::Text);
    vec![
        SetFunction::new("string_to_table", two_or_three, texts, pieces),
        SetFunction::new("regexp_split_to_table", two_or_three, texts, |s, ty| {
            in_type(split_by(s, "regexp_split_to_table")?, ty)
        }),
        SetFunction::new("regexp_matches", two_or_three, |_, _| matches_type(), matches),
    ]
}

fn two_or_three(types: &[SqlType]) -> Option<Vec<SqlType>> {
    let fits = (2..=3).contains(&types.len()) && types.iter().all(|ty| assignable(ty, &SqlType::Text));
    fits.then(|| vec![SqlType::Text; types.len()])
}

fn matches_type() -> DataType {
    let groups = SqlType::Array(Box::new(SqlType::Text)).arrow();
    DataType::List(Arc::new(Field::new("item", groups, true)))
}

/// The same lists with the field that their type asks for.
fn in_type(array: ArrayRef, ty: &DataType) -> Result<ArrayRef, SqlError> {
    let DataType::List(item) = ty else { return Err(SqlError::internal("a set is a list")) };
    let (_, offsets, values, nulls) = array.as_list::<i32>().clone().into_parts();
    Ok(Arc::new(ListArray::try_new(Arc::clone(item), offsets, values, nulls).map_err(from_arrow)?))
}

/// Between delimiters; without one (NULL), every character. What equals the third argument is NULL.
fn pieces(sides: &[Side], ty: &DataType) -> Result<ArrayRef, SqlError> {
    let (values, delimiters) = (Texts::of(&sides[0]), Texts::of(&sides[1]));
    let nulls = sides.get(2).map(Texts::of);
    let mut lists = ListBuilder::new(StringBuilder::new());
    for row in 0..sides[0].array.len() {
        let Some(value) = values.get(row) else {
            lists.append_null();
            continue;
        };
        let null = nulls.as_ref().and_then(|nulls| nulls.get(row));
        let mut add =
            |piece: &str| lists.values().append_option(Some(piece).filter(|piece| Some(*piece) != null));
        match delimiters.get(row) {
            _ if value.is_empty() => {}
            None => value.chars().for_each(|c| add(c.encode_utf8(&mut [0; 4]))),
            Some("") => add(value),
            Some(delimiter) => value.split(delimiter).for_each(add),
        }
        lists.append(true);
    }
    in_type(Arc::new(lists.finish()), ty)
}

/// What the groups of a match hold, or all of it; only the first match without the flag g.
fn matches(sides: &[Side], ty: &DataType) -> Result<ArrayRef, SqlError> {
    let (values, patterns) = (Texts::of(&sides[0]), Texts::of(&sides[1]));
    let flags = sides.get(2).map(Texts::of);
    let mut lists = ListBuilder::new(ListBuilder::new(StringBuilder::new()));
    let mut compiled = Compiled::default();
    for row in 0..sides[0].array.len() {
        let flags = flags.as_ref().map_or(Some(""), |flags| flags.get(row));
        let (Some(value), Some(pattern), Some(flags)) = (values.get(row), patterns.get(row), flags) else {
            lists.append_null();
            continue;
        };
        let most = if flags.contains('g') { usize::MAX } else { 1 };
        let flags: String = flags.chars().filter(|flag| *flag != 'g').collect();
        let regex = compiled.get(pattern, &flags, "regexp_matches")?;
        for found in regex.captures_iter(value).take(most) {
            let groups = lists.values();
            let from = if found.len() > 1 { 1 } else { 0 };
            for group in (from..found.len()).map(|n| found.get(n)) {
                groups.values().append_option(group.map(|group| group.as_str()));
            }
            groups.append(true);
        }
        lists.append(true);
    }
    let lists = lists.finish();
    let DataType::List(item) = ty else { return Err(SqlError::internal("a set is a list")) };
    let (_, offsets, values, nulls) = lists.into_parts();
    let values = in_type(values, item.data_type())?;
    Ok(Arc::new(ListArray::try_new(Arc::clone(item), offsets, values, nulls).map_err(from_arrow)?))
}
