//! The session's time zone in typed expressions.
//!
//! Everything is planned as if the zone were UTC. For another zone, what depends on it is found afterwards and told: casts
//! between timestamptz and what has no zone, and functions that look at a timestamptz by the calendar.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};
use millpond_types::SqlError;

use crate::cast;
use crate::error::into_datafusion;
use crate::text::zone::Zone;

/// The plan with every expression [`in_zone`]; names and types stay.
///
/// # Errors
/// As [`in_zone`].
pub fn plan_in_zone(plan: LogicalPlan, zone: Zone) -> Result<LogicalPlan> {
    if zone == Zone::UTC {
        return Ok(plan);
    }
    let node = |plan: LogicalPlan| {
        let mut schema = merge_schema(&plan.inputs());
        if let LogicalPlan::TableScan(scan) = &plan {
            schema
                .merge(&DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?);
        }
        let names = NamePreserver::new(&plan);
        let unnamed = matches!(plan, LogicalPlan::Values(_));
        plan.map_expressions(|expr| {
            let name = names.save(&expr);
            let zoned = expression(expr, &schema, zone)?;
            Ok(zoned.update_data(|expr| if unnamed { expr } else { name.restore(expr) }))
        })
    };
    plan.transform_up_with_subqueries(node).map(|transformed| transformed.data)
}

/// A typed expression, its columns in `schema`, as a session in `zone` means it.
///
/// # Errors
/// 0A000 for patterns and fields that tell the zone itself.
pub fn in_zone(expr: Expr, schema: &DFSchema, zone: Zone) -> Result<Expr> {
    if zone == Zone::UTC { Ok(expr) } else { expression(expr, schema, zone).map(|zoned| zoned.data) }
}

fn expression(expr: Expr, schema: &DFSchema, zone: Zone) -> Result<Transformed<Expr>> {
    expr.transform_up(|expr| match expr {
        Expr::ScalarFunction(call) => function(call, schema, zone),
        other => Ok(Transformed::no(other)),
    })
}

fn function(call: ScalarFunction, schema: &DFSchema, zone: Zone) -> Result<Transformed<Expr>> {
    let ScalarFunction { func, mut args } = call;
    if let Some(zoned) = cast::in_zone(&func, zone) {
        return Ok(Transformed::yes(zoned.call(args)));
    }
    let has_zone = |arg: Option<&Expr>| {
        arg.is_some_and(|arg| matches!(arg.get_type(schema), Ok(DataType::Timestamp(_, Some(_)))))
    };
    let name = Expr::Literal(ScalarValue::Utf8(Some(zone.spelled())), None);
    let registered = |function: &str| {
        crate::Registry::global()
            .scalar(function)
            .ok_or_else(|| into_datafusion(SqlError::internal(format!("there is no function {function}"))))
    };
    let local = |time: &mut Expr| {
        *time = registered("timezone")?.call(vec![name.clone(), time.clone()]);
        Ok::<_, datafusion::error::DataFusionError>(())
    };
    match func.name() {
        // It has read the text as if it were UTC.
        "to_timestamp" if args.len() == 2 => {
            let utc = Expr::Literal(ScalarValue::Utf8(Some("UTC".to_owned())), None);
            let zoned = registered("timezone")?;
            let local = zoned.call(vec![utc, func.call(args)]);
            return Ok(Transformed::yes(zoned.call(vec![name, local])));
        }
        "make_timestamptz" if args.len() == 6 => args.push(name),
        "generate_series" if args.len() == 3 && has_zone(args.first()) => args.push(name),
        "date_trunc" if args.len() == 2 && has_zone(args.get(1)) => args.push(name),
        "extract" | "date_part" if has_zone(args.get(1)) => {
            let field = literal_text(&args[0]).to_ascii_lowercase();
            match field.as_str() {
                "epoch" => return Ok(Transformed::no(func.call(args))),
                field if field.starts_with("timezone") => return Err(tells_zone(field)),
                _ => local(&mut args[1])?,
            }
        }
        "to_char" if has_zone(args.first()) => {
            let format = literal_text(&args[1]);
            if let Some(pattern) = ["TZ", "tz", "OF"].into_iter().find(|pattern| format.contains(pattern)) {
                return Err(tells_zone(pattern));
            }
            local(&mut args[0])?;
        }
        "age" if has_zone(args.first()) => args.iter_mut().try_for_each(local)?,
        sum @ ("checked_add" | "checked_subtract")
            if has_zone(args.first()) && !has_zone(args.get(1)) && !is_exact(&args[1]) =>
        {
            let moved = if sum == "checked_add" { "timestamptz_add" } else { "timestamptz_subtract" };
            args.push(name);
            return Ok(Transformed::yes(registered(moved)?.call(args)));
        }
        _ => return Ok(Transformed::no(func.call(args))),
    }
    Ok(Transformed::yes(func.call(args)))
}

fn literal_text(expr: &Expr) -> &str {
    match expr {
        Expr::Literal(ScalarValue::Utf8(Some(text)), _) => text,
        _ => "",
    }
}

/// An interval of hours, minutes and seconds is as long in every zone.
fn is_exact(span: &Expr) -> bool {
    matches!(span, Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(span)), _) if span.months == 0 && span.days == 0)
}

fn tells_zone(what: &str) -> datafusion::error::DataFusionError {
    let message =
        format!("\"{what}\" of a timestamp with time zone is not supported in a time zone other than UTC");
    into_datafusion(SqlError::unsupported(message).hint("Write x AT TIME ZONE 'zone' for the local time."))
}
