//! Inner joins of three and more inputs become one operator.
//!
//! A tree of inner joins is flattened into its leaves and what its conditions ask of them. It becomes a [`MultiJoin`] if
//! equalities between single inputs tie all of them together; joins that a watermark bounds stay binary and are leaves, for
//! they free their state. The path of an input, in which order its rows are looked up in the others, is chosen by what is
//! known of them: first where at most one row can match, then by the number of rows that there were when the view was made.

use std::collections::BTreeSet;

use arrow::datatypes::Field;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, JoinType, NullEquality};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{self as logical, Expr, ExprSchemable, LogicalPlan, Operator as Op};
use millpond_functions::error::from_datafusion;
use millpond_types::SqlError;

use super::lower::{Facts, Lowering, Pending, column, refuse_in_expression};
use super::lower_join::{Side, distinct};
use super::{MultiJoin, NodeId, Operator};
use crate::rules::without_alias;
use crate::{clock, names, trace};

/// Inputs of one operator, at most; as many as the dataflow takes.
const INPUTS_MAX: usize = 16;

/// What a relation is taken to have of which nothing is known.
const ROWS_UNKNOWN: u64 = 10_000;

/// A tree of inner joins.
#[derive(Default)]
struct Flat<'a> {
    leaves: Vec<&'a LogicalPlan>,
    /// Expressions over columns of leaves ([`leaf_column`]) that must be equal.
    equal: Vec<(Expr, Expr)>,
    rest: Vec<Expr>,
}

/// The columns of one leaf that equal those of others.
type Key = (usize, Expr);

impl Lowering {
    /// `None` where the join is better as it is.
    pub(super) fn multi_join(&mut self, join: &logical::Join) -> Result<Option<Pending>, SqlError> {
        if !merges(join) {
            return Ok(None);
        }
        let mut flat = Flat::default();
        let shown = flat.join(join)?;
        if !(3..=INPUTS_MAX).contains(&flat.leaves.len()) {
            return Ok(None);
        }
        let Some(classes) = flat.classes()? else { return Ok(None) };
        let mut sides = Vec::with_capacity(flat.leaves.len());
        for (leaf, plan) in flat.leaves.iter().enumerate() {
            let pending = self.lower(plan, false)?;
            let keys = classes.iter().flatten().filter(|key| key.0 == leaf).map(|(_, key)| {
                let key = of_leaf(key, &pending.columns)?;
                let name = match &key {
                    Expr::Column(column) => column.name.clone(),
                    other => super::text::shown(other),
                };
                Ok((name, key))
            });
            let keys = keys.collect::<Result<_, SqlError>>()?;
            sides.push(self.side(pending, keys)?);
        }
        let names = join.schema.fields().iter().map(|field| names::shown(field.name()).to_owned()).collect();
        self.push_multi_join(flat, &classes, sides, shown, names).map(Some)
    }

    fn push_multi_join(
        &mut self,
        flat: Flat<'_>,
        classes: &[Vec<Key>],
        sides: Vec<Side>,
        shown: Vec<Expr>,
        names: Vec<String>,
    ) -> Result<Pending, SqlError> {
        // A side has its keys in the order of the classes that it is in.
        let mut next_key = vec![0; sides.len()];
        let mut equal: Vec<Vec<(usize, usize)>> = Vec::with_capacity(classes.len());
        for class in classes {
            let places = class.iter().map(|(leaf, _)| {
                let key = sides[*leaf].keys[next_key[*leaf]];
                next_key[*leaf] += 1;
                (*leaf, key)
            });
            equal.push(places.collect());
        }
        let pair = self.pair(&sides);
        let nodes: Vec<NodeId> = sides.iter().map(|side| side.node).collect();
        let starts: Vec<usize> = nodes
            .iter()
            .scan(0, |start, node| {
                let at = *start;
                *start += self.nodes[*node].schema.fields().len();
                Some(at)
            })
            .collect();
        let place = |expr: &Expr| match leaf_of(expr) {
            Some((leaf, at)) => Ok(starts[leaf] + sides[leaf].columns[at]),
            None => Err(SqlError::internal(format!("{expr} is no column of a join"))),
        };
        let over_pair = |expr: Expr| -> Result<Expr, SqlError> {
            let named = expr.transform_up(|e| match leaf_of(&e) {
                Some(_) => {
                    let at = place(&e).map_err(millpond_functions::error::into_datafusion)?;
                    Ok(Transformed::yes(column(pair.field(at).name())))
                }
                None => Ok(Transformed::no(e)),
            });
            named.map(|named| named.data).map_err(from_datafusion)
        };
        let (timed, rest): (Vec<Expr>, Vec<Expr>) = flat.rest.into_iter().partition(clock::asks);
        let mut all: Vec<Expr> = shown;
        // What asks for the time stands above; the columns that it names come along.
        for expr in &timed {
            for found in expr.column_refs() {
                all.push(Expr::Column(found.clone()));
            }
        }
        let given: Vec<usize> = all.iter().map(place).collect::<Result<_, _>>()?;
        let output = distinct(&given);
        let residual = rest.into_iter().map(over_pair).reduce(|a, b| Ok(logical::and(a?, b?))).transpose()?;
        if let Some(residual) = &residual {
            refuse_in_expression(residual)?;
        }
        let filter = timed.into_iter().map(over_pair).reduce(|a, b| Ok(logical::and(a?, b?))).transpose()?;
        let mut operator = MultiJoin { equal, paths: Vec::new(), residual, pair: pair.clone(), output };
        operator.paths = (0..nodes.len()).map(|from| self.path(&operator, &nodes, from)).collect();
        let fields: Vec<Field> = operator.output.iter().map(|at| pair.field(*at).clone()).collect();
        let facts = self.multi_join_facts(&operator, &nodes, &starts);
        let columns = given.iter().zip(names).map(|(at, name)| (name, column(pair.field(*at).name())));
        let columns = columns.collect();
        let node = self.push(Operator::MultiJoin(operator), nodes, fields, facts);
        Ok(Pending { node, filter, columns, watermark: None, window_end: None })
    }

    /// The order in which rows of `from` are looked up in the other inputs.
    fn path(&self, join: &MultiJoin, nodes: &[NodeId], from: usize) -> Vec<usize> {
        let mut path = Vec::with_capacity(nodes.len() - 1);
        let mut known = vec![from];
        while known.len() < nodes.len() {
            let open = (0..nodes.len()).filter(|input| !known.contains(input));
            let next = open
                .filter_map(|input| {
                    let by = join.lookup_columns(&known, input);
                    let rows = self.rows(nodes[input]);
                    let once = self.is_unique(nodes[input], &by);
                    // One row at most; then fewer rows per key, more keys; then as written.
                    (!by.is_empty()).then_some(((!once, rows, usize::MAX - by.len(), input), input))
                })
                .min()
                .map(|(_, input)| input)
                .expect("equalities tie all inputs together");
            known.push(next);
            path.push(next);
        }
        path
    }

    /// About how many rows a node has.
    fn rows(&self, node: NodeId) -> u64 {
        let node = &self.nodes[node];
        let inputs = || node.inputs.iter().map(|input| self.rows(*input));
        let largest = || inputs().max().unwrap_or(1);
        match &node.operator {
            Operator::Input(input) => self.options.rows.get(&input.relation).copied().unwrap_or(ROWS_UNKNOWN),
            Operator::Map(map) => match &map.filter {
                Some(filter) => split_conjunction(filter).iter().fold(largest(), |rows, _| rows / 3),
                None => largest(),
            },
            Operator::Temporal(_) => largest() / 3,
            Operator::Aggregate(super::Aggregate { global: true, .. }) | Operator::OneRow => 1,
            Operator::Aggregate(_) | Operator::HopAggregate(_) | Operator::SortedAggregate(_) => {
                largest() / 10
            }
            Operator::TopN(top) if top.partition.is_empty() => {
                largest().min(top.end.saturating_sub(top.skip))
            }
            Operator::Union => inputs().fold(0, u64::saturating_add),
            _ => largest(),
        }
    }

    /// No two rows of a node are alike in these columns.
    fn is_unique(&self, node: NodeId, columns: &[usize]) -> bool {
        self.nodes[node].key.as_ref().is_some_and(|key| key.iter().all(|column| columns.contains(column)))
    }

    fn multi_join_facts(&self, join: &MultiJoin, nodes: &[NodeId], starts: &[usize]) -> Facts {
        let append_only = nodes.iter().all(|node| self.nodes[*node].append_only);
        let key_of = |input: usize| {
            let key = self.nodes[nodes[input]].key.as_ref()?;
            Some(key.iter().map(|column| starts[input] + column).collect::<Vec<_>>())
        };
        // Where one input decides the rows of all others, its key is that of the result.
        let decides = |from: &usize| {
            let mut known = vec![*from];
            join.paths[*from].iter().all(|input| {
                let once = self.is_unique(nodes[*input], &join.lookup_columns(&known, *input));
                known.push(*input);
                once
            })
        };
        let place = |pair: usize| join.output.iter().position(|at| *at == pair);
        let shown = |key: Vec<usize>| key.into_iter().map(place).collect::<Option<Vec<_>>>();
        let single = (0..nodes.len()).filter(decides).find_map(|input| shown(key_of(input)?));
        let all = || {
            let keys: Option<Vec<Vec<usize>>> = (0..nodes.len()).map(key_of).collect();
            shown(keys?.concat())
        };
        Facts { append_only, key: single.or_else(all), event_time: None }
    }
}

impl MultiJoin {
    /// The columns that `input` is looked up by when the rows of the inputs `known` are.
    pub(super) fn lookup_columns(&self, known: &[usize], input: usize) -> Vec<usize> {
        self.lookup(known, input).into_iter().map(|(column, _)| column).collect()
    }

    /// Columns of `input`, each with the known column that it equals.
    pub fn lookup(&self, known: &[usize], input: usize) -> Vec<(usize, (usize, usize))> {
        let mut by: Vec<(usize, (usize, usize))> = self
            .equal
            .iter()
            .filter_map(|class| {
                let own = class.iter().find(|(of, _)| *of == input)?;
                let other = class.iter().find(|(of, _)| known.contains(of))?;
                Some((own.1, *other))
            })
            .collect();
        by.sort_unstable();
        by
    }
}

impl<'a> Flat<'a> {
    /// The columns of a join as columns of leaves.
    fn join(&mut self, join: &'a logical::Join) -> Result<Vec<Expr>, SqlError> {
        let mut columns = self.plan(&join.left)?;
        let left = columns.len();
        columns.extend(self.plan(&join.right)?);
        for (l, r) in &join.on {
            let l = over_leaves(l, join.left.schema(), &columns[..left])?;
            let r = over_leaves(r, join.right.schema(), &columns[left..])?;
            self.equal.push((l, r));
        }
        if let Some(filter) = &join.filter {
            let schema = join.left.schema().join(join.right.schema()).map_err(from_datafusion)?;
            self.conditions(filter, &schema, &columns)?;
        }
        Ok(columns)
    }

    fn conditions(
        &mut self,
        filter: &Expr,
        schema: &datafusion::common::DFSchema,
        columns: &[Expr],
    ) -> Result<(), SqlError> {
        for conjunct in split_conjunction(filter) {
            let conjunct = over_leaves(conjunct, schema, columns)?;
            match conjunct {
                Expr::BinaryExpr(binary) if binary.op == Op::Eq && leaves_of(&binary.left).len() == 1 => {
                    self.equal.push((*binary.left, *binary.right));
                }
                Expr::Literal(datafusion::common::ScalarValue::Boolean(Some(true)), _) => {}
                other => self.rest.push(other),
            }
        }
        Ok(())
    }

    fn plan(&mut self, plan: &'a LogicalPlan) -> Result<Vec<Expr>, SqlError> {
        if !holds_join(plan) {
            self.leaves.push(plan);
            let leaf = self.leaves.len() - 1;
            return Ok((0..plan.schema().fields().len()).map(|at| leaf_column(leaf, at)).collect());
        }
        match plan {
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::SubqueryAlias(alias) => self.plan(&alias.input),
            LogicalPlan::Filter(filter) => {
                let columns = self.plan(&filter.input)?;
                self.conditions(&filter.predicate, filter.input.schema(), &columns)?;
                Ok(columns)
            }
            LogicalPlan::Projection(projection) => {
                let columns = self.plan(&projection.input)?;
                let over = |expr: &Expr| over_leaves(expr, projection.input.schema(), &columns);
                projection.expr.iter().map(over).collect()
            }
            other => Err(SqlError::internal(format!("{} holds no join", other.display()))),
        }
    }

    /// Classes of expressions, each over one leaf, that are all equal; what is left becomes conditions. `None` if they do not
    /// tie all leaves together, or make two expressions of one leaf equal.
    fn classes(&mut self) -> Result<Option<Vec<Vec<Key>>>, SqlError> {
        let mut classes: Vec<Vec<Key>> = Vec::new();
        for (l, r) in std::mem::take(&mut self.equal) {
            let single =
                |e: &Expr| (leaves_of(e).len() == 1).then(|| leaves_of(e).first().copied()).flatten();
            let keys = match (single(&l), single(&r)) {
                (Some(a), Some(b)) if a != b && self.of_one_type(a, &l, b, &r)? => [(a, l), (b, r)],
                _ => {
                    self.rest.push(l.eq(r));
                    continue;
                }
            };
            let (mut joined, others): (Vec<_>, Vec<_>) =
                classes.into_iter().partition(|class| keys.iter().any(|key| class.contains(key)));
            let mut class: Vec<Key> = joined.drain(..).flatten().collect();
            for key in keys {
                if !class.contains(&key) {
                    class.push(key);
                }
            }
            classes = others;
            classes.push(class);
        }
        let twice =
            |class: &Vec<Key>| class.iter().map(|key| key.0).collect::<BTreeSet<_>>().len() < class.len();
        if classes.iter().any(twice) {
            return Ok(None);
        }
        let mut known = BTreeSet::from([0]);
        loop {
            let before = known.len();
            for class in &classes {
                if class.iter().any(|key| known.contains(&key.0)) {
                    known.extend(class.iter().map(|key| key.0));
                }
            }
            if known.len() == before {
                break;
            }
        }
        Ok((known.len() == self.leaves.len()).then_some(classes))
    }

    fn of_one_type(&self, a: usize, l: &Expr, b: usize, r: &Expr) -> Result<bool, SqlError> {
        let ty = |leaf: usize, expr: &Expr| {
            let schema = self.leaves[leaf].schema();
            let columns: Vec<(String, Expr)> =
                schema.columns().into_iter().map(|column| (String::new(), Expr::Column(column))).collect();
            of_leaf(expr, &columns)?.get_type(schema).map_err(from_datafusion)
        };
        Ok(ty(a, l)? == ty(b, r)?)
    }
}

/// An inner join whose condition can be asked of all inputs together.
fn merges(join: &logical::Join) -> bool {
    join.join_type == JoinType::Inner
        && join.null_equality == NullEquality::NullEqualsNothing
        && !join.null_aware
        && trace::join_bounds(join).is_none()
}

/// Whether a plan is such a join, below what only names columns or filters.
fn holds_join(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Join(join) => merges(join),
        LogicalPlan::SubqueryAlias(alias) => holds_join(&alias.input),
        LogicalPlan::Filter(filter) => !has_subquery(&filter.predicate) && holds_join(&filter.input),
        LogicalPlan::Projection(projection) => {
            let plain = |e: &Expr| matches!(without_alias(e.clone()), Expr::Column(_));
            projection.expr.iter().all(plain) && holds_join(&projection.input)
        }
        _ => false,
    }
}

fn has_subquery(expr: &Expr) -> bool {
    expr.exists(|e| Ok(matches!(e, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_))))
        .unwrap_or(true)
}

/// Names that no schema has: of tables that are numbers.
fn leaf_column(leaf: usize, at: usize) -> Expr {
    Expr::Column(Column::new(Some(leaf.to_string()), at.to_string()))
}

fn leaf_of(expr: &Expr) -> Option<(usize, usize)> {
    let Expr::Column(column) = expr else { return None };
    Some((column.relation.as_ref()?.table().parse().ok()?, column.name.parse().ok()?))
}

fn leaves_of(expr: &Expr) -> BTreeSet<usize> {
    expr.column_refs().into_iter().filter_map(|c| leaf_of(&Expr::Column(c.clone()))).map(|at| at.0).collect()
}

/// An expression over `schema` as one over columns of leaves.
fn over_leaves(
    expr: &Expr,
    schema: &datafusion::common::DFSchema,
    columns: &[Expr],
) -> Result<Expr, SqlError> {
    let named: Vec<(String, Expr)> = columns.iter().map(|column| (String::new(), column.clone())).collect();
    super::lower::over(expr, schema, &named)
}

/// An expression over columns of one leaf as one over these.
fn of_leaf(expr: &Expr, columns: &[(String, Expr)]) -> Result<Expr, SqlError> {
    let found = expr.clone().transform_down(|e| match leaf_of(&e) {
        Some((_, at)) => Ok(Transformed::new(
            columns[at].1.clone(),
            true,
            datafusion::common::tree_node::TreeNodeRecursion::Jump,
        )),
        None => Ok(Transformed::no(e)),
    });
    found.map(|found| found.data).map_err(from_datafusion)
}
