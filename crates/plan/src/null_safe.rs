//! Joins whose keys let NULL equal NULL, and rules of DataFusion that take them for others.
//!
//! Subqueries become such joins. `ExtractEquijoinPredicate` would add the equalities of the condition to the keys, and
//! `EliminateCrossJoin` takes inner joins apart and puts all of them together as the uppermost says.

use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{JoinType, NullEquality, Result};
use datafusion::logical_expr::{Join, LogicalPlan};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

/// A rule for the plans that it is right for.
#[derive(Debug)]
pub(crate) struct Guarded<R> {
    pub(crate) rule: R,
    pub(crate) applies: fn(&LogicalPlan) -> bool,
}

impl<R: OptimizerRule> OptimizerRule for Guarded<R> {
    fn name(&self) -> &str {
        self.rule.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.rule.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        match (self.applies)(&plan) {
            true => self.rule.rewrite(plan, config),
            false => Ok(Transformed::no(plan)),
        }
    }
}

fn is_null_safe(join: &Join) -> bool {
    join.null_equality == NullEquality::NullEqualsNull && !join.on.is_empty()
}

/// The node is no join with such keys.
pub(crate) fn has_no_such_keys(node: &LogicalPlan) -> bool {
    !matches!(node, LogicalPlan::Join(join) if is_null_safe(join))
}

/// No inner join of the plan has such keys.
pub(crate) fn has_no_inner_join(plan: &LogicalPlan) -> bool {
    let mut found = false;
    let walk = plan.apply_with_subqueries(|node| {
        found |= matches!(node, LogicalPlan::Join(join) if join.join_type == JoinType::Inner && is_null_safe(join));
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    debug_assert!(walk.is_ok(), "walking a plan cannot fail");
    !found
}
