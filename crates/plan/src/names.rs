//! The names that PostgreSQL gives to output columns (FigureColname in parse_target.c).

use std::sync::Arc;

use datafusion::logical_expr::ScalarUDF;
use millpond_functions::sets::{self, set_function};
use sqlparser::ast::{self, Expr};

/// Stands between a column's name and a number where two outputs of one SELECT have the same name: DataFusion wants them
/// different. [`shown`] takes it off again.
pub(crate) const MARK: char = '\u{1f}';

/// The n-th output that is called `name`.
pub(crate) fn distinct(name: &str, n: usize) -> String {
    format!("{name}{MARK}{n}")
}

/// A field's name as the user sees it.
pub(crate) fn shown(name: &str) -> &str {
    name.split(MARK).next().unwrap_or(name)
}

/// What a call of a set-returning function in a select list is called until names are bound: one of its rows, and the set.
pub(crate) fn row_call(expr: &mut Expr) {
    let Expr::Function(call) = expr else { return };
    let Some(name) = crate::table_function::named(&call.name).filter(|name| set_function(name).is_some())
    else {
        return;
    };
    let quoted = |name: String| ast::ObjectName::from(vec![ast::Ident::with_quote('"', name)]);
    let mut rows = call.clone();
    call.name = quoted(distinct(&name, SET));
    rows.name = quoted(distinct(&name, ROWS));
    rows.args = ast::FunctionArguments::List(ast::FunctionArgumentList {
        duplicate_treatment: None,
        args: vec![ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(expr.clone()))],
        clauses: Vec::new(),
    });
    *expr = Expr::Function(rows);
}

const ROWS: usize = 1;
const SET: usize = 2;

/// The functions behind the names that [`row_call`] gives.
pub(crate) fn of_rows(name: &str) -> Option<Arc<ScalarUDF>> {
    let (name, which) = name.split_once(MARK)?;
    match which.parse().ok()? {
        ROWS => Some(sets::rows_of()),
        SET => set_function(name),
        _ => None,
    }
}

/// A plan's text with the names of its fields as the user sees them.
pub fn shown_text(text: &str) -> String {
    let mut parts = text.split(MARK);
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        shown.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    shown
}

/// The name of an output without AS.
pub(crate) fn of_expression(expr: &Expr) -> String {
    figure(expr).map_or_else(|| "?column?".to_owned(), |(name, _)| name)
}

/// A name with a rank: 2 is a name of its own (a column, a function), 1 that of a type or construct, which a name from
/// inside beats.
fn figure(expr: &Expr) -> Option<(String, u8)> {
    let strong = |name: &str| Some((name.to_owned(), 2));
    match expr {
        Expr::Identifier(ident) => Some((millpond_sql::fold(ident), 2)),
        Expr::CompoundIdentifier(idents) => idents.last().map(|i| (millpond_sql::fold(i), 2)),
        Expr::CompoundFieldAccess { root, access_chain } => {
            let field = access_chain.iter().rev().find_map(|access| match access {
                ast::AccessExpr::Dot(Expr::Identifier(ident)) => Some((millpond_sql::fold(ident), 2)),
                _ => None,
            });
            field.or_else(|| figure(root))
        }
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => figure(inner),
        Expr::Cast { expr, data_type, .. } => weak(figure(expr), type_name(data_type)),
        Expr::TypedString(typed) => Some((type_name(&typed.data_type), 1)),
        Expr::Interval(_) => Some(("interval".to_owned(), 1)),
        Expr::Value(value) => match value.value {
            ast::Value::Boolean(_) => Some(("bool".to_owned(), 1)),
            _ => None,
        },
        Expr::Case { else_result, .. } => weak(else_result.as_deref().and_then(figure), "case".to_owned()),
        Expr::Function(function) => {
            function.name.0.last().and_then(|p| p.as_ident()).map(|i| (millpond_sql::fold(i), 2))
        }
        Expr::Extract { .. } => strong("extract"),
        Expr::Substring { shorthand: true, .. } => strong("substr"),
        Expr::Substring { .. } => strong("substring"),
        Expr::Position { .. } => strong("position"),
        Expr::Overlay { .. } => strong("overlay"),
        Expr::Ceil { .. } => strong("ceil"),
        Expr::Floor { .. } => strong("floor"),
        Expr::AtTimeZone { .. } => strong("timezone"),
        Expr::Trim { trim_where, .. } => strong(match trim_where {
            Some(ast::TrimWhereField::Leading) => "ltrim",
            Some(ast::TrimWhereField::Trailing) => "rtrim",
            _ => "btrim",
        }),
        Expr::Exists { .. } => strong("exists"),
        Expr::Array(_) => strong("array"),
        Expr::Tuple(_) => strong("row"),
        Expr::Subquery(query) => match query.body.as_ref() {
            ast::SetExpr::Select(select) => match select.projection.first()? {
                ast::SelectItem::UnnamedExpr(expr) => figure(expr),
                ast::SelectItem::ExprWithAlias { alias, .. } => Some((millpond_sql::fold(alias), 2)),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}

fn weak(inner: Option<(String, u8)>, otherwise: String) -> Option<(String, u8)> {
    match inner {
        Some((name, 2)) => Some((name, 2)),
        _ => Some((otherwise, 1)),
    }
}

/// The internal name of a type (pg_type.typname), which names a cast's column.
fn type_name(data_type: &ast::DataType) -> String {
    use millpond_types::SqlType;
    match millpond_sql::types::resolve(data_type, 0) {
        Ok(ty) => {
            let element = match &ty {
                SqlType::Array(element) => element,
                other => other,
            };
            match element {
                SqlType::Boolean => "bool",
                SqlType::Int2 => "int2",
                SqlType::Int4 => "int4",
                SqlType::Int8 => "int8",
                SqlType::Float4 => "float4",
                SqlType::Float8 => "float8",
                SqlType::Numeric(..) => "numeric",
                SqlType::Varchar(_) => "varchar",
                SqlType::Char(_) => "bpchar",
                SqlType::Time => "time",
                SqlType::Timestamp => "timestamp",
                SqlType::Timestamptz => "timestamptz",
                SqlType::InternalChar => "char",
                other => return other.to_string(),
            }
            .to_owned()
        }
        Err(_) => data_type.to_string().to_lowercase(),
    }
}
