//! The entry points of planning.

use std::sync::Arc;

use datafusion::logical_expr::LogicalPlan;
use millpond_catalog::Catalog;
use millpond_types::{EventTime, RelationId, SqlError, SqlType};
use sqlparser::ast;

use millpond_sql::statement::ColumnName;

use crate::{ColumnExpression, DeletePlan, InsertPlan, SystemTables, UpdatePlan};

/// What of a session a plan depends on. A view freezes them at CREATE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanSettings {
    /// Schemas in the order in which unqualified names are looked for; `pg_catalog` is searched first unless it is named.
    pub search_path: Vec<String>,
    /// The session's TimeZone.
    pub time_zone: String,
    /// What now() answers: the statement's (in a block: the transaction's) time.
    pub now: EventTime,
    pub database: String,
    pub user: String,
}

/// A query, typed and optimized; its `RelationSource` scans have yet to be replaced by providers.
#[derive(Clone, Debug)]
pub struct QueryPlan {
    /// Outputs have the canonical Arrow types of `columns`. Field names are unique, so they may differ from the names there.
    pub logical: LogicalPlan,
    /// Names as PostgreSQL gives them (they may repeat) and types.
    pub columns: Vec<(String, SqlType)>,
    /// The types of $1, $2, …
    pub parameters: Vec<SqlType>,
    /// Catalog relations that are read, views looked through, each once.
    pub relations: Vec<RelationId>,
}

/// Plans the statements of one session over one catalog snapshot. Cheap to make.
pub struct Planner {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) settings: PlanSettings,
    pub(crate) system: Option<Arc<dyn SystemTables>>,
}

impl Planner {
    pub fn new(
        catalog: Arc<Catalog>,
        settings: PlanSettings,
        system: Option<Arc<dyn SystemTables>>,
    ) -> Self {
        Self { catalog, settings, system }
    }

    /// Plans a query. `parameter_types` are what the client gave, `None` where it leaves the choice to us. Errors carry the
    /// positions that `millpond-sql` put into the tree.
    ///
    /// # Errors
    /// What PostgreSQL says of an unknown name, a wrong type or a misplaced aggregate; 0A000 for what Millpond lacks.
    pub fn plan_query(
        &self,
        query: &ast::Query,
        parameter_types: &[Option<SqlType>],
    ) -> Result<QueryPlan, SqlError> {
        let _ = (query, parameter_types);
        unimplemented!()
    }

    /// Plans the query of a view. As [`Planner::plan_query`], and refuses what an answer that is kept up to date cannot hold:
    /// parameters, volatile functions, now() and what depends on the session. `columns` renames the first outputs.
    ///
    /// # Errors
    /// Also 42701 for two columns of one name, 42P16 for more names than columns, 0A000 as said.
    pub fn plan_view(&self, query: &ast::Query, columns: &[ColumnName]) -> Result<QueryPlan, SqlError> {
        let _ = (query, columns);
        unimplemented!()
    }

    /// Plans an INSERT into a table or source.
    ///
    /// # Errors
    /// As PostgreSQL: 42703, 42601 (too many or few expressions), 42804 (a value of another type), 428C9 (a generated column).
    pub fn plan_insert(
        &self,
        insert: &ast::Insert,
        parameter_types: &[Option<SqlType>],
    ) -> Result<InsertPlan, SqlError> {
        let _ = (insert, parameter_types);
        unimplemented!()
    }

    /// Plans an UPDATE of a table.
    ///
    /// # Errors
    /// As [`Planner::plan_insert`]; 0A000 with FROM or subqueries, or if the relation is no table with rows that change.
    pub fn plan_update(
        &self,
        update: &ast::Update,
        parameter_types: &[Option<SqlType>],
    ) -> Result<UpdatePlan, SqlError> {
        let _ = (update, parameter_types);
        unimplemented!()
    }

    /// Plans a DELETE from a table.
    ///
    /// # Errors
    /// As [`Planner::plan_update`].
    pub fn plan_delete(
        &self,
        delete: &ast::Delete,
        parameter_types: &[Option<SqlType>],
    ) -> Result<DeletePlan, SqlError> {
        let _ = (delete, parameter_types);
        unimplemented!()
    }

    /// Types an expression over the columns of one relation: a watermark, a generated column, a CHECK; a DEFAULT, which may
    /// name no column, over the same relation. `to` is the type it is stored as, by assignment; `None` leaves its own.
    ///
    /// # Errors
    /// As PostgreSQL's for the expression; 0A000 for subqueries; 42803 and 42P20 for aggregates and window functions.
    pub fn plan_column_expression(
        &self,
        columns: &[(String, SqlType, bool)],
        expr: &ast::Expr,
        to: Option<&SqlType>,
    ) -> Result<ColumnExpression, SqlError> {
        let _ = (columns, expr, to);
        unimplemented!()
    }
}
