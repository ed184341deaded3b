//! ASOF joins.

use arrow::datatypes::Field;
use datafusion::logical_expr::{self as logical, Expr};
use millpond_types::SqlError;

use super::lower::{Facts, Lowering, Pending, column, over};
use super::{Asof, Operator};
use crate::asof::AsofJoin;

impl Lowering {
    pub(super) fn asof(&mut self, join: &AsofJoin) -> Result<Pending, SqlError> {
        if self.options.emit_on_close {
            return Err(SqlError::unsupported(
                "EMIT ON WINDOW CLOSE: a watermark does not pass an ASOF join",
            )
            .hint("Leave EMIT out."));
        }
        let mut left = self.lower(&join.left, false)?;
        let mut right = self.lower(&join.right, false)?;
        let bound = |exprs: &mut dyn Iterator<Item = &Expr>, plan: &logical::LogicalPlan, input: &Pending| {
            exprs
                .map(|e| over(e, plan.schema(), &input.columns).map(|e| (super::text::shown(&e), e)))
                .collect::<Result<Vec<_>, SqlError>>()
        };
        let pairs = || join.keys.iter().chain([&join.times]);
        let left_keys = bound(&mut pairs().map(|pair| &pair.0), &join.left, &left)?;
        let right_keys = bound(&mut pairs().map(|pair| &pair.1), &join.right, &right)?;
        // What lacks a key or a time has no match, and is none.
        require(&mut right, &right_keys);
        if !join.outer {
            require(&mut left, &left_keys);
        }
        let names: Vec<String> =
            left.columns.iter().chain(&right.columns).map(|(name, _)| name.clone()).collect();
        let sides = [self.side(left, left_keys)?, self.side(right, right_keys)?];
        let pair = self.pair(&sides);
        let width = self.nodes[sides[0].node].schema.fields().len();
        let given: Vec<usize> =
            sides[0].columns.iter().copied().chain(sides[1].columns.iter().map(|c| width + c)).collect();
        let mut output = Vec::new();
        for at in &given {
            if !output.contains(at) {
                output.push(*at);
            }
        }
        let fields: Vec<Field> = output
            .iter()
            .map(|at| {
                let field = pair.field(*at).clone();
                let nullable = field.is_nullable() || (join.outer && *at >= width);
                field.with_nullable(nullable)
            })
            .collect();
        let columns = given.iter().zip(names).map(|(at, name)| (name, column(pair.field(*at).name())));
        let columns = columns.collect();
        let mut keys: Vec<(usize, usize)> =
            sides[0].keys.iter().copied().zip(sides[1].keys.iter().copied()).collect();
        let times = keys.pop().ok_or_else(|| SqlError::internal("an ASOF join without times"))?;
        let nodes = [sides[0].node, sides[1].node];
        // A left row stands there at most once.
        let place = |at: &usize| output.iter().position(|c| c == at);
        let key = self.nodes[nodes[0]].key.as_ref().and_then(|key| key.iter().map(place).collect());
        let operator = Asof { keys, times, comparison: join.comparison, outer: join.outer, output };
        let facts = Facts { append_only: false, key, event_time: None };
        let node = self.push(Operator::Asof(operator), nodes.to_vec(), fields, facts);
        Ok(Pending { node, filter: None, columns, watermark: None, window_end: None })
    }
}

fn require(side: &mut Pending, keys: &[(String, Expr)]) {
    for (_, key) in keys {
        let known = key.clone().is_not_null();
        side.filter = Some(match side.filter.take() {
            Some(before) => logical::and(before, known),
            None => known,
        });
    }
}
