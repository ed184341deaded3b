//! `pg_catalog` and `information_schema`, generated from Millpond's catalog for each statement that names them.
//!
//! [`schema`] knows every relation of PostgreSQL 15 with its columns; [`relations`] fills those that have something to
//! say, from the [`facts`] of a statement, and the rest are empty. [`functions`] answers `format_type` and its like.
//! [`rewrite`] turns the spellings that clients use and DataFusion does not plan into ones that it does.

mod cell;
mod facts;
mod functions;
mod relations;
mod rewrite;
mod schema;

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use datafusion::logical_expr::ScalarUDF;
use datafusion::sql::sqlparser::ast;
use millpond_engine::{SystemCatalog, SystemContext};

use self::facts::Facts;
pub(crate) use self::facts::oid;

/// The oid of the elements of an array type of PostgreSQL.
pub(crate) fn array_element(oid: u32) -> Option<u32> {
    facts::type_by_oid(oid).filter(|ty| ty.category == "A").map(|ty| ty.element)
}

/// What [`millpond_engine::Engine::open`] is given, so that statements can name `pg_catalog` and `information_schema`.
pub fn system_catalog() -> Arc<dyn SystemCatalog> {
    Arc::new(SystemRelations)
}

struct SystemRelations;

impl SystemCatalog for SystemRelations {
    fn schemas(&self) -> &[&'static str] {
        &["pg_catalog", "information_schema"]
    }

    fn table(&self, schema: &str, name: &str, context: &SystemContext) -> Option<Arc<dyn TableProvider>> {
        let relation = schema::find(schema, name)?;
        let rows = relations::rows(&relation, &Facts::new(context.clone()));
        let table = MemTable::try_new(Arc::clone(&relation.arrow), vec![vec![rows]]);
        Some(Arc::new(table.expect("the rows have the relation's schema")))
    }

    fn functions(&self, context: &SystemContext) -> Vec<Arc<ScalarUDF>> {
        functions::bound(&Arc::new(Facts::new(context.clone())))
    }

    fn concerns(&self, statement: &ast::Statement) -> bool {
        rewrite::concerns(statement)
    }

    fn rewrite(&self, statement: &mut ast::Statement, _context: &SystemContext) {
        rewrite::rewrite(statement);
    }
}
