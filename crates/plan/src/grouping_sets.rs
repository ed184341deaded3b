//! GROUPING SETS, ROLLUP and CUBE of a view as one aggregate per set, and UNION ALL over them.
//!
//! Each set then closes by its windows and keeps its state as any aggregate does, and a set without columns has its one row
//! also over nothing, as PostgreSQL says. A plain SELECT is left to DataFusion. After analysis, which has made
//! `grouping(a)` an expression over the set's number.

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, Result, ScalarValue};
use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{Aggregate, Expr, GroupingSet, LogicalPlan, LogicalPlanBuilder, lit};
use millpond_functions::Registry;
use millpond_functions::error::into_datafusion;
use millpond_types::{SqlError, SqlState};

use crate::names;

/// As many as PostgreSQL allows.
const SETS_MAX: usize = 4096;

pub(crate) fn expand(plan: LogicalPlan) -> Result<LogicalPlan> {
    let expanded = plan.transform_up_with_subqueries(|plan| match plan {
        LogicalPlan::Aggregate(aggregate) => match &aggregate.group_expr[..] {
            [Expr::GroupingSet(set)] => union(&aggregate, &sets(set)?).map(Transformed::yes),
            _ => Ok(Transformed::no(LogicalPlan::Aggregate(aggregate))),
        },
        other => Ok(Transformed::no(other)),
    });
    expanded.map(|t| t.data)
}

fn sets(set: &GroupingSet) -> Result<Vec<Vec<Expr>>> {
    let bounded = |count: Option<usize>| match count {
        Some(count) if count <= SETS_MAX => Ok(count),
        _ => {
            let text = format!("too many grouping sets present (maximum {SETS_MAX})");
            Err(into_datafusion(SqlError::new(SqlState::new("54011"), text)))
        }
    };
    Ok(match set {
        GroupingSet::GroupingSets(sets) => {
            bounded(Some(sets.len()))?;
            sets.clone()
        }
        GroupingSet::Rollup(exprs) => {
            bounded(Some(exprs.len() + 1))?;
            (0..=exprs.len()).rev().map(|length| exprs[..length].to_vec()).collect()
        }
        GroupingSet::Cube(exprs) => {
            let count = bounded(u32::try_from(exprs.len()).ok().and_then(|n| 1usize.checked_shl(n)))?;
            let chosen = |bits: usize| exprs.iter().enumerate().filter(move |(at, _)| bits & (1 << at) == 0);
            (0..count).map(|bits| chosen(bits).map(|(_, e)| e.clone()).collect()).collect()
        }
    })
}

/// The columns of the aggregate: each expression that is grouped by, the set's number, the results.
fn union(aggregate: &Aggregate, sets: &[Vec<Expr>]) -> Result<LogicalPlan> {
    let grouped: Vec<Expr> = grouping_set_to_exprlist(&aggregate.group_expr)?.into_iter().cloned().collect();
    let place = |at: usize| names::distinct(&format!("g{at}"), 1);
    let number_type = aggregate.schema.field(grouped.len()).data_type();
    let mut union: Option<LogicalPlanBuilder> = None;
    for (at, set) in sets.iter().enumerate() {
        let chosen: Vec<Expr> = grouped.iter().filter(|e| set.contains(e)).cloned().collect();
        let mut calls = aggregate.aggr_expr.clone();
        if calls.is_empty() && chosen.is_empty() {
            // One row, of which nobody asks anything.
            let Some(count) = Registry::global().aggregate("count") else {
                return datafusion::common::internal_err!("there is no count");
            };
            calls.push(count.call(vec![lit(1i64)]));
        }
        let one = Aggregate::try_new(Arc::clone(&aggregate.input), chosen.clone(), calls)?;
        let columns = one.schema.columns();
        let mut outputs = Vec::with_capacity(aggregate.schema.fields().len());
        let mut number = 0u64;
        for (n, expr) in grouped.iter().enumerate() {
            number <<= 1;
            outputs.push(match chosen.iter().position(|e| e == expr) {
                Some(at) => Expr::Column(columns[at].clone()),
                None => {
                    number |= 1;
                    Expr::Literal(ScalarValue::try_from(aggregate.schema.field(n).data_type())?, None)
                }
            });
        }
        // Equal sets are told apart in the bits above.
        let before = sets[..at].iter().filter(|other| same(other, set)).count() as u64;
        let number = ScalarValue::UInt64(Some(number | before << grouped.len()));
        outputs.push(Expr::Literal(number.cast_to(number_type)?, None));
        let results = columns[chosen.len()..].iter().take(aggregate.aggr_expr.len());
        outputs.extend(results.cloned().map(Expr::Column));
        let named = outputs.into_iter().enumerate().map(|(at, e)| e.alias(place(at)));
        let set = LogicalPlanBuilder::from(LogicalPlan::Aggregate(one)).project(named)?;
        union = Some(match union {
            None => set,
            Some(union) => union.union(set.build()?)?,
        });
    }
    let Some(union) = union else {
        return datafusion::common::internal_err!("GROUPING SETS without a set");
    };
    let outputs = aggregate.schema.iter().enumerate().map(|(at, (qualifier, field))| {
        Expr::Column(Column::new_unqualified(place(at))).alias_qualified(qualifier.cloned(), field.name())
    });
    union.project(outputs)?.build()
}

fn same(a: &[Expr], b: &[Expr]) -> bool {
    a.iter().all(|e| b.contains(e)) && b.iter().all(|e| a.contains(e))
}
