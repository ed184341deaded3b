//! From DataFusion's planning errors to what PostgreSQL says, with the place in the text.

use std::ops::ControlFlow;

use datafusion::common::{DataFusionError, SchemaError};
use millpond_functions::error::from_datafusion;
use millpond_types::{SqlError, SqlState};
use sqlparser::ast::{self, Visit, Visitor};

/// Where the names of a tree stand: for errors that DataFusion reports without a place.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    columns: Vec<(String, usize)>,
    functions: Vec<(String, usize)>,
    relations: Vec<(String, usize)>,
    /// Texts in quotes.
    literals: Vec<(String, usize)>,
    /// The first subquery in an expression, or LATERAL.
    subquery: Option<usize>,
}

impl Places {
    pub(crate) fn of(tree: &impl Visit) -> Self {
        let mut places = Self::default();
        let _ = tree.visit(&mut places);
        places
    }

    /// The first column reference that ends in `name`.
    pub(crate) fn column(&self, name: &str) -> Option<usize> {
        find(&self.columns, name)
    }

    pub(crate) fn function(&self, name: &str) -> Option<usize> {
        find(&self.functions, name)
    }

    pub(crate) fn subquery(&self) -> Option<usize> {
        self.subquery
    }

    pub(crate) fn relation(&self, name: &str) -> Option<usize> {
        find(&self.relations, name)
    }
}

/// A refusal that is placed at the statement's first subquery.
pub(crate) fn is_about_subquery(error: &SqlError) -> bool {
    let text = error.message();
    error.state() == SqlState::FEATURE_NOT_SUPPORTED
        && (text.contains("subquery") || text.contains("LATERAL"))
}

fn find(names: &[(String, usize)], name: &str) -> Option<usize> {
    names.iter().find(|(n, _)| n == name).map(|(_, position)| *position)
}

/// Records the last part of a name under the place of its first.
fn record<'a>(
    names: &mut Vec<(String, usize)>,
    mut parts: impl DoubleEndedIterator<Item = &'a ast::Ident> + Clone,
) {
    let first = parts.clone().next();
    if let (Some(first), Some(last)) = (first, parts.next_back())
        && let Some(position) = millpond_sql::position_of(first.span)
    {
        names.push((millpond_sql::fold(last), position));
    }
}

impl Visitor for Places {
    type Break = ();

    fn pre_visit_relation(&mut self, relation: &ast::ObjectName) -> ControlFlow<()> {
        record(&mut self.relations, relation.0.iter().filter_map(|p| p.as_ident()));
        ControlFlow::Continue(())
    }

    fn pre_visit_value(&mut self, value: &ast::ValueWithSpan) -> ControlFlow<()> {
        if let ast::Value::SingleQuotedString(text) = &value.value
            && let Some(position) = millpond_sql::position_of(value.span)
        {
            self.literals.push((text.clone(), position));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &ast::TableFactor) -> ControlFlow<()> {
        if let ast::TableFactor::Derived { lateral: true, .. } = factor {
            self.subquery = self.subquery.or(millpond_sql::position_of(ast::Spanned::span(factor)));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &ast::Expr) -> ControlFlow<()> {
        if let ast::Expr::Subquery(_) | ast::Expr::Exists { .. } | ast::Expr::InSubquery { .. } = expr {
            self.subquery = self.subquery.or(millpond_sql::position_of(ast::Spanned::span(expr)));
        }
        match expr {
            ast::Expr::Identifier(ident) => record(&mut self.columns, std::iter::once(ident)),
            ast::Expr::CompoundIdentifier(idents) => record(&mut self.columns, idents.iter()),
            ast::Expr::Function(function) => {
                record(&mut self.functions, function.name.0.iter().filter_map(|p| p.as_ident()));
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// What the user reads of a failure while planning.
pub(crate) fn planning(error: DataFusionError, places: &Places) -> SqlError {
    match error {
        DataFusionError::Diagnostic(diagnostic, inner) => {
            let error = planning(*inner, places);
            match diagnostic.span {
                Some(span) => at(error, span.start.column as usize),
                None => error,
            }
        }
        DataFusionError::Collection(mut errors) if !errors.is_empty() => {
            planning(errors.swap_remove(0), places)
        }
        DataFusionError::Context(_, inner) => planning(*inner, places),
        DataFusionError::Shared(inner) => match std::sync::Arc::try_unwrap(inner) {
            Ok(inner) => planning(inner, places),
            Err(shared) => from_datafusion(DataFusionError::Shared(shared)),
        },
        DataFusionError::SchemaError(inner, _) => schema(*inner, places),
        DataFusionError::Plan(message) => plan_message(&message, places)
            .unwrap_or_else(|| with_place(from_datafusion(DataFusionError::Plan(message)), places)),
        DataFusionError::NotImplemented(message) => not_implemented(&message),
        other => with_place(from_datafusion(other), places),
    }
}

fn at(error: SqlError, position: usize) -> SqlError {
    if position > 0 { error.at(position) } else { error }
}

pub(crate) fn at_opt(error: SqlError, position: Option<usize>) -> SqlError {
    match position {
        Some(position) => error.at(position),
        None => error,
    }
}

/// `function f(…) does not exist` stands where `f` is first called, a literal that its type refuses where it is written.
fn with_place(error: SqlError, places: &Places) -> SqlError {
    if error.position().is_some() {
        return error;
    }
    if is_about_subquery(&error) {
        return at_opt(error, places.subquery);
    }
    let value = error.message().rsplit_once(": \"").and_then(|(_, rest)| rest.strip_suffix('"'));
    if let Some(position) = value.and_then(|value| find(&places.literals, value)) {
        return error.at(position);
    }
    let function = error
        .message()
        .strip_prefix("function ")
        .and_then(|rest| rest.split_once('('))
        .and_then(|(name, _)| places.function(name));
    at_opt(error, function)
}

pub(crate) fn undefined_column(relation: Option<&str>, name: &str) -> SqlError {
    let shown = match relation {
        Some(relation) => format!("{relation}.{name}"),
        None => format!("\"{name}\""),
    };
    SqlError::new(SqlState::UNDEFINED_COLUMN, format!("column {shown} does not exist"))
}

fn schema(error: SchemaError, places: &Places) -> SqlError {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let relation = field.relation.as_ref().map(|r| r.table().to_owned());
            let place = places.column(&field.name);
            if let Some(relation) = &relation
                && !valid_fields.iter().any(|f| f.relation.as_ref().is_some_and(|r| r.table() == relation))
            {
                return at_opt(missing_from(relation), place);
            }
            let known = valid_fields.iter().map(|f| crate::names::shown(&f.name));
            let near = millpond_sql::nearest(&field.name, known).map(str::to_owned);
            let error = at_opt(undefined_column(relation.as_deref(), &field.name), place);
            match near {
                Some(near) => error.hint(format!("Perhaps you meant to reference the column \"{near}\".")),
                None => error,
            }
        }
        SchemaError::AmbiguousReference { field } => ambiguous(&field.name, places),
        SchemaError::DuplicateQualifiedField { name, .. }
        | SchemaError::DuplicateUnqualifiedField { name } => duplicate(&name),
    }
}

fn ambiguous(name: &str, places: &Places) -> SqlError {
    at_opt(
        SqlError::new(SqlState::AMBIGUOUS_COLUMN, format!("column reference \"{name}\" is ambiguous")),
        places.column(name),
    )
}

fn duplicate(name: &str) -> SqlError {
    let name = crate::names::shown(name);
    SqlError::new(SqlState::DUPLICATE_COLUMN, format!("column \"{name}\" specified more than once"))
        .hint("Give one of the columns another name with AS.")
}

fn missing_from(relation: &str) -> SqlError {
    SqlError::new(SqlState::UNDEFINED_TABLE, format!("missing FROM-clause entry for table \"{relation}\""))
}

/// The text between `before` and `after`.
fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once(after).map(|(found, _)| found)
}

/// DataFusion has one error kind for most mistakes in a query; its message says which.
fn plan_message(message: &str, places: &Places) -> Option<SqlError> {
    let grouping = |text: String| SqlError::new(SqlState::GROUPING_ERROR, text);
    if let Some(column) = between(message, "While expanding wildcard, column \"", "\" must appear") {
        let last = column.rsplit('.').next().unwrap_or(column);
        let text = format!(
            "column \"{column}\" must appear in the GROUP BY clause or be used in an aggregate function"
        );
        return Some(at_opt(grouping(text), places.column(last)));
    }
    if message.contains("Aggregate functions are not allowed in the WHERE clause") {
        return Some(
            grouping("aggregate functions are not allowed in WHERE".into())
                .hint("Filter groups with HAVING, or rows of one aggregate with FILTER (WHERE ...)."),
        );
    }
    if let Some((_, types)) = message.split_once("expr type ")
        && let Some((left, right)) = types.split_once(" can't cast to ")
    {
        let right = right.split(' ').next().unwrap_or(right);
        let name = |ty: &str| ty.parse().map_or(ty.to_owned(), |ty| crate::constant::argument_name(&ty));
        let text = format!("operator does not exist: {} = {}", name(left), name(right));
        return Some(SqlError::new(SqlState::UNDEFINED_FUNCTION, text).hint("Cast one of both sides."));
    }
    if message.contains("non-boolean predicate") {
        let returned = message.rsplit("returning ").next().and_then(|ty| ty.trim().parse().ok());
        let not = returned
            .map_or(String::new(), |ty| format!(", not type {}", crate::constant::argument_name(&ty)));
        let text = format!("argument of WHERE must be type boolean{not}");
        return Some(SqlError::new(SqlState::DATATYPE_MISMATCH, text));
    }
    if message.starts_with("HAVING clause references") {
        return Some(grouping("HAVING needs GROUP BY or an aggregate function".into()));
    }
    if let Some(position) = between(message, "Cannot find column with position ", " in SELECT") {
        let text = format!("GROUP BY position {position} is not in select list");
        return Some(SqlError::new(SqlState::INVALID_COLUMN_REFERENCE, text));
    }
    if message.contains("Order by column out of bounds") {
        return Some(SqlError::new(
            SqlState::INVALID_COLUMN_REFERENCE,
            "ORDER BY position is not in select list",
        ));
    }
    for (clause, state) in [("LIMIT", "2201W"), ("OFFSET", "2201X")] {
        if message.starts_with(&format!("{clause} must be >= 0")) {
            return Some(SqlError::new(SqlState::new(state), format!("{clause} must not be negative")));
        }
        if let Some(ty) = between(
            &format!("{message}\n"),
            &format!("Expected {clause} to be an integer or null, but got "),
            "\n",
        ) {
            let not = ty
                .parse()
                .map_or(String::new(), |ty| format!(", not type {}", crate::constant::argument_name(&ty)));
            let text = format!("argument of {clause} must be type bigint{not}");
            return Some(SqlError::new(SqlState::DATATYPE_MISMATCH, text));
        }
    }
    if let Some(relation) = message.strip_prefix("Invalid qualifier ") {
        return Some(at_opt(missing_from(relation), places.relation(relation)));
    }
    if let Some((op, _)) = message.split_once(" queries have different number of columns") {
        let text = format!("each {} query must have the same number of columns", op.to_uppercase());
        return Some(SqlError::new(SqlState::SYNTAX_ERROR, text));
    }
    if let Some(name) = between(message, "WITH query name \"", "\" specified more than once") {
        let text = format!("WITH query name \"{name}\" specified more than once");
        return Some(SqlError::new(SqlState::new("42712"), text));
    }
    if message.contains("SELECT * with no tables specified") {
        return Some(SqlError::new(SqlState::SYNTAX_ERROR, "SELECT * with no tables specified is not valid"));
    }
    if message.contains("require unique expression names")
        || message.contains("duplicate unqualified field name")
    {
        let name = between(message, "the expression \"", "\"").unwrap_or("?");
        let name = name.rsplit(['.', ' ']).next().unwrap_or(name);
        return Some(duplicate(name));
    }
    if let Some(name) = between(message, "Invalid function '", "'") {
        let error = SqlError::new(SqlState::UNDEFINED_FUNCTION, format!("function {name} does not exist"));
        return Some(at_opt(error, places.function(name)));
    }
    if message.starts_with("Source table contains") || message.starts_with("Number of columns") {
        return Some(SqlError::new(
            SqlState::INVALID_COLUMN_REFERENCE,
            "the alias names more columns than the relation has, or fewer",
        ));
    }
    None
}

fn not_implemented(message: &str) -> SqlError {
    if message.starts_with("LATERAL syntax is not supported for") {
        let text = "invalid reference to FROM-clause entry in LATERAL";
        return SqlError::new(SqlState::INVALID_COLUMN_REFERENCE, text)
            .detail("The combining JOIN type must be INNER or LEFT for a LATERAL reference.");
    }
    let short = message.split([':', '\n']).next().unwrap_or(message).trim_end_matches('.');
    if short.len() > 120 || short.contains('{') || short.to_lowercase().contains("ast node") {
        return SqlError::unsupported("this construct is not supported")
            .hint("Write the query with the constructs that the documentation's SQL reference lists.");
    }
    SqlError::unsupported(format!("not supported: {short}"))
        .hint("Write the query with the constructs that the documentation's SQL reference lists.")
}
