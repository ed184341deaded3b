//! Arithmetic of real and double precision: what left the finite numbers is an error, as in PostgreSQL.

use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::*;
use millpond_types::{SqlError, SqlState};

use super::{Operation, division_by_zero};
use crate::kernel::{Side, binary};

pub(super) trait Float: ArrowPrimitiveType {
    fn apply(op: Operation, x: Self::Native, y: Self::Native) -> Self::Native;
    fn is_infinite(x: Self::Native) -> bool;
    fn is_nan(x: Self::Native) -> bool;
    fn is_zero(x: Self::Native) -> bool;
}

macro_rules! float {
    ($type:ty, $native:ty) => {
        impl Float for $type {
            #[inline(always)]
            fn apply(op: Operation, x: $native, y: $native) -> $native {
                match op {
                    Operation::Add => x + y,
                    Operation::Subtract => x - y,
                    Operation::Multiply => x * y,
                    Operation::Divide => x / y,
                    Operation::Modulo => x % y,
                }
            }
            fn is_infinite(x: $native) -> bool {
                x.is_infinite()
            }
            fn is_nan(x: $native) -> bool {
                x.is_nan()
            }
            fn is_zero(x: $native) -> bool {
                x == 0.0
            }
        }
    };
}
float!(Float32Type, f32);
float!(Float64Type, f64);

pub(super) fn arithmetic<T: Float>(op: Operation, left: &Side, right: &Side) -> Result<ArrayRef, SqlError> {
    let diagnose = |x, y| match T::apply(op, x, y) {
        _ if op == Operation::Divide && T::is_zero(y) => division_by_zero(),
        value if T::is_infinite(value) => overflow(),
        _ => underflow(),
    };
    let overflowed = |x, y, v| T::is_infinite(v) && !T::is_infinite(x) && !T::is_infinite(y);
    let sum = |x, y| {
        let v = T::apply(op, x, y);
        (v, overflowed(x, y, v))
    };
    let product = |x, y| {
        let v = T::apply(op, x, y);
        (v, overflowed(x, y, v) || (T::is_zero(v) && !T::is_zero(x) && !T::is_zero(y)))
    };
    let quotient = |x, y| {
        let v = T::apply(op, x, y);
        let by_zero = T::is_zero(y) && !T::is_nan(x);
        let overflow = T::is_infinite(v) && !T::is_infinite(x);
        (v, by_zero || overflow || (T::is_zero(v) && !T::is_zero(x) && !T::is_infinite(y)))
    };
    Ok(Arc::new(match op {
        Operation::Add | Operation::Subtract => binary::<T, T, T>(left, right, sum, diagnose)?,
        Operation::Multiply => binary::<T, T, T>(left, right, product, diagnose)?,
        Operation::Divide => binary::<T, T, T>(left, right, quotient, diagnose)?,
        Operation::Modulo => return Err(SqlError::internal("% is not defined for floats")),
    }))
}

pub(crate) fn overflow() -> SqlError {
    SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "value out of range: overflow")
}

pub(crate) fn underflow() -> SqlError {
    SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "value out of range: underflow")
}
