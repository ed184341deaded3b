//! The joins that subqueries become.

use std::sync::Arc;

use datafusion::common::{JoinConstraint, JoinType, NullEquality, Result};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, ExprSchemable, Join, LogicalPlan};

/// What a row of one side and a row of the other have in common: an expression of each.
pub(super) struct Keys {
    pub(super) pairs: Vec<(Expr, Expr)>,
    /// A key that is NULL has no match, as `=` has it; else NULL is as good as any value.
    pub(super) strict: bool,
}

/// `left` and `right` where the keys are equal and `conditions` hold.
///
/// Keys that may be NULL on both sides are the join's own, so that they can be looked up; everything else is left for the
/// optimizer to take apart.
pub(super) fn join(
    left: LogicalPlan,
    right: LogicalPlan,
    kind: JoinType,
    keys: Keys,
    mut conditions: Vec<Expr>,
) -> Result<LogicalPlan> {
    let mut nullable = false;
    for (l, r) in &keys.pairs {
        nullable |= l.nullable(left.schema())? && r.nullable(right.schema())?;
    }
    let (on, null_equality) = match keys.strict || !nullable {
        true => (Vec::new(), NullEquality::NullEqualsNothing),
        false => (keys.pairs.clone(), NullEquality::NullEqualsNull),
    };
    if on.is_empty() {
        conditions.splice(0..0, keys.pairs.into_iter().map(|(l, r)| l.eq(r)));
    }
    let (left, right) = (Arc::new(left), Arc::new(right));
    let filter = conjunction(conditions);
    let join = Join::try_new(left, right, on, filter, kind, JoinConstraint::On, null_equality, false)?;
    Ok(LogicalPlan::Join(join))
}
