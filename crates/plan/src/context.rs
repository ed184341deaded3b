//! Names to relations, functions and types: DataFusion's `ContextProvider` over one catalog snapshot.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::catalog::TableFunctionArgs;
use datafusion::catalog::cte_worktable::CteWorkTable;
use datafusion::common::config::ConfigOptions;
use datafusion::common::{Result, TableReference};
use datafusion::datasource::provider_as_source;
use datafusion::execution::SessionStateDefaults;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::planner::{ContextProvider, ExprPlanner, RelationPlanner, TypePlanner};
use datafusion::logical_expr::{
    AggregateUDF, Expr, HigherOrderUDF, LogicalPlan, ScalarUDF, TableSource, WindowUDF,
};
use millpond_catalog::{Relation, RelationKind};
use millpond_functions::Registry;
use millpond_functions::error::into_datafusion;
use millpond_functions::rewrite::PostgresOperators;
use millpond_sql::RelationName;
use millpond_types::{RelationId, SqlError, SqlState};

use crate::constant::{session_function, unknown_function};
use crate::sql_types::PostgresTypes;
use crate::window_sql::WindowPlanner;
use crate::{Metadata, Planner, RelationFacts, RelationSource, names};

/// Relations and functions that the engine supplies: pg_catalog, information_schema, millpond.*.
pub trait SystemTables: Send + Sync {
    fn table(&self, schema: &str, name: &str) -> Option<Arc<dyn TableSource>>;
    /// A scalar function that the registry of `millpond-functions` lacks (lower-case name, without a schema).
    fn function(&self, name: &str) -> Option<Arc<ScalarUDF>>;
}

/// DataFusion's options as Millpond wants them: canonical Arrow types and PostgreSQL's order of NULLs. The engine's
/// sessions use the same.
pub fn config_options() -> &'static Arc<ConfigOptions> {
    static OPTIONS: LazyLock<Arc<ConfigOptions>> = LazyLock::new(|| {
        let mut options = ConfigOptions::default();
        options.sql_parser.parse_float_as_decimal = true;
        options.sql_parser.map_string_types_to_utf8view = false;
        options.sql_parser.collect_spans = true;
        options.sql_parser.default_null_ordering = "nulls_max".into();
        options.execution.time_zone = Some(millpond_types::sql_type::UTC.into());
        options.optimizer.skip_failed_rules = false;
        Arc::new(options)
    });
    &OPTIONS
}

static EXPR_PLANNERS: LazyLock<Vec<Arc<dyn ExprPlanner>>> = LazyLock::new(|| {
    let mut planners: Vec<Arc<dyn ExprPlanner>> = vec![Arc::new(PostgresOperators)];
    planners.extend(SessionStateDefaults::default_expr_planners());
    planners
});

static RELATION_PLANNERS: LazyLock<Vec<Arc<dyn RelationPlanner>>> =
    LazyLock::new(|| vec![Arc::new(WindowPlanner)]);

/// The names of one statement.
pub(crate) struct Context<'a> {
    planner: &'a Planner,
    /// Metadata columns that the statement names.
    metadata: Vec<Metadata>,
    /// Relations that were found, each once.
    relations: RefCell<Vec<RelationId>>,
    /// A function was called whose answer depends on the session or the time.
    session: RefCell<Option<String>>,
    depth: Cell<usize>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(planner: &'a Planner, metadata: Vec<Metadata>) -> Self {
        Self {
            planner,
            metadata,
            relations: RefCell::default(),
            session: RefCell::default(),
            depth: Cell::new(planner.depth),
        }
    }

    pub(crate) fn into_findings(self) -> (Vec<RelationId>, Option<String>) {
        (self.relations.into_inner(), self.session.into_inner())
    }

    pub(crate) fn planner(&self) -> &'a Planner {
        self.planner
    }

    pub(crate) fn relations(&self) -> Vec<RelationId> {
        self.relations.borrow().clone()
    }

    pub(crate) fn asked_session(&self) -> bool {
        self.session.borrow().is_some()
    }

    fn found(&self, id: RelationId) {
        let mut relations = self.relations.borrow_mut();
        if !relations.contains(&id) {
            relations.push(id);
        }
    }

    fn source(&self, name: &TableReference) -> std::result::Result<Arc<dyn TableSource>, SqlError> {
        let (schema, table) = (name.schema(), name.table());
        if let Some(system) = &self.planner.system {
            let searched = match schema {
                Some(schema) => vec![schema],
                None if self.planner.settings.search_path.iter().any(|s| s == "pg_catalog") => Vec::new(),
                None => vec!["pg_catalog"],
            };
            if let Some(source) = searched.into_iter().find_map(|schema| system.table(schema, table)) {
                return Ok(source);
            }
        }
        let name = RelationName::new(schema, table);
        let found = self.planner.catalog.resolve(&name, &self.planner.settings.search_path);
        let relation = match (found, &self.planner.system) {
            (Ok(relation), _) => relation,
            (Err(error), Some(system)) => {
                let path = self.planner.settings.search_path.iter().filter(|_| schema.is_none());
                return path.into_iter().find_map(|s| system.table(s, table)).ok_or(error);
            }
            (Err(error), None) => return Err(error),
        };
        self.relation_source(relation)
    }

    fn relation_source(
        &self,
        relation: &Arc<Relation>,
    ) -> std::result::Result<Arc<dyn TableSource>, SqlError> {
        match &relation.kind {
            RelationKind::View(view) => {
                if self.depth.get() >= VIEW_DEPTH_MAX {
                    return Err(SqlError::new(
                        SqlState::STATEMENT_TOO_COMPLEX,
                        "views are nested too deeply",
                    ));
                }
                let (plan, relations, session) = self.planner.inline_view(relation, view)?;
                relations.into_iter().for_each(|id| self.found(id));
                if let Some(session) = session {
                    self.session.borrow_mut().get_or_insert(session);
                }
                Ok(Arc::new(ViewSource { plan, schema: relation.arrow_schema() }))
            }
            RelationKind::Source(_) | RelationKind::Table(_) | RelationKind::MaterializedView(_) => {
                self.found(relation.id);
                let facts = Arc::new(RelationFacts::of(relation));
                let metadata = if facts.metadata { self.metadata.clone() } else { Vec::new() };
                Ok(Arc::new(RelationSource::new(facts, metadata)))
            }
            RelationKind::Sink(_) | RelationKind::Index(_) => Err(SqlError::new(
                SqlState::WRONG_OBJECT_TYPE,
                format!("cannot open relation \"{}\"", relation.name),
            )
            .detail(format!("This operation is not supported for {}.", plural(&relation.kind)))),
        }
    }
}

/// How many views may stand on each other.
const VIEW_DEPTH_MAX: usize = 64;

fn plural(kind: &RelationKind) -> &'static str {
    if matches!(kind, RelationKind::Index(_)) { "indexes" } else { "sinks" }
}

/// A view in the place where it is named: its query.
struct ViewSource {
    plan: LogicalPlan,
    schema: SchemaRef,
}

impl TableSource for ViewSource {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn get_logical_plan(&'_ self) -> Option<Cow<'_, LogicalPlan>> {
        Some(Cow::Borrowed(&self.plan))
    }
}

/// For what of DataFusion wants a session while it plans: the functions, and nothing of any user's session.
pub(crate) fn session_state() -> &'static SessionState {
    static SESSION: LazyLock<SessionState> = LazyLock::new(|| {
        let mut state = SessionStateBuilder::new().build();
        millpond_functions::register(&mut state).expect("a session takes functions");
        state
    });
    &SESSION
}

fn bare(name: &str) -> &str {
    name.strip_prefix("pg_catalog.").unwrap_or(name)
}

/// Functions that SqlToRel knows by itself.
const BUILT_IN: [&str; 4] = ["unnest", "unnest_outer", "make_map", "map"];

impl ContextProvider for Context<'_> {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        self.source(&name).map_err(into_datafusion)
    }

    fn get_table_function_source(&self, name: &str, args: Vec<Expr>) -> Result<Arc<dyn TableSource>> {
        static FUNCTIONS: LazyLock<Vec<Arc<datafusion::catalog::TableFunction>>> =
            LazyLock::new(SessionStateDefaults::default_table_functions);
        let name = bare(name).to_lowercase();
        let function = FUNCTIONS.iter().find(|f| f.name() == name).ok_or_else(|| {
            let message = format!("function {name} does not exist");
            into_datafusion(
                SqlError::new(SqlState::UNDEFINED_FUNCTION, message)
                    .hint("Functions that FROM can call are those that return sets, and TUMBLE, HOP, CUMULATE and SESSION."),
            )
        })?;
        let session: &dyn datafusion::catalog::Session = session_state();
        let provider = function.create_table_provider_with_args(TableFunctionArgs::new(&args, session))?;
        Ok(provider_as_source(provider))
    }

    fn create_cte_work_table(&self, name: &str, schema: SchemaRef) -> Result<Arc<dyn TableSource>> {
        Ok(provider_as_source(Arc::new(CteWorkTable::new(name, schema))))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &EXPR_PLANNERS
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        &RELATION_PLANNERS
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(PostgresTypes))
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        let name = bare(name);
        if let Some(function) = names::of_rows(name) {
            return Some(function);
        }
        if let Some(function) = session_function(name, &self.planner.settings) {
            self.session.borrow_mut().get_or_insert_with(|| name.to_owned());
            return Some(function);
        }
        let registry = Registry::global();
        let system = || self.planner.system.as_ref().and_then(|system| system.function(name));
        if let Some(function) = registry.scalar(name).or_else(system) {
            return Some(function);
        }
        let known = registry.aggregate(name).is_some() || registry.window(name).is_some();
        (!known && !BUILT_IN.contains(&name)).then(|| unknown_function(name))
    }

    fn get_higher_order_meta(&self, _name: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        Registry::global().aggregate(bare(name))
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        Registry::global().window(bare(name))
    }

    fn get_variable_type(&self, _names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        config_options()
    }

    fn udf_names(&self) -> Vec<String> {
        Registry::global().scalar_names()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udaf_names(&self) -> Vec<String> {
        Registry::global().aggregate_names()
    }

    fn udwf_names(&self) -> Vec<String> {
        Registry::global().window_names()
    }
}
