//! Scalar functions that DataFusion lacks or answers differently, one family per file.
//!
//! A [`Function`] is a row of the registry: a name, which arguments it takes (and as what), what it returns, and a kernel
//! over whole columns.

pub(crate) mod amount;
pub(crate) mod array;
pub(crate) mod clock;
pub(crate) mod common;
pub(crate) mod counting;
pub(crate) mod datetime;
pub(crate) mod field;
mod format;
pub(crate) mod introspect;
pub(crate) mod json;
mod json_set;
pub(crate) mod math;
pub(crate) mod pattern;
pub(crate) mod template;
mod template_read;
pub(crate) mod text;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::*;
use datafusion::common::{Result as DataFusionResult, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use millpond_types::{SqlError, SqlType};

use crate::error::{into_datafusion, no_function};
use crate::kernel::{Side, columnar, rows_of};

/// Whether equal arguments give equal results always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Immutable,
}

/// The types that arguments are brought to; `None` if there is no such function.
type Arguments = dyn Fn(&[SqlType]) -> Option<Vec<SqlType>> + Send + Sync;
/// The result's type, from the arguments' types and those of them that are literals.
type Returns = dyn Fn(&[SqlType], &[Option<&ScalarValue>]) -> SqlType + Send + Sync;
/// From columns to a column of the result's type.
type Kernel = fn(&[Side], &SqlType) -> Result<ArrayRef, SqlError>;

pub(crate) struct Function {
    name: &'static str,
    aliases: Vec<String>,
    arguments: Box<Arguments>,
    returns: Box<Returns>,
    kernel: Kernel,
    signature: Signature,
}

impl Function {
    pub(crate) fn new(
        name: &'static str,
        kind: Kind,
        arguments: impl Fn(&[SqlType]) -> Option<Vec<SqlType>> + Send + Sync + 'static,
        returns: impl Fn(&[SqlType]) -> SqlType + Send + Sync + 'static,
        kernel: Kernel,
    ) -> Self {
        let volatility = match kind {
            Kind::Immutable => Volatility::Immutable,
        };
        Self {
            name,
            aliases: Vec::new(),
            arguments: Box::new(arguments),
            returns: Box::new(move |types, _| returns(types)),
            kernel,
            signature: Signature::user_defined(volatility),
        }
    }

    pub(crate) fn alias(mut self, name: &str) -> Self {
        self.aliases.push(name.to_owned());
        self
    }

    /// Where the result's type depends on the value of a literal argument.
    pub(crate) fn returning(
        mut self,
        returns: impl Fn(&[SqlType], &[Option<&ScalarValue>]) -> SqlType + Send + Sync + 'static,
    ) -> Self {
        self.returns = Box::new(returns);
        self
    }

    pub(crate) fn udf(self) -> Arc<ScalarUDF> {
        Arc::new(ScalarUDF::new_from_impl(self))
    }
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}
impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}
impl Eq for Function {}
impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

/// The SQL types of arguments; one that nothing has typed is unknown.
pub(crate) fn sql_types(types: &[DataType]) -> DataFusionResult<Vec<SqlType>> {
    let one = |ty: &DataType| match ty {
        DataType::Null => Ok(SqlType::Unknown),
        ty => SqlType::of_arrow(ty).map(crate::numeric::plain).map_err(into_datafusion),
    };
    types.iter().map(one).collect()
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> DataFusionResult<Vec<DataType>> {
        let wanted = (self.arguments)(&sql_types(types)?);
        let wanted = wanted.ok_or_else(|| into_datafusion(no_function(self.name, types)))?;
        Ok(wanted.iter().map(SqlType::arrow).collect())
    }

    fn return_type(&self, types: &[DataType]) -> DataFusionResult<DataType> {
        let literals = vec![None; types.len()];
        Ok((self.returns)(&sql_types(types)?, &literals).arrow())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> DataFusionResult<FieldRef> {
        let types: Vec<DataType> = args.arg_fields.iter().map(|f| f.data_type().clone()).collect();
        let ty = (self.returns)(&sql_types(&types)?, args.scalar_arguments);
        Ok(Arc::new(ty.field(self.name, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let result = SqlType::of(&args.return_field).map_err(into_datafusion)?;
        let mut sides = args.args.iter().map(Side::new).collect::<DataFusionResult<Vec<_>>>()?;
        // Kernels look at their first argument as a column.
        if !sides.iter().all(|s| s.constant)
            && let Some(first) = sides.first_mut().filter(|first| first.constant)
        {
            let scalar = ScalarValue::try_from_array(&first.array, 0)?;
            *first = Side { array: scalar.to_array_of_size(args.number_rows)?, constant: false };
        }
        let array = (self.kernel)(&sides, &result).map_err(into_datafusion)?;
        columnar(array, sides.iter().all(|side| side.constant))
    }
}

/// Texts of an argument by row.
pub(crate) struct Texts<'a> {
    array: &'a StringArray,
    constant: bool,
}

impl<'a> Texts<'a> {
    pub(crate) fn of(side: &'a Side) -> Self {
        Self { array: side.array.as_string(), constant: side.constant }
    }

    pub(crate) fn get(&self, row: usize) -> Option<&'a str> {
        let row = if self.constant { 0 } else { row };
        self.array.is_valid(row).then(|| self.array.value(row))
    }
}

/// Values of an argument by row.
pub(crate) struct Values<'a, T: ArrowPrimitiveType> {
    array: &'a PrimitiveArray<T>,
    constant: bool,
}

impl<'a, T: ArrowPrimitiveType> Values<'a, T> {
    pub(crate) fn of(side: &'a Side) -> Self {
        Self { array: side.array.as_primitive(), constant: side.constant }
    }

    pub(crate) fn get(&self, row: usize) -> Option<T::Native> {
        let row = if self.constant { 0 } else { row };
        self.array.is_valid(row).then(|| self.array.value(row))
    }
}

/// A text per row, written by `write`; `false` is NULL.
pub(crate) fn texts(
    sides: &[Side],
    mut write: impl FnMut(usize, &mut String) -> Result<bool, SqlError>,
) -> Result<ArrayRef, SqlError> {
    let rows = rows_of(&sides.iter().collect::<Vec<_>>());
    let mut builder = StringBuilder::with_capacity(rows, rows * 8);
    let mut text = String::new();
    for row in 0..rows {
        text.clear();
        if !write(row, &mut text)? {
            builder.append_null();
            continue;
        }
        if builder.values_slice().len() + text.len() > i32::MAX as usize {
            return Err(crate::text::too_long());
        }
        builder.append_value(&text);
    }
    Ok(Arc::new(builder.finish()))
}

/// The rows of a kernel.
pub(crate) fn rows(sides: &[Side]) -> usize {
    rows_of(&sides.iter().collect::<Vec<_>>())
}

/// Exactly these types; texts are taken for anything (they may be untyped literals, which DataFusion types as text).
pub(crate) fn exactly(
    wanted: &'static [SqlType],
) -> impl Fn(&[SqlType]) -> Option<Vec<SqlType>> + Send + Sync + 'static {
    move |types| {
        let fits =
            types.len() == wanted.len() && types.iter().zip(wanted).all(|(ty, want)| assignable(ty, want));
        fits.then(|| wanted.to_vec())
    }
}

/// PostgreSQL's implicit casts, as far as functions need them.
pub(crate) fn assignable(from: &SqlType, to: &SqlType) -> bool {
    use SqlType::*;
    match (from, to) {
        (a, b) if a == b => true,
        (Unknown | Text, _) => true,
        (Varchar(_) | Char(_) | Name, Text) => true,
        (Int2, Int4 | Int8) | (Int4, Int8) => true,
        (Int8, Int4) => true, // DataFusion types integer literals as bigint
        (Int2 | Int4 | Int8 | Float4 | Numeric(..), Float8) => true,
        (Date, Timestamp | Timestamptz) | (Timestamp, Timestamptz) => true,
        _ => false,
    }
}

/// All functions of ours, one by one.
pub(crate) fn functions() -> Vec<Arc<ScalarUDF>> {
    let mut all: Vec<Arc<ScalarUDF>> = Vec::new();
    let families = [
        math::functions(),
        datetime::functions(),
        text::functions(),
        format::functions(),
        json::functions(),
        json_set::functions(),
        array::functions(),
        counting::functions(),
        pattern::functions(),
        crate::window::function::functions(),
    ];
    all.extend(families.into_iter().flatten().map(Function::udf));
    all.extend(clock::functions());
    all.extend(common::functions());
    all.extend(json::builders());
    all.extend(introspect::functions());
    all
}
