//! `single_row(count, value)`: the value of a scalar subquery, or 21000 if it has more than one row.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::{Result, internal_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use millpond_functions::error::into_datafusion;
use millpond_types::{SqlError, SqlState};

/// The call as an expression.
pub(super) fn single_row(count: Expr, value: Expr) -> Expr {
    static FUNCTION: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arc::new(ScalarUDF::from(SingleRow::new())));
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(&FUNCTION), vec![count, value]))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct SingleRow {
    signature: Signature,
}

impl SingleRow {
    fn new() -> Self {
        Self { signature: Signature::any(2, Volatility::Immutable) }
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
