//! The Arrow types of rows in a segment.
//!
//! Parquet has no intervals of months, days and nanoseconds: they are stored as their 16 bytes. Everything else that the log
//! keeps, Parquet keeps too.

use std::sync::Arc;

use arrow::array::{Array as _, ArrayData, ArrayRef, make_array};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, IntervalUnit};
use arrow::error::ArrowError;

const INTERVAL_BYTES: i32 = 16;

/// The type under which values of `ty` lie in a file.
pub(super) fn stored_type(ty: &DataType) -> DataType {
    match ty {
        DataType::Interval(IntervalUnit::MonthDayNano) => DataType::FixedSizeBinary(INTERVAL_BYTES),
        DataType::List(item) => DataType::List(stored_field(item)),
        DataType::LargeList(item) => DataType::LargeList(stored_field(item)),
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(stored_field(item), *size),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(stored_field).collect::<Fields>()),
        DataType::Map(entries, sorted) => DataType::Map(stored_field(entries), *sorted),
        other => other.clone(),
    }
}

pub(super) fn stored_field(field: &FieldRef) -> FieldRef {
    let stored = stored_type(field.data_type());
    if stored == *field.data_type() {
        return Arc::clone(field);
    }
    let plain = Field::new(field.name(), stored, field.is_nullable());
    Arc::new(plain.with_metadata(field.metadata().clone()))
}

/// The same values under another type of the same layout.
pub(super) fn retype(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    if array.data_type() == to {
        return Ok(Arc::clone(array));
    }
    Ok(make_array(retyped(array.to_data(), to)?))
}

fn retyped(data: ArrayData, to: &DataType) -> Result<ArrayData, ArrowError> {
    if data.data_type() == to {
        return Ok(data);
    }
    let inner: Vec<&DataType> = match to {
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _) => vec![item.data_type()],
        DataType::Struct(fields) => fields.iter().map(|field| field.data_type()).collect(),
        _ => Vec::new(),
    };
    if inner.len() != data.child_data().len() {
        let message = format!("rows of type {} were stored as {}", to, data.data_type());
        return Err(ArrowError::SchemaError(message));
    }
    let children = data.child_data().iter().zip(inner).map(|(child, to)| retyped(child.clone(), to));
    let children = children.collect::<Result<Vec<_>, _>>()?;
    data.into_builder().data_type(to.clone()).child_data(children).align_buffers(true).build()
}

#[cfg(test)]
mod tests {
    use arrow::array::{IntervalMonthDayNanoArray, ListArray};
    use arrow::buffer::OffsetBuffer;
    use arrow::datatypes::IntervalMonthDayNano;

    use super::*;

    #[test]
    fn intervals_travel_as_bytes_also_inside_of_arrays() {
        let values = IntervalMonthDayNanoArray::from(vec![
            Some(IntervalMonthDayNano::new(1, -2, 3)),
            None,
            Some(IntervalMonthDayNano::new(i32::MIN, i32::MAX, i64::MIN)),
        ]);
        let item = Arc::new(Field::new("item", values.data_type().clone(), true));
        let lists = ListArray::new(item, OffsetBuffer::from_lengths([1, 0, 2]), Arc::new(values), None);
        for array in [Arc::clone(lists.values()), Arc::new(lists) as ArrayRef] {
            for array in [array.slice(1, 2), array] {
                let there = retype(&array, &stored_type(array.data_type())).unwrap();
                assert_ne!(there.data_type(), array.data_type());
                assert_eq!(&retype(&there, array.data_type()).unwrap(), &array);
            }
        }
    }
}
