//! The entry points of planning.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::FieldRef;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Volatility};
use datafusion::sql::planner::{PlannerContext, SqlToRel};
use millpond_catalog::{Catalog, Relation, View};
use millpond_functions::{Registry, Zone};
use millpond_sql::RelationName;
use millpond_sql::statement::ColumnName;
use millpond_types::{EventTime, RelationId, SqlError, SqlState, SqlType};
use sqlparser::ast;

use crate::context::Context;
use crate::errors::{self, Places, at_opt};
use crate::prepare::Reading;
use crate::{
    RelationFacts, SystemTables, clock, flat_map, grouping_sets, names, parameters, prepare, rules,
    set_operation, ties,
};

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

impl PlanSettings {
    pub(crate) fn zone(&self) -> Zone {
        // What SET has taken is a zone; so is what a view froze.
        Zone::of_setting(&self.time_zone).map_or(Zone::UTC, |(zone, _)| zone)
    }
}

/// A query, typed and optimized; its `RelationSource` scans have yet to be replaced by providers.
#[derive(Clone, Debug)]
pub struct QueryPlan {
    /// Outputs have the canonical Arrow types of `columns`. Field names are unique, so they may differ from the names there.
    pub logical: LogicalPlan,
    /// Names as PostgreSQL gives them (they may repeat) and types.
    pub columns: Vec<(String, SqlType)>,
    /// Where a view's query asks for now() first, for errors of its incremental plan.
    pub(crate) clock_place: Option<usize>,
    /// Where its first subquery stands.
    pub(crate) subquery_place: Option<usize>,
    /// The types of $1, $2, …
    pub parameters: Vec<SqlType>,
    /// Catalog relations that are read, views looked through, each once.
    pub relations: Vec<RelationId>,
    /// now(), current_user or the like was answered from the settings: plan a prepared statement again before it runs.
    pub session_dependent: bool,
}

impl QueryPlan {
    /// An error of the plan of a view, with its place if it is about now() or a subquery.
    pub fn placed(&self, error: SqlError) -> SqlError {
        match clock::is_refusal(&error) {
            true => at_opt(error, self.clock_place),
            false if errors::is_about_subquery(&error) => at_opt(error, self.subquery_place),
            false => error,
        }
    }
}

/// Plans the statements of one session over one catalog snapshot. Cheap to make.
pub struct Planner {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) settings: PlanSettings,
    pub(crate) system: Option<Arc<dyn SystemTables>>,
    /// Views between the statement and this planner.
    pub(crate) depth: usize,
    /// now() is that of the log ([`clock`]).
    pub(crate) clock: bool,
}

/// A query with its names resolved and nothing typed yet.
pub(crate) struct Bound {
    pub(crate) plan: LogicalPlan,
    pub(crate) relations: Vec<RelationId>,
    /// A function that answered from the session.
    pub(crate) session: Option<String>,
}

impl Planner {
    pub fn new(catalog: Arc<Catalog>, settings: PlanSettings, system: Option<Arc<dyn SystemTables>>) -> Self {
        Self { catalog, settings, system, depth: 0, clock: false }
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
        let places = Places::of(query);
        let (bound, parameters) = self.bind_typed(query, parameter_types, &places)?;
        self.finish(bound, parameters, &places, false)
    }

    /// Plans the query of a view. As [`Planner::plan_query`], and refuses what an answer that is kept up to date cannot hold:
    /// parameters, volatile functions and what depends on the session. now() is the only parameter of the plan.
    /// `columns` renames the first outputs.
    ///
    /// # Errors
    /// Also 42701 for two columns of one name, 42601 for more names than columns, 0A000 as said.
    pub fn plan_view(&self, query: &ast::Query, columns: &[ColumnName]) -> Result<QueryPlan, SqlError> {
        let places = Places::of(query);
        if parameters::count(query)? > 0 {
            return Err(SqlError::new(SqlState::UNDEFINED_PARAMETER, "there is no parameter $1"));
        }
        let planner = Self {
            catalog: Arc::clone(&self.catalog),
            settings: self.settings.clone(),
            system: self.system.clone(),
            depth: self.depth,
            clock: true,
        };
        let bound = planner.bind(query, &[], &places)?;
        if let Some(function) = &bound.session {
            return Err(at_opt(
                not_in_view(function, "depends on the session or the time"),
                places.function(function),
            ));
        }
        refuse_in_view(&bound.plan, self.system.as_deref(), &places)?;
        let mut plan = self.finish(bound, Vec::new(), &places, true)?;
        if columns.len() > plan.columns.len() {
            let text = "CREATE MATERIALIZED VIEW specifies more column names than columns";
            return Err(SqlError::new(SqlState::SYNTAX_ERROR, text).at(columns[plan.columns.len()].position));
        }
        for (given, (name, _)) in columns.iter().zip(&mut plan.columns) {
            name.clone_from(&given.name);
        }
        for (i, (name, _)) in plan.columns.iter().enumerate() {
            if plan.columns[..i].iter().any(|(other, _)| other == name) {
                let error = SqlError::new(
                    SqlState::DUPLICATE_COLUMN,
                    format!("column \"{name}\" specified more than once"),
                );
                return Err(error.hint("Give one of them another name with AS."));
            }
        }
        Ok(plan)
    }

    /// Resolves names, and finds the types of parameters that the client left open.
    pub(crate) fn bind_typed(
        &self,
        query: &ast::Query,
        given: &[Option<SqlType>],
        places: &Places,
    ) -> Result<(Bound, Vec<SqlType>), SqlError> {
        let count = parameters::count(query)?.max(given.len());
        let mut types: Vec<Option<SqlType>> = given.to_vec();
        types.resize(count, None);
        types.iter_mut().for_each(|ty| *ty = ty.take().filter(|ty| *ty != SqlType::Unknown));
        let bound = self.bind(query, &types, places)?;
        if types.iter().all(Option::is_some) {
            return Ok((bound, types.into_iter().flatten().collect()));
        }
        parameters::infer(&bound.plan, &mut types);
        let types: Vec<_> = types.into_iter().map(|ty| ty.unwrap_or(SqlType::Text)).collect();
        let again: Vec<_> = types.iter().cloned().map(Some).collect();
        Ok((self.bind(query, &again, places)?, types))
    }

    /// Resolves names.
    pub(crate) fn bind(
        &self,
        query: &ast::Query,
        parameter_types: &[Option<SqlType>],
        places: &Places,
    ) -> Result<Bound, SqlError> {
        let mut reading = Reading::default();
        let mut first = None;
        loop {
            match self.try_bind(query, parameter_types, places, &reading) {
                Err(error) if reading.revise(&error, query) => {
                    first.get_or_insert(error);
                }
                Err(error) => return Err(first.unwrap_or(error)),
                bound => return bound,
            }
        }
    }

    fn try_bind(
        &self,
        query: &ast::Query,
        parameter_types: &[Option<SqlType>],
        places: &Places,
        reading: &Reading,
    ) -> Result<Bound, SqlError> {
        let mut query = query.clone();
        let is_source = |name: &RelationName| self.is_source(name);
        let metadata = prepare::prepare(&mut query, &is_source, reading, self.clock)?;
        let context = Context::new(self, metadata);
        let clock = [Some(clock::TYPE)];
        let parameter_types = if self.clock { &clock } else { parameter_types };
        let mut planner_context =
            PlannerContext::new().with_prepare_param_data_types(parameter_fields(parameter_types));
        let plan = SqlToRel::new(&context)
            .sql_statement_to_plan_with_context(ast::Statement::Query(Box::new(query)), &mut planner_context)
            .and_then(flat_map::expand)
            .and_then(set_operation::set_operations)
            .map_err(|e| errors::planning(e, places))?;
        refuse_misread(&plan)?;
        let (relations, session) = context.into_findings();
        Ok(Bound { plan, relations, session })
    }

    pub(crate) fn is_source(&self, name: &RelationName) -> bool {
        self.catalog
            .resolve(name, &self.settings.search_path)
            .is_ok_and(|relation| RelationFacts::of(relation).metadata)
    }

    /// With `total`, all that SQL leaves to chance is settled: see [`ties`].
    fn finish(
        &self,
        bound: Bound,
        parameters: Vec<SqlType>,
        places: &Places,
        total: bool,
    ) -> Result<QueryPlan, SqlError> {
        let planning = |e| errors::planning(e, places);
        let plan = rules::analyze(bound.plan, self.settings.zone()).map_err(planning)?;
        let (plan, columns) = canonical(plan)?;
        let plan = match total {
            true => ties::number_distinct_on(plan).and_then(grouping_sets::expand).map_err(planning)?,
            false => plan,
        };
        let logical = rules::optimize(plan).map_err(planning)?;
        let logical = if total { ties::total_order(logical).map_err(planning)? } else { logical };
        Ok(QueryPlan {
            logical,
            columns,
            clock_place: clock::place(places),
            subquery_place: places.subquery(),
            parameters,
            relations: bound.relations,
            session_dependent: bound.session.is_some(),
        })
    }

    /// The query of a view with the columns that the catalog says, what it reads, and what of the session it asks.
    pub(crate) fn inline_view(
        &self,
        relation: &Relation,
        view: &View,
    ) -> Result<(LogicalPlan, Vec<RelationId>, Option<String>), SqlError> {
        let inner = Planner {
            catalog: self.catalog.as_of(relation.created_at),
            settings: PlanSettings {
                search_path: view.frozen.search_path.clone(),
                time_zone: view.frozen.time_zone.clone(),
                ..self.settings.clone()
            },
            system: self.system.clone(),
            depth: self.depth + 1,
            clock: self.clock,
        };
        let inlined = || {
            let query = millpond_sql::parse_query(&view.query)?;
            let places = Places::default();
            let bound = inner.bind(&query, &[], &places)?;
            if bound.plan.schema().fields().len() != relation.columns.len() {
                let text = format!("view \"{}\" has other columns than when it was created", relation.name);
                return Err(SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, text)
                    .hint("Drop it and create it again."));
            }
            let outputs = bound.plan.schema().columns();
            let outputs =
                outputs.into_iter().zip(&relation.columns).enumerate().map(|(i, (output, column))| {
                    let same = bound.plan.schema().field(i).data_type() == &column.ty.arrow();
                    let expr =
                        if same { Expr::Column(output) } else { cast(Expr::Column(output), &column.ty) };
                    expr.alias(column.name.as_str())
                });
            let plan = LogicalPlanBuilder::from(bound.plan.clone())
                .project(outputs)
                .and_then(LogicalPlanBuilder::build)
                .map_err(|e| errors::planning(e, &places))?;
            Ok((plan, bound.relations, bound.session))
        };
        // Positions inside the view's text mean nothing in the statement that names the view.
        inlined().map_err(|error: SqlError| {
            let mut bare = SqlError::new(error.state(), error.message());
            if let Some(detail) = error.detail_text() {
                bare = bare.detail(detail);
            }
            bare.hint(error.hint_text().map_or_else(
                || format!("The error is in view \"{}\".", relation.name),
                |hint| format!("{hint} The error is in view \"{}\".", relation.name),
            ))
        })
    }
}

pub(crate) fn parameter_fields(types: &[Option<SqlType>]) -> Vec<Option<FieldRef>> {
    let field = |(i, ty): (usize, &Option<SqlType>)| {
        ty.as_ref().map(|ty| Arc::new(ty.field(format!("${}", i + 1), true)))
    };
    types.iter().enumerate().map(field).collect()
}

/// `expr` in the Arrow type of `ty`.
pub(crate) fn cast(expr: Expr, ty: &SqlType) -> Expr {
    Expr::Cast(Cast::new_from_field(Box::new(expr), Arc::new(ty.field("", true))))
}

/// An analyzed plan with outputs in canonical Arrow types under unique names, and what the user sees of them.
pub(crate) fn canonical(plan: LogicalPlan) -> Result<(LogicalPlan, Vec<(String, SqlType)>), SqlError> {
    let mut columns = Vec::with_capacity(plan.schema().fields().len());
    let mut outputs = Vec::with_capacity(columns.capacity());
    let mut seen: HashMap<String, usize> = HashMap::new();
    for (qualifier, field) in plan.schema().iter() {
        let ty = SqlType::of(field)?;
        let name = names::shown(field.name()).to_owned();
        let count = seen.entry(name.clone()).or_insert(0);
        *count += 1;
        let unique = if *count == 1 { name.clone() } else { names::distinct(&name, *count) };
        let column = Expr::from((qualifier, field));
        let same = *field.data_type() == ty.arrow();
        outputs.push(if same { column } else { cast(column, &ty) }.alias(unique));
        columns.push((name, ty));
    }
    let plan = LogicalPlanBuilder::from(plan)
        .project(outputs)
        .and_then(LogicalPlanBuilder::build)
        .map_err(|e| errors::planning(e, &Places::default()))?;
    Ok((plan, columns))
}

fn not_in_view(function: &str, why: &str) -> SqlError {
    SqlError::unsupported(format!("{function}() {why} and cannot stand in a materialized view"))
        .hint("Compute it when rows are inserted, with a DEFAULT, or in the query that reads the view.")
}

/// Refuses what DataFusion reads otherwise than PostgreSQL: the merged column of USING and NATURAL is always the left one.
fn refuse_misread(plan: &LogicalPlan) -> Result<(), SqlError> {
    use datafusion::common::{JoinConstraint, JoinType};
    let mut found = None;
    let walk = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Join(join) = node
            && join.join_constraint == JoinConstraint::Using
            && matches!(join.join_type, JoinType::Right | JoinType::Full)
        {
            let text = "RIGHT and FULL JOIN with USING or NATURAL are not supported";
            found = Some(SqlError::unsupported(text).hint("Use ON, and coalesce for the common columns."));
        }
        Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    walk.map_err(millpond_functions::error::from_datafusion)?;
    found.map_or(Ok(()), Err)
}

fn refuse_in_view(
    plan: &LogicalPlan,
    system: Option<&dyn SystemTables>,
    places: &Places,
) -> Result<(), SqlError> {
    let mut found = None;
    // What pg_catalog adds to the registry belongs to connections.
    let mut foreign: Option<String> = None;
    let walk = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::ScalarFunction(call) = expr
                    && call.func.signature().volatility == Volatility::Volatile
                {
                    found.get_or_insert_with(|| call.func.name().to_owned());
                }
                if let Expr::ScalarFunction(call) = expr
                    && Registry::global().scalar(call.func.name()).is_none()
                    && system.is_some_and(|system| system.function(call.func.name()).is_some())
                {
                    foreign.get_or_insert_with(|| call.func.name().to_owned());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    debug_assert!(walk.is_ok(), "walking a plan cannot fail");
    if let Some(name) = foreign {
        let text = format!("the function {name} in a materialized view is not supported");
        let error = SqlError::unsupported(text).hint("Use it in the SELECT that reads the view.");
        return Err(at_opt(error, places.function(&name)));
    }
    match found {
        Some(name) => {
            Err(at_opt(not_in_view(&name, "answers differently each time"), places.function(&name)))
        }
        None => Ok(()),
    }
}
