//! DataFusion's functions give texts as views and lengths without a sign; the SQL types have one Arrow type each.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// The call, with a result of the Arrow type of its SQL type.
pub(super) fn result(call: ScalarFunction, schema: &DFSchema) -> Result<Transformed<Expr>> {
    if call.func.name() == NAME {
        return Ok(Transformed::no(Expr::ScalarFunction(call)));
    }
    let expr = Expr::ScalarFunction(call);
    Ok(match expr.get_type(schema).ok().as_ref().and_then(plain) {
        Some(to) => Transformed::yes(ScalarUDF::new_from_impl(Canonical::new(to)).call(vec![expr])),
        None => Transformed::no(expr),
    })
}

/// The type that stands for the same values; `None` where it does already.
pub(crate) fn plain(ty: &DataType) -> Option<DataType> {
    Some(match ty {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        DataType::Int8 | DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 | DataType::UInt64 => DataType::Int64,
        DataType::List(item) | DataType::LargeList(item) => {
            let large = matches!(ty, DataType::LargeList(_));
            let inner = plain(item.data_type());
            if inner.is_none() && !large {
                return None;
            }
            let inner = inner.unwrap_or_else(|| item.data_type().clone());
            DataType::List(Arc::new(Field::new(item.name(), inner, true)))
        }
        _ => return None,
    })
}

pub const NAME: &str = "canonical";

/// Its argument in another Arrow type.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Canonical {
    to: DataType,
    signature: Signature,
}

impl Canonical {
    fn new(to: DataType) -> Self {
        Self { to, signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Canonical {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(self.to.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        args.args[0].cast_to(&self.to, None)
    }
}
