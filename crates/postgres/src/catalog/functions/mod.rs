//! System functions: answers about the catalog, the session and the server, a row at a time.

pub(super) mod definition;
mod names;
mod session;
mod text;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result as DataFusionResult, exec_datafusion_err};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature,
    Volatility,
};
use datafusion::scalar::ScalarValue;
use millpond_types::{SqlError, SqlType};

use super::cell::{Cell, array, cells};
use super::facts::Facts;

/// Computes one value.
type Body = fn(&Facts, &[Cell]) -> Result<Cell, SqlError>;

/// A function by its PostgreSQL name.
struct Function {
    name: &'static str,
    returns: SqlType,
    arguments: std::ops::RangeInclusive<usize>,
    /// NULL whenever an argument is NULL.
    strict: bool,
    body: Body,
}

static FUNCTIONS: LazyLock<Vec<Arc<Function>>> = LazyLock::new(|| {
    let all = [definition::functions(), names::functions(), session::functions(), text::functions()];
    all.into_iter().flatten().map(Arc::new).collect()
});

fn strict(
    name: &'static str,
    returns: SqlType,
    arguments: std::ops::RangeInclusive<usize>,
    body: Body,
) -> Function {
    Function { name, returns, arguments, strict: true, body }
}

fn lenient(
    name: &'static str,
    returns: SqlType,
    arguments: std::ops::RangeInclusive<usize>,
    body: Body,
) -> Function {
    Function { name, returns, arguments, strict: false, body }
}

/// A function that says the same whatever it is asked.
fn constant(
    name: &'static str,
    returns: SqlType,
    arguments: std::ops::RangeInclusive<usize>,
    body: Body,
) -> Function {
    Function { name, returns, arguments, strict: false, body }
}

pub(super) fn exists(name: &str) -> bool {
    FUNCTIONS.iter().any(|function| function.name == name)
}

/// All functions, answering from these facts.
pub(super) fn bound(facts: &Arc<Facts>) -> Vec<Arc<ScalarUDF>> {
    let bind = |function: &Arc<Function>| {
        let signature = signature(&function.arguments);
        let bound = Bound { function: Arc::clone(function), facts: Arc::clone(facts), signature };
        Arc::new(ScalarUDF::new_from_impl(bound))
    };
    FUNCTIONS.iter().map(bind).collect()
}

fn signature(arguments: &std::ops::RangeInclusive<usize>) -> Signature {
    let each = arguments.clone().map(|count| match count {
        0 => TypeSignature::Nullary,
        count => TypeSignature::Any(count),
    });
    match *arguments.end() {
        usize::MAX => {
            let any = [TypeSignature::VariadicAny];
            let none = (*arguments.start() == 0).then_some(TypeSignature::Nullary);
            Signature::one_of(any.into_iter().chain(none).collect(), Volatility::Stable)
        }
        _ => Signature::one_of(each.collect(), Volatility::Stable),
    }
}

/// A function with what it answers from.
struct Bound {
    function: Arc<Function>,
    facts: Arc<Facts>,
    signature: Signature,
}

impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.function.name)
    }
}

impl PartialEq for Bound {
    fn eq(&self, other: &Self) -> bool {
        self.function.name == other.function.name && Arc::ptr_eq(&self.facts, &other.facts)
    }
}

impl Eq for Bound {}

impl Hash for Bound {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.function.name.hash(state);
    }
}

impl ScalarUDFImpl for Bound {
    fn name(&self) -> &str {
        self.function.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> DataFusionResult<DataType> {
        Ok(self.function.returns.arrow())
    }

    fn return_field_from_args(&self, _arguments: ReturnFieldArgs) -> DataFusionResult<FieldRef> {
        Ok(Arc::new(Field::clone(&self.function.returns.field(self.function.name, true))))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let rows = arguments.number_rows;
        let scalar = arguments.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let rows = if scalar { 1 } else { rows };
        let columns = arguments
            .args
            .iter()
            .map(|argument| Ok(cells(&argument.to_array(rows)?)))
            .collect::<DataFusionResult<Vec<_>>>()?;
        let mut results = Vec::with_capacity(rows);
        for row in 0..rows {
            let values: Vec<Cell> = columns.iter().map(|column| column[row].clone()).collect();
            results.push(match self.function.strict && values.contains(&Cell::Null) {
                true => Cell::Null,
                false => (self.function.body)(&self.facts, &values)
                    .map_err(|error| DataFusionError::External(Box::new(error)))?,
            });
        }
        let result = array(&results, &self.function.returns);
        match scalar {
            true if result.is_empty() => Err(exec_datafusion_err!("a scalar function returned nothing")),
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?)),
            false => Ok(ColumnarValue::Array(result)),
        }
    }
}
