//! Functions whose answer is fixed while a statement is planned: now(), current_user and their kin; and functions that do
//! not exist.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use millpond_functions::error::into_datafusion;
use millpond_types::{SqlError, SqlState, SqlType};

use crate::PlanSettings;

const DAY_US: i64 = 86_400_000_000;

/// The function of that name, with what it answers for the whole statement.
pub(crate) fn session_function(name: &str, settings: &PlanSettings) -> Option<Arc<ScalarUDF>> {
    let now = settings.now.0;
    let local = settings.zone().to_local(now).unwrap_or(now);
    let text = |s: &str| ScalarValue::Utf8(Some(s.to_owned()));
    let value = match name {
        "now" | "current_timestamp" | "transaction_timestamp" | "statement_timestamp" => {
            ScalarValue::TimestampMicrosecond(Some(now), Some(millpond_types::sql_type::UTC.into()))
        }
        "localtimestamp" => ScalarValue::TimestampMicrosecond(Some(local), None),
        "current_date" => ScalarValue::Date32(i32::try_from(local.div_euclid(DAY_US)).ok()),
        "localtime" => ScalarValue::Time64Microsecond(Some(local.rem_euclid(DAY_US))),
        "current_user" | "session_user" | "user" | "current_role" => text(&settings.user),
        "current_database" | "current_catalog" => text(&settings.database),
        "current_schema" => ScalarValue::Utf8(settings.search_path.first().cloned()),
        _ => return None,
    };
    Some(Arc::new(ScalarUDF::new_from_impl(Constant {
        name: name.to_owned(),
        value,
        // `current_timestamp(3)` has a precision.
        signature: Signature::one_of(
            vec![TypeSignature::Nullary, TypeSignature::Any(1)],
            Volatility::Immutable,
        ),
        none: Signature::nullary(Volatility::Immutable),
    })))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Constant {
    name: String,
    value: ScalarValue,
    signature: Signature,
    none: Signature,
}

impl ScalarUDFImpl for Constant {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        if self.name.ends_with("time") || self.name.ends_with("timestamp") {
            &self.signature
        } else {
            &self.none
        }
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(self.value.data_type())
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(ColumnarValue::Scalar(self.value.clone()))
    }
}

/// Stands for a function that does not exist until its argument types are known, because PostgreSQL's message names them.
pub(crate) fn unknown_function(name: &str) -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(Unknown {
        name: name.to_owned(),
        signature: Signature::variadic_any(Volatility::Immutable),
    }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Unknown {
    name: String,
    signature: Signature,
}

impl ScalarUDFImpl for Unknown {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        let types: Vec<_> = arguments.iter().map(argument_name).collect();
        let message = format!("function {}({}) does not exist", self.name, types.join(", "));
        let near = millpond_functions::Registry::global().names();
        let near = millpond_sql::nearest(&self.name, near.iter().map(String::as_str)).map(str::to_owned);
        let error = SqlError::new(SqlState::UNDEFINED_FUNCTION, message).hint(match near {
            Some(near) => format!("Perhaps you meant the function \"{near}\"."),
            None => "No function matches the given name and argument types. You might need to add explicit type casts."
                .to_owned(),
        });
        Err(into_datafusion(error))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let types: Vec<_> = args.arg_fields.iter().map(|f| f.data_type().clone()).collect();
        self.return_type(&types).map(|_| ColumnarValue::Scalar(ScalarValue::Null))
    }
}

/// An argument's type as error messages show it: without modifiers, and `unknown` for NULL.
pub(crate) fn argument_name(data_type: &DataType) -> String {
    match (data_type, SqlType::of_arrow(data_type)) {
        (DataType::Null, _) => "unknown".to_owned(),
        (_, Ok(SqlType::Numeric(..))) => "numeric".to_owned(),
        (_, Ok(ty)) => ty.to_string(),
        (other, Err(_)) => other.to_string(),
    }
}
