//! Functions that give a set of rows (PostgreSQL 15, chapters 9.16, 9.19 and 9.25).
//!
//! A [`SetFunction`] answers with one value per row that says what the rows are: a list, whose elements are the rows (of structs,
//! if a row has several columns), or a [`series`], which is counted when its rows are wanted. [`Expansion`] makes rows of such
//! values, a bounded number at a time; batch and views share it. In a select list the call stands inside [`rows_of`] until the plan
//! has an operator for it.

mod expansion;
mod json;
mod series;
mod text;

use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, ListArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use datafusion::common::Result;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use millpond_types::{SqlError, SqlType};

pub use self::expansion::{BYTES_PER_BATCH, Expansion, ROWS_PER_BATCH, Rows, slice_bytes};
use crate::error::{from_arrow, into_datafusion, no_function};
use crate::kernel::{Side, columnar};
use crate::scalar::sql_types;

type Arguments = fn(&[SqlType]) -> Option<Vec<SqlType>>;
type Returns = fn(&[SqlType], &[DataType]) -> DataType;
type Kernel = fn(&[Side], &DataType) -> std::result::Result<ArrayRef, SqlError>;

/// A row of the registry.
pub(crate) struct SetFunction {
    name: &'static str,
    /// The names of its result columns, where they do not follow the alias.
    columns: &'static [&'static str],
    arguments: Arguments,
    returns: Returns,
    kernel: Kernel,
    signature: Signature,
}

impl SetFunction {
    fn new(name: &'static str, arguments: Arguments, returns: Returns, kernel: Kernel) -> Self {
        let signature = Signature::user_defined(Volatility::Immutable);
        Self { name, columns: &[], arguments, returns, kernel, signature }
    }

    fn with_columns(mut self, columns: &'static [&'static str]) -> Self {
        self.columns = columns;
        self
    }
}

/// Functions by name, with the names of their columns.
type Functions = HashMap<&'static str, (Arc<ScalarUDF>, &'static [&'static str])>;

static FUNCTIONS: LazyLock<Functions> = LazyLock::new(|| {
    let unnest =
        SetFunction::new("unnest", one_array, |_, arrow| elements_of(&arrow[0]), |sides, _| flat(sides));
    let families = [vec![unnest], series::functions(), json::functions(), text::functions()];
    let one = |function: SetFunction| {
        let (name, columns) = (function.name, function.columns);
        (name, (Arc::new(ScalarUDF::new_from_impl(function)), columns))
    };
    families.into_iter().flatten().map(one).collect()
});

/// The function of that (lower-case) name: a scalar function whose answers [`Expansion`] makes rows of.
pub fn set_function(name: &str) -> Option<Arc<ScalarUDF>> {
    FUNCTIONS.get(name).map(|(function, _)| Arc::clone(function))
}

/// All names, sorted.
pub fn set_functions() -> Vec<&'static str> {
    let mut names: Vec<_> = FUNCTIONS.keys().copied().collect();
    names.sort_unstable();
    names
}

/// The names of a set function's result columns, where it has names for them.
pub fn column_names(name: &str) -> &'static [&'static str] {
    FUNCTIONS.get(name).map_or(&[], |(_, columns)| columns)
}

impl fmt::Debug for SetFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}
impl PartialEq for SetFunction {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}
impl Eq for SetFunction {}
impl Hash for SetFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for SetFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let wanted = (self.arguments)(&sql_types(types)?);
        let wanted = wanted.ok_or_else(|| into_datafusion(no_function(self.name, types)))?;
        Ok(wanted.iter().map(SqlType::arrow).collect())
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let named = sql_types(types)?;
        // Before coercion the types may be any.
        if (self.arguments)(&named).is_none() {
            return Err(into_datafusion(no_function(self.name, types)));
        }
        Ok((self.returns)(&named, types))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<DataType> = args.arg_fields.iter().map(|f| f.data_type().clone()).collect();
        Ok(Arc::new(Field::new(self.name, self.return_type(&types)?, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let mut sides = args.args.iter().map(Side::new).collect::<Result<Vec<_>>>()?;
        let constant = sides.iter().all(|side| side.constant);
        if !constant {
            for (side, value) in sides.iter_mut().zip(&args.args) {
                *side = Side { array: value.to_array(args.number_rows)?, constant: false };
            }
        }
        let array = (self.kernel)(&sides, args.return_field.data_type()).map_err(into_datafusion)?;
        columnar(array, constant)
    }
}

/// What a set's values say: the columns of its rows, each with its own field.
///
/// # Errors
/// XX000 if it is no answer of a set function.
pub fn columns_of(set: &DataType) -> std::result::Result<Vec<FieldRef>, SqlError> {
    match set {
        DataType::List(item) => match item.data_type() {
            DataType::Struct(fields) => Ok(fields.iter().cloned().collect()),
            _ => Ok(vec![Arc::clone(item)]),
        },
        DataType::Struct(fields) if series::is_series(fields) => Ok(vec![Arc::clone(&fields[0])]),
        other => Err(SqlError::internal(format!("{other} gives no rows"))),
    }
}

/// `items` as the type of a set.
fn list_of(ty: &SqlType) -> DataType {
    DataType::List(Arc::new(ty.field("item", true)))
}

/// Rows of several columns.
fn list_of_rows(columns: &[(&str, SqlType)]) -> DataType {
    let fields: Fields = columns.iter().map(|(name, ty)| ty.field(*name, true)).collect();
    DataType::List(Arc::new(Field::new("item", DataType::Struct(fields), true)))
}

fn one_array(types: &[SqlType]) -> Option<Vec<SqlType>> {
    matches!(types, [SqlType::Array(_)]).then(|| types.to_vec())
}

/// An array of arrays is one of all their elements.
fn elements_of(array: &DataType) -> DataType {
    match array {
        DataType::List(item) => match item.data_type() {
            inner @ DataType::List(_) => elements_of(inner),
            _ => array.clone(),
        },
        other => other.clone(),
    }
}

fn flat(sides: &[Side]) -> std::result::Result<ArrayRef, SqlError> {
    let mut array = Arc::clone(&sides[0].array);
    while let Some(outer) = array.as_list_opt::<i32>()
        && let Some(inner) = outer.values().as_list_opt::<i32>()
    {
        let DataType::List(item) = inner.data_type() else { break };
        let inside = inner.value_offsets();
        let offsets: Vec<i32> = outer.value_offsets().iter().map(|at| inside[*at as usize]).collect();
        let offsets = OffsetBuffer::new(offsets.into());
        let values = Arc::clone(inner.values());
        array = Arc::new(
            ListArray::try_new(Arc::clone(item), offsets, values, outer.nulls().cloned())
                .map_err(from_arrow)?,
        );
    }
    Ok(array)
}

/// The call of a set function in a select list: its type is that of one row.
pub fn rows_of() -> Arc<ScalarUDF> {
    static ROWS: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
        let signature = Signature::any(1, Volatility::Immutable);
        Arc::new(ScalarUDF::new_from_impl(RowsOf { signature }))
    });
    Arc::clone(&ROWS)
}

/// The set inside a call of [`rows_of`].
pub fn set_in(expr: &Expr) -> Option<&Expr> {
    match expr {
        Expr::ScalarFunction(call) if call.func.name() == ROWS_OF => call.args.first(),
        _ => None,
    }
}

const ROWS_OF: &str = "rows of";

#[derive(Debug, PartialEq, Eq, Hash)]
struct RowsOf {
    signature: Signature,
}

impl ScalarUDFImpl for RowsOf {
    fn name(&self) -> &str {
        ROWS_OF
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let columns = columns_of(&types[0]).map_err(into_datafusion)?;
        match &columns[..] {
            [one] => Ok(one.data_type().clone()),
            _ => Err(into_datafusion(
                SqlError::unsupported(
                    "a set-returning function of several columns in a select list is not supported",
                )
                .hint("Call it in FROM."),
            )),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let set = args.arg_fields[0].data_type();
        self.return_type(std::slice::from_ref(set))?;
        let columns = columns_of(set).map_err(into_datafusion)?;
        Ok(Arc::new(columns[0].as_ref().clone().with_name(self.name()).with_nullable(true)))
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(into_datafusion(SqlError::unsupported("set-returning functions are not allowed here")))
    }
}
