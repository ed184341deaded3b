//! Functions that answer differently from statement to statement: the time, and random identifiers.
//!
//! The time is the one that the planner put into its simplification context (the transaction's start); a view sees it as
//! its rule says. A call that is not replaced by it is refused: kernels have no clock.

use std::sync::Arc;

use arrow::datatypes::*;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use millpond_types::{SqlError, SqlType};

use crate::calendar::DAY;
use crate::cast::{CastContext, cast_array};
use crate::error::into_datafusion;
use crate::kernel::columnar;

pub(crate) fn functions() -> Vec<Arc<ScalarUDF>> {
    let now = |name, ty, aliases: &[&str]| {
        let aliases = aliases.iter().map(|a| (*a).to_owned()).collect();
        Arc::new(ScalarUDF::new_from_impl(Now {
            name,
            ty,
            aliases,
            signature: Signature::nullary(Volatility::Stable),
        }))
    };
    vec![
        now(
            "now",
            SqlType::Timestamptz,
            &["current_timestamp", "transaction_timestamp", "statement_timestamp"],
        ),
        now("localtimestamp", SqlType::Timestamp, &[]),
        now("current_date", SqlType::Date, &["today"]),
        now("localtime", SqlType::Time, &["current_time"]),
        Arc::new(ScalarUDF::new_from_impl(RandomUuid {
            signature: Signature::nullary(Volatility::Volatile),
        })),
    ]
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Now {
    name: &'static str,
    ty: SqlType,
    aliases: Vec<String>,
    signature: Signature,
}

/// The value of `now()` as one of its kin: `micros` since 1970 as a literal of that type.
pub(crate) fn moment(micros: i64, ty: &SqlType) -> ScalarValue {
    match ty {
        SqlType::Timestamptz => {
            ScalarValue::TimestampMicrosecond(Some(micros), Some(millpond_types::sql_type::UTC.into()))
        }
        SqlType::Date => ScalarValue::Date32(Some(micros.div_euclid(DAY) as i32)),
        SqlType::Time => ScalarValue::Time64Microsecond(Some(micros.rem_euclid(DAY))),
        _ => ScalarValue::TimestampMicrosecond(Some(micros), None),
    }
}

impl ScalarUDFImpl for Now {
    fn name(&self) -> &str {
        self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.ty.arrow())
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(self.ty.field(self.name, false)))
    }

    fn simplify(&self, args: Vec<Expr>, context: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let Some(now) = context.query_execution_start_time() else {
            return Ok(ExprSimplifyResult::Original(args));
        };
        let value = moment(now.timestamp_micros(), &self.ty);
        Ok(ExprSimplifyResult::Simplified(Expr::Literal(value, None)))
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let message = format!("{}() has no time here", self.name);
        Err(into_datafusion(
            SqlError::unsupported(message).hint("Compare a column with a watermark in a filter instead."),
        ))
    }
}

/// gen_random_uuid(): DataFusion's random uuid, as a uuid.
#[derive(Debug, PartialEq, Eq, Hash)]
struct RandomUuid {
    signature: Signature,
}

impl ScalarUDFImpl for RandomUuid {
    fn name(&self) -> &str {
        "gen_random_uuid"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(SqlType::Uuid.arrow())
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(SqlType::Uuid.field(self.name(), false)))
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        args.return_field = Arc::new(Field::new("uuid", DataType::Utf8, false));
        let texts = datafusion::functions::string::uuid().invoke_with_args(args)?.into_array(rows)?;
        let uuids = cast_array(&texts, &SqlType::Text, &SqlType::Uuid, CastContext::Explicit)
            .map_err(into_datafusion)?;
        columnar(uuids, false)
    }
}
