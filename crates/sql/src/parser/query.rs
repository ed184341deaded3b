//! What sqlparser reads, and nobody behind it plans: refused here, in one place, so that no clause is ever ignored.
//!
//! DataFusion's planner passes over some of these without a word (a table's version, row locks), and sqlparser reads
//! clauses of a dozen other databases.

use std::ops::ControlFlow;

use millpond_types::SqlError;
use sqlparser::ast::{
    Delete, Insert, Query, Select, SelectItem, SetExpr, Spanned, Statement, TableFactor, TableVersion,
    Update, Visit, Visitor,
};

use crate::lexer::syntax_error_near;
use crate::{position_of, quote_literal};

/// # Errors
/// 0A000 for the first clause that Millpond does not have, with its place where the tree keeps one.
pub(super) fn refuse_in(tree: &impl Visit) -> Result<(), SqlError> {
    match tree.visit(&mut Refuse) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Refuse;

/// Breaks with a refusal if the clause is there.
fn refuse(found: bool, what: &str, hint: &str) -> ControlFlow<SqlError> {
    if !found {
        return ControlFlow::Continue(());
    }
    let error = SqlError::unsupported(format!("{what} is not supported"));
    ControlFlow::Break(if hint.is_empty() { error } else { error.hint(hint) })
}

impl Visitor for Refuse {
    type Break = SqlError;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<SqlError> {
        let modifies = matches!(
            *query.body,
            SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_)
        );
        refuse(modifies, "a data-modifying statement in WITH", "Run it as a statement of its own.")?;
        let is_table = matches!(*query.body, SetExpr::Table(_));
        refuse(is_table, "TABLE inside of a query", "Write SELECT * FROM.")?;
        refuse(
            !query.locks.is_empty(),
            "a row lock (FOR UPDATE, FOR SHARE)",
            "Concurrent updates are not lost without it.",
        )?;
        if let Some(fetch) = &query.fetch {
            refuse(fetch.with_ties, "FETCH … WITH TIES", "Use rank() in a subquery.")?;
            refuse(fetch.percent, "FETCH … PERCENT", "")?;
        }
        refuse(query.for_clause.is_some(), "FOR XML, JSON or BROWSE", "")?;
        refuse(query.settings.is_some(), "SETTINGS in a query", "Use SET.")?;
        refuse(query.format_clause.is_some(), "FORMAT in a query", "Use COPY.")?;
        refuse(!query.pipe_operators.is_empty(), "a pipe operator", "")
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<SqlError> {
        let at = |flow: ControlFlow<SqlError>| match (flow, position_of(select.select_token.0.span)) {
            (ControlFlow::Break(error), Some(position)) => ControlFlow::Break(error.at(position)),
            (flow, _) => flow,
        };
        // sqlparser takes a string for an alias, PostgreSQL does not.
        let string = select.projection.iter().find_map(|item| match item {
            SelectItem::ExprWithAlias { alias, .. } if alias.quote_style == Some('\'') => Some(&alias.value),
            _ => None,
        });
        if let Some(string) = string {
            return ControlFlow::Break(syntax_error_near(&quote_literal(string)));
        }
        at(refuse(select.into.is_some(), "SELECT INTO", "Use CREATE TABLE … AS."))?;
        at(refuse(select.top.is_some(), "TOP", "Use LIMIT."))?;
        at(refuse(!select.lateral_views.is_empty(), "LATERAL VIEW", "Use unnest()."))?;
        at(refuse(select.prewhere.is_some(), "PREWHERE", "Use WHERE."))?;
        at(refuse(!select.connect_by.is_empty(), "CONNECT BY", ""))?;
        at(refuse(select.select_modifiers.is_some(), "a SELECT modifier", ""))?;
        at(refuse(select.value_table_mode.is_some(), "SELECT AS VALUE or STRUCT", ""))?;
        at(refuse(select.exclude.is_some(), "EXCLUDE", "List the columns."))?;
        let sorted =
            !select.cluster_by.is_empty() || !select.distribute_by.is_empty() || !select.sort_by.is_empty();
        at(refuse(sorted, "CLUSTER BY, DISTRIBUTE BY or SORT BY", "Use ORDER BY."))
    }

    fn pre_visit_table_factor(&mut self, table: &TableFactor) -> ControlFlow<SqlError> {
        let flow = match table {
            TableFactor::Table {
                with_hints, version, partitions, json_path, sample, index_hints, ..
            } => {
                let hints = !with_hints.is_empty() || !index_hints.is_empty();
                // A join may name a version by a time of its rows; the planner refuses it elsewhere.
                let other =
                    version.as_ref().is_some_and(|v| !matches!(v, TableVersion::ForSystemTimeAsOf(_)));
                refuse(other, "reading a table as of another time", "Read it as it is now.")
                    .or_else(|| refuse(sample.is_some(), "TABLESAMPLE", "Filter by random()."))
                    .or_else(|| refuse(hints, "a table hint", ""))
                    .or_else(|| {
                        refuse(!partitions.is_empty() || json_path.is_some(), "a path into a table", "")
                    })
            }
            TableFactor::Derived { sample, .. } => {
                refuse(sample.is_some(), "TABLESAMPLE", "Filter by random().")
            }
            TableFactor::MatchRecognize { .. } => refuse(true, "MATCH_RECOGNIZE", ""),
            TableFactor::Pivot { .. } | TableFactor::Unpivot { .. } => {
                refuse(true, "PIVOT", "Use aggregates with FILTER (WHERE …).")
            }
            TableFactor::JsonTable { .. }
            | TableFactor::OpenJsonTable { .. }
            | TableFactor::XmlTable { .. } => refuse(true, "a table function over JSON or XML", ""),
            TableFactor::SemanticView { .. } => refuse(true, "SEMANTIC_VIEW", ""),
            TableFactor::UNNEST { with_offset: true, .. } => {
                refuse(true, "WITH OFFSET", "Use WITH ORDINALITY.")
            }
            _ => ControlFlow::Continue(()),
        };
        match (flow, position_of(table.span())) {
            (ControlFlow::Break(error), Some(position)) => ControlFlow::Break(error.at(position)),
            (flow, _) => flow,
        }
    }

    fn pre_visit_statement(&mut self, statement: &Statement) -> ControlFlow<SqlError> {
        match statement {
            Statement::Insert(insert) => refuse_in_insert(insert),
            Statement::Update(update) => refuse_in_update(update),
            Statement::Delete(delete) => refuse_in_delete(delete),
            _ => ControlFlow::Continue(()),
        }
    }
}

/// The first of several checks that refuses.
trait FirstRefusal {
    fn or_else(self, next: impl FnOnce() -> Self) -> Self;
}

impl FirstRefusal for ControlFlow<SqlError> {
    fn or_else(self, next: impl FnOnce() -> Self) -> Self {
        if self.is_break() { self } else { next() }
    }
}

fn refuse_in_insert(insert: &Insert) -> ControlFlow<SqlError> {
    let conflict = insert.or.is_some() || insert.ignore || insert.replace_into;
    refuse(conflict, "INSERT OR, IGNORE or REPLACE", "Use INSERT … ON CONFLICT.")?;
    refuse(insert.overwrite, "INSERT OVERWRITE", "Use DELETE and INSERT in a transaction.")?;
    refuse(!insert.assignments.is_empty(), "INSERT … SET", "Use INSERT … (columns) VALUES.")?;
    refuse(insert.output.is_some(), "OUTPUT", "Use RETURNING.")?;
    let other = insert.partitioned.is_some()
        || !insert.after_columns.is_empty()
        || insert.has_table_keyword
        || insert.priority.is_some()
        || insert.insert_alias.is_some()
        || insert.settings.is_some()
        || insert.format_clause.is_some()
        || insert.multi_table_insert_type.is_some();
    refuse(other, "this form of INSERT", "Use INSERT INTO t (columns) VALUES, or INSERT … SELECT.")
}

fn refuse_in_update(update: &Update) -> ControlFlow<SqlError> {
    refuse(update.or.is_some(), "UPDATE OR", "")?;
    refuse(update.output.is_some(), "OUTPUT", "Use RETURNING.")?;
    let limited = !update.order_by.is_empty() || update.limit.is_some();
    refuse(limited, "UPDATE … ORDER BY or LIMIT", "Select the keys in a subquery.")
}

fn refuse_in_delete(delete: &Delete) -> ControlFlow<SqlError> {
    refuse(!delete.tables.is_empty(), "DELETE of several tables", "Use one DELETE for each.")?;
    refuse(delete.output.is_some(), "OUTPUT", "Use RETURNING.")?;
    let limited = !delete.order_by.is_empty() || delete.limit.is_some();
    refuse(limited, "DELETE … ORDER BY or LIMIT", "Select the keys in a subquery.")
}
