//! Relations that describe the system: how the front end's `pg_catalog` reaches the planner.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF};
use datafusion::sql::sqlparser::ast;
use millpond_catalog::Catalog;

/// What a system relation or function may depend on, fixed for one statement.
#[derive(Clone, Debug)]
pub struct SystemContext {
    pub catalog: Arc<Catalog>,
    pub user: String,
    pub database: String,
    pub backend_pid: i32,
    pub search_path: Vec<String>,
    /// All settings of the session, by name.
    pub settings: Arc<BTreeMap<String, String>>,
    pub connections: Vec<ConnectionInfo>,
    /// What the statement's text named in other ways, for `\d`-like lookups: rows of each relation where known.
    pub row_estimates: BTreeMap<u32, u64>,
}

/// A row of pg_stat_activity.
#[derive(Clone, Debug, Default)]
pub struct ConnectionInfo {
    pub pid: i32,
    pub user: String,
    pub database: String,
    pub application_name: String,
    pub client_address: Option<String>,
    pub backend_start_micros: i64,
    pub query: String,
    pub state: &'static str,
}

/// `pg_catalog` and `information_schema`, made by the PostgreSQL front end out of the catalog.
pub trait SystemCatalog: Send + Sync {
    /// The schemas whose names it resolves.
    fn schemas(&self) -> &[&'static str];

    /// The relation of that schema and name, with the rows that it has for this statement.
    fn table(&self, schema: &str, name: &str, context: &SystemContext) -> Option<Arc<dyn TableProvider>>;

    /// Functions such as pg_get_userbyid, bound to the statement's context.
    fn functions(&self, context: &SystemContext) -> Vec<Arc<ScalarUDF>>;

    /// Aggregate functions that only catalog queries need.
    fn aggregates(&self) -> Vec<Arc<AggregateUDF>> {
        Vec::new()
    }

    /// Whether the statement names a system relation or system function, so that [`SystemCatalog::rewrite`] may touch it.
    fn concerns(&self, statement: &ast::Statement) -> bool;

    /// Brings spellings that DataFusion does not plan (`OPERATOR(pg_catalog.~)`, `COLLATE`, `::regclass`) into ones that it
    /// does. Called only for statements that [`SystemCatalog::concerns`] claims.
    fn rewrite(&self, statement: &mut ast::Statement, context: &SystemContext);
}
