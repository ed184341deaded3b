//! A DataFusion session as the planner sets it up, as far as expressions go.

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::common::config::ConfigOptions;
use datafusion::execution::SessionStateBuilder;
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::planner::{ExprPlanner, TypePlanner};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::optimizer::{Analyzer, AnalyzerRule};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::sqlparser::ast;
use millpond_functions::rewrite::{PostgresOperators, PostgresSemantics, common_types};
use millpond_functions::text::Formatter;
use millpond_functions::{all_aggregate, all_scalar, all_window, error};
use millpond_types::{SqlError, SqlType};

/// The SQL types that the tests name.
#[derive(Debug)]
struct Types;

impl TypePlanner for Types {
    fn plan_type_field(
        &self,
        ty: &ast::DataType,
    ) -> datafusion::common::Result<Option<arrow::datatypes::FieldRef>> {
        use ast::DataType::*;
        let numeric = |info: &ast::ExactNumberInfo| match info {
            ast::ExactNumberInfo::PrecisionAndScale(p, s) => SqlType::Numeric(*p as u8, *s as i8),
            ast::ExactNumberInfo::Precision(p) => SqlType::Numeric(*p as u8, 0),
            ast::ExactNumberInfo::None => SqlType::Numeric(38, 16),
        };
        let length = |length: &Option<ast::CharacterLength>| match length {
            Some(ast::CharacterLength::IntegerLength { length, .. }) => Some(*length as u32),
            _ => None,
        };
        let ty = match ty {
            Numeric(info) | Decimal(info) => numeric(info),
            Varchar(n) | CharacterVarying(n) => SqlType::Varchar(length(n)),
            Char(n) | Character(n) => SqlType::Char(length(n).unwrap_or(1)),
            Timestamp(_, ast::TimezoneInfo::None | ast::TimezoneInfo::WithoutTimeZone) => SqlType::Timestamp,
            Timestamp(..) => SqlType::Timestamptz,
            Time(..) => SqlType::Time,
            Interval { .. } => SqlType::Interval,
            Uuid => SqlType::Uuid,
            Bytea => SqlType::Bytea,
            JSON => SqlType::Json,
            JSONB => SqlType::Jsonb,
            _ => return Ok(None),
        };
        Ok(Some(Arc::new(ty.field("cast", true))))
    }
}

/// CASE before type coercion.
#[derive(Debug)]
struct CommonTypes;

impl AnalyzerRule for CommonTypes {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> datafusion::common::Result<LogicalPlan> {
        let node = |plan: LogicalPlan| {
            let schema = merge_schema(&plan.inputs());
            let names = NamePreserver::new(&plan);
            let plan = plan.map_expressions(|expr| {
                let name = names.save(&expr);
                Ok(common_types(expr, &schema)?.update_data(|expr| name.restore(expr)))
            })?;
            plan.map_data(LogicalPlan::recompute_schema)
        };
        plan.transform_up_with_subqueries(node).map(|t| t.data)
    }

    fn name(&self) -> &str {
        "common_types"
    }
}

pub fn context() -> SessionContext {
    let mut config = SessionConfig::new().with_target_partitions(1).with_information_schema(false);
    let options = config.options_mut();
    options.sql_parser.dialect = datafusion::config::Dialect::PostgreSQL;
    options.sql_parser.parse_float_as_decimal = true;
    options.sql_parser.map_string_types_to_utf8view = false;
    options.execution.time_zone = Some("+00:00".into());
    let mut rules = Analyzer::new().rules;
    rules.insert(0, Arc::new(CommonTypes));
    rules.push(Arc::new(PostgresSemantics));
    let mut planners: Vec<Arc<dyn ExprPlanner>> = vec![Arc::new(PostgresOperators)];
    planners.extend(datafusion::execution::SessionStateDefaults::default_expr_planners());
    let state = SessionStateBuilder::new_with_default_features()
        .with_config(config)
        .with_analyzer_rules(rules)
        .with_expr_planners(planners)
        .with_type_planner(Arc::new(Types))
        .with_scalar_functions(all_scalar())
        .with_aggregate_functions(all_aggregate())
        .with_window_functions(all_window())
        .build();
    SessionContext::new_with_state(state)
}

pub async fn batches(context: &SessionContext, sql: &str) -> Result<Vec<RecordBatch>, SqlError> {
    let frame = context.sql(sql).await.map_err(error::from_datafusion)?;
    frame.collect().await.map_err(error::from_datafusion)
}

/// Rows as text, columns joined by `|`; NULL is `∅`.
pub async fn query(context: &SessionContext, sql: &str) -> Result<Vec<String>, SqlError> {
    let mut rows = Vec::new();
    for batch in batches(context, sql).await? {
        let schema = batch.schema();
        let columns = schema
            .fields()
            .iter()
            .zip(batch.columns())
            .map(|(field, column)| Formatter::new(column, &SqlType::of(field)?));
        let columns = columns.collect::<Result<Vec<_>, SqlError>>()?;
        for row in 0..batch.num_rows() {
            let texts: Vec<String> =
                columns.iter().map(|c| c.text(row).unwrap_or_else(|| "∅".into())).collect();
            rows.push(texts.join("|"));
        }
    }
    Ok(rows)
}

/// One value as text, or `!SQLSTATE message`.
pub async fn value(context: &SessionContext, expression: &str) -> String {
    match query(context, &format!("SELECT {expression}")).await {
        Ok(rows) => rows.join("\n"),
        Err(error) => format!("!{} {}", error.state(), error.message()),
    }
}
