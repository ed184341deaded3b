//! Arithmetic operators, checked: `+ - * / %` over numbers and times, and unary minus.
//!
//! Operands have exactly the types of [`result_type`]; [`crate::rewrite`] sees to that.

pub(crate) mod float;
mod integer;
pub(crate) mod temporal;

pub(crate) use float::{overflow, underflow};

use std::fmt;
use std::sync::{Arc, LazyLock};

use arrow::array::ArrayRef;
use arrow::datatypes::*;
use datafusion::common::Result;
use datafusion::logical_expr::{
    ColumnarValue, Expr, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use millpond_types::{SqlError, SqlState};

use crate::error::into_datafusion;
use crate::kernel::{Side, run, unary};
use crate::numeric;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

impl Operation {
    pub(crate) fn of(op: Operator) -> Option<Self> {
        Some(match op {
            Operator::Plus => Self::Add,
            Operator::Minus => Self::Subtract,
            Operator::Multiply => Self::Multiply,
            Operator::Divide => Self::Divide,
            Operator::Modulo => Self::Modulo,
            _ => return None,
        })
    }

    pub(crate) fn divides(self) -> bool {
        matches!(self, Self::Divide | Self::Modulo)
    }

    fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(["+", "-", "*", "/", "%"][self.index()])
    }
}

pub(crate) fn division_by_zero() -> SqlError {
    SqlError::new(SqlState::DIVISION_BY_ZERO, "division by zero")
}

pub(crate) fn out_of_range(type_name: &str) -> SqlError {
    SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, format!("{type_name} out of range"))
}

/// The type of `left op right`, if there is such an operator.
pub(crate) fn result_type(op: Operation, left: &DataType, right: &DataType) -> Option<DataType> {
    use DataType::*;
    use Operation::*;
    let timestamp = |ty: &DataType| matches!(ty, Timestamp(TimeUnit::Microsecond, _));
    const SPAN: DataType = Interval(IntervalUnit::MonthDayNano);
    const CLOCK: DataType = Time64(TimeUnit::Microsecond);
    Some(match (op, left, right) {
        (_, Int16, Int16) => Int16,
        (_, Int32, Int32) => Int32,
        (_, Int64, Int64) => Int64,
        (Modulo, Float32 | Float64, _) => return None,
        (_, Float32, Float32) => Float32,
        (_, Float64, Float64) => Float64,
        (Add | Subtract, Date32, Int32) | (Add, Int32, Date32) => Date32,
        (Subtract, Date32, Date32) => Int32,
        (Add, Date32, ty) if *ty == CLOCK => Timestamp(TimeUnit::Microsecond, None),
        (Add | Subtract, ty, span) if timestamp(ty) && *span == SPAN => ty.clone(),
        (Add | Subtract, ty, span) if *ty == CLOCK && *span == SPAN => CLOCK,
        (Subtract, a, b) if timestamp(a) && a == b => SPAN,
        (Subtract, a, b) if *a == CLOCK && *b == CLOCK => SPAN,
        (Add | Subtract, a, b) if *a == SPAN && *b == SPAN => SPAN,
        (Multiply | Divide, span, Float64) if *span == SPAN => SPAN,
        (_, a, b) => {
            let shape = numeric::result_shape(op, numeric::shape_of(a)?, numeric::shape_of(b)?);
            numeric::shape_type(shape).arrow()
        }
    })
}

/// `left op right`, over types that [`result_type`] knows.
pub(crate) fn compute(op: Operation, left: &Side, right: &Side) -> Result<ArrayRef, SqlError> {
    let (a, b) = (left.data_type(), right.data_type());
    match (a, b) {
        (DataType::Int16, DataType::Int16) => integer::arithmetic::<Int16Type>(op, left, right),
        (DataType::Int32, DataType::Int32) => integer::arithmetic::<Int32Type>(op, left, right),
        (DataType::Int64, DataType::Int64) => integer::arithmetic::<Int64Type>(op, left, right),
        (DataType::Float32, DataType::Float32) => float::arithmetic::<Float32Type>(op, left, right),
        (DataType::Float64, DataType::Float64) => float::arithmetic::<Float64Type>(op, left, right),
        _ => match (numeric::shape_of(a), numeric::shape_of(b)) {
            (Some(p), Some(q)) => numeric::arithmetic(op, left, right, numeric::result_shape(op, p, q)),
            _ => temporal::arithmetic(op, left, right),
        },
    }
}

/// `left op right` as a scalar function; its name in plans and columns is the infix form.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Arithmetic {
    op: Operation,
    signature: Signature,
}

static FUNCTIONS: LazyLock<[Arc<ScalarUDF>; 5]> = LazyLock::new(|| {
    use Operation::*;
    [Add, Subtract, Multiply, Divide, Modulo].map(|op| {
        let signature = Signature::any(2, Volatility::Immutable);
        Arc::new(ScalarUDF::new_from_impl(Arithmetic { op, signature }))
    })
});

static NEGATE: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
    Arc::new(ScalarUDF::new_from_impl(Negate { signature: Signature::any(1, Volatility::Immutable) }))
});

/// The call of `op` on operands of the right types.
pub(crate) fn call(op: Operation, left: Expr, right: Expr) -> Expr {
    FUNCTIONS[op.index()].call(vec![left, right])
}

/// Whether a function may divide by zero.
pub(crate) fn is_division(function: &ScalarUDF) -> bool {
    function.inner().downcast_ref::<Arithmetic>().is_some_and(|f| f.op.divides())
}

impl ScalarUDFImpl for Arithmetic {
    fn name(&self) -> &str {
        ["checked_add", "checked_subtract", "checked_multiply", "checked_divide", "checked_modulo"]
            [self.op.index()]
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        let side = |i: usize| args.get(i).map(|e: &Expr| e.schema_name().to_string()).unwrap_or_default();
        Ok(format!("{} {} {}", side(0), self.op, side(1)))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let found = match types {
            [left, right] => result_type(self.op, left, right),
            _ => None,
        };
        found.ok_or_else(|| {
            into_datafusion(SqlError::internal(format!("{} got operands of {types:?}", self.name())))
        })
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        run(&args.args, |sides| compute(self.op, &sides[0], &sides[1]))
    }
}

/// Unary minus.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Negate {
    signature: Signature,
}

pub(crate) fn call_negate(operand: Expr) -> Expr {
    NEGATE.call(vec![operand])
}

/// Whether unary minus is defined for the type.
pub(crate) fn negatable(ty: &DataType) -> bool {
    use DataType::*;
    matches!(ty, Int16 | Int32 | Int64 | Float32 | Float64 | Decimal128(..) | Decimal256(..))
        || matches!(ty, Interval(IntervalUnit::MonthDayNano))
}

impl ScalarUDFImpl for Negate {
    fn name(&self) -> &str {
        "checked_negate"
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(format!("(- {})", args.first().map(|e| e.schema_name().to_string()).unwrap_or_default()))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[0].clone())
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        run(&args.args, |sides| negate(&sides[0].array))
    }
}

pub(crate) fn negate(array: &ArrayRef) -> Result<ArrayRef, SqlError> {
    Ok(match array.data_type() {
        DataType::Int16 => Arc::new(integer::negate::<Int16Type>(array)?),
        DataType::Int32 => Arc::new(integer::negate::<Int32Type>(array)?),
        DataType::Int64 => Arc::new(integer::negate::<Int64Type>(array)?),
        DataType::Float32 => Arc::new(unary::<Float32Type, Float32Type>(array, |v| (-v, false), never)?),
        DataType::Float64 => Arc::new(unary::<Float64Type, Float64Type>(array, |v| (-v, false), never)?),
        ty @ DataType::Decimal128(..) => {
            let array = unary::<Decimal128Type, Decimal128Type>(array, |v| (v.wrapping_neg(), false), never)?;
            Arc::new(array.with_data_type(ty.clone()))
        }
        ty @ DataType::Decimal256(..) => {
            let array = unary::<Decimal256Type, Decimal256Type>(array, |v| (v.wrapping_neg(), false), never)?;
            Arc::new(array.with_data_type(ty.clone()))
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => temporal::negate(array)?,
        other => return Err(SqlError::internal(format!("unary minus got {other}"))),
    })
}

/// For kernels that never flag a value.
pub(crate) fn never<T>(_: T) -> SqlError {
    SqlError::internal("an infallible kernel failed")
}
