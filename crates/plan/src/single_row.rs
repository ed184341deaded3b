//! `single_row(count, value)`: the value of a scalar subquery, or 21000 if it has more than one row.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, FieldRef, Int64Type};
use datafusion::common::{Result, internal_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use millpond_functions::error::into_datafusion;
use millpond_types::{SqlError, SqlState};

/// The call as an expression.
///
/// `field` is that of the subquery's column, where `value` has been through an aggregate.
pub(crate) fn single_row(count: Expr, value: Expr, field: Option<FieldRef>) -> Expr {
    let function = Arc::new(ScalarUDF::from(SingleRow::new(field)));
    Expr::ScalarFunction(ScalarFunction::new_udf(function, vec![count, value]))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct SingleRow {
    signature: Signature,
    field: Option<FieldRef>,
}

impl SingleRow {
    fn new(field: Option<FieldRef>) -> Self {
        Self { signature: Signature::any(2, Volatility::Immutable), field }
    }
}

impl ScalarUDFImpl for SingleRow {
    fn name(&self) -> &str {
        "single_row"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [_, value] => Ok(value.clone()),
            _ => internal_err!("single_row takes a count and a value"),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let [_, value] = args.arg_fields else {
            return internal_err!("single_row takes a count and a value");
        };
        let field = self.field.as_ref().unwrap_or(value).as_ref().clone();
        Ok(Arc::new(field.with_name(self.name()).with_nullable(true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [count, value] = &args.args[..] else {
            return internal_err!("single_row takes a count and a value");
        };
        let count = count.to_array(args.number_rows)?;
        let Some(counts) = count.as_primitive_opt::<Int64Type>() else {
            return internal_err!("single_row counts in {}", count.data_type());
        };
        if counts.iter().flatten().any(|count| count > 1) {
            let text = "more than one row returned by a subquery used as an expression";
            return Err(into_datafusion(SqlError::new(SqlState::CARDINALITY_VIOLATION, text)));
        }
        Ok(value.clone())
    }
}
