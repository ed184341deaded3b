//! INSERT: values, defaults and conflicts.

use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::{EmptyRelation, Expr, LogicalPlan, LogicalPlanBuilder, Values};
use millpond_catalog::{Column, Relation, RelationKind};
use millpond_functions::error::from_datafusion;
use millpond_functions::rewrite::postgres_literal;
use millpond_sql::{RelationName, fold, position_of};
use millpond_types::{RelationId, SqlError, SqlState, SqlType};
use sqlparser::ast::{self, Spanned};

use super::change::{RowScope, Scope};
use super::{EXCLUDED, InsertPlan, OnConflict};
use crate::column::{has_subquery, refuse_aggregates};
use crate::errors::{self, Places, at_opt};
use crate::rules::without_alias;
use crate::{Metadata, Planner, coercion, parameters, rules};

/// 428C9 `cannot insert a non-DEFAULT value into column "x"`.
const GENERATED_ALWAYS: SqlState = SqlState::new("428C9");

impl Planner {
    /// Plans an INSERT into a table or source.
    ///
    /// # Errors
    /// As PostgreSQL: 42703, 42601 (too many or few expressions), 42804 (a value of another type), 428C9 (a generated column).
    pub fn plan_insert(
        &self,
        insert: &ast::Insert,
        parameter_types: &[Option<SqlType>],
    ) -> Result<InsertPlan, SqlError> {
        let name = match &insert.table {
            ast::TableObject::TableName(name) => RelationName::from_ast(name)?,
            other => return Err(SqlError::unsupported(format!("INSERT INTO {other} is not supported"))),
        };
        let relation = Arc::clone(self.write_target(&name)?);
        refuse_connector(&relation).map_err(|e| name.mark(e))?;
        let (partition, given) = match with_partition(&relation, insert) {
            Some(widened) => (true, Arc::new(widened)),
            None => (false, Arc::clone(&relation)),
        };
        let targets = targets(&given, insert)?;
        let alias = insert.table_alias.as_ref().map_or_else(|| relation.name.clone(), |a| fold(&a.alias));
        let count = parameters::count(insert)?.max(parameter_types.len());
        let mut types: Vec<Option<SqlType>> = parameter_types.to_vec();
        types.resize(count, None);
        types.iter_mut().for_each(|ty| *ty = ty.take().filter(|ty| *ty != SqlType::Unknown));
        let places = Places::of(insert);
        if count > 0 {
            self.infer_insert(insert, &given, &targets, &alias, &places, &mut types)?;
        }
        let parameters: Vec<SqlType> = types.into_iter().map(|ty| ty.unwrap_or(SqlType::Text)).collect();
        let types: Vec<_> = parameters.iter().cloned().map(Some).collect();

        let mut scope = RowScope::new(self, &relation, &alias, &types, &places)?;
        let defaults = Defaults::new(self, &given, &targets)?;
        scope.session |= defaults.session;
        let (rows, relations) = match body(insert) {
            Body::Default => (values(&given, vec![defaults.row.clone()])?, Vec::new()),
            Body::Values(rows) => {
                let (rows, relations) = self.values_rows(&rows, &targets, &given, &defaults, &mut scope)?;
                (values(&given, rows)?, relations)
            }
            Body::Query(query) => {
                let (plan, relations, session) =
                    self.query_rows(query, &targets, &given, &defaults, &types, &places)?;
                scope.session |= session;
                (plan, relations)
            }
        };
        let on_conflict = match &insert.on {
            None => OnConflict::Error,
            Some(ast::OnInsert::OnConflict(on)) => {
                self.on_conflict(on, &relation, &alias, &types, &places, &mut scope)?
            }
            Some(_) => {
                return Err(SqlError::unsupported("ON DUPLICATE KEY UPDATE is not supported")
                    .hint("Use ON CONFLICT (key) DO UPDATE SET ..."));
            }
        };
        let returning = insert.returning.as_ref().map(|items| scope.returning(items)).transpose()?;
        Ok(InsertPlan {
            relation: relation.id,
            rows,
            partition,
            on_conflict,
            returning,
            parameters,
            relations,
            session_dependent: scope.session(),
        })
    }

    /// Finds the types of parameters: those of the columns they are stored in, else what their places tell.
    fn infer_insert(
        &self,
        insert: &ast::Insert,
        relation: &Relation,
        targets: &[usize],
        alias: &str,
        places: &Places,
        types: &mut [Option<SqlType>],
    ) -> Result<(), SqlError> {
        match body(insert) {
            Body::Default => {}
            Body::Values(rows) => {
                let scope = Scope::new(self, DFSchema::empty(), types, places);
                for row in &rows {
                    for (expr, target) in row.iter().zip(targets) {
                        if is_default(expr) {
                            continue;
                        }
                        let bound = scope.bind(expr)?;
                        column_parameter(&bound, &relation.columns[*target].ty, types);
                        parameters::infer_expression(&bound, &DFSchema::empty(), types);
                    }
                }
            }
            Body::Query(query) => {
                let bound = self.bind(query, types, places)?;
                if let LogicalPlan::Projection(projection) = &bound.plan {
                    for (expr, target) in projection.expr.iter().zip(targets) {
                        column_parameter(&without_alias(expr.clone()), &relation.columns[*target].ty, types);
                    }
                }
                parameters::infer(&bound.plan, types);
            }
        }
        if let Some(ast::OnInsert::OnConflict(ast::OnConflict {
            action: ast::OnConflictAction::DoUpdate(update),
            ..
        })) = &insert.on
        {
            let schema = conflict_schema(relation, alias)?;
            let scope = Scope::new(self, schema, types, places);
            scope.infer_assignments(&update.assignments, relation, types)?;
            if let Some(filter) = &update.selection {
                scope.infer(filter, types)?;
            }
        }
        Ok(())
    }

    fn values_rows(
        &self,
        rows: &[&[ast::Expr]],
        targets: &[usize],
        relation: &Relation,
        defaults: &Defaults,
        scope: &mut RowScope<'_>,
    ) -> Result<(Vec<Vec<Expr>>, Vec<RelationId>), SqlError> {
        let width = rows.first().map_or(0, |row| row.len());
        let (empty, zone) = (DFSchema::empty(), self.settings.zone());
        let inner = Scope::new(self, DFSchema::empty(), scope.types, scope.places);
        let mut complete = Vec::with_capacity(rows.len());
        for row in rows {
            if row.len() != width {
                let error = SqlError::new(SqlState::SYNTAX_ERROR, "VALUES lists must all be the same length");
                return Err(at_opt(error, row.first().and_then(|e| position_of(e.span()))));
            }
            check_width(row.len(), targets, relation, defaults.explicit, |i| {
                row.get(i).and_then(|e| position_of(e.span()))
            })?;
            let mut values = defaults.row.clone();
            for (expr, target) in row.iter().zip(targets) {
                let column = &relation.columns[*target];
                if is_default(expr) {
                    continue;
                }
                let place = position_of(expr.span());
                if column.generated.is_some() {
                    return Err(at_opt(generated(&column.name), place));
                }
                let bound = inner.bind(expr)?;
                refuse_aggregates(&bound, "VALUES").map_err(|e| at_opt(e, place))?;
                values[*target] =
                    coercion::assign(postgres_literal(bound), &column.name, &column.ty, &empty, zone, place)?;
            }
            complete.push(values);
        }
        scope.session |= inner.session();
        Ok((complete, inner.relations()))
    }

    /// The rows of a query, as columns of the relation.
    fn query_rows(
        &self,
        query: &ast::Query,
        targets: &[usize],
        relation: &Relation,
        defaults: &Defaults,
        types: &[Option<SqlType>],
        places: &Places,
    ) -> Result<(LogicalPlan, Vec<RelationId>, bool), SqlError> {
        let bound = self.bind(query, types, places)?;
        let width = bound.plan.schema().fields().len();
        check_width(width, targets, relation, defaults.explicit, |_| None)?;
        // A quoted literal in the outermost SELECT is of no type yet.
        let literals: Vec<Option<Expr>> = match &bound.plan {
            LogicalPlan::Projection(projection) => {
                projection.expr.iter().map(|e| Some(without_alias(e.clone())).filter(is_untyped)).collect()
            }
            _ => vec![None; width],
        };
        let plan =
            rules::analyze(bound.plan, self.settings.zone()).map_err(|e| errors::planning(e, places))?;
        let schema = Arc::clone(plan.schema());
        let mut outputs = defaults.row.clone();
        for (i, target) in targets.iter().enumerate().take(width) {
            let column = &relation.columns[*target];
            if column.generated.is_some() {
                return Err(generated(&column.name));
            }
            let value = literals[i].clone().unwrap_or_else(|| Expr::from(schema.qualified_field(i)));
            outputs[*target] =
                coercion::assign(value, &column.name, &column.ty, &schema, self.settings.zone(), None)?;
        }
        let outputs = outputs.into_iter().zip(&relation.columns).map(|(e, c)| e.alias(c.name.as_str()));
        let plan = LogicalPlanBuilder::from(plan).project(outputs).and_then(LogicalPlanBuilder::build);
        let plan = plan.and_then(rules::optimize).map_err(|e| errors::planning(e, places))?;
        Ok((plan, bound.relations, bound.session.is_some()))
    }

    fn on_conflict(
        &self,
        on: &ast::OnConflict,
        relation: &Relation,
        alias: &str,
        types: &[Option<SqlType>],
        places: &Places,
        row: &mut RowScope<'_>,
    ) -> Result<OnConflict, SqlError> {
        let (key, key_name) = match &relation.kind {
            RelationKind::Table(table) => (table.primary_key.clone(), table.primary_key_name.clone()),
            _ => (Vec::new(), None),
        };
        let matches = match &on.conflict_target {
            None => true,
            Some(ast::ConflictTarget::Columns(columns)) => {
                let mut named = columns
                    .iter()
                    .map(|ident| column_of(relation, &fold(ident), position_of(ident.span)))
                    .collect::<Result<Vec<_>, _>>()?;
                named.sort_unstable();
                let mut key = key.clone();
                key.sort_unstable();
                !key.is_empty() && named == key
            }
            Some(ast::ConflictTarget::OnConstraint(name)) => {
                let name = RelationName::from_ast(name)?;
                let key_name = key_name.unwrap_or_else(|| format!("{}_pkey", relation.name));
                if key.is_empty() || name.name != key_name {
                    let text = format!(
                        "constraint \"{}\" for table \"{}\" does not exist",
                        name.name, relation.name
                    );
                    return Err(name.mark(SqlError::new(SqlState::UNDEFINED_OBJECT, text)));
                }
                true
            }
        };
        if !matches {
            return Err(SqlError::new(
                SqlState::INVALID_COLUMN_REFERENCE,
                "there is no unique or exclusion constraint matching the ON CONFLICT specification",
            ));
        }
        let update = match &on.action {
            ast::OnConflictAction::DoNothing => return Ok(OnConflict::Nothing),
            ast::OnConflictAction::DoUpdate(update) => update,
        };
        if on.conflict_target.is_none() {
            let text = "ON CONFLICT DO UPDATE requires inference specification or constraint name";
            return Err(
                SqlError::new(SqlState::SYNTAX_ERROR, text).hint("For example, ON CONFLICT (column_name).")
            );
        }
        let scope = Scope::new(self, conflict_schema(relation, alias)?, types, places);
        let assignments = scope.assignments(&update.assignments, relation, alias)?;
        let filter = update.selection.as_ref().map(|filter| scope.condition(filter, "WHERE")).transpose()?;
        row.session |= scope.session();
        Ok(OnConflict::Update {
            assignments: assignments.into_iter().map(excluded).collect(),
            filter: filter.map(excluded),
        })
    }
}

enum Body<'a> {
    Default,
    Values(Vec<&'a [ast::Expr]>),
    Query(&'a ast::Query),
}

fn body(insert: &ast::Insert) -> Body<'_> {
    match insert.source.as_deref() {
        None => Body::Default,
        Some(query) => match query.body.as_ref() {
            ast::SetExpr::Values(values)
                if query.with.is_none() && query.order_by.is_none() && query.limit_clause.is_none() =>
            {
                Body::Values(values.rows.iter().map(|row| &row[..]).collect())
            }
            _ => Body::Query(query),
        },
    }
}

/// The relation with the column `_partition` behind its own, if the statement names it and the relation has partitions.
fn with_partition(relation: &Relation, insert: &ast::Insert) -> Option<Relation> {
    let is_partition = |name: &ast::ObjectName| {
        let ident = name.0.last().and_then(|part| part.as_ident());
        ident.is_some_and(|ident| fold(ident) == Metadata::Partition.name())
    };
    if !relation.is_append_only() || !insert.columns.iter().any(is_partition) {
        return None;
    }
    let mut widened = relation.clone();
    let partition = Metadata::Partition;
    widened.columns.push(Column::new(partition.name(), partition.sql_type(None), true));
    Some(widened)
}

/// The columns that are given values, in the order of the values.
fn targets(relation: &Relation, insert: &ast::Insert) -> Result<Vec<usize>, SqlError> {
    if insert.columns.is_empty() {
        return Ok((0..relation.columns.len()).collect());
    }
    let mut targets = Vec::with_capacity(insert.columns.len());
    for name in &insert.columns {
        let ident = name.0.last().and_then(|p| p.as_ident());
        let (folded, place) = ident.map_or_else(Default::default, |i| (fold(i), position_of(i.span)));
        let at = column_of(relation, &folded, place)?;
        if targets.contains(&at) {
            let text = format!("column \"{folded}\" specified more than once");
            return Err(at_opt(SqlError::new(SqlState::DUPLICATE_COLUMN, text), place));
        }
        targets.push(at);
    }
    Ok(targets)
}

/// The column of that name.
pub(super) fn column_of(relation: &Relation, name: &str, place: Option<usize>) -> Result<usize, SqlError> {
    relation.column_index(name).ok_or_else(|| {
        let text = format!("column \"{name}\" of relation \"{}\" does not exist", relation.name);
        let error = at_opt(SqlError::new(SqlState::UNDEFINED_COLUMN, text), place);
        match millpond_sql::nearest(name, relation.columns.iter().map(|c| c.name.as_str())) {
            Some(near) => error.hint(format!("Perhaps you meant the column \"{near}\".")),
            None => error,
        }
    })
}

fn check_width(
    given: usize,
    targets: &[usize],
    relation: &Relation,
    explicit: bool,
    place: impl Fn(usize) -> Option<usize>,
) -> Result<(), SqlError> {
    if given > targets.len() {
        let error = SqlError::new(SqlState::SYNTAX_ERROR, "INSERT has more expressions than target columns");
        return Err(at_opt(error, place(targets.len())));
    }
    if explicit && given < targets.len() {
        let error = SqlError::new(SqlState::SYNTAX_ERROR, "INSERT has more target columns than expressions");
        let missing = &relation.columns[targets[given]].name;
        return Err(error.detail(format!("The first column without an expression is \"{missing}\".")));
    }
    Ok(())
}

fn generated(column: &str) -> SqlError {
    SqlError::new(GENERATED_ALWAYS, format!("cannot insert a non-DEFAULT value into column \"{column}\""))
        .detail(format!("Column \"{column}\" is a generated column."))
}

fn refuse_connector(relation: &Relation) -> Result<(), SqlError> {
    match &relation.kind {
        RelationKind::Source(source) => match &source.connector {
            Some(connector) => Err(SqlError::new(
                SqlState::WRONG_OBJECT_TYPE,
                format!("cannot insert into source \"{}\"", relation.name),
            )
            .detail(format!("Its rows come from the connector {}.", connector.name))
            .hint("Insert into a source without a connector.")),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

/// What columns get that are given nothing.
struct Defaults {
    /// One expression per declared column.
    row: Vec<Expr>,
    /// A column list was written.
    explicit: bool,
    session: bool,
}

impl Defaults {
    fn new(planner: &Planner, relation: &Relation, targets: &[usize]) -> Result<Self, SqlError> {
        let mut session = false;
        let mut row = Vec::with_capacity(relation.columns.len());
        for column in &relation.columns {
            let default = match (&column.default, &column.generated) {
                (Some(text), None) => {
                    let expr = millpond_sql::parse_expression(text)?;
                    let planned =
                        planner.plan_column_expression(&[], &expr, Some((&column.name, &column.ty)))?;
                    session |= planned.volatile;
                    planned.expr
                }
                _ => null(&column.ty)?,
            };
            row.push(default);
        }
        let explicit =
            targets.len() != relation.columns.len() || targets.iter().enumerate().any(|(i, t)| i != *t);
        Ok(Self { row, explicit, session })
    }
}

pub(super) fn null(ty: &SqlType) -> Result<Expr, SqlError> {
    Ok(Expr::Literal(ScalarValue::try_new_null(&ty.arrow()).map_err(from_datafusion)?, None))
}

/// A plan of constant rows with the relation's columns.
fn values(relation: &Relation, rows: Vec<Vec<Expr>>) -> Result<LogicalPlan, SqlError> {
    let fields = relation.columns.iter().map(|c| c.ty.field(&c.name, true)).collect::<Vec<_>>();
    let schema = Arc::new(DFSchema::try_from(Schema::new(fields)).map_err(from_datafusion)?);
    if relation.columns.is_empty() {
        return Ok(LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: true, schema }));
    }
    if !rows.iter().flatten().any(has_subquery) {
        return Ok(LogicalPlan::Values(Values { schema, values: rows }));
    }
    // Subqueries cannot stand in a Values node.
    let mut plan: Option<LogicalPlanBuilder> = None;
    for row in rows {
        let outputs = row.into_iter().zip(&relation.columns).map(|(e, c)| e.alias(c.name.as_str()));
        let one = LogicalPlanBuilder::empty(true).project(outputs).and_then(LogicalPlanBuilder::build);
        let one = one.map_err(from_datafusion)?;
        plan = Some(match plan {
            None => LogicalPlanBuilder::from(one),
            Some(before) => before.union(one).map_err(from_datafusion)?,
        });
    }
    let plan = plan.unwrap_or_else(|| LogicalPlanBuilder::empty(false));
    plan.build().and_then(rules::optimize).map_err(from_datafusion)
}

pub(super) fn is_default(expr: &ast::Expr) -> bool {
    matches!(expr, ast::Expr::Identifier(ident) if ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("default"))
}

fn is_untyped(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(ScalarValue::Utf8(_) | ScalarValue::Null, _))
}

/// A bare parameter is of the type of the column that it is stored in.
pub(super) fn column_parameter(bound: &Expr, ty: &SqlType, types: &mut [Option<SqlType>]) {
    if let Expr::Placeholder(Placeholder { id, .. }) = bound
        && let Some(n) = id.strip_prefix('$').and_then(|n| n.parse::<usize>().ok())
        && let Some(slot @ None) = n.checked_sub(1).and_then(|n| types.get_mut(n))
    {
        *slot = Some(ty.clone());
    }
}

/// The old row's columns under the table's name, then those of the row to insert under `excluded`.
fn conflict_schema(relation: &Relation, alias: &str) -> Result<DFSchema, SqlError> {
    let arrow = relation.arrow_schema();
    let qualified = |name: &str| DFSchema::try_from_qualified_schema(name, &arrow);
    qualified(alias).and_then(|old| old.join(&qualified("excluded")?)).map_err(from_datafusion)
}

/// `excluded.c` as one name, all other columns bare.
fn excluded(expr: Expr) -> Expr {
    use datafusion::common::tree_node::{Transformed, TreeNode};
    let renamed = expr.transform_up(|e| {
        Ok(match e {
            Expr::Column(datafusion::common::Column { relation: Some(relation), name, .. })
                if relation.table() == "excluded" =>
            {
                Transformed::yes(Expr::Column(datafusion::common::Column::new_unqualified(format!(
                    "{EXCLUDED}{name}"
                ))))
            }
            other => Transformed::no(other),
        })
    });
    crate::column::unqualified(renamed.expect("renaming columns cannot fail").data)
}
