//! Functions of arrays whose answers DataFusion gives in other types, or for empty arrays (PostgreSQL 15, chapter 9.19).

use std::sync::Arc;

use arrow::array::*;
use arrow::compute::cast;
use arrow::datatypes::*;
use arrow::row::{RowConverter, SortField};
use millpond_types::{SqlError, SqlState, SqlType};

use super::common::common_type;
use super::{Function, Kind, Values, assignable, rows};
use crate::error::from_arrow;
use crate::kernel::Side;

pub(crate) fn functions() -> Vec<Function> {
    let of_dimension =
        |name, kernel| Function::new(name, Kind::Immutable, array_and_dimension, |_| SqlType::Int4, kernel);
    let of_array = |name, kernel| Function::new(name, Kind::Immutable, one_array, |_| SqlType::Int4, kernel);
    vec![
        of_dimension("array_length", |s, _| each(s, |dimensions, at| dimensions.get(at).copied())),
        of_dimension("array_upper", |s, _| each(s, |dimensions, at| dimensions.get(at).copied())),
        of_dimension("array_lower", |s, _| each(s, |dimensions, at| dimensions.get(at).map(|_| 1))),
        of_array("array_ndims", |s, _| {
            each(s, |dimensions, _| match dimensions.len() {
                0 => None,
                n => i32::try_from(n).ok(),
            })
        }),
        of_array("cardinality", |s, _| {
            each(s, |dimensions, _| match dimensions {
                [] => Some(0),
                all => all.iter().try_fold(1i32, |product, n| product.checked_mul(*n)),
            })
        }),
        Function::new("array_position", Kind::Immutable, array_and_element, |_| SqlType::Int4, position),
        // What `x = ANY (array)` is planned as.
        Function::new("array_has", Kind::Immutable, array_and_element, |_| SqlType::Boolean, has),
        Function::new("array_fill", Kind::Immutable, fill_arguments, filled, fill),
    ]
}

fn one_array(types: &[SqlType]) -> Option<Vec<SqlType>> {
    matches!(types, [SqlType::Array(_)]).then(|| types.to_vec())
}

fn array_and_dimension(types: &[SqlType]) -> Option<Vec<SqlType>> {
    match types {
        [array @ SqlType::Array(_), dimension] if assignable(dimension, &SqlType::Int4) => {
            Some(vec![array.clone(), SqlType::Int4])
        }
        _ => None,
    }
}

/// Both sides are brought to one type, as operands of `=` are.
fn array_and_element(types: &[SqlType]) -> Option<Vec<SqlType>> {
    let [array @ SqlType::Array(element), wanted] = types else { return None };
    let whole = |ty: &SqlType| ty.is_integer() || *ty == SqlType::Oid;
    let literal = matches!(wanted, SqlType::Text | SqlType::Unknown);
    if literal || wanted == element.as_ref() || (*element.as_ref() == SqlType::Oid && whole(wanted)) {
        return Some(vec![array.clone(), element.as_ref().clone()]);
    }
    let common = common_type(&[element.as_ref().clone(), wanted.clone()])?;
    Some(vec![SqlType::Array(Box::new(common.clone())), common])
}

fn fill_arguments(types: &[SqlType]) -> Option<Vec<SqlType>> {
    match types {
        [value, lengths @ SqlType::Array(length)] if length.is_integer() => {
            let value = if *value == SqlType::Unknown { SqlType::Text } else { value.clone() };
            Some(vec![value, lengths.clone()])
        }
        _ => None,
    }
}

fn filled(types: &[SqlType]) -> SqlType {
    SqlType::Array(Box::new(types[0].clone()))
}

/// The lengths of an array in each of its dimensions; none of an empty one.
fn dimensions(array: &ArrayRef) -> Vec<i32> {
    let mut lengths = Vec::new();
    let mut array = Arc::clone(array);
    loop {
        if array.is_empty() {
            return Vec::new();
        }
        lengths.push(array.len() as i32);
        match array.as_list_opt::<i32>() {
            Some(inner) if inner.is_valid(0) => array = inner.value(0),
            _ => return lengths,
        }
    }
}

/// `of` is asked with an array's dimensions and, if there is a second argument, the number of one of them from 0.
fn each(sides: &[Side], of: fn(&[i32], usize) -> Option<i32>) -> Result<ArrayRef, SqlError> {
    let lists = sides[0].array.as_list::<i32>();
    let wanted = sides.get(1).map(Values::<Int32Type>::of);
    let one = |row: usize| {
        let list = if sides[0].constant { 0 } else { row };
        if lists.is_null(list) {
            return None;
        }
        let at = match &wanted {
            Some(wanted) => usize::try_from(wanted.get(row)?.checked_sub(1)?).ok()?,
            None => 0,
        };
        of(&dimensions(&lists.value(list)), at)
    };
    Ok(Arc::new((0..rows(sides)).map(one).collect::<Int32Array>()))
}

/// From 1; NULL is found as any other value.
fn position(sides: &[Side], _: &SqlType) -> Result<ArrayRef, SqlError> {
    let lists = sides[0].array.as_list::<i32>();
    let wanted = cast(&sides[1].array, &lists.value_type()).map_err(from_arrow)?;
    let converter = RowConverter::new(vec![SortField::new(lists.value_type())]).map_err(from_arrow)?;
    let elements = converter.convert_columns(&[Arc::clone(lists.values())]).map_err(from_arrow)?;
    let wanted = converter.convert_columns(&[wanted]).map_err(from_arrow)?;
    let one = |row: usize| {
        let (list, of) = (if sides[0].constant { 0 } else { row }, if sides[1].constant { 0 } else { row });
        if lists.is_null(list) {
            return None;
        }
        let offsets = lists.value_offsets();
        let found =
            (offsets[list]..offsets[list + 1]).find(|at| elements.row(*at as usize) == wanted.row(of));
        found.map(|at| at - offsets[list] + 1)
    };
    Ok(Arc::new((0..rows(sides)).map(one).collect::<Int32Array>()))
}

/// NULL where neither the element is there nor all others are known to be different.
fn has(sides: &[Side], _: &SqlType) -> Result<ArrayRef, SqlError> {
    let found = position(sides, &SqlType::Int4)?;
    let found = found.as_primitive::<Int32Type>();
    let lists = sides[0].array.as_list::<i32>();
    let one = |row: usize| {
        let (list, of) = (if sides[0].constant { 0 } else { row }, if sides[1].constant { 0 } else { row });
        if lists.is_null(list) {
            return None;
        }
        let elements = lists.value(list);
        match (elements.is_empty(), sides[1].array.is_null(of)) {
            (true, _) => Some(false),
            (_, true) => None,
            _ if found.is_valid(row) => Some(true),
            _ => (elements.null_count() == 0).then_some(false),
        }
    };
    Ok(Arc::new((0..rows(sides)).map(one).collect::<BooleanArray>()))
}

fn fill(sides: &[Side], result: &SqlType) -> Result<ArrayRef, SqlError> {
    /// As many as an array of PostgreSQL holds, about.
    const ELEMENTS_MAX: i64 = 1 << 27;
    let lists = sides[1].array.as_list::<i32>();
    let (mut indices, mut lengths, mut valid) = (Vec::new(), Vec::new(), Vec::new());
    for row in 0..rows(sides) {
        let (value, list) =
            (if sides[0].constant { 0 } else { row }, if sides[1].constant { 0 } else { row });
        let dimensions = lists.is_valid(list).then(|| cast(&lists.value(list), &DataType::Int64));
        let dimensions = dimensions.transpose().map_err(from_arrow)?;
        let length = match dimensions.as_ref().map(|d| d.as_primitive::<Int64Type>()) {
            None => None,
            Some(d) if d.is_empty() => Some(0),
            Some(d) if d.len() == 1 && d.is_valid(0) => Some(d.value(0)),
            Some(d) if d.null_count() > 0 => {
                return Err(SqlError::new(SqlState::new("22004"), "dimension values cannot be null"));
            }
            Some(_) => {
                return Err(SqlError::unsupported("array_fill with several dimensions is not supported"));
            }
        };
        if length.is_some_and(|n| !(0..=ELEMENTS_MAX).contains(&n) || n + indices.len() as i64 > ELEMENTS_MAX)
        {
            let text = "array size exceeds the maximum allowed";
            return Err(SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, text));
        }
        let count = length.unwrap_or(0) as usize;
        indices.extend(std::iter::repeat_n(value as u32, count));
        lengths.push(count);
        valid.push(length.is_some());
    }
    let values =
        arrow::compute::take(&sides[0].array, &UInt32Array::from(indices), None).map_err(from_arrow)?;
    let DataType::List(field) = result.arrow() else {
        return Err(SqlError::internal("array_fill gives an array"));
    };
    let offsets = arrow::buffer::OffsetBuffer::from_lengths(lengths);
    Ok(Arc::new(ListArray::try_new(field, offsets, values, Some(valid.into())).map_err(from_arrow)?))
}
