//! Functions of json and jsonb (PostgreSQL 15, chapter 9.16), and those that stand behind their operators.

use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::*;
use datafusion::common::Result as DataFusionResult;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use millpond_types::{SqlError, SqlState, SqlType};

use super::{Function, Kind, Texts, Values, assignable, exactly, rows, texts};
use crate::error::into_datafusion;
use crate::kernel::{Side, columnar};
use crate::text::Formatter;
use crate::text::json::{check, normal_form};
use crate::text::json_path::{self, Kind as Json};

pub(crate) fn functions() -> Vec<Function> {
    use SqlType::*;
    static KEYED: [SqlType; 2] = [Text, Text];
    static PLACED: [SqlType; 2] = [Text, Int8];
    static ONE: [SqlType; 1] = [Text];
    let new = |name, arguments: &'static [SqlType], returns: SqlType, kernel| {
        Function::new(name, Kind::Immutable, exactly(arguments), move |_| returns.clone(), kernel)
    };
    let along = |name, returns: SqlType, kernel| {
        Function::new(name, Kind::Immutable, path_arguments, move |_| returns.clone(), kernel)
    };
    let keys = |name, kernel| Function::new(name, Kind::Immutable, path_arguments, |_| Boolean, kernel);
    vec![
        new("json_object_field", &KEYED, Json, |s, ty| part(s, ty, keyed)),
        new("jsonb_object_field", &KEYED, Jsonb, |s, ty| part(s, ty, keyed)),
        new("json_object_field_text", &KEYED, Text, |s, ty| part(s, ty, keyed)),
        new("jsonb_object_field_text", &KEYED, Text, |s, ty| part(s, ty, keyed)),
        new("json_array_element", &PLACED, Json, |s, ty| part(s, ty, placed)),
        new("jsonb_array_element", &PLACED, Jsonb, |s, ty| part(s, ty, placed)),
        new("json_array_element_text", &PLACED, Text, |s, ty| part(s, ty, placed)),
        new("jsonb_array_element_text", &PLACED, Text, |s, ty| part(s, ty, placed)),
        along("json_path", Json, |s, ty| part(s, ty, pathed)),
        along("jsonb_path", Jsonb, |s, ty| part(s, ty, pathed)),
        along("json_path_text", Text, |s, ty| part(s, ty, pathed)),
        along("jsonb_path_text", Text, |s, ty| part(s, ty, pathed)),
        Function::new("json_extract_path", Kind::Immutable, variadic, |_| Json, |s, ty| part(s, ty, spread)),
        Function::new(
            "jsonb_extract_path",
            Kind::Immutable,
            variadic,
            |_| Jsonb,
            |s, ty| part(s, ty, spread),
        ),
        Function::new(
            "json_extract_path_text",
            Kind::Immutable,
            variadic,
            |_| Text,
            |s, ty| part(s, ty, spread),
        ),
        Function::new(
            "jsonb_extract_path_text",
            Kind::Immutable,
            variadic,
            |_| Text,
            |s, ty| part(s, ty, spread),
        ),
        new("json_typeof", &ONE, Text, |s, _| type_of(s)),
        new("jsonb_typeof", &ONE, Text, |s, _| type_of(s)),
        new("json_array_length", &ONE, Int4, |s, _| array_length(s)),
        new("jsonb_array_length", &ONE, Int4, |s, _| array_length(s)),
        new("jsonb_contains", &KEYED, Boolean, |s, _| truth(s, json_path::contains)),
        new("jsonb_contained", &KEYED, Boolean, |s, _| truth(s, |a, b| json_path::contains(b, a))),
        new("jsonb_exists", &KEYED, Boolean, |s, _| truth(s, exists)),
        keys("jsonb_exists_any", |s, _| exist(s, false)),
        keys("jsonb_exists_all", |s, _| exist(s, true)),
        new("jsonb_concat", &KEYED, Jsonb, |s, _| concat(s)),
        new("jsonb_delete", &KEYED, Jsonb, |s, _| delete_key(s)),
        new("jsonb_delete_element", &PLACED, Jsonb, |s, _| delete_element(s)),
        new("jsonb_strip_nulls", &ONE, Jsonb, |s, _| each(s, strip_nulls)),
        new("jsonb_pretty", &ONE, Text, |s, _| each(s, |text, out| pretty(text, 0, out))),
    ]
}

/// `(json, text[])`
fn path_arguments(types: &[SqlType]) -> Option<Vec<SqlType>> {
    let [json, SqlType::Array(element)] = types else { return None };
    let fits = assignable(json, &SqlType::Text) && assignable(element, &SqlType::Text);
    fits.then(|| vec![SqlType::Text, SqlType::Array(Box::new(SqlType::Text))])
}

/// `(json, text, …)`
fn variadic(types: &[SqlType]) -> Option<Vec<SqlType>> {
    let fits = types.len() >= 2 && types.iter().all(|ty| assignable(ty, &SqlType::Text));
    fits.then(|| vec![SqlType::Text; types.len()])
}

/// A step from a value into it, for one row; `None` is NULL.
type Step = for<'a> fn(&'a str, &[Side], usize) -> Result<Option<&'a str>, SqlError>;

fn keyed<'a>(text: &'a str, sides: &[Side], row: usize) -> Result<Option<&'a str>, SqlError> {
    Texts::of(&sides[1]).get(row).map_or(Ok(None), |key| json_path::field(text, key))
}

fn placed<'a>(text: &'a str, sides: &[Side], row: usize) -> Result<Option<&'a str>, SqlError> {
    Values::<Int64Type>::of(&sides[1]).get(row).map_or(Ok(None), |place| json_path::element(text, place))
}

fn pathed<'a>(text: &'a str, sides: &[Side], row: usize) -> Result<Option<&'a str>, SqlError> {
    match list(&sides[1], row) {
        Some(path) => json_path::along(text, &path.iter().collect::<Vec<_>>()),
        None => Ok(None),
    }
}

fn spread<'a>(text: &'a str, sides: &[Side], row: usize) -> Result<Option<&'a str>, SqlError> {
    let path: Vec<_> = sides[1..].iter().map(|side| Texts::of(side).get(row)).collect();
    json_path::along(text, &path)
}

fn list(side: &Side, row: usize) -> Option<StringArray> {
    let (array, row) = (side.array.as_list::<i32>(), if side.constant { 0 } else { row });
    array.is_valid(row).then(|| array.value(row).as_string::<i32>().clone())
}

/// A part of each value: as it stands for json, in normal form for jsonb, unquoted for text.
fn part(sides: &[Side], result: &SqlType, step: Step) -> Result<ArrayRef, SqlError> {
    let values = Texts::of(&sides[0]);
    texts(sides, |row, out| {
        let Some(found) = values.get(row).map_or(Ok(None), |text| step(text, sides, row))? else {
            return Ok(false);
        };
        match result {
            SqlType::Json => out.push_str(found.trim()),
            SqlType::Jsonb => out.push_str(&normal_form(found)?),
            _ => match json_path::as_text(found)? {
                Some(text) => out.push_str(&text),
                None => return Ok(false),
            },
        }
        Ok(true)
    })
}

fn type_of(sides: &[Side]) -> Result<ArrayRef, SqlError> {
    each(sides, |text, out| {
        out.push_str(json_path::kind(text)?.name());
        Ok(())
    })
}

fn each(
    sides: &[Side],
    write: impl Fn(&str, &mut String) -> Result<(), SqlError>,
) -> Result<ArrayRef, SqlError> {
    let values = Texts::of(&sides[0]);
    texts(sides, |row, out| match values.get(row) {
        // A literal may be anything.
        Some(text) => check(text).and_then(|()| write(text, out)).map(|()| true),
        None => Ok(false),
    })
}

fn array_length(sides: &[Side]) -> Result<ArrayRef, SqlError> {
    let values = Texts::of(&sides[0]);
    let mut builder = Int32Builder::with_capacity(rows(sides));
    for row in 0..rows(sides) {
        let length = values.get(row).map(|text| match json_path::elements(text)? {
            Some(elements) => Ok(elements.len() as i32),
            None => Err(SqlError::new(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("cannot get array length of a {}", not_an_array(text)?),
            )),
        });
        builder.append_option(length.transpose()?);
    }
    Ok(Arc::new(builder.finish()))
}

fn not_an_array(text: &str) -> Result<&'static str, SqlError> {
    Ok(if json_path::kind(text)? == Json::Object { "non-array" } else { "scalar" })
}

fn truth(sides: &[Side], test: impl Fn(&str, &str) -> Result<bool, SqlError>) -> Result<ArrayRef, SqlError> {
    let (left, right) = (Texts::of(&sides[0]), Texts::of(&sides[1]));
    let mut builder = BooleanBuilder::with_capacity(rows(sides));
    for row in 0..rows(sides) {
        let found = match (left.get(row), right.get(row)) {
            (Some(left), Some(right)) => Some(test(left, right)?),
            _ => None,
        };
        builder.append_option(found);
    }
    Ok(Arc::new(builder.finish()))
}

/// A key of an object, or a string among the elements of an array, or that string itself.
fn exists(text: &str, key: &str) -> Result<bool, SqlError> {
    Ok(match json_path::kind(text)? {
        Json::Object => json_path::field(text, key)?.is_some(),
        Json::Array => {
            json_path::elements(text)?.unwrap_or_default().iter().any(|value| is_string(value, key))
        }
        _ => is_string(text, key),
    })
}

fn is_string(value: &str, string: &str) -> bool {
    matches!(json_path::kind(value), Ok(Json::String)) && json_path::unquoted(value) == string
}

fn exist(sides: &[Side], all: bool) -> Result<ArrayRef, SqlError> {
    let values = Texts::of(&sides[0]);
    let mut builder = BooleanBuilder::with_capacity(rows(sides));
    for row in 0..rows(sides) {
        let (Some(text), Some(keys)) = (values.get(row), list(&sides[1], row)) else {
            builder.append_null();
            continue;
        };
        let mut found = all;
        for key in keys.iter().flatten() {
            if exists(text, key)? != all {
                found = !all;
                break;
            }
        }
        builder.append_value(found);
    }
    Ok(Arc::new(builder.finish()))
}

/// Objects are merged, anything else is put together as arrays.
fn concat(sides: &[Side]) -> Result<ArrayRef, SqlError> {
    let (left, right) = (Texts::of(&sides[0]), Texts::of(&sides[1]));
    texts(sides, |row, out| {
        let (Some(left), Some(right)) = (left.get(row), right.get(row)) else { return Ok(false) };
        let joined = match (json_path::members(left)?, json_path::members(right)?) {
            // In normal form the last of equal keys stays.
            (Some(a), Some(b)) => {
                let members: Vec<String> =
                    a.iter().chain(&b).map(|(key, value)| format!("{key}:{value}")).collect();
                format!("{{{}}}", members.join(","))
            }
            _ => {
                let inside = |text: &str| {
                    Ok::<_, SqlError>(match json_path::elements(text)? {
                        Some(elements) => elements.join(","),
                        None => text.to_owned(),
                    })
                };
                let parts = [inside(left)?, inside(right)?];
                let parts: Vec<&str> =
                    parts.iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
                format!("[{}]", parts.join(","))
            }
        };
        out.push_str(&normal_form(&joined)?);
        Ok(true)
    })
}

fn delete_key(sides: &[Side]) -> Result<ArrayRef, SqlError> {
    let (values, keys) = (Texts::of(&sides[0]), Texts::of(&sides[1]));
    texts(sides, |row, out| {
        let (Some(text), Some(key)) = (values.get(row), keys.get(row)) else { return Ok(false) };
        let rest = match (json_path::members(text)?, json_path::elements(text)?) {
            (Some(members), _) => {
                let kept = members.iter().filter(|(quoted, _)| json_path::unquoted(quoted) != key);
                let kept: Vec<String> = kept.map(|(key, value)| format!("{key}:{value}")).collect();
                format!("{{{}}}", kept.join(","))
            }
            (None, Some(elements)) => {
                let kept: Vec<&str> = elements.into_iter().filter(|value| !is_string(value, key)).collect();
                format!("[{}]", kept.join(","))
            }
            (None, None) => {
                return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, "cannot delete from scalar"));
            }
        };
        out.push_str(&normal_form(&rest)?);
        Ok(true)
    })
}

fn delete_element(sides: &[Side]) -> Result<ArrayRef, SqlError> {
    let (values, places) = (Texts::of(&sides[0]), Values::<Int64Type>::of(&sides[1]));
    texts(sides, |row, out| {
        let (Some(text), Some(place)) = (values.get(row), places.get(row)) else { return Ok(false) };
        let Some(mut elements) = json_path::elements(text)? else {
            let what = if json_path::kind(text)? == Json::Object {
                "cannot delete from object using integer index"
            } else {
                "cannot delete from scalar"
            };
            return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, what));
        };
        let place = if place < 0 { place + elements.len() as i64 } else { place };
        if let Some(place) = usize::try_from(place).ok().filter(|place| *place < elements.len()) {
            elements.remove(place);
        }
        out.push_str(&normal_form(&format!("[{}]", elements.join(",")))?);
        Ok(true)
    })
}

/// Members whose value is null are left out, at every depth; elements of arrays stay.
fn strip_nulls(text: &str, out: &mut String) -> Result<(), SqlError> {
    if let Some(members) = json_path::members(text)? {
        out.push('{');
        let kept = members.into_iter().filter(|(_, value)| !matches!(json_path::kind(value), Ok(Json::Null)));
        for (i, (key, value)) in kept.enumerate() {
            out.push_str(if i > 0 { ", " } else { "" });
            out.push_str(key);
            out.push_str(": ");
            strip_nulls(value, out)?;
        }
        out.push('}');
    } else if let Some(elements) = json_path::elements(text)? {
        out.push('[');
        for (i, value) in elements.into_iter().enumerate() {
            out.push_str(if i > 0 { ", " } else { "" });
            strip_nulls(value, out)?;
        }
        out.push(']');
    } else {
        out.push_str(text.trim());
    }
    Ok(())
}

fn pretty(text: &str, depth: usize, out: &mut String) -> Result<(), SqlError> {
    let line = |depth: usize, out: &mut String| {
        out.push('\n');
        out.extend(std::iter::repeat_n("    ", depth));
    };
    if let Some(members) = json_path::members(text)? {
        out.push('{');
        for (i, (key, value)) in members.iter().enumerate() {
            out.push_str(if i > 0 { "," } else { "" });
            line(depth + 1, out);
            out.push_str(key);
            out.push_str(": ");
            pretty(value, depth + 1, out)?;
        }
        line(depth, out);
        out.push('}');
    } else if let Some(elements) = json_path::elements(text)? {
        out.push('[');
        for (i, value) in elements.iter().enumerate() {
            out.push_str(if i > 0 { "," } else { "" });
            line(depth + 1, out);
            pretty(value, depth + 1, out)?;
        }
        line(depth, out);
        out.push(']');
    } else {
        out.push_str(text.trim());
    }
    Ok(())
}

/// What is built of values of any type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Shape {
    /// `to_jsonb(x)`
    Value,
    /// `jsonb_build_array(x, …)`
    Array,
    /// `jsonb_build_object(key, value, …)`
    Object,
}

/// Functions that look at the SQL types of their arguments, which Arrow's types do not say.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Build {
    name: &'static str,
    shape: Shape,
    result: SqlType,
    signature: Signature,
}

pub(crate) fn builders() -> Vec<Arc<ScalarUDF>> {
    let build = |name, shape, result| {
        let arguments = match shape {
            Shape::Value => Signature::any(1, Volatility::Immutable),
            _ => Signature::one_of(
                vec![
                    datafusion::logical_expr::TypeSignature::Nullary,
                    datafusion::logical_expr::TypeSignature::VariadicAny,
                ],
                Volatility::Immutable,
            ),
        };
        Arc::new(ScalarUDF::new_from_impl(Build { name, shape, result, signature: arguments }))
    };
    vec![
        build("to_json", Shape::Value, SqlType::Json),
        build("to_jsonb", Shape::Value, SqlType::Jsonb),
        build("json_build_array", Shape::Array, SqlType::Json),
        build("jsonb_build_array", Shape::Array, SqlType::Jsonb),
        build("json_build_object", Shape::Object, SqlType::Json),
        build("jsonb_build_object", Shape::Object, SqlType::Jsonb),
    ]
}

impl ScalarUDFImpl for Build {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> DataFusionResult<DataType> {
        Ok(self.result.arrow())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> DataFusionResult<FieldRef> {
        if self.shape == Shape::Object && args.arg_fields.len() % 2 == 1 {
            return Err(into_datafusion(
                SqlError::new(
                    SqlState::INVALID_PARAMETER_VALUE,
                    "argument list must have even number of elements",
                )
                .hint(format!(
                    "The arguments of {}() must consist of alternating keys and values.",
                    self.name
                )),
            ));
        }
        Ok(Arc::new(self.result.field(self.name, self.shape == Shape::Value)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let mut writers = Vec::with_capacity(args.args.len());
        for (value, field) in args.args.iter().zip(&args.arg_fields) {
            let ty = if field.data_type().is_null() {
                SqlType::Text
            } else {
                SqlType::of(field).map_err(into_datafusion)?
            };
            let array = value.clone().into_array(rows)?;
            writers.push(Writer::new(&array, &ty).map_err(into_datafusion)?);
        }
        let mut builder = StringBuilder::with_capacity(rows, rows * 16);
        for row in 0..rows {
            match self.write(&writers, row).map_err(into_datafusion)? {
                Some(text) => builder.append_value(text),
                None => builder.append_null(),
            }
        }
        columnar(Arc::new(builder.finish()), constant)
    }
}

impl Build {
    fn write(&self, writers: &[Writer], row: usize) -> Result<Option<String>, SqlError> {
        let mut out = String::new();
        match self.shape {
            Shape::Value => {
                if writers[0].is_null(row) {
                    return Ok(None);
                }
                writers[0].write(row, &mut out);
            }
            Shape::Array => {
                out.push('[');
                for (i, writer) in writers.iter().enumerate() {
                    out.push_str(if i > 0 { ", " } else { "" });
                    writer.write(row, &mut out);
                }
                out.push(']');
            }
            Shape::Object => {
                out.push('{');
                for (i, pair) in writers.chunks(2).enumerate() {
                    out.push_str(if i > 0 { ", " } else { "" });
                    let Some(key) = pair[0].key(row) else {
                        return Err(SqlError::new(
                            SqlState::INVALID_PARAMETER_VALUE,
                            format!("argument {}: key must not be null", 2 * i + 1),
                        ));
                    };
                    json_path::quote(&key, &mut out);
                    out.push_str(if self.result == SqlType::Json { " : " } else { ": " });
                    pair[1].write(row, &mut out);
                }
                out.push('}');
            }
        }
        if self.result == SqlType::Jsonb { normal_form(&out).map(Some) } else { Ok(Some(out)) }
    }
}

/// Writes the values of one column as JSON.
pub(crate) struct Writer {
    formatter: Formatter,
    ty: SqlType,
    /// Of an array: the lists, and how their elements are written.
    list: Option<(ListArray, Box<Writer>)>,
}

impl Writer {
    pub(crate) fn new(array: &ArrayRef, ty: &SqlType) -> Result<Self, SqlError> {
        let list = match ty {
            SqlType::Array(element) => {
                let list = array.as_list::<i32>().clone();
                let elements = Self::new(list.values(), element)?;
                Some((list, Box::new(elements)))
            }
            _ => None,
        };
        Ok(Self { formatter: Formatter::new(array, ty)?, ty: ty.clone(), list })
    }

    fn is_null(&self, row: usize) -> bool {
        self.formatter.is_null(row)
    }

    fn text(&self, row: usize) -> Option<String> {
        self.formatter.text(row)
    }

    /// A value where a key stands.
    pub(crate) fn key(&self, row: usize) -> Option<String> {
        let text = self.text(row)?;
        Some(match (&self.ty, text.as_str()) {
            (SqlType::Boolean, "t") => "true".to_owned(),
            (SqlType::Boolean, _) => "false".to_owned(),
            _ => text,
        })
    }

    pub(crate) fn write(&self, row: usize, out: &mut String) {
        let Some(text) = self.text(row) else { return out.push_str("null") };
        match (&self.ty, &self.list) {
            (_, Some((list, elements))) => {
                let offsets = list.value_offsets();
                out.push('[');
                for (i, at) in (offsets[row] as usize..offsets[row + 1] as usize).enumerate() {
                    out.push_str(if i > 0 { ", " } else { "" });
                    elements.write(at, out);
                }
                out.push(']');
            }
            (SqlType::Boolean, _) => out.push_str(if text == "t" { "true" } else { "false" }),
            (SqlType::Json | SqlType::Jsonb, _) => out.push_str(&text),
            (SqlType::Int2 | SqlType::Int4 | SqlType::Int8 | SqlType::Oid, _) => out.push_str(&text),
            (SqlType::Float4 | SqlType::Float8 | SqlType::Numeric(..), _) if !text.contains(['N', 'I']) => {
                out.push_str(&text);
            }
            // ISO 8601, with a T.
            (SqlType::Timestamp, _) => json_path::quote(&text.replacen(' ', "T", 1), out),
            (SqlType::Timestamptz, _) => json_path::quote(&format!("{}:00", text.replacen(' ', "T", 1)), out),
            _ => json_path::quote(&text, out),
        }
    }
}
