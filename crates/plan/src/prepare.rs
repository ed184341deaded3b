//! What is done to a statement's tree before DataFusion binds it: output names as PostgreSQL gives them, metadata columns
//! kept out of `*`, and a refusal of what DataFusion would ignore.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use millpond_sql::{RelationName, fold, position_of};
use millpond_types::{SqlError, SqlState};
use sqlparser::ast::{self, SelectItem, TableFactor, Visit, VisitMut, Visitor, VisitorMut};

use crate::{Metadata, asof, clock, literals, names, row_values, rows, spelling, table_function};

/// How a statement is read that can be read in several ways.
#[derive(Default)]
pub(crate) struct Reading {
    /// Outputs of the outermost SELECT get names that cannot meet those of columns.
    rename_outputs: bool,
    /// Names that mean the only column of a function in FROM, by its alias.
    of_functions: HashMap<String, ast::Ident>,
}

impl Reading {
    /// Another way to read `query`, after an error.
    pub(crate) fn revise(&mut self, error: &SqlError, query: &ast::Query) -> bool {
        let state = error.state();
        if [SqlState::DUPLICATE_COLUMN, SqlState::AMBIGUOUS_COLUMN].contains(&state) {
            // `SELECT *, a AS b`: perhaps the names beside `*` are those of its columns. `SELECT a::text FROM t ORDER BY t.a`:
            // both are called a.
            return !std::mem::replace(&mut self.rename_outputs, true);
        }
        let name = error.message().strip_prefix("column \"").and_then(|rest| rest.split_once('"'));
        let Some((name, _)) = name.filter(|_| state == SqlState::UNDEFINED_COLUMN) else { return false };
        let Some(column) = table_function::only_column(query, name) else { return false };
        self.of_functions.insert(name.to_owned(), column).is_none()
    }
}

/// Rewrites `tree` in place. `is_source` tells whether a name means a relation with metadata columns. With `clock`, now() is a
/// parameter ([`clock`]).
///
/// Returns the metadata columns that the statement names.
pub(crate) fn prepare<T: Visit + VisitMut>(
    tree: &mut T,
    is_source: &dyn Fn(&RelationName) -> bool,
    reading: &Reading,
    clock: bool,
) -> Result<Vec<Metadata>, SqlError> {
    let mut named = Named::default();
    let _ = Visit::visit(tree, &mut named);
    let mut rewriter = Rewriter { named, is_source, reading, clock, depth: 0, of_source: Vec::new() };
    match VisitMut::visit(tree, &mut rewriter) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => {
            Ok(Metadata::ALL.into_iter().filter(|m| rewriter.named.metadata.contains(m)).collect())
        }
    }
}

/// Names that a statement uses, wherever they stand.
#[derive(Default)]
struct Named {
    metadata: HashSet<Metadata>,
    ctes: HashSet<String>,
}

impl Visitor for Named {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &ast::Expr) -> ControlFlow<()> {
        let ident = match expr {
            ast::Expr::Identifier(ident) => Some(ident),
            ast::Expr::CompoundIdentifier(idents) => idents.last(),
            _ => None,
        };
        self.metadata.extend(ident.and_then(|i| Metadata::of(&fold(i))));
        self.metadata.extend(clock::is_proctime(expr).then_some(Metadata::IngestTime));
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &ast::Query) -> ControlFlow<()> {
        let ctes = query.with.iter().flat_map(|with| &with.cte_tables);
        self.ctes.extend(ctes.map(|cte| fold(&cte.alias.name)));
        ControlFlow::Continue(())
    }
}

struct Rewriter<'a> {
    named: Named,
    is_source: &'a dyn Fn(&RelationName) -> bool,
    reading: &'a Reading,
    /// now() is that of the log.
    clock: bool,
    depth: usize,
    /// Of each SELECT around what is visited, whether FROM is one source and nothing else.
    of_source: Vec<bool>,
}

fn refuse(what: &str, hint: &str, span: sqlparser::tokenizer::Span) -> ControlFlow<SqlError> {
    let error = SqlError::unsupported(format!("{what} is not supported")).hint(hint);
    ControlFlow::Break(crate::errors::at_opt(error, position_of(span)))
}

impl VisitorMut for Rewriter<'_> {
    type Break = SqlError;

    fn pre_visit_query(&mut self, query: &mut ast::Query) -> ControlFlow<SqlError> {
        use ast::Spanned;
        if !query.locks.is_empty() {
            return refuse(
                "SELECT ... FOR UPDATE",
                "Concurrent updates are detected at COMMIT.",
                query.span(),
            );
        }
        if let Some(fetch) = query.fetch.take() {
            if fetch.with_ties || fetch.percent || query.limit_clause.as_ref().is_some_and(has_limit) {
                return refuse("FETCH FIRST ... WITH TIES", "Use LIMIT.", query.span());
            }
            let one = || ast::Expr::value(ast::Value::Number("1".into(), false));
            let limit = Some(fetch.quantity.unwrap_or_else(one));
            query.limit_clause = Some(match query.limit_clause.take() {
                Some(ast::LimitClause::LimitOffset { offset, limit_by, .. }) => {
                    ast::LimitClause::LimitOffset { limit, offset, limit_by }
                }
                _ => ast::LimitClause::LimitOffset { limit, offset: None, limit_by: Vec::new() },
            });
        }
        order_by_outputs(query);
        if self.reading.rename_outputs && self.depth == 0 {
            order_by_names(query);
        }
        // The columns that are inserted into decide the types of an INSERT's own rows.
        if self.depth > 0 {
            literals::type_values(&mut query.body);
        }
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut ast::Query) -> ControlFlow<SqlError> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut ast::Select) -> ControlFlow<SqlError> {
        use ast::Spanned;
        if select.into.is_some() {
            return refuse("SELECT INTO", "Use CREATE TABLE ... AS.", select.span());
        }
        if let Err(error) = self.hide_metadata(select) {
            return ControlFlow::Break(error);
        }
        for from in &mut select.from {
            if let Err(error) = asof::nest(from) {
                return ControlFlow::Break(error);
            }
        }
        if let Err(error) = table_function::nest(&mut select.from) {
            return ControlFlow::Break(error);
        }
        self.of_source.push(match &select.from[..] {
            [from] if from.joins.is_empty() => self.factor(&from.relation).is_some_and(|(_, source)| source),
            _ => false,
        });
        self.name_outputs(select);
        literals::type_outputs(select);
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, _select: &mut ast::Select) -> ControlFlow<SqlError> {
        self.of_source.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<SqlError> {
        use ast::Spanned;
        let span = factor.span();
        rows::lateral(factor);
        if let TableFactor::NestedJoin { table_with_joins, .. } = factor
            && let Err(error) =
                asof::nest(table_with_joins).and_then(|()| table_function::nest_joins(table_with_joins, true))
        {
            return ControlFlow::Break(error);
        }
        let is_set = table_function::function_of(factor).is_some();
        match factor {
            TableFactor::Table { args: Some(args), .. } if is_set => literals::type_arguments(&mut args.args),
            TableFactor::Function { args, .. } => literals::type_arguments(args),
            _ => {}
        }
        if let TableFactor::Table { name, alias, args, version, with_ordinality, sample, .. } = factor {
            if version.is_some() {
                return refuse(
                    "FOR SYSTEM_TIME AS OF outside of a join",
                    "Join with it: FROM o JOIN r FOR SYSTEM_TIME AS OF o.ts ON o.k = r.k.",
                    span,
                );
            }
            if *with_ordinality && !is_set {
                return refuse("WITH ORDINALITY", "Number the rows with row_number() OVER ().", span);
            }
            if sample.is_some() {
                return refuse("TABLESAMPLE", "Filter with random() < fraction.", span);
            }
            // Columns are qualified by the last part of the name, so that `public.t` can be spoken of as `t`.
            if args.is_none() && alias.is_none() && name.0.len() > 1 {
                *alias = name.0.last().and_then(|p| p.as_ident()).map(|ident| ast::TableAlias {
                    explicit: true,
                    name: ident.clone(),
                    columns: Vec::new(),
                    at: None,
                });
            }
        }
        ControlFlow::Continue(())
    }

    /// Arguments have been visited by now.
    fn post_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<SqlError> {
        names::row_call(expr);
        ControlFlow::Continue(())
    }

    /// `public.t.c` means `t.c`, as relations are known by the last part of their name.
    fn pre_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<SqlError> {
        if let ast::Expr::CompoundIdentifier(idents) = expr
            && idents.len() > 2
        {
            idents.drain(..idents.len() - 2);
        }
        if let ast::Expr::Function(call) = expr
            && let Err(error) = refuse_in_window(call)
        {
            return ControlFlow::Break(error);
        }
        if let ast::Expr::Identifier(ident) = expr
            && let Some(column) = self.reading.of_functions.get(&fold(ident))
        {
            *expr = ast::Expr::CompoundIdentifier(vec![ident.clone(), column.clone()]);
        }
        if clock::is_proctime(expr) {
            use ast::Spanned;
            if self.of_source.last() != Some(&true) {
                return refuse(
                    "PROCTIME() where FROM is not one source",
                    "It is the time at which a source's row was appended: write (SELECT *, PROCTIME() AS p FROM source), and \
                     use p. The present time is now().",
                    expr.span(),
                );
            }
            *expr = ast::Expr::Identifier(ast::Ident::new(Metadata::IngestTime.name()));
        }
        if self.clock
            && let Some(parameter) = clock::parameter(expr)
        {
            *expr = parameter;
        }
        match spell(expr) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

/// Spellings that DataFusion does not read, or would read with other types, in an expression outside of a query.
///
/// # Errors
/// 0A000 for a collation.
pub(crate) fn expression(expr: &ast::Expr) -> Result<ast::Expr, SqlError> {
    let mut expr = expr.clone();
    match ast::visit_expressions_mut(&mut expr, |e| match spell(e) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error),
    }) {
        ControlFlow::Continue(()) => Ok(expr),
        ControlFlow::Break(error) => Err(error),
    }
}

fn spell(expr: &mut ast::Expr) -> Result<(), SqlError> {
    rows::regroup(expr);
    let columns = match rows::as_columns(expr)? {
        Some(columns) => Some(columns),
        None => row_values::comparison(expr),
    };
    if let Some(columns) = columns {
        *expr = columns;
    }
    if let ast::Expr::Collate { expr: inner, collation } = expr {
        by_bytes(collation)?;
        *expr = ast::Expr::Nested(inner.clone());
    }
    spelling::as_calls(expr);
    literals::type_parts(expr);
    Ok(())
}

/// `SELECT DISTINCT f(a) ... ORDER BY f(a)` orders by the output: the number of the column says so, whatever its name is.
fn order_by_outputs(query: &mut ast::Query) {
    let (ast::SetExpr::Select(select), Some(order_by)) = (query.body.as_ref(), &mut query.order_by) else {
        return;
    };
    let ast::OrderByKind::Expressions(keys) = &mut order_by.kind else { return };
    if select.distinct.is_none() {
        return;
    }
    for key in keys {
        let is_column = matches!(key.expr, ast::Expr::Identifier(_) | ast::Expr::CompoundIdentifier(_));
        let explicit = select.projection.iter().map_while(|item| match item {
            SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr),
            _ => None,
        });
        if !is_column && let Some(at) = explicit.into_iter().position(|expr| *expr == key.expr) {
            key.expr = ast::Expr::value(ast::Value::Number((at + 1).to_string(), false));
        }
    }
}

/// `SELECT a::text AS b FROM t ORDER BY b`: the output, by its number, as its name will be another.
fn order_by_names(query: &mut ast::Query) {
    let (ast::SetExpr::Select(select), Some(order_by)) = (query.body.as_ref(), &mut query.order_by) else {
        return;
    };
    let ast::OrderByKind::Expressions(keys) = &mut order_by.kind else { return };
    let outputs = select.projection.iter().map(|item| match item {
        SelectItem::UnnamedExpr(expr) => Some(names::of_expression(expr)),
        SelectItem::ExprWithAlias { alias, .. } => Some(fold(alias)),
        _ => None,
    });
    // The numbers of outputs behind a `*` are not known.
    let Some(outputs) = outputs.collect::<Option<Vec<String>>>() else { return };
    for key in keys {
        let ast::Expr::Identifier(ident) = &key.expr else { continue };
        if let Some(at) = outputs.iter().position(|name| *name == fold(ident)) {
            key.expr = ast::Expr::value(ast::Value::Number((at + 1).to_string(), false));
        }
    }
}

/// What PostgreSQL refuses of an aggregate over a window.
fn refuse_in_window(call: &ast::Function) -> Result<(), SqlError> {
    use ast::Spanned;
    let ast::FunctionArguments::List(list) = &call.args else { return Ok(()) };
    if call.over.is_none() {
        return Ok(());
    }
    let ordered = list.clauses.iter().any(|clause| matches!(clause, ast::FunctionArgumentClause::OrderBy(_)));
    let text = match () {
        () if matches!(list.duplicate_treatment, Some(ast::DuplicateTreatment::Distinct)) => {
            "DISTINCT is not implemented for window functions"
        }
        () if ordered => "aggregate ORDER BY is not implemented for window functions",
        () if !call.within_group.is_empty() => "OVER is not supported for ordered-set aggregates",
        () => return Ok(()),
    };
    let error = SqlError::unsupported(text).hint("Aggregate in a subquery, and join it.");
    Err(crate::errors::at_opt(error, position_of(call.span())))
}

/// Text compares by bytes; collations that say so may be named.
fn by_bytes(collation: &ast::ObjectName) -> Result<(), SqlError> {
    use ast::Spanned;
    let name = collation
        .0
        .last()
        .and_then(|part| part.as_ident())
        .map(|ident| ident.value.clone())
        .unwrap_or_default();
    if ["C", "POSIX", "default", "ucs_basic", "C.UTF-8", "C.utf8"].contains(&name.as_str()) {
        return Ok(());
    }
    let error = SqlError::new(
        SqlState::UNDEFINED_OBJECT,
        format!("collation \"{name}\" for encoding \"UTF8\" does not exist"),
    );
    Err(crate::errors::at_opt(
        error.hint("Text compares by bytes: COLLATE \"C\"."),
        position_of(collation.span()),
    ))
}

fn has_limit(clause: &ast::LimitClause) -> bool {
    !matches!(clause, ast::LimitClause::LimitOffset { limit: None, .. })
}

impl Rewriter<'_> {
    /// Gives every output an explicit name, and different ones where PostgreSQL allows the same name twice.
    fn name_outputs(&self, select: &mut ast::Select) {
        let set_apart = self.reading.rename_outputs && self.depth == 1;
        let mut seen: HashMap<String, usize> = HashMap::new();
        for item in &mut select.projection {
            let (name, named) = match item {
                SelectItem::UnnamedExpr(expr) => {
                    let of_function = matches!(expr, ast::Expr::Identifier(ident)
                        if self.reading.of_functions.contains_key(&fold(ident)));
                    (names::of_expression(expr), is_column(expr) && !of_function)
                }
                SelectItem::ExprWithAlias { alias, .. } => (fold(alias), true),
                _ => continue,
            };
            let count = seen.entry(name.clone()).or_insert(0);
            *count += 1;
            let name = match (*count, set_apart) {
                (1, false) if named => continue,
                (1, false) => name,
                (n, _) => names::distinct(&name, n),
            };
            let alias = ast::Ident::with_quote('"', name);
            let placeholder = SelectItem::Wildcard(ast::WildcardAdditionalOptions::default());
            *item = match std::mem::replace(item, placeholder) {
                SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => {
                    SelectItem::ExprWithAlias { expr, alias }
                }
                other => other,
            };
        }
    }

    /// Takes the metadata columns that are in the scan out of each `*` over it.
    fn hide_metadata(&self, select: &mut ast::Select) -> Result<(), SqlError> {
        if self.named.metadata.is_empty() {
            return Ok(());
        }
        let factors: Vec<Option<(String, bool)>> = select
            .from
            .iter()
            .flat_map(|from| std::iter::once(&from.relation).chain(from.joins.iter().map(|j| &j.relation)))
            .map(|factor| self.factor(factor))
            .collect();
        if !factors.iter().flatten().any(|(_, source)| *source) {
            return Ok(());
        }
        let mut projection = Vec::with_capacity(select.projection.len());
        for item in select.projection.drain(..) {
            match item {
                SelectItem::Wildcard(options) if factors.len() == 1 => {
                    projection.push(SelectItem::Wildcard(self.without_metadata(options)));
                }
                SelectItem::Wildcard(options) => {
                    for factor in &factors {
                        let Some((name, source)) = factor else {
                            return Err(SqlError::unsupported(
                                "* beside metadata columns of a source is not supported here",
                            )
                            .hint("Name the columns, or give each relation an alias."));
                        };
                        projection.push(self.qualified(name, *source, options.clone()));
                    }
                }
                SelectItem::QualifiedWildcard(
                    ast::SelectItemQualifiedWildcardKind::ObjectName(of),
                    options,
                ) => {
                    let last = of.0.last().and_then(|p| p.as_ident()).map(fold).unwrap_or_default();
                    let source = factors.iter().flatten().any(|(name, source)| *source && *name == last);
                    projection.push(self.qualified(&last, source, options));
                }
                other => projection.push(other),
            }
        }
        select.projection = projection;
        Ok(())
    }

    fn qualified(&self, name: &str, source: bool, options: ast::WildcardAdditionalOptions) -> SelectItem {
        let of = ast::ObjectName::from(vec![ast::Ident::with_quote('"', name)]);
        let options = if source { self.without_metadata(options) } else { options };
        SelectItem::QualifiedWildcard(ast::SelectItemQualifiedWildcardKind::ObjectName(of), options)
    }

    fn without_metadata(
        &self,
        mut options: ast::WildcardAdditionalOptions,
    ) -> ast::WildcardAdditionalOptions {
        let hidden =
            self.named.metadata.iter().map(|m| ast::ObjectName::from(vec![ast::Ident::new(m.name())]));
        options.opt_exclude = Some(ast::ExcludeSelectItem::Multiple(hidden.collect()));
        options
    }

    /// The name by which a FROM item's columns are qualified, and whether it has metadata columns.
    fn factor(&self, factor: &TableFactor) -> Option<(String, bool)> {
        match factor {
            TableFactor::Table { name, alias, args, .. } => {
                let named = RelationName::from_ast(name).ok()?;
                let (of, source) = match args {
                    None => (named.name.clone(), self.is_source(&named)),
                    Some(args) => {
                        let over = crate::window_sql::table_argument(&args.args);
                        let over = over.and_then(|name| RelationName::from_ast(&name).ok());
                        let source = over.as_ref().is_some_and(|name| self.is_source(name));
                        (over.map_or(named.name, |name| name.name), source)
                    }
                };
                Some((alias.as_ref().map_or(of, |alias| fold(&alias.name)), source))
            }
            TableFactor::UNNEST { alias, .. } => {
                Some((alias.as_ref().map_or_else(|| "unnest".to_owned(), |alias| fold(&alias.name)), false))
            }
            TableFactor::Function { alias, name, .. } => {
                let name = table_function::named(name);
                alias.as_ref().map(|alias| fold(&alias.name)).or(name).map(|name| (name, false))
            }
            TableFactor::Derived { alias, .. } | TableFactor::TableFunction { alias, .. } => {
                alias.as_ref().map(|alias| (fold(&alias.name), false))
            }
            _ => None,
        }
    }

    fn is_source(&self, name: &RelationName) -> bool {
        let cte = name.schema.is_none() && self.named.ctes.contains(&name.name);
        !cte && (self.is_source)(name)
    }
}

fn is_column(expr: &ast::Expr) -> bool {
    matches!(expr, ast::Expr::Identifier(_) | ast::Expr::CompoundIdentifier(_))
}
