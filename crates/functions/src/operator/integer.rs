//! Checked arithmetic of smallint, integer and bigint.

use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::*;
use millpond_types::SqlError;

use super::{Operation, division_by_zero, out_of_range};
use crate::kernel::{Side, binary, unary};

/// An integer type with flagged arithmetic, which vectorizes where checked arithmetic would branch.
pub(super) trait Checked: ArrowPrimitiveType {
    const NAME: &'static str;
    const ZERO: Self::Native;
    fn add(x: Self::Native, y: Self::Native) -> (Self::Native, bool);
    fn subtract(x: Self::Native, y: Self::Native) -> (Self::Native, bool);
    fn multiply(x: Self::Native, y: Self::Native) -> (Self::Native, bool);
    fn divide(x: Self::Native, y: Self::Native) -> (Self::Native, bool);
    fn modulo(x: Self::Native, y: Self::Native) -> (Self::Native, bool);
    fn negate(x: Self::Native) -> (Self::Native, bool);
}

macro_rules! checked {
    ($type:ty, $native:ty, $name:literal) => {
        impl Checked for $type {
            const NAME: &'static str = $name;
            const ZERO: $native = 0;
            fn add(x: $native, y: $native) -> ($native, bool) {
                x.overflowing_add(y)
            }
            fn subtract(x: $native, y: $native) -> ($native, bool) {
                x.overflowing_sub(y)
            }
            fn multiply(x: $native, y: $native) -> ($native, bool) {
                x.overflowing_mul(y)
            }
            fn divide(x: $native, y: $native) -> ($native, bool) {
                if y == 0 { (0, true) } else { x.overflowing_div(y) }
            }
            fn modulo(x: $native, y: $native) -> ($native, bool) {
                // The least value % -1 is 0, as in PostgreSQL.
                if y == 0 { (0, true) } else { (x.wrapping_rem(y), false) }
            }
            fn negate(x: $native) -> ($native, bool) {
                x.overflowing_neg()
            }
        }
    };
}
checked!(Int16Type, i16, "smallint");
checked!(Int32Type, i32, "integer");
checked!(Int64Type, i64, "bigint");

pub(super) fn arithmetic<T: Checked>(op: Operation, left: &Side, right: &Side) -> Result<ArrayRef, SqlError> {
    let diagnose = |_, y| {
        if op.divides() && y == T::ZERO { division_by_zero() } else { out_of_range(T::NAME) }
    };
    Ok(Arc::new(match op {
        Operation::Add => binary::<T, T, T>(left, right, T::add, diagnose)?,
        Operation::Subtract => binary::<T, T, T>(left, right, T::subtract, diagnose)?,
        Operation::Multiply => binary::<T, T, T>(left, right, T::multiply, diagnose)?,
        Operation::Divide => binary::<T, T, T>(left, right, T::divide, diagnose)?,
        Operation::Modulo => binary::<T, T, T>(left, right, T::modulo, diagnose)?,
    }))
}

pub(super) fn negate<T: Checked>(array: &ArrayRef) -> Result<PrimitiveArray<T>, SqlError> {
    unary::<T, T>(array, T::negate, |_| out_of_range(T::NAME))
}
