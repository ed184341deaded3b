//! Expressions that belong to a relation's columns: watermark, DEFAULT, generated columns, CHECK.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::PhysicalExpr;
use millpond_types::{SqlError, SqlType};

/// A typed expression over the declared columns of one relation.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnExpression {
    /// Columns are named without a qualifier.
    pub expr: Expr,
    pub ty: SqlType,
    /// The declared columns it reads, ascending.
    pub columns: Vec<usize>,
    /// It calls something that answers differently each time (random(), nextval()) or now().
    pub volatile: bool,
}

/// `expr` over batches of `schema`, whose fields it names without qualifiers. This is the way for the expressions of
/// incremental plans, of columns and of writes alike.
///
/// # Errors
/// 42804 and the like if it does not type.
pub fn physical(expr: &Expr, schema: &SchemaRef) -> Result<Arc<dyn PhysicalExpr>, SqlError> {
    let _ = (expr, schema);
    unimplemented!()
}
