//! UPDATE and DELETE, and what all writes share: expressions over one row, RETURNING.

use std::sync::Arc;

use datafusion::common::DFSchema;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator};
use datafusion::sql::planner::{PlannerContext, SqlToRel};
use millpond_catalog::{Relation, RelationKind};
use millpond_functions::Zone;
use millpond_functions::error::from_datafusion;
use millpond_functions::rewrite::postgres_literal;
use millpond_sql::{RelationName, fold, position_of};
use millpond_types::{SqlError, SqlState, SqlType};
use sqlparser::ast::{self, Spanned};

use super::insert::{column_of, column_parameter, is_default, null};
use super::{DeletePlan, Returning, UpdatePlan};
use crate::column::{boolean, refuse_misplaced, unqualified};
use crate::context::Context;
use crate::errors::{self, Places, at_opt};
use crate::planner::parameter_fields;
use crate::{Planner, coercion, names, parameters, prepare, rules, trace};

impl Planner {
    /// The table or source of that name; what cannot be written is refused.
    pub(super) fn write_target(&self, name: &RelationName) -> Result<&Arc<Relation>, SqlError> {
        if let (Some(system), Some(schema)) = (&self.system, &name.schema)
            && system.table(schema, &name.name).is_some()
        {
            let text = format!("permission denied: \"{}\" is a system catalog", name.name);
            return Err(name.mark(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, text)));
        }
        let relation = self.catalog.resolve(name, &self.settings.search_path)?;
        let error = match &relation.kind {
            RelationKind::Source(_) | RelationKind::Table(_) => return Ok(relation),
            RelationKind::MaterializedView(_) => SqlError::new(
                SqlState::WRONG_OBJECT_TYPE,
                format!("cannot change materialized view \"{}\"", relation.name),
            )
            .hint("Change the sources and tables that it reads."),
            RelationKind::View(_) => {
                SqlError::unsupported(format!("cannot write to view \"{}\"", relation.name))
                    .hint("Write to the table that it reads.")
            }
            RelationKind::Sink(_) | RelationKind::Index(_) => SqlError::new(
                SqlState::WRONG_OBJECT_TYPE,
                format!("cannot write to {}", relation.described()),
            ),
        };
        Err(name.mark(error))
    }

    fn change_target(
        &self,
        factor: &ast::TableWithJoins,
        verb: &str,
    ) -> Result<(Arc<Relation>, String), SqlError> {
        let ast::TableFactor::Table { name, alias, args: None, .. } = &factor.relation else {
            return Err(SqlError::unsupported(format!("{verb} of {} is not supported", factor.relation)));
        };
        if !factor.joins.is_empty() {
            return Err(SqlError::unsupported(format!("{verb} with a join is not supported"))
                .hint("Use a condition on the table's own columns."));
        }
        let name = RelationName::from_ast(name)?;
        let relation = self.write_target(&name)?;
        if relation.is_append_only() {
            let text = format!("cannot {} {}", verb.to_lowercase(), relation.described());
            return Err(name
                .mark(SqlError::new(SqlState::WRONG_OBJECT_TYPE, text).detail("Its rows are append-only.")));
        }
        let alias = alias.as_ref().map_or_else(|| relation.name.clone(), |a| fold(&a.name));
        Ok((Arc::clone(relation), alias))
    }

    /// Plans an UPDATE of a table.
    ///
    /// # Errors
    /// As [`Planner::plan_insert`]; 0A000 with FROM or subqueries; 42809 for a relation whose rows do not change.
    pub fn plan_update(
        &self,
        update: &ast::Update,
        parameter_types: &[Option<SqlType>],
    ) -> Result<UpdatePlan, SqlError> {
        if update.from.is_some() {
            return Err(SqlError::unsupported("UPDATE ... FROM is not supported")
                .hint("Use a condition on the table's own columns."));
        }
        if !update.order_by.is_empty() || update.limit.is_some() {
            return Err(SqlError::new(SqlState::SYNTAX_ERROR, "UPDATE takes neither ORDER BY nor LIMIT"));
        }
        let (relation, alias) = self.change_target(&update.table, "UPDATE")?;
        let places = Places::of(update);
        let parameters =
            self.change_parameters(update, parameter_types, &relation, &alias, &places, |scope, types| {
                scope.infer_assignments(&update.assignments, &relation, types)?;
                update.selection.as_ref().map_or(Ok(()), |filter| scope.infer(filter, types))
            })?;
        let types: Vec<_> = parameters.iter().cloned().map(Some).collect();
        let row = RowScope::new(self, &relation, &alias, &types, &places)?;
        let assignments = row.scope.assignments(&update.assignments, &relation, &alias)?;
        let filter = row.filter(update.selection.as_ref())?;
        let returning = update.returning.as_ref().map(|items| row.returning(items)).transpose()?;
        Ok(UpdatePlan {
            relation: relation.id,
            point: point(filter.as_ref(), &relation),
            filter,
            assignments: assignments.into_iter().map(unqualified).collect(),
            returning,
            parameters,
            session_dependent: row.session(),
        })
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
        if delete.using.is_some() || !delete.tables.is_empty() {
            return Err(SqlError::unsupported("DELETE ... USING is not supported")
                .hint("Use a condition on the table's own columns."));
        }
        if !delete.order_by.is_empty() || delete.limit.is_some() {
            return Err(SqlError::new(SqlState::SYNTAX_ERROR, "DELETE takes neither ORDER BY nor LIMIT"));
        }
        let (ast::FromTable::WithFromKeyword(from) | ast::FromTable::WithoutKeyword(from)) = &delete.from;
        let [from] = &from[..] else {
            return Err(SqlError::unsupported("DELETE from several tables is not supported"));
        };
        let (relation, alias) = self.change_target(from, "DELETE")?;
        let places = Places::of(delete);
        let parameters =
            self.change_parameters(delete, parameter_types, &relation, &alias, &places, |scope, types| {
                delete.selection.as_ref().map_or(Ok(()), |filter| scope.infer(filter, types))
            })?;
        let types: Vec<_> = parameters.iter().cloned().map(Some).collect();
        let row = RowScope::new(self, &relation, &alias, &types, &places)?;
        let filter = row.filter(delete.selection.as_ref())?;
        let returning = delete.returning.as_ref().map(|items| row.returning(items)).transpose()?;
        Ok(DeletePlan {
            relation: relation.id,
            point: point(filter.as_ref(), &relation),
            filter,
            returning,
            parameters,
            session_dependent: row.session(),
        })
    }

    fn change_parameters(
        &self,
        tree: &impl ast::Visit,
        given: &[Option<SqlType>],
        relation: &Relation,
        alias: &str,
        places: &Places,
        infer: impl FnOnce(&Scope<'_>, &mut [Option<SqlType>]) -> Result<(), SqlError>,
    ) -> Result<Vec<SqlType>, SqlError> {
        let count = parameters::count(tree)?.max(given.len());
        let mut types: Vec<Option<SqlType>> = given.to_vec();
        types.resize(count, None);
        types.iter_mut().for_each(|ty| *ty = ty.take().filter(|ty| *ty != SqlType::Unknown));
        if types.iter().any(Option::is_none) {
            let scope = Scope::new(self, row_schema(relation, alias)?, &types, places);
            let mut inferred = types.clone();
            infer(&scope, &mut inferred)?;
            types = inferred;
        }
        Ok(types.into_iter().map(|ty| ty.unwrap_or(SqlType::Text)).collect())
    }
}

fn row_schema(relation: &Relation, alias: &str) -> Result<DFSchema, SqlError> {
    DFSchema::try_from_qualified_schema(alias, &relation.arrow_schema()).map_err(from_datafusion)
}

/// Expressions over rows of one schema.
pub(super) struct Scope<'a> {
    context: Context<'a>,
    schema: DFSchema,
    /// Knows the parameters; cloned for each expression.
    names: PlannerContext,
    places: &'a Places,
    zone: Zone,
}

impl<'a> Scope<'a> {
    pub(super) fn new(
        planner: &'a Planner,
        schema: DFSchema,
        types: &[Option<SqlType>],
        places: &'a Places,
    ) -> Self {
        let names = PlannerContext::new().with_prepare_param_data_types(parameter_fields(types));
        let zone = planner.settings.zone();
        Self { context: Context::new(planner, Vec::new()), schema, names, places, zone }
    }

    /// A function was called whose answer depends on the session or the time.
    pub(super) fn session(&self) -> bool {
        self.context.asked_session()
    }

    /// Relations that subqueries read.
    pub(super) fn relations(&self) -> Vec<millpond_types::RelationId> {
        self.context.relations()
    }

    /// Resolves names; types come later.
    pub(super) fn bind(&self, expr: &ast::Expr) -> Result<Expr, SqlError> {
        SqlToRel::new(&self.context)
            .sql_to_expr(prepare::expression(expr)?, &self.schema, &mut self.names.clone())
            .map_err(|e| errors::planning(e, self.places))
    }

    pub(super) fn infer(&self, expr: &ast::Expr, types: &mut [Option<SqlType>]) -> Result<(), SqlError> {
        parameters::infer_expression(&self.bind(expr)?, &self.schema, types);
        Ok(())
    }

    pub(super) fn infer_assignments(
        &self,
        assignments: &[ast::Assignment],
        relation: &Relation,
        types: &mut [Option<SqlType>],
    ) -> Result<(), SqlError> {
        for (column, value) in pairs(assignments, relation)? {
            if !is_default(value) {
                let bound = self.bind(value)?;
                column_parameter(&bound, &relation.columns[column].ty, types);
                parameters::infer_expression(&bound, &self.schema, types);
            }
        }
        Ok(())
    }

    /// The complete new row: one typed expression per declared column.
    pub(super) fn assignments(
        &self,
        assignments: &[ast::Assignment],
        relation: &Relation,
        alias: &str,
    ) -> Result<Vec<Expr>, SqlError> {
        let old = |name: &str| Expr::Column(datafusion::common::Column::new(Some(alias.to_owned()), name));
        let mut row: Vec<Expr> = relation.columns.iter().map(|c| old(&c.name)).collect();
        let mut assigned = vec![false; row.len()];
        for (at, value) in pairs(assignments, relation)? {
            let column = &relation.columns[at];
            let place = position_of(value.span());
            if std::mem::replace(&mut assigned[at], true) {
                let text = format!("multiple assignments to same column \"{}\"", column.name);
                return Err(at_opt(SqlError::new(SqlState::SYNTAX_ERROR, text), place));
            }
            if column.generated.is_some() && !is_default(value) {
                let error = SqlError::new(
                    SqlState::new("428C9"),
                    format!("column \"{}\" can only be updated to DEFAULT", column.name),
                );
                let detail = format!("Column \"{}\" is a generated column.", column.name);
                return Err(at_opt(error.detail(detail), place));
            }
            row[at] = match (is_default(value), &column.default) {
                (true, _) if column.generated.is_some() => continue,
                (true, None) => null(&column.ty)?,
                (true, Some(text)) => {
                    let expr = millpond_sql::parse_expression(text)?;
                    let default = self.context.planner().plan_column_expression(
                        &[],
                        &expr,
                        Some((&column.name, &column.ty)),
                    )?;
                    default.expr
                }
                (false, _) => {
                    let bound = self.bind(value)?;
                    refuse_misplaced(&bound, "UPDATE").map_err(|e| at_opt(e, place))?;
                    coercion::assign(
                        postgres_literal(bound),
                        &column.name,
                        &column.ty,
                        &self.schema,
                        self.zone,
                        place,
                    )?
                }
            };
        }
        Ok(row)
    }

    /// A typed condition.
    pub(super) fn condition(&self, filter: &ast::Expr, clause: &str) -> Result<Expr, SqlError> {
        let place = position_of(filter.span());
        let bound = self.bind(filter)?;
        refuse_misplaced(&bound, clause).map_err(|e| at_opt(e, place))?;
        let typed = rules::typed(vec![bound], &self.schema, self.zone)
            .map_err(|e| errors::planning(e, self.places))?
            .swap_remove(0);
        boolean(&typed, &self.schema, clause, place)?;
        Ok(typed)
    }
}

/// Columns with what they are set to.
fn pairs<'a>(
    assignments: &'a [ast::Assignment],
    relation: &Relation,
) -> Result<Vec<(usize, &'a ast::Expr)>, SqlError> {
    let column = |name: &ast::ObjectName| {
        let ident = name.0.last().and_then(|p| p.as_ident());
        let (folded, place) = ident.map_or_else(Default::default, |i| (fold(i), position_of(i.span)));
        column_of(relation, &folded, place)
    };
    let mut pairs = Vec::with_capacity(assignments.len());
    for ast::Assignment { target, value } in assignments {
        match (target, value) {
            (ast::AssignmentTarget::ColumnName(name), value) => pairs.push((column(name)?, value)),
            (ast::AssignmentTarget::Tuple(names), ast::Expr::Tuple(values)) => {
                if names.len() != values.len() {
                    let text = "number of columns does not match number of values";
                    return Err(at_opt(
                        SqlError::new(SqlState::SYNTAX_ERROR, text),
                        position_of(value.span()),
                    ));
                }
                for (name, value) in names.iter().zip(values) {
                    pairs.push((column(name)?, value));
                }
            }
            (ast::AssignmentTarget::Tuple(_), value) => {
                let error = SqlError::unsupported("SET (...) = (SELECT ...) is not supported")
                    .hint("Write a list of values: SET (a, b) = (1, 2).");
                return Err(at_opt(error, position_of(value.span())));
            }
        }
    }
    Ok(pairs)
}

/// The row of a relation that is written: conditions on it, and what RETURNING tells of it.
pub(super) struct RowScope<'a> {
    scope: Scope<'a>,
    relation: &'a Relation,
    pub(super) types: &'a [Option<SqlType>],
    pub(super) places: &'a Places,
    /// Another part of the statement asked the session.
    pub(super) session: bool,
}

impl<'a> RowScope<'a> {
    pub(super) fn new(
        planner: &'a Planner,
        relation: &'a Relation,
        alias: &str,
        types: &'a [Option<SqlType>],
        places: &'a Places,
    ) -> Result<Self, SqlError> {
        let scope = Scope::new(planner, row_schema(relation, alias)?, types, places);
        Ok(Self { scope, relation, types, places, session: false })
    }

    pub(super) fn session(&self) -> bool {
        self.session || self.scope.session()
    }

    fn filter(&self, filter: Option<&ast::Expr>) -> Result<Option<Expr>, SqlError> {
        let typed = filter.map(|filter| self.scope.condition(filter, "WHERE")).transpose()?;
        Ok(typed.map(unqualified))
    }

    pub(super) fn returning(&self, items: &[ast::SelectItem]) -> Result<Returning, SqlError> {
        let mut bound = Vec::with_capacity(items.len());
        let mut shown = Vec::with_capacity(items.len());
        for item in items {
            let (expr, name) = match item {
                ast::SelectItem::UnnamedExpr(expr) => (expr, names::of_expression(expr)),
                ast::SelectItem::ExprWithAlias { expr, alias } => (expr, fold(alias)),
                ast::SelectItem::Wildcard(_) | ast::SelectItem::QualifiedWildcard(..) => {
                    for (i, column) in self.relation.columns.iter().enumerate() {
                        bound.push(Expr::from(self.scope.schema.qualified_field(i)));
                        shown.push(column.name.clone());
                    }
                    continue;
                }
                other => return Err(SqlError::unsupported(format!("RETURNING {other} is not supported"))),
            };
            let expr = self.scope.bind(expr)?;
            refuse_misplaced(&expr, "RETURNING").map_err(|e| at_opt(e, position_of(item.span())))?;
            bound.push(expr);
            shown.push(name);
        }
        let schema = &self.scope.schema;
        let typed =
            rules::typed(bound, schema, self.scope.zone).map_err(|e| errors::planning(e, self.places))?;
        let mut columns = Vec::with_capacity(typed.len());
        let mut expressions = Vec::with_capacity(typed.len());
        for (expr, name) in typed.into_iter().zip(shown) {
            let (_, field) = expr.to_field(schema).map_err(from_datafusion)?;
            let ty = SqlType::of(&field)?;
            let canonical = *field.data_type() == ty.arrow();
            expressions.push(unqualified(if canonical { expr } else { crate::planner::cast(expr, &ty) }));
            columns.push((name, ty));
        }
        Ok(Returning { expressions, columns })
    }
}

/// The constants that `filter` compares every column of the primary key with.
fn point(filter: Option<&Expr>, relation: &Relation) -> Option<Vec<Expr>> {
    let RelationKind::Table(table) = &relation.kind else { return None };
    if table.primary_key.is_empty() {
        return None;
    }
    let conjuncts = split_conjunction(filter?);
    let constant = |name: &str, ty: &SqlType| {
        conjuncts.iter().find_map(|conjunct| {
            let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = conjunct else {
                return None;
            };
            let is_key = |e: &Expr| matches!(e, Expr::Column(c) if c.name == name);
            let other = match (is_key(left), is_key(right)) {
                (true, false) => right,
                (false, true) => left,
                _ => return None,
            };
            let typed = other.get_type(&DFSchema::empty()).is_ok_and(|t| t == ty.arrow());
            (typed && trace::is_constant(other)).then(|| other.as_ref().clone())
        })
    };
    table.primary_key.iter().map(|k| constant(&relation.columns[*k].name, &relation.columns[*k].ty)).collect()
}
