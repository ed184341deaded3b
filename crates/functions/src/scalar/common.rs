//! Functions whose arguments share one type: coalesce, nullif, greatest and least. DataFusion computes them; which type
//! they share is PostgreSQL's choice (chapter 10.5): `coalesce(double, 0.5)` is double precision, not numeric.

use std::sync::Arc;

use arrow::datatypes::*;
use datafusion::common::Result;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use millpond_types::{SqlError, SqlState, SqlType};

use super::sql_types;
use crate::cast::is_text;
use crate::error::{into_datafusion, no_function, type_name};
use crate::numeric::PRECISION_MAX;

pub(crate) fn functions() -> Vec<Arc<ScalarUDF>> {
    let core = [
        datafusion::functions::core::coalesce(),
        datafusion::functions::core::nullif(),
        datafusion::functions::core::greatest(),
        datafusion::functions::core::least(),
    ];
    let wrap = |inner| {
        let signature = Signature::user_defined(Volatility::Immutable);
        Arc::new(ScalarUDF::new_from_impl(Common { inner, signature }))
    };
    core.into_iter().map(wrap).collect()
}

/// The type that values of these types share; unknown where all of them are.
pub(crate) fn common_type(types: &[SqlType]) -> Option<SqlType> {
    types.iter().try_fold(SqlType::Unknown, |shared, ty| pair(&shared, ty))
}

fn pair(a: &SqlType, b: &SqlType) -> Option<SqlType> {
    use SqlType::*;
    Some(match (a, b) {
        (a, b) if a == b => a.clone(),
        (Unknown, other) | (other, Unknown) => other.clone(),
        (a, b) if is_text(a) && is_text(b) => Text,
        (Numeric(p, s), Numeric(q, t)) => numeric((*p, *s), (*q, *t)),
        (Numeric(p, s), n) | (n, Numeric(p, s)) if n.is_integer() => {
            let digits = match n {
                Int2 => 5,
                Int4 => 10,
                _ => 19,
            };
            numeric((*p, *s), (digits, 0))
        }
        (a, b) => match (rank(a), rank(b)) {
            (Some(x), Some(y)) => {
                if x >= y {
                    a.clone()
                } else {
                    b.clone()
                }
            }
            _ => match (a, b) {
                (Date, Timestamp | Timestamptz) | (Timestamp, Timestamptz) => b.clone(),
                (Timestamp | Timestamptz, Date) | (Timestamptz, Timestamp) => a.clone(),
                (Time, Interval) | (Interval, Time) => Interval,
                _ => return None,
            },
        },
    })
}

/// Room for all digits of both.
fn numeric(a: (u8, i8), b: (u8, i8)) -> SqlType {
    let scale = a.1.max(b.1);
    let whole = (a.0 as i8 - a.1).max(b.0 as i8 - b.1);
    SqlType::Numeric((whole as u8).saturating_add(scale as u8).min(PRECISION_MAX), scale)
}

fn rank(ty: &SqlType) -> Option<u8> {
    Some(match ty {
        SqlType::Int2 => 0,
        SqlType::Int4 => 1,
        SqlType::Int8 => 2,
        SqlType::Numeric(..) => 3,
        SqlType::Float4 => 4,
        SqlType::Float8 => 5,
        _ => return None,
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Common {
    inner: Arc<ScalarUDF>,
    signature: Signature,
}

impl ScalarUDFImpl for Common {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let nullif = self.name() == "nullif";
        if types.is_empty() || (nullif && types.len() != 2) {
            return Err(into_datafusion(no_function(self.name(), types)));
        }
        // Arrays and what SQL cannot name are left to DataFusion's equality of types.
        let Ok(named) = sql_types(types) else { return Ok(types.to_vec()) };
        // An untyped literal has come as text by now: beside another type it takes that.
        let typed: Vec<SqlType> = named.iter().filter(|ty| !is_text(ty)).cloned().collect();
        let texts = typed.len() < named.len();
        match common_type(if typed.is_empty() { &named } else { &typed }) {
            Some(SqlType::Unknown) => Ok(vec![DataType::Utf8; types.len()]),
            Some(shared) if typed.is_empty() || !texts || !is_text(&shared) => {
                Ok(vec![shared.arrow(); types.len()])
            }
            _ => {
                let names: Vec<String> = named.iter().map(type_name).collect();
                let message =
                    format!("{} types {} cannot be matched", self.name().to_uppercase(), names.join(" and "));
                Err(into_datafusion(SqlError::new(SqlState::DATATYPE_MISMATCH, message)))
            }
        }
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(&self.coerce_types(types)?)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<DataType> = args.arg_fields.iter().map(|f| f.data_type().clone()).collect();
        let wanted = self.coerce_types(&types)?;
        let fields: Vec<FieldRef> = args
            .arg_fields
            .iter()
            .zip(wanted)
            .map(|(field, ty)| {
                if *field.data_type() == ty {
                    Arc::clone(field)
                } else {
                    Arc::new(field.as_ref().clone().with_data_type(ty))
                }
            })
            .collect();
        self.inner.return_field_from_args(ReturnFieldArgs {
            arg_fields: &fields,
            scalar_arguments: args.scalar_arguments,
        })
    }

    fn simplify(&self, args: Vec<Expr>, context: &SimplifyContext) -> Result<ExprSimplifyResult> {
        self.inner.simplify(args, context)
    }

    fn short_circuits(&self) -> bool {
        self.inner.short_circuits()
    }

    fn conditional_arguments<'a>(&self, args: &'a [Expr]) -> Option<(Vec<&'a Expr>, Vec<&'a Expr>)> {
        self.inner.conditional_arguments(args)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.inner.invoke_with_args(args)
    }
}
