//! Spellings of catalog queries that DataFusion does not plan, as ones that it does: general rules over the tree, never a
//! match of some client's whole query.
//!
//! - qualifiers `pg_catalog.` of functions, operators and types go; COLLATE goes (text has one order here);
//! - `x::regclass` is `regclassin(x)`, an oid, and `regclassout(x)` where it is shown or cast to text;
//! - `ARRAY(SELECT x …)` is `(SELECT array_agg(x) …)`; `generate_subscripts` is an unnest; vectors count from 0;
//! - a correlated scalar subquery becomes a lateral left join ([`subquery`]).
//!
//! Only statements that name a system relation or function get here, see [`concerns`].

mod expression;
mod subquery;

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, Expr, Function, FunctionArguments, Ident, ObjectName, Query, Select, SelectItem, SetExpr,
    Statement, TableFactor, Visit, VisitMut, Visitor, VisitorMut,
};

use super::{functions, schema};

/// Whether the statement names a system relation, a system function or a `reg*` type.
pub(super) fn concerns(statement: &Statement) -> bool {
    statement.visit(&mut Finder).is_break()
}

struct Finder;

impl Visitor for Finder {
    type Break = ();

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        stop_if(relation_name(relation).is_some() || qualifier(relation).is_some())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        stop_if(match expr {
            Expr::Function(function) => {
                qualifier(&function.name).is_some() || functions::exists(&last(&function.name))
            }
            Expr::Cast { data_type, .. } => expression::is_system_type(data_type),
            Expr::BinaryOp { op, .. } => matches!(op, ast::BinaryOperator::PGCustomBinaryOperator(_)),
            Expr::Identifier(ident) => ident.quote_style.is_none() && is_session_word(&ident.value),
            _ => false,
        })
    }
}

fn stop_if(stop: bool) -> ControlFlow<()> {
    if stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// Names of functions that are called without parentheses.
fn is_session_word(word: &str) -> bool {
    ["current_user", "session_user", "current_role", "current_catalog", "current_schema"]
        .iter()
        .any(|name| word.eq_ignore_ascii_case(name))
}

/// An identifier as PostgreSQL folds it.
fn folded(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

fn last(name: &ObjectName) -> String {
    name.0.last().and_then(|part| part.as_ident()).map(folded).unwrap_or_default()
}

/// `pg_catalog` or `information_schema`, if the name is qualified so.
fn qualifier(name: &ObjectName) -> Option<String> {
    let [.., schema, _] = &name.0[..] else { return None };
    let schema = folded(schema.as_ident()?);
    matches!(schema.as_str(), "pg_catalog" | "information_schema").then_some(schema)
}

/// Schema and name of the system relation that is named; a bare name is looked for in pg_catalog.
fn relation_name(name: &ObjectName) -> Option<(String, String)> {
    let schema = match name.0.len() {
        1 => "pg_catalog".to_owned(),
        _ => qualifier(name)?,
    };
    let name = last(name);
    schema::find(&schema, &name).is_some().then_some((schema, name))
}

fn object_name(name: &str) -> ObjectName {
    ObjectName::from(vec![Ident::new(name)])
}

/// A call of one of our functions.
fn call(name: &str, arguments: Vec<Expr>) -> Expr {
    let arguments =
        arguments.into_iter().map(|a| ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(a))).collect();
    Expr::Function(Function {
        name: object_name(name),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(ast::FunctionArgumentList {
            duplicate_treatment: None,
            args: arguments,
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

/// The arguments of a plain call.
fn arguments(function: &Function) -> Option<Vec<&Expr>> {
    let FunctionArguments::List(list) = &function.args else { return None };
    let each = list.args.iter().map(|argument| match argument {
        ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    });
    each.collect()
}

fn null() -> Expr {
    Expr::Value(ast::Value::Null.into())
}

/// Applies all rules.
pub(super) fn rewrite(statement: &mut Statement) {
    if let Statement::Query(query) = statement {
        outermost_selects(query, &mut |select| select.projection.iter_mut().for_each(keep_name));
    }
    let _ = statement.visit(&mut Rules { subqueries: 0 });
    if let Statement::Query(query) = statement {
        outermost_selects(query, &mut |select| {
            select.projection.iter_mut().for_each(|item| match item {
                SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => {
                    expression::show_names(expr)
                }
                _ => {}
            });
        });
    }
}

/// The SELECTs whose outputs are the query's.
fn outermost_selects(query: &mut Query, apply: &mut impl FnMut(&mut Select)) {
    fn each(body: &mut SetExpr, apply: &mut impl FnMut(&mut Select)) {
        match body {
            SetExpr::Select(select) => apply(select),
            SetExpr::Query(query) => outermost_selects(query, apply),
            SetExpr::SetOperation { left, right, .. } => {
                each(left, apply);
                each(right, apply);
            }
            _ => {}
        }
    }
    each(&mut query.body, apply);
}

/// Names an output before its expression changes, where PostgreSQL takes the name from the expression.
fn keep_name(item: &mut SelectItem) {
    if let SelectItem::UnnamedExpr(expr) = item
        && let Some(name) = expression::output_name(expr)
    {
        let alias = Ident::with_quote('"', name);
        *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
    }
}

struct Rules {
    /// Subqueries that have become joins so far; their aliases are numbered.
    subqueries: usize,
}

impl VisitorMut for Rules {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        expression::rewrite(expr);
        ControlFlow::Continue(())
    }

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        match factor {
            TableFactor::Table { name, args: Some(_), .. } | TableFactor::Function { name, .. } => {
                expression::unqualify(name);
            }
            _ => {}
        }
        table_function(factor);
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        system_columns(select);
        subquery::join(select, &mut self.subqueries);
        ControlFlow::Continue(())
    }
}

/// `pg_catalog.unnest(x) k` is `UNNEST(x) AS k(k)`: the name of a function that returns one column names the column too.
fn table_function(factor: &mut TableFactor) {
    if let TableFactor::Table { name, args: Some(arguments), alias, with_ordinality, .. } = factor
        && last(name) == "unnest"
    {
        let plain = arguments.args.iter().map(|argument| match argument {
            ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
            _ => None,
        });
        if let Some(array_exprs) = plain.collect() {
            *factor = TableFactor::UNNEST {
                alias: alias.take(),
                array_exprs,
                with_offset: false,
                with_offset_alias: None,
                with_ordinality: *with_ordinality,
            };
        }
    }
    if let TableFactor::UNNEST { alias: Some(alias), with_ordinality: false, .. } = factor
        && alias.columns.is_empty()
    {
        alias.columns.push(ast::TableAliasColumnDef { name: alias.name.clone(), data_type: None });
    }
}

/// `x.tableoid` of a system relation is a constant: the oid of the catalog that the row is in.
fn system_columns(select: &mut Select) {
    struct Scope(Vec<(String, u32)>);
    impl VisitorMut for Scope {
        type Break = ();

        fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            if let Expr::CompoundIdentifier(parts) = expr
                && let [qualifier, column] = &parts[..]
                && folded(column) == "tableoid"
                && let Some((_, oid)) = self.0.iter().find(|(alias, _)| *alias == folded(qualifier))
            {
                *expr = Expr::Value(ast::Value::Number(oid.to_string(), false).into());
            }
            ControlFlow::Continue(())
        }
    }
    let factors = select
        .from
        .iter()
        .flat_map(|from| std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)));
    let relations = factors.filter_map(|factor| {
        let TableFactor::Table { name, alias, args: None, .. } = factor else { return None };
        let (schema, relation) = relation_name(name)?;
        let oid = schema::find(&schema, &relation)?.oid;
        Some((alias.as_ref().map_or_else(|| last(name), |alias| folded(&alias.name)), oid))
    });
    let mut scope = Scope(relations.collect());
    if !scope.0.is_empty() {
        select.projection.iter_mut().for_each(|item| {
            let is_tableoid = |e: &Expr| matches!(e, Expr::CompoundIdentifier(p) if p.last().is_some_and(|c| folded(c) == "tableoid"));
            if let SelectItem::UnnamedExpr(expr) = item
                && is_tableoid(expr)
            {
                *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: Ident::new("tableoid") };
            }
        });
        let _ = VisitMut::visit(select, &mut scope);
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    use super::*;

    fn parse(sql: &str) -> Statement {
        Parser::parse_sql(&PostgreSqlDialect {}, sql).unwrap().remove(0)
    }

    #[test]
    fn statements_about_users_relations_are_left_alone() {
        for sql in [
            "SELECT * FROM t",
            "SELECT count(*) FROM s.pg_thing",
            "INSERT INTO t VALUES (1)",
            "SELECT a COLLATE \"C\" FROM t",
        ] {
            assert!(!concerns(&parse(sql)), "{sql}");
        }
        for sql in [
            "SELECT * FROM pg_class",
            "SELECT 1 FROM t JOIN pg_catalog.pg_class ON true",
            "SELECT version()",
            "SELECT 't'::regclass",
            "SELECT current_user",
            "SELECT (SELECT 1 FROM information_schema.tables)",
        ] {
            assert!(concerns(&parse(sql)), "{sql}");
        }
    }

    #[test]
    fn rules() {
        let cases = [
            ("SELECT pg_catalog.format_type(1, 2)", "SELECT format_type(1, 2) AS \"format_type\""),
            ("SELECT a OPERATOR(pg_catalog.~) 'x' COLLATE pg_catalog.default", "SELECT a ~ 'x'"),
            ("SELECT 't'::regclass", "SELECT regclassout('t') AS \"regclass\""),
            (
                "SELECT c.oid::pg_catalog.regclass FROM pg_class c",
                "SELECT regclassout(c.oid) AS \"oid\" FROM pg_class c",
            ),
            (
                "SELECT 1 FROM pg_class WHERE oid = 't'::regclass",
                "SELECT 1 FROM pg_class WHERE oid = regclassin('t')",
            ),
            ("SELECT x::regtype::text", "SELECT regtypeout(x) AS \"x\""),
            ("SELECT 't'::regclass::oid", "SELECT regclassin('t')::oid AS \"oid\""),
            ("SELECT d.tableoid FROM pg_description d", "SELECT 2609 AS tableoid FROM pg_description d"),
            ("SELECT k FROM pg_catalog.unnest(a) k", "SELECT k FROM UNNEST(a) k (k)"),
            (
                "SELECT EXISTS (SELECT 1 FROM pg_index i WHERE i.x = c.x) FROM pg_class c",
                "SELECT (SELECT count(1) FROM pg_index i WHERE i.x = c.x) > 0 AS \"exists\" FROM pg_class c",
            ),
            ("SELECT i.indkey[0] FROM pg_index i", "SELECT i.indkey[0 + 1] FROM pg_index i"),
            (
                "SELECT generate_subscripts(k, 1)",
                "SELECT unnest(array_subscripts(k, 1)) AS \"generate_subscripts\"",
            ),
            ("SELECT a LIKE 'x' ESCAPE '\\'", "SELECT a LIKE 'x'"),
            (
                "SELECT a LIKE 'x/_' ESCAPE '/'",
                "SELECT a LIKE replace(replace('x/_', '\\', '\\\\'), '/', '\\')",
            ),
            ("SELECT current_user", "SELECT current_user() AS \"current_user\""),
            (
                "SELECT ARRAY(SELECT b FROM t WHERE t.x = r.y) FROM pg_roles r",
                "SELECT text_array_or_empty((SELECT array_agg(b) FROM t WHERE t.x = r.y)) AS \"array\" FROM pg_roles r",
            ),
            (
                "SELECT (SELECT d.a FROM pg_attrdef d WHERE d.x = c.x) FROM pg_class c",
                "SELECT \"subquery 1\".\"value\" AS \"a\" FROM pg_class c LEFT OUTER JOIN LATERAL (SELECT d.a AS \"value\" FROM pg_attrdef d WHERE d.x = c.x) AS \"subquery 1\" ON true",
            ),
            // No row of pg_policy exists that the subquery could be asked for.
            (
                "SELECT (SELECT max(c.x) FROM pg_class c WHERE c.x <> p.x) FROM pg_policy p",
                "SELECT NULL AS \"max\" FROM pg_policy p",
            ),
        ];
        for (sql, expected) in cases {
            let mut statement = parse(sql);
            rewrite(&mut statement);
            assert_eq!(statement.to_string().replace("LEFT JOIN", "LEFT OUTER JOIN"), expected, "{sql}");
        }
    }
}
