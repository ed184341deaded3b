//! An engine without a front end has no pg_catalog.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::logical_expr::ScalarUDF;
use datafusion::sql::sqlparser::ast;
use millpond_engine::{SystemCatalog, SystemContext};

pub struct NoCatalog;

impl SystemCatalog for NoCatalog {
    fn schemas(&self) -> &[&'static str] {
        &[]
    }

    fn table(&self, _schema: &str, _name: &str, _context: &SystemContext) -> Option<Arc<dyn TableProvider>> {
        None
    }

    fn functions(&self, _context: &SystemContext) -> Vec<Arc<ScalarUDF>> {
        Vec::new()
    }

    fn concerns(&self, _statement: &ast::Statement) -> bool {
        false
    }

    fn rewrite(&self, _statement: &mut ast::Statement, _context: &SystemContext) {}
}
