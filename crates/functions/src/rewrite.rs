//! From DataFusion's operators and casts to PostgreSQL's.
//!
//! Two steps. While SQL is planned, [`PostgresOperators`] (an [`ExprPlanner`]) resolves binary operators as PostgreSQL
//! does: `date - date`, `'5' + 1`, `text || 1`; the planner's ContextProvider returns it first from `get_expr_planners`.
//! After DataFusion's type coercion, [`rewrite_expr`] (or [`PostgresSemantics`] over a whole plan) replaces what is left
//! of arithmetic, unary minus and casts by checked kernels, and guards the right side of AND and OR where it may fail.

pub(crate) mod canonical;
mod json;
mod resolve;
mod zero;
mod zone;

use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{BinaryExpr, Case, FieldMetadata, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::utils::{conjunction, merge_schema, split_conjunction};
use datafusion::logical_expr::{
    Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Operator, ScalarUDF, lit,
};
use datafusion::optimizer::AnalyzerRule;
use millpond_types::SqlType;

use crate::cast::{self, CastContext, cast_array};
use crate::error::into_datafusion;
use crate::operator::{self, Operation};
pub use canonical::NAME as CANONICAL;
pub use zero::{NAME as ORDER_KEY, order_keys};
pub use zone::{in_zone, plan_in_zone};

/// Replaces arithmetic, unary minus and casts in a typed expression (all of its columns stand in `schema`) by kernels
/// with PostgreSQL's results and errors. Column names are the caller's business (see [`PostgresSemantics`]).
///
/// # Errors
/// A literal that its type refuses (22P02, 22007, ...), operands for which there is no operator (42883).
pub fn rewrite_expr(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_up(|expr| match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
            Ok(guard(*left, op, *right, schema))
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match Operation::of(op) {
            Some(operation) => {
                resolve::arithmetic(operation, *left, *right, schema).map(|resolved| match resolved {
                    Ok(call) => Transformed::yes(call),
                    Err((left, right)) => Transformed::no(Expr::BinaryExpr(BinaryExpr::new(
                        Box::new(left),
                        op,
                        Box::new(right),
                    ))),
                })
            }
            None => Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right }))),
        },
        Expr::Negative(operand) => negative(*operand, schema),
        // As they are executed: DataFusion's plan would say that they are never NULL, and its execution that they may be.
        Expr::IsTrue(x) => Ok(Transformed::yes(truth(x, Operator::IsNotDistinctFrom, true))),
        Expr::IsNotTrue(x) => Ok(Transformed::yes(truth(x, Operator::IsDistinctFrom, true))),
        Expr::IsFalse(x) => Ok(Transformed::yes(truth(x, Operator::IsNotDistinctFrom, false))),
        Expr::IsNotFalse(x) => Ok(Transformed::yes(truth(x, Operator::IsDistinctFrom, false))),
        Expr::IsUnknown(x) => Ok(Transformed::yes(Expr::IsNull(x))),
        Expr::IsNotUnknown(x) => Ok(Transformed::yes(Expr::IsNotNull(x))),
        Expr::Literal(value, metadata) => Ok(match without_negative_scale(&value) {
            Some(value) => Transformed::yes(Expr::Literal(value, metadata)),
            None => Transformed::no(Expr::Literal(value, metadata)),
        }),
        Expr::ScalarFunction(mut call) => {
            // `x = ANY (array)` is planned with a function that knows no third truth value.
            if call.func.name() == "array_has"
                && let Some(ours) = crate::Registry::global().scalar("array_has")
            {
                call.func = ours;
            }
            canonical::result(call, schema)
        }
        expr @ Expr::Cast(_) => {
            let expr = at_time_zone(expr);
            let Expr::Cast(cast) = expr else { return time_zone_call(expr, schema).map(Transformed::yes) };
            let to = SqlType::of(&cast.field).map_err(into_datafusion)?;
            cast_expr(*cast.expr, &to, schema).map(Transformed::yes)
        }
        other => Ok(Transformed::no(other)),
    })
}

/// The call that [`at_time_zone`] made comes after type coercion: its argument is brought to a type here.
fn time_zone_call(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let Expr::ScalarFunction(ScalarFunction { func, mut args }) = expr else { return Ok(expr) };
    let time = args
        .pop()
        .ok_or_else(|| into_datafusion(millpond_types::SqlError::internal("timezone lacks a time")))?;
    let to = match time.get_type(schema)? {
        DataType::Timestamp(_, None) => SqlType::Timestamp,
        _ => SqlType::Timestamptz,
    };
    args.push(cast_expr(time, &to, schema)?);
    Ok(func.call(args))
}

fn truth(operand: Box<Expr>, op: Operator, of: bool) -> Expr {
    Expr::BinaryExpr(BinaryExpr::new(operand, op, Box::new(lit(of))))
}

fn negative(operand: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let ty = operand.get_type(schema)?;
    if !operator::negatable(&ty) {
        return Ok(Transformed::no(Expr::Negative(Box::new(operand))));
    }
    Ok(Transformed::yes(operator::call_negate(operand)))
}

/// PostgreSQL evaluates from left to right and stops when the answer is known, so that `x <> 0 AND 10 / x > 1` never
/// divides by zero; DataFusion evaluates both sides over whole batches. The right side, if it may fail because of what a
/// row says, is therefore asked only where the left one leaves the answer open. The left side stays outside as well: it
/// can still be pushed down. (A CASE with an operand, because the simplifier turns one without into AND and OR.)
///
/// Conditions of a subquery that name the query around it become conditions of a join, and must stay what they are: they
/// neither guard nor are guarded.
fn guard(left: Expr, op: Operator, right: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let known = op == Operator::Or;
    let condition = match op {
        Operator::And => {
            conjunction(split_conjunction(&left).into_iter().filter(|e| !e.contains_outer()).cloned())
        }
        _ => Some(left.clone()),
    };
    let condition = condition.filter(|condition| {
        let of_the_row = !matches!(condition, Expr::Literal(..)) && !right.contains_outer();
        of_the_row && is_partial(&right, schema) && !matches!(right, Expr::Case(_))
    });
    let guarded = condition.is_none();
    let right = match condition {
        None => right,
        Some(condition) => Expr::Case(Case::new(
            Some(Box::new(condition)),
            vec![(Box::new(lit(known)), Box::new(lit(known)))],
            Some(Box::new(right)),
        )),
    };
    let whole = Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)));
    if guarded { Transformed::no(whole) } else { Transformed::yes(whole) }
}

/// Whether an expression divides, or casts to something that may refuse what it reads, or calls a function that is not
/// defined everywhere. What is constant does not depend on the row.
fn is_partial(expr: &Expr, schema: &DFSchema) -> bool {
    const PARTIAL: [&str; 23] = [
        "sqrt",
        "ln",
        "log",
        "log10",
        "power",
        "mod",
        "exp",
        "factorial",
        "gcd",
        "lcm",
        "width_bucket",
        "make_date",
        "make_time",
        "make_timestamp",
        "make_timestamptz",
        "make_interval",
        "to_date",
        "to_timestamp",
        "to_number",
        "chr",
        "decode",
        "jsonb_set",
        "jsonb_insert",
    ];
    let constant = |args: &[Expr]| {
        let reads = |e: &Expr| {
            matches!(
                e,
                Expr::Column(_)
                    | Expr::OuterReferenceColumn(..)
                    | Expr::Placeholder(_)
                    | Expr::ScalarSubquery(_)
            )
        };
        !args.iter().any(|arg| arg.exists(|e| Ok(reads(e))).unwrap_or(true))
    };
    expr.exists(|expr| {
        Ok(match expr {
            Expr::ScalarFunction(ScalarFunction { func, args }) => {
                let may_refuse = operator::is_division(func)
                    || (cast::is_partial(func) && !widens(func, args, schema))
                    || PARTIAL.contains(&func.name());
                may_refuse && !constant(args)
            }
            _ => false,
        })
    })
    .unwrap_or(false)
}

/// Whether a cast goes to a type that has every value of its operand's: of dates, every one before the year 294277.
fn widens(function: &ScalarUDF, args: &[Expr], schema: &DFSchema) -> bool {
    use DataType::{Date32, Float32, Float64, Int16, Int32, Int64, Timestamp};
    let (Some(Some(to)), Some(from)) = (utc_cast_target(function), args.first()) else { return false };
    let Ok(from) = from.get_type(schema) else { return false };
    matches!(
        (from, to.arrow()),
        (Date32, Timestamp(..))
            | (Int16, Int16 | Int32 | Int64 | Float32 | Float64)
            | (Int32, Int32 | Int64 | Float32 | Float64)
            | (Int64, Int64 | Float32 | Float64)
            | (Float32, Float32 | Float64)
            | (Float64, Float64)
    )
}

/// `expr` as `to`, by PostgreSQL's explicit cast; folded at once where `expr` is a literal.
///
/// # Errors
/// As [`rewrite_expr`]; 42846 where PostgreSQL has no such cast.
pub fn cast_expr(expr: Expr, to: &SqlType, schema: &DFSchema) -> Result<Expr> {
    convert(expr, to, schema, CastContext::Explicit)
}

/// The type that a cast gives: `None` if `function` is none, `Some(None)` if a time zone other than UTC has a say in it.
pub fn utc_cast_target(function: &ScalarUDF) -> Option<Option<&SqlType>> {
    cast::target(function)
}

/// As [`cast_expr`], for storing into a column: a text that is too long for varchar(n) is refused (22001), not cut.
pub fn assign_expr(expr: Expr, to: &SqlType, schema: &DFSchema) -> Result<Expr> {
    convert(expr, to, schema, CastContext::Assignment)
}

fn convert(expr: Expr, to: &SqlType, schema: &DFSchema, context: CastContext) -> Result<Expr> {
    if let Expr::Literal(value, metadata) = &expr {
        if let Some(from) = literal_type(value, metadata.as_ref())
            && !value.is_null()
            && cast::is_zoned(&from, to)
        {
            // The session's zone has a say in it.
            return Ok(cast::call(expr, to, context));
        }
        return fold(value, metadata.as_ref(), to, context);
    }
    let (_, field) = expr.to_field(schema)?;
    let from = SqlType::of(&field).map_err(into_datafusion)?;
    if from == *to && *field.data_type() == to.arrow() {
        return Ok(expr);
    }
    if let Expr::Placeholder(placeholder) = &expr
        && placeholder.field.is_none()
    {
        let mut placeholder = placeholder.clone();
        placeholder.field = Some(to.field(placeholder.id.clone(), true).into());
        return Ok(Expr::Placeholder(placeholder));
    }
    if !cast::can_cast(&from, to) && !field.data_type().is_null() {
        return Err(into_datafusion(cast::no_cast(&from, to)));
    }
    if is_exact(field.data_type(), &to.arrow()) && from.arrow() == *field.data_type() && unmarked(to) {
        return Ok(Expr::Cast(datafusion::logical_expr::Cast::new(Box::new(expr), to.arrow())));
    }
    Ok(cast::call(expr, to, context))
}

fn literal_type(value: &ScalarValue, metadata: Option<&FieldMetadata>) -> Option<SqlType> {
    let mut field = arrow::datatypes::Field::new("literal", value.data_type(), true);
    if let Some(metadata) = metadata {
        field = metadata.add_to_field(field);
    }
    SqlType::of(&field).ok()
}

/// Whether the Arrow type alone says which SQL type it is.
fn unmarked(ty: &SqlType) -> bool {
    SqlType::of_arrow(&ty.arrow()).as_ref() == Ok(ty)
}

/// Whether Arrow's own cast is the same as PostgreSQL's and cannot fail; DataFusion knows that one better.
fn is_exact(from: &DataType, to: &DataType) -> bool {
    use DataType::*;
    let digits = |ty: &DataType| match ty {
        Int16 => Some((5, 0)),
        Int32 => Some((10, 0)),
        Int64 => Some((19, 0)),
        _ => crate::numeric::shape_of(ty),
    };
    match (from, to) {
        (Null, _) => true,
        (Int16, Int32 | Int64 | Float32 | Float64) | (Int32, Int64 | Float64) => true,
        (Int64, Float64) | (Float32, Float64) => true,
        (Timestamp(a, x), Timestamp(b, y)) => a == b && x.is_some() == y.is_some(),
        (_, Decimal128(p, s) | Decimal256(p, s)) => {
            digits(from).is_some_and(|(q, t)| *s >= t && *p as i8 - *s >= q as i8 - t)
        }
        _ => false,
    }
}

/// A literal in another type.
fn fold(
    value: &ScalarValue,
    metadata: Option<&FieldMetadata>,
    to: &SqlType,
    context: CastContext,
) -> Result<Expr> {
    let plain = without_negative_scale(value);
    let value = plain.as_ref().unwrap_or(value);
    let mut field = arrow::datatypes::Field::new("literal", value.data_type(), true);
    if let Some(metadata) = metadata {
        field = metadata.add_to_field(field);
    }
    let from = SqlType::of(&field).map_err(into_datafusion)?;
    // DataFusion types integer literals as bigint, which has no cast to boolean; PostgreSQL's integer has.
    let (from, value) = match (value, to) {
        (ScalarValue::Int64(Some(v)), SqlType::Boolean) => {
            (SqlType::Int4, &ScalarValue::Int32(Some((*v != 0).into())))
        }
        _ => (from, value),
    };
    let array = match value {
        ScalarValue::Null => arrow::array::new_null_array(&to.arrow(), 1),
        value => cast_array(&value.to_array()?, &from, to, context).map_err(into_datafusion)?,
    };
    let target = to.field("literal", true);
    let metadata = (!target.metadata().is_empty()).then(|| FieldMetadata::new_from_field(&target));
    Ok(Expr::Literal(ScalarValue::try_from_array(&array, 0)?, metadata))
}

/// The analyzer rule that applies [`rewrite_expr`] to every expression of a plan, keeping output column names. It stands
/// directly after type coercion.
#[derive(Debug, Default)]
pub struct PostgresSemantics;

impl AnalyzerRule for PostgresSemantics {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(rewrite_node).map(|t| t.data)
    }

    fn name(&self) -> &str {
        "postgres_semantics"
    }
}

fn rewrite_node(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let mut schema = merge_schema(&plan.inputs());
    if let LogicalPlan::TableScan(scan) = &plan {
        schema.merge(&DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?);
    }
    let names = NamePreserver::new(&plan);
    let unnamed = matches!(plan, LogicalPlan::Values(_));
    plan.map_expressions(|expr| {
        let name = names.save(&expr);
        Ok(rewrite_expr(expr, &schema)?.update_data(|expr| if unnamed { expr } else { name.restore(expr) }))
    })?
    .map_data(retyped)
}

/// The node with the schema of its rewritten expressions. That of VALUES stays fixed in DataFusion, so it is built anew
/// where a literal changed its type.
fn retyped(plan: LogicalPlan) -> Result<LogicalPlan> {
    let LogicalPlan::Values(values) = &plan else { return plan.recompute_schema() };
    let changed = values.values.iter().any(|row| {
        let fits = |(expr, field): (&Expr, &arrow::datatypes::FieldRef)| match expr {
            Expr::Literal(value, _) => value.is_null() || value.data_type() == *field.data_type(),
            _ => true,
        };
        !row.iter().zip(values.schema.fields()).all(fits)
    });
    if changed { LogicalPlanBuilder::values(values.values.clone())?.build() } else { Ok(plan) }
}

/// Resolves binary operators as PostgreSQL does, while SQL is planned.
#[derive(Debug, Default)]
pub struct PostgresOperators;

impl ExprPlanner for PostgresOperators {
    fn plan_binary_op(&self, raw: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        resolve::binary(raw, schema)
    }

    fn plan_extract(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(registered("extract", args))
    }

    fn plan_substring(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(registered("substr", args))
    }

    fn plan_position(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(registered("strpos", args))
    }
}

/// The call of a function for which SQL has syntax of its own.
fn registered(name: &str, args: Vec<Expr>) -> PlannerResult<Vec<Expr>> {
    match crate::Registry::global().scalar(name) {
        Some(function) => PlannerResult::Planned(function.call(args)),
        None => PlannerResult::Original(args),
    }
}

/// `AT TIME ZONE 'z'` reaches us as a cast to a timestamp of that zone; no other cast names a zone but UTC's canonical
/// one. It becomes timezone('z', x).
pub(crate) fn at_time_zone(expr: Expr) -> Expr {
    let Expr::Cast(cast) = &expr else { return expr };
    match cast.field.data_type() {
        DataType::Timestamp(_, Some(zone)) if zone.as_ref() != millpond_types::sql_type::UTC => {
            let name = Expr::Literal(ScalarValue::Utf8(Some(zone.to_string())), None);
            match crate::Registry::global().scalar("timezone") {
                Some(function) => function.call(vec![name, cast.expr.as_ref().clone()]),
                None => expr,
            }
        }
        _ => expr,
    }
}

/// The type that PostgreSQL gives to a bare integer literal: integer where it fits, then bigint, then numeric; DataFusion
/// says bigint to all. For select lists, VALUES and arguments, where no operator decides.
pub fn postgres_literal(expr: Expr) -> Expr {
    match &expr {
        Expr::Literal(ScalarValue::Int64(Some(v)), None) => match i32::try_from(*v) {
            Ok(small) => Expr::Literal(ScalarValue::Int32(Some(small)), None),
            Err(_) => expr,
        },
        Expr::Literal(ScalarValue::UInt64(Some(v)), None) => {
            Expr::Literal(ScalarValue::Decimal128(Some(i128::from(*v)), 20, 0), None)
        }
        Expr::Literal(value, None) => match without_negative_scale(value) {
            Some(value) => Expr::Literal(value, None),
            None => expr,
        },
        _ => expr,
    }
}

/// Brings the results of every CASE in `expr` to the type that PostgreSQL gives it, for use before type coercion: DataFusion
/// makes numeric of `CASE WHEN a THEN double ELSE 0.5 END`. What shares no type is left for coercion to judge.
///
/// # Errors
/// A literal that the type refuses.
pub fn common_types(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_up(|expr| match expr {
        Expr::Case(case) => unify(case, schema),
        other => Ok(Transformed::no(other)),
    })
}

fn unify(case: Case, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let results = || case.when_then_expr.iter().map(|(_, then)| then).chain(case.else_expr.as_ref());
    let ty = |expr: &Expr| match expr {
        Expr::Literal(ScalarValue::Null | ScalarValue::Utf8(_), None) => Some(SqlType::Unknown),
        expr => expr.to_field(schema).ok().and_then(|(_, field)| SqlType::of(&field).ok()),
    };
    let types: Option<Vec<SqlType>> = results().map(|e| ty(&postgres_literal(e.as_ref().clone()))).collect();
    let shared = types.as_deref().and_then(crate::scalar::common::common_type);
    let shared = match (shared, types) {
        (Some(shared), Some(types)) if types.iter().any(|ty| *ty != shared) && shared != SqlType::Unknown => {
            shared
        }
        _ => return Ok(Transformed::no(Expr::Case(case))),
    };
    let one = |expr: Box<Expr>| cast_expr(postgres_literal(*expr), &shared, schema).map(Box::new);
    let whens = case.when_then_expr.into_iter().map(|(when, then)| Ok((when, one(then)?)));
    let whens = whens.collect::<Result<Vec<_>>>()?;
    let otherwise = case.else_expr.map(one).transpose()?;
    Ok(Transformed::yes(Expr::Case(Case::new(case.expr, whens, otherwise))))
}

/// DataFusion reads `1e10` as one digit at scale -10; PostgreSQL's numerics have no negative scale.
fn without_negative_scale(value: &ScalarValue) -> Option<ScalarValue> {
    use arrow::datatypes::i256;
    let (digits, precision, scale) = match value {
        ScalarValue::Decimal128(Some(v), p, s) => (i256::from_i128(*v), *p, *s),
        ScalarValue::Decimal256(Some(v), p, s) => (*v, *p, *s),
        _ => return None,
    };
    let precision = u8::try_from(i16::from(precision) - i16::from(scale)).ok()?;
    if scale >= 0 || precision > crate::numeric::PRECISION_MAX {
        return None;
    }
    let whole = digits.checked_mul(crate::text::number::power_of_ten(scale.unsigned_abs()))?;
    match whole.to_i128() {
        Some(small) if precision <= 38 => Some(ScalarValue::Decimal128(Some(small), precision, 0)),
        _ => Some(ScalarValue::Decimal256(Some(whole), precision, 0)),
    }
}
