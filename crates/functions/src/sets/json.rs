//! The elements of json arrays and the members of json objects.

use std::sync::Arc;

use arrow::array::*;
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::DataType;
use millpond_types::{SqlError, SqlState, SqlType};

use super::{SetFunction, list_of, list_of_rows};
use crate::error::from_arrow;
use crate::kernel::Side;
use crate::scalar::{Texts, assignable};
use crate::text::json::normal_form;
use crate::text::json_path::{self, Kind};

pub(super) fn functions() -> Vec<SetFunction> {
    use SqlType::{Json, Jsonb, Text};
    let elements =
        |name, returns, kernel| SetFunction::new(name, one, returns, kernel).with_columns(&["value"]);
    let members =
        |name, returns, kernel| SetFunction::new(name, one, returns, kernel).with_columns(&["key", "value"]);
    vec![
        elements(
            "json_array_elements",
            |_, _| values(Json),
            |s, ty| elements_of(s, ty, "json_array_elements", false),
        ),
        elements(
            "jsonb_array_elements",
            |_, _| values(Jsonb),
            |s, ty| elements_of(s, ty, "jsonb_array_elements", true),
        ),
        elements(
            "json_array_elements_text",
            |_, _| list_of(&Text),
            |s, ty| elements_of(s, ty, "json_array_elements_text", false),
        ),
        elements(
            "jsonb_array_elements_text",
            |_, _| list_of(&Text),
            |s, ty| elements_of(s, ty, "jsonb_array_elements_text", true),
        ),
        SetFunction::new(
            "json_object_keys",
            one,
            |_, _| list_of(&Text),
            |s, ty| keys_of(s, ty, "json_object_keys", false),
        ),
        SetFunction::new(
            "jsonb_object_keys",
            one,
            |_, _| list_of(&Text),
            |s, ty| keys_of(s, ty, "jsonb_object_keys", true),
        ),
        members("json_each", |_, _| pairs(Json), |s, ty| members_of(s, ty, "json_each", false)),
        members("jsonb_each", |_, _| pairs(Jsonb), |s, ty| members_of(s, ty, "jsonb_each", true)),
        members("json_each_text", |_, _| pairs(Text), |s, ty| members_of(s, ty, "json_each_text", false)),
        members("jsonb_each_text", |_, _| pairs(Text), |s, ty| members_of(s, ty, "jsonb_each_text", true)),
    ]
}

fn one(types: &[SqlType]) -> Option<Vec<SqlType>> {
    // json and jsonb are kept as text.
    matches!(types, [only] if assignable(only, &SqlType::Text)).then(|| vec![SqlType::Text])
}

fn pairs(value: SqlType) -> DataType {
    list_of_rows(&[("key", SqlType::Text), ("value", value)])
}

/// A literal list forgets which text its items are, one of structs does not.
fn values(value: SqlType) -> DataType {
    list_of_rows(&[("value", value)])
}

fn wrong(message: String) -> SqlError {
    SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message)
}

/// A value in the form that the result's type asks for; `None` is NULL.
fn written(value: &str, ty: &SqlType, binary: bool) -> Result<Option<String>, SqlError> {
    match ty {
        SqlType::Json => Ok(Some(value.trim().to_owned())),
        SqlType::Jsonb => normal_form(value).map(Some),
        _ if binary => json_path::as_text(&normal_form(value)?),
        _ => json_path::as_text(value),
    }
}

/// Lists of texts, and what an element of them is.
struct Lists {
    offsets: Vec<i32>,
    known: Vec<bool>,
    values: StringBuilder,
}

impl Lists {
    fn new(rows: usize) -> Self {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        Self { offsets, known: Vec::with_capacity(rows), values: StringBuilder::new() }
    }

    fn end(&mut self, known: bool) -> Result<(), SqlError> {
        if self.values.values_slice().len() > i32::MAX as usize {
            return Err(crate::text::too_long());
        }
        self.offsets.push(self.values.len() as i32);
        self.known.push(known);
        Ok(())
    }

    fn finish(mut self, ty: &DataType) -> Result<ArrayRef, SqlError> {
        let DataType::List(item) = ty else { return Err(SqlError::internal("a set is a list")) };
        let offsets = OffsetBuffer::new(self.offsets.into());
        let mut values: ArrayRef = Arc::new(self.values.finish());
        if let DataType::Struct(fields) = item.data_type() {
            values = Arc::new(StructArray::try_new(fields.clone(), vec![values], None).map_err(from_arrow)?);
        }
        let known = Some(NullBuffer::from(self.known));
        let list = ListArray::try_new(Arc::clone(item), offsets, values, known);
        Ok(Arc::new(list.map_err(from_arrow)?))
    }
}

fn item(ty: &DataType) -> Result<SqlType, SqlError> {
    match ty {
        DataType::List(item) => match item.data_type() {
            DataType::Struct(fields) if fields.len() == 1 => SqlType::of(&fields[0]),
            _ => SqlType::of(item),
        },
        other => Err(SqlError::internal(format!("{other} is no set"))),
    }
}

fn elements_of(sides: &[Side], ty: &DataType, name: &str, binary: bool) -> Result<ArrayRef, SqlError> {
    let texts = Texts::of(&sides[0]);
    let element = item(ty)?;
    let rows = sides[0].array.len();
    let mut lists = Lists::new(rows);
    for row in 0..rows {
        let Some(text) = texts.get(row) else {
            lists.end(false)?;
            continue;
        };
        let Some(elements) = json_path::elements(text)? else {
            let object = json_path::kind(text)? == Kind::Object;
            return Err(wrong(match (binary, object) {
                (true, true) => "cannot extract elements from an object".to_owned(),
                (true, false) => "cannot extract elements from a scalar".to_owned(),
                (false, true) => format!("cannot call {name} on a non-array"),
                (false, false) => format!("cannot call {name} on a scalar"),
            }));
        };
        for value in elements {
            lists.values.append_option(written(value, &element, binary)?);
        }
        lists.end(true)?;
    }
    lists.finish(ty)
}

/// The members of an object; of jsonb, each key once and in its order.
fn object(text: &str, binary: bool) -> Result<Option<Vec<(String, String)>>, SqlError> {
    let normal;
    let text = if binary {
        normal = normal_form(text)?;
        normal.as_str()
    } else {
        text
    };
    let members = json_path::members(text)?;
    Ok(members.map(|members| {
        members.into_iter().map(|(key, value)| (json_path::unquoted(key), value.to_owned())).collect()
    }))
}

fn keys_of(sides: &[Side], ty: &DataType, name: &str, binary: bool) -> Result<ArrayRef, SqlError> {
    let texts = Texts::of(&sides[0]);
    let rows = sides[0].array.len();
    let mut lists = Lists::new(rows);
    for row in 0..rows {
        let Some(text) = texts.get(row) else {
            lists.end(false)?;
            continue;
        };
        let Some(members) = object(text, binary)? else {
            let what = if json_path::kind(text)? == Kind::Array { "an array" } else { "a scalar" };
            return Err(wrong(format!("cannot call {name} on {what}")));
        };
        members.iter().for_each(|(key, _)| lists.values.append_value(key));
        lists.end(true)?;
    }
    lists.finish(ty)
}

fn members_of(sides: &[Side], ty: &DataType, name: &str, binary: bool) -> Result<ArrayRef, SqlError> {
    let texts = Texts::of(&sides[0]);
    let DataType::List(item) = ty else { return Err(SqlError::internal("a set is a list")) };
    let DataType::Struct(fields) = item.data_type() else {
        return Err(SqlError::internal("members have a key and a value"));
    };
    let value_type = SqlType::of(&fields[1])?;
    let rows = sides[0].array.len();
    let mut keys = StringBuilder::new();
    let mut lists = Lists::new(rows);
    for row in 0..rows {
        let Some(text) = texts.get(row) else {
            lists.end(false)?;
            continue;
        };
        let Some(members) = object(text, binary)? else {
            let array = json_path::kind(text)? == Kind::Array;
            return Err(wrong(match (binary, array) {
                (true, _) => format!("cannot call {name} on a non-object"),
                (false, true) => "cannot deconstruct an array as an object".to_owned(),
                (false, false) => "cannot deconstruct a scalar".to_owned(),
            }));
        };
        for (key, value) in members {
            keys.append_value(key);
            lists.values.append_option(written(&value, &value_type, binary)?);
        }
        lists.end(true)?;
    }
    let Lists { offsets, known, mut values } = lists;
    let columns: Vec<ArrayRef> = vec![Arc::new(keys.finish()), Arc::new(values.finish())];
    let pairs = StructArray::try_new(fields.clone(), columns, None).map_err(from_arrow)?;
    let offsets = OffsetBuffer::new(offsets.into());
    let list = ListArray::try_new(Arc::clone(item), offsets, Arc::new(pairs), Some(NullBuffer::from(known)));
    Ok(Arc::new(list.map_err(from_arrow)?))
}
