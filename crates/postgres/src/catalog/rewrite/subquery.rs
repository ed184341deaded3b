//! Correlated scalar subqueries as lateral left joins.
//!
//! DataFusion turns a correlated subquery into a join only if it is an aggregate and correlated by equality. Catalog
//! queries look single values up by any condition: `(SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef d WHERE
//! d.adnum = a.attnum AND a.atthasdef)`. Such a subquery has one row at most, or it would be an error; so a left join
//! with it neither adds nor loses rows, and DataFusion plans lateral joins on any condition.
//!
//! A subquery that would be asked for each row of a relation that never has any is NULL.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, Ident, Join, JoinConstraint, JoinOperator, ObjectName, OrderByKind,
    Query, Select, SelectItem, SetExpr, TableAlias, TableAliasColumnDef, TableFactor, TableWithJoins, Value,
    Visit, VisitMut, Visitor, VisitorMut,
};

use super::expression::around;
use super::{call, folded, last, null, relation_name};
use crate::catalog::relations;

/// Replaces the correlated scalar subqueries of a SELECT; those inside of them have been replaced already.
pub(super) fn join(select: &mut Select, count: &mut usize) {
    if select.from.is_empty() {
        return;
    }
    let nothing = select.from.iter().any(never_has_rows);
    let aggregated = is_aggregated(select);
    let mut joins = Vec::new();
    {
        let mut replace = Replace { joins: &mut joins, count, nothing, aggregated, depth: 0 };
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
                let _ = VisitMut::visit(expr, &mut replace);
                let _ = VisitMut::visit(expr, &mut CountInstead { depth: 0 });
            }
        }
        if let Some(condition) = &mut select.selection {
            let _ = VisitMut::visit(condition, &mut replace);
        }
    }
    if joins.is_empty() {
        return;
    }
    // The lateral joins see all of FROM: one chain of joins.
    let mut rest = std::mem::take(&mut select.from).into_iter();
    let mut from = rest.next().expect("FROM is not empty");
    for next in rest {
        let cross = JoinOperator::CrossJoin(JoinConstraint::None);
        from.joins.push(Join { relation: next.relation, global: false, join_operator: cross });
        from.joins.extend(next.joins);
    }
    from.joins.extend(joins);
    select.from = vec![from];
}

struct Replace<'a> {
    joins: &'a mut Vec<Join>,
    count: &'a mut usize,
    /// FROM has no rows.
    nothing: bool,
    aggregated: bool,
    /// Depth of subqueries: only those of this very SELECT are ours.
    depth: usize,
}

impl VisitorMut for Replace<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.depth > 0 {
            return ControlFlow::Continue(());
        }
        match expr {
            Expr::Subquery(query) if is_correlated(query) => {
                if self.nothing || query_never_has_rows(query) {
                    *expr = null();
                } else if !self.aggregated
                    && let Some(join) = lateral(query, *self.count + 1)
                {
                    *self.count += 1;
                    *expr =
                        Expr::CompoundIdentifier(vec![alias(*self.count), Ident::with_quote('"', "value")]);
                    self.joins.push(join);
                }
            }
            Expr::Exists { subquery, negated }
                if is_correlated(subquery) && query_never_has_rows(subquery) =>
            {
                *expr = Expr::Value(Value::Boolean(*negated).into());
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// DataFusion plans EXISTS only in conditions; as an output it is a count above zero.
struct CountInstead {
    depth: usize,
}

impl VisitorMut for CountInstead {
    type Break = ();

    fn pre_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Exists { subquery, negated } = expr
            && self.depth == 0
        {
            let op = if *negated { BinaryOperator::Eq } else { BinaryOperator::Gt };
            let zero = Expr::Value(Value::Number("0".to_owned(), false).into());
            let count = Expr::Subquery(Box::new(counted(subquery)));
            *expr = Expr::BinaryOp { left: Box::new(count), op, right: Box::new(zero) };
        }
        ControlFlow::Continue(())
    }
}

fn counted(query: &Query) -> Query {
    let mut plain = query.clone();
    if let SetExpr::Select(select) = plain.body.as_mut()
        && plain.limit_clause.is_none()
        && plain.fetch.is_none()
        && select.distinct.is_none()
        && !is_aggregated(select)
    {
        let one = Expr::Value(Value::Number("1".to_owned(), false).into());
        select.projection = vec![SelectItem::UnnamedExpr(call("count", vec![one]))];
        plain.order_by = None;
        return plain;
    }
    around(query.clone(), "SELECT count(1) FROM (SELECT 1) AS \"rows\"")
}

fn alias(number: usize) -> Ident {
    Ident::with_quote('"', format!("subquery {number}"))
}

/// The join that stands for a subquery, unless it is one that DataFusion plans itself or cannot plan either way.
fn lateral(query: &Query, number: usize) -> Option<Join> {
    let mut query = query.clone();
    let limited = query.limit_clause.is_some() || query.fetch.is_some();
    let SetExpr::Select(select) = query.body.as_mut() else { return None };
    if limited || is_aggregated(select) || select.distinct.is_some() {
        return None;
    }
    let [SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }] = &mut select.projection[..]
    else {
        return None;
    };
    let expr = std::mem::replace(expr, null());
    select.projection = vec![SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', "value") }];
    // One row has no order.
    if query.order_by.as_ref().is_some_and(|order| matches!(order.kind, OrderByKind::Expressions(_))) {
        query.order_by = None;
    }
    let alias = TableAlias {
        explicit: true,
        name: alias(number),
        columns: Vec::<TableAliasColumnDef>::new(),
        at: None,
    };
    let relation =
        TableFactor::Derived { lateral: true, subquery: Box::new(query), alias: Some(alias), sample: None };
    let on = JoinConstraint::On(Expr::Value(Value::Boolean(true).into()));
    Some(Join { relation, global: false, join_operator: JoinOperator::LeftOuter(on) })
}

pub(super) fn is_aggregated(select: &Select) -> bool {
    use datafusion::sql::sqlparser::ast::GroupByExpr;
    let grouped = match &select.group_by {
        GroupByExpr::All(_) => true,
        GroupByExpr::Expressions(exprs, modifiers) => !exprs.is_empty() || !modifiers.is_empty(),
    };
    grouped
        || select.having.is_some()
        || select.projection.iter().any(|item| match item {
            SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => {
                Visit::visit(expr, &mut Aggregates { depth: 0 }).is_break()
            }
            _ => false,
        })
}

/// Looks for a call of an aggregate outside of subqueries.
struct Aggregates {
    depth: usize,
}

const AGGREGATES: [&str; 16] = [
    "array_agg",
    "string_agg",
    "count",
    "sum",
    "avg",
    "min",
    "max",
    "bool_and",
    "bool_or",
    "every",
    "json_agg",
    "jsonb_agg",
    "json_object_agg",
    "jsonb_object_agg",
    "first_value",
    "last_value",
];

impl Visitor for Aggregates {
    type Break = ();

    fn pre_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Function(Function { name, over: None, .. })
                if self.depth == 0 && AGGREGATES.contains(&last(name).as_str()) =>
            {
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

/// Columns that are NULL in every row: privileges and options that nothing has.
const NULL_COLUMNS: [&str; 8] =
    ["reloptions", "relacl", "nspacl", "datacl", "proacl", "typacl", "attoptions", "attfdwoptions"];

/// Inner joins with a relation that is always empty, or an unnest of NULL, have no rows; nor has its outer join on the left.
fn never_has_rows(from: &TableWithJoins) -> bool {
    let inner = from.joins.iter().filter(|join| {
        matches!(
            join.join_operator,
            JoinOperator::Join(_) | JoinOperator::Inner(_) | JoinOperator::CrossJoin(_)
        )
    });
    is_empty(&from.relation) || inner.map(|join| &join.relation).any(is_empty)
}

fn is_empty(factor: &TableFactor) -> bool {
    match factor {
        TableFactor::Table { name, args: None, .. } => {
            relation_name(name).is_some_and(|(schema, name)| relations::is_always_empty(&schema, &name))
        }
        TableFactor::Table { name, args: Some(arguments), .. } => {
            use datafusion::sql::sqlparser::ast::{FunctionArg, FunctionArgExpr};
            last(name) == "unnest"
                && matches!(&arguments.args[..], [FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))] if is_null_column(expr))
        }
        TableFactor::UNNEST { array_exprs, .. } => matches!(&array_exprs[..], [expr] if is_null_column(expr)),
        TableFactor::Derived { subquery, .. } => query_never_has_rows(subquery),
        _ => false,
    }
}

fn is_null_column(expr: &Expr) -> bool {
    match expr {
        Expr::CompoundIdentifier(parts) => {
            parts.last().is_some_and(|i| NULL_COLUMNS.contains(&folded(i).as_str()))
        }
        Expr::Identifier(ident) => NULL_COLUMNS.contains(&folded(ident).as_str()),
        _ => false,
    }
}

/// A query that returns no rows, or (an aggregate over none) NULL as its only value.
fn query_never_has_rows(query: &Query) -> bool {
    match query.body.as_ref() {
        SetExpr::Select(select) => {
            let counts = select.projection.iter().any(|item| match item {
                SelectItem::UnnamedExpr(Expr::Function(f))
                | SelectItem::ExprWithAlias { expr: Expr::Function(f), .. } => last(&f.name) == "count",
                _ => false,
            });
            !counts && select.from.iter().any(never_has_rows)
        }
        _ => false,
    }
}

/// Whether the query names a column of a relation that is not its own (so far as qualifiers tell).
fn is_correlated(query: &Query) -> bool {
    let mut names = Names::default();
    let _ = Visit::visit(query, &mut names);
    names.used.iter().any(|qualifier| !names.defined.contains(qualifier)) || from_outer_columns(query)
}

/// An unnest of a bare column can only be of an outer one.
fn from_outer_columns(query: &Query) -> bool {
    match query.body.as_ref() {
        SetExpr::Select(select) => select.from.iter().any(|from| match &from.relation {
            TableFactor::UNNEST { array_exprs, .. } => {
                array_exprs.iter().any(|e| matches!(e, Expr::Identifier(_) | Expr::CompoundIdentifier(_)))
            }
            _ => false,
        }),
        _ => false,
    }
}

#[derive(Default)]
struct Names {
    defined: BTreeSet<String>,
    used: BTreeSet<String>,
}

impl Visitor for Names {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        let (name, alias): (Option<&ObjectName>, _) = match factor {
            TableFactor::Table { name, alias, .. } | TableFactor::Function { name, alias, .. } => {
                (Some(name), alias)
            }
            TableFactor::Derived { alias, .. } | TableFactor::UNNEST { alias, .. } => (None, alias),
            TableFactor::NestedJoin { alias, .. } | TableFactor::TableFunction { alias, .. } => (None, alias),
            _ => return ControlFlow::Continue(()),
        };
        match (alias, name) {
            (Some(alias), _) => self.defined.insert(folded(&alias.name)),
            (None, Some(name)) => self.defined.insert(last(name)),
            (None, None) => false,
        };
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if let Expr::CompoundIdentifier(parts) = expr
            && let [.., qualifier, _] = &parts[..]
        {
            self.used.insert(folded(qualifier));
        }
        ControlFlow::Continue(())
    }
}
