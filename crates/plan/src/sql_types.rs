//! Types that SQL names, for DataFusion: PostgreSQL's meaning of them.

use std::sync::Arc;

use arrow::datatypes::FieldRef;
use datafusion::common::Result;
use datafusion::logical_expr::planner::TypePlanner;
use millpond_functions::error::into_datafusion;

/// `CAST(x AS t)` to the marked field of `t`: timestamps in microseconds, varchar(n) and uuid told from text and bytea.
#[derive(Debug)]
pub(crate) struct PostgresTypes;

impl TypePlanner for PostgresTypes {
    fn plan_type_field(&self, sql_type: &sqlparser::ast::DataType) -> Result<Option<FieldRef>> {
        let ty = millpond_sql::types::resolve(sql_type, 0).map_err(into_datafusion)?;
        Ok(Some(Arc::new(ty.field("", true))))
    }
}
