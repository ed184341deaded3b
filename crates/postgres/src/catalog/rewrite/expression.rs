//! Rules for single expressions.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, AccessExpr, BinaryOperator, DataType, Expr, Function, FunctionArgumentClause, FunctionArguments,
    Ident, ObjectName, OrderByKind, Query, SelectItem, SetExpr, Subscript, Value, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;

use millpond_types::SqlType;

use super::super::schema::RELATIONS;
use super::{arguments, call, folded, is_session_word, last, object_name, qualifier};

/// Columns of the types int2vector and oidvector, whose subscripts begin at 0.
const VECTORS: [&str; 7] =
    ["indkey", "indoption", "indclass", "indcollation", "proargtypes", "partattrs", "partclass"];

/// Takes a system schema off the name of a function.
pub(super) fn unqualify(name: &mut ObjectName) {
    if qualifier(name).is_some() {
        let last = name.0.pop().into_iter().collect();
        name.0 = last;
    }
}

/// The bare name of a type that sqlparser does not know.
fn custom_name(data_type: &DataType) -> Option<String> {
    match data_type {
        DataType::Custom(name, _) => Some(last(name)),
        DataType::Regclass => Some("regclass".to_owned()),
        _ => None,
    }
}

/// A `reg*` type as the prefix of its input and output functions.
fn reg_type(data_type: &DataType) -> Option<&'static str> {
    match custom_name(data_type)?.as_str() {
        "regclass" => Some("regclass"),
        "regtype" => Some("regtype"),
        "regproc" | "regprocedure" => Some("regproc"),
        "regnamespace" => Some("regnamespace"),
        "regrole" => Some("regrole"),
        _ => None,
    }
}

/// A type that only statements about the system cast to.
pub(super) fn is_system_type(data_type: &DataType) -> bool {
    match data_type {
        DataType::Custom(name, _) if qualifier(name).is_some() => true,
        other => reg_type(other).is_some(),
    }
}

/// Types of the system schemas as their nearest plain types.
fn plain_type(data_type: &DataType) -> Option<DataType> {
    if let DataType::Array(ast::ArrayElemTypeDef::SquareBracket(element, size)) = data_type {
        let element = plain_type(element)?;
        return Some(DataType::Array(ast::ArrayElemTypeDef::SquareBracket(Box::new(element), *size)));
    }
    let DataType::Custom(name, modifiers) = data_type else { return None };
    let plain = match last(name).as_str() {
        // Our parser knows these itself.
        "oid" | "name" if qualifier(name).is_none() => return None,
        "oid" => "oid",
        "name" => "name",
        "xid" | "cid" | "xid8" => "bigint",
        "char" | "sql_identifier" | "character_data" | "yes_or_no" | "aclitem" | "pg_node_tree" => "text",
        "cardinal_number" => "integer",
        "int2vector" => "smallint[]",
        "oidvector" => "oid[]",
        other if qualifier(name).is_some() => {
            let text = match modifiers.is_empty() {
                true => other.to_owned(),
                false => format!("{other}({})", modifiers.join(", ")),
            };
            return parse_type(&text);
        }
        _ => return None,
    };
    parse_type(plain)
}

fn parse_type(text: &str) -> Option<DataType> {
    Parser::new(&PostgreSqlDialect {}).try_with_sql(text).ok()?.parse_data_type().ok()
}

fn is_textual(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Text | DataType::Varchar(_) | DataType::CharacterVarying(_))
}

pub(super) fn rewrite(expr: &mut Expr) {
    match expr {
        Expr::Function(function) => {
            if let Some(other) = rewrite_call(function) {
                *expr = other;
            }
        }
        Expr::Identifier(ident) if ident.quote_style.is_none() && is_session_word(&ident.value) => {
            *expr = call(&ident.value.to_lowercase(), Vec::new());
        }
        Expr::BinaryOp { op, .. } => {
            if let BinaryOperator::PGCustomBinaryOperator(parts) = op
                && let Some(plain) = operator(parts)
            {
                *op = plain;
            }
        }
        Expr::Collate { expr: inner, .. } => *expr = std::mem::replace(inner, super::null()),
        Expr::Cast { expr: inner, data_type, .. } => {
            if let Some(prefix) = reg_type(data_type) {
                *expr = call(&format!("{prefix}in"), vec![std::mem::replace(inner, super::null())]);
                return;
            }
            if let Some(plain) = plain_type(data_type) {
                *data_type = plain;
            }
            // A constant array loses what marks its elements as oids; the numbers are all that is asked for.
            if let DataType::Array(ast::ArrayElemTypeDef::SquareBracket(element, _)) = data_type
                && custom_name(element).as_deref() == Some("oid")
                && matches!(inner.as_ref(), Expr::Array(_) | Expr::Value(_))
                && !is_placeholder(inner)
            {
                **element = DataType::BigInt(None);
            }
            // The name behind a reg type. A cast to oid stays, and says that the number is meant.
            if let Expr::Function(function) = inner.as_mut()
                && input_prefix(function).is_some()
                && is_textual(data_type)
            {
                show_names(inner);
                *expr = std::mem::replace(inner, super::null());
            }
        }
        Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. } => {
            if let Some(escape) = escape_char.take() {
                escape_by_backslash(pattern, escape);
            }
        }
        Expr::Case { conditions, .. } => {
            for arm in conditions.iter_mut().filter(|arm| is_never_true(&arm.condition)) {
                let _ = VisitMut::visit(&mut arm.result, &mut Unasked);
            }
        }
        Expr::CompoundFieldAccess { root, access_chain } => {
            let mut column = match root.as_ref() {
                Expr::Identifier(ident) => Some(folded(ident)),
                Expr::CompoundIdentifier(parts) => parts.last().map(folded),
                _ => None,
            };
            for access in access_chain {
                match access {
                    AccessExpr::Dot(Expr::Identifier(ident)) => column = Some(folded(ident)),
                    AccessExpr::Subscript(Subscript::Index { index })
                        if column.take().is_some_and(|c| VECTORS.contains(&c.as_str())) =>
                    {
                        let one = Expr::Value(Value::Number("1".to_owned(), false).into());
                        let left = Box::new(std::mem::replace(index, super::null()));
                        *index = Expr::BinaryOp { left, op: BinaryOperator::Plus, right: Box::new(one) };
                    }
                    _ => column = None,
                }
            }
        }
        _ => {}
    }
}

fn is_placeholder(expr: &Expr) -> bool {
    matches!(expr, Expr::Value(value) if matches!(value.value, Value::Placeholder(_)))
}

/// Kinds of objects that there are none of: domains, composite and enum types, …
const ABSENT: [(&str, &[&str]); 3] = [
    ("typtype", &["c", "d", "e"]),
    ("relkind", &["S", "p", "I", "f", "t", "c"]),
    ("contype", &["c", "f", "t", "u", "x"]),
];

fn is_never_true(condition: &Expr) -> bool {
    let Expr::BinaryOp { left, op: BinaryOperator::Eq, right } = condition else { return false };
    let column = match left.as_ref() {
        Expr::Identifier(ident) => folded(ident),
        Expr::CompoundIdentifier(parts) => parts.last().map(folded).unwrap_or_default(),
        _ => return false,
    };
    let Expr::Value(ast::ValueWithSpan { value: Value::SingleQuotedString(value), .. }) = right.as_ref()
    else {
        return false;
    };
    ABSENT.iter().any(|(name, values)| *name == column && values.contains(&value.as_str()))
}

/// Takes the correlation out of subqueries whose answers nobody will ask for; their types stay.
struct Unasked;

impl VisitorMut for Unasked {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Subquery(query) = expr {
            match query.body.as_mut() {
                SetExpr::Select(select) if query.with.is_none() => {
                    select.selection = Some(Expr::Value(Value::Boolean(false).into()));
                }
                _ => *expr = super::null(),
            }
        }
        ControlFlow::Continue(())
    }
}

/// LIKE has the backslash as its escape character; another one is exchanged for it in the pattern.
fn escape_by_backslash(pattern: &mut Expr, escape: ast::ValueWithSpan) {
    let (Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text)) = &escape.value else { return };
    if text == "\\" {
        return;
    }
    let string = |text: &str| Expr::Value(Value::SingleQuotedString(text.to_owned()).into());
    let inner = std::mem::replace(pattern, super::null());
    let doubled = call("replace", vec![inner, string("\\"), string("\\\\")]);
    *pattern = match text.is_empty() {
        true => doubled,
        false => call("replace", vec![doubled, string(text), string("\\")]),
    };
}

fn operator(parts: &[String]) -> Option<BinaryOperator> {
    Some(match parts.last()?.as_str() {
        "=" => BinaryOperator::Eq,
        "<>" | "!=" => BinaryOperator::NotEq,
        "<" => BinaryOperator::Lt,
        "<=" => BinaryOperator::LtEq,
        ">" => BinaryOperator::Gt,
        ">=" => BinaryOperator::GtEq,
        "~" => BinaryOperator::PGRegexMatch,
        "~*" => BinaryOperator::PGRegexIMatch,
        "!~" => BinaryOperator::PGRegexNotMatch,
        "!~*" => BinaryOperator::PGRegexNotIMatch,
        "~~" => BinaryOperator::PGLikeMatch,
        "!~~" => BinaryOperator::PGNotLikeMatch,
        "||" => BinaryOperator::StringConcat,
        "+" => BinaryOperator::Plus,
        "-" => BinaryOperator::Minus,
        "*" => BinaryOperator::Multiply,
        "/" => BinaryOperator::Divide,
        _ => return None,
    })
}

fn rewrite_call(function: &mut Function) -> Option<Expr> {
    unqualify(&mut function.name);
    let name = last(&function.name);
    match (name.as_str(), &mut function.args) {
        ("array", FunctionArguments::Subquery(query)) => Some(array_of(query)),
        ("array_agg", _) => {
            // The mark of an oid does not pass through the aggregate by itself.
            let of_oids = matches!(&arguments(function)?[..], [argument] if is_oid_column(argument));
            let oids = parse_type("oid[]").filter(|_| of_oids && function.over.is_none())?;
            let (expr, kind) = (Box::new(Expr::Function(function.clone())), ast::CastKind::DoubleColon);
            Some(Expr::Cast { kind, expr, data_type: oids, array: false, format: None })
        }
        ("generate_subscripts", _) => {
            let arguments = arguments(function)?.into_iter().cloned().collect();
            Some(call("unnest", vec![call("array_subscripts", arguments)]))
        }
        (word, args @ FunctionArguments::None) if is_session_word(word) => {
            *args = FunctionArguments::List(ast::FunctionArgumentList {
                duplicate_treatment: None,
                args: Vec::new(),
                clauses: Vec::new(),
            });
            None
        }
        _ => None,
    }
}

/// A column that is an oid wherever a system relation has it.
fn is_oid_column(expr: &Expr) -> bool {
    let name = match expr {
        Expr::Identifier(ident) => folded(ident),
        Expr::CompoundIdentifier(parts) => parts.last().map(folded).unwrap_or_default(),
        _ => return false,
    };
    let mut types =
        RELATIONS.iter().flat_map(|r| &r.columns).filter(|(column, _)| *column == name).map(|(_, ty)| ty);
    types.next().is_some_and(|ty| *ty == SqlType::Oid) && types.all(|ty| *ty == SqlType::Oid)
}

/// `ARRAY(SELECT x … ORDER BY y)` is `(SELECT array_agg(x ORDER BY y) …)`.
fn array_of(query: &mut Query) -> Expr {
    if let Some(aggregated) = aggregated(query) {
        return call("text_array_or_empty", vec![Expr::Subquery(Box::new(aggregated))]);
    }
    // What has groups or a limit of its own is aggregated from outside; array_agg takes the rows as they come.
    let mut inner = query.clone();
    if let SetExpr::Select(select) = inner.body.as_mut()
        && let [SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }] =
            &mut select.projection[..]
    {
        let expr = std::mem::replace(expr, super::null());
        select.projection =
            vec![SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', "element") }];
    }
    let outer = around(inner, "SELECT array_agg(\"element\") FROM (SELECT 1) AS \"elements\"");
    call("text_array_or_empty", vec![Expr::Subquery(Box::new(outer))])
}

/// The query with array_agg around its one output, if it has no clause that comes after the outputs.
fn aggregated(query: &Query) -> Option<Query> {
    let mut query = query.clone();
    if query.limit_clause.is_some() || query.fetch.is_some() {
        return None;
    }
    let order = match query.order_by.take().map(|order| order.kind) {
        None => Vec::new(),
        Some(OrderByKind::Expressions(order)) => order,
        Some(OrderByKind::All(_)) => return None,
    };
    let SetExpr::Select(select) = query.body.as_mut() else { return None };
    if select.distinct.is_some() || super::subquery::is_aggregated(select) {
        return None;
    }
    let [SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }] = &select.projection[..]
    else {
        return None;
    };
    let ordinal =
        |e: &Expr| matches!(e, Expr::Value(v) if matches!(&v.value, Value::Number(n, _) if n == "1"));
    let order = order.into_iter().map(|mut by| {
        if ordinal(&by.expr) {
            by.expr = expr.clone();
        }
        by
    });
    let order: Vec<_> = order.collect();
    let mut aggregate = call("array_agg", vec![expr.clone()]);
    if let Expr::Function(Function { args: FunctionArguments::List(list), .. }) = &mut aggregate
        && !order.is_empty()
    {
        list.clauses.push(FunctionArgumentClause::OrderBy(order));
    }
    select.projection = vec![SelectItem::UnnamedExpr(aggregate)];
    Some(query)
}

/// `template`, a query over one derived table, with `inner` as that table. A query's struct has a dozen fields that say
/// nothing here, so it is written as text.
pub(super) fn around(inner: Query, template: &str) -> Query {
    let parsed = Parser::new(&PostgreSqlDialect {}).try_with_sql(template).and_then(|mut p| p.parse_query());
    let mut outer = *parsed.expect("the template is a query");
    if let SetExpr::Select(select) = outer.body.as_mut()
        && let Some(ast::TableFactor::Derived { subquery, .. }) =
            select.from.first_mut().map(|f| &mut f.relation)
    {
        **subquery = inner;
    }
    outer
}

/// `regclass` of `regclassin(x)`.
fn input_prefix(function: &Function) -> Option<&'static str> {
    let name = last(&function.name);
    let prefix = name.strip_suffix("in")?;
    ["regclass", "regtype", "regproc", "regnamespace", "regrole"].into_iter().find(|p| *p == prefix)
}

/// A value of a reg type is shown by its name.
pub(super) fn show_names(expr: &mut Expr) {
    match expr {
        Expr::Function(function) => {
            if let Some(prefix) = input_prefix(function) {
                function.name = object_name(&format!("{prefix}out"));
            }
        }
        Expr::Nested(inner) => show_names(inner),
        _ => {}
    }
}

/// The name that PostgreSQL gives an output, for expressions that these rules may change.
pub(super) fn output_name(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(ident) if !is_session_word(&ident.value) => None,
        Expr::CompoundIdentifier(_) | Expr::Value(_) | Expr::BinaryOp { .. } | Expr::Wildcard(_) => None,
        Expr::QualifiedWildcard(..) | Expr::IsNull(_) | Expr::IsNotNull(_) | Expr::UnaryOp { .. } => None,
        Expr::CompoundFieldAccess { .. } | Expr::InList { .. } | Expr::AnyOp { .. } | Expr::Like { .. } => {
            None
        }
        other => figure(other).map(|(name, _)| name),
    }
}

/// A name and its strength, as FigureColname in PostgreSQL's parse_target.c: that of a type is weak.
fn figure(expr: &Expr) -> Option<(String, bool)> {
    match expr {
        Expr::Identifier(ident) => Some((folded(ident), true)),
        Expr::CompoundIdentifier(parts) => parts.last().map(|ident| (folded(ident), true)),
        Expr::Function(function) => Some((last(&function.name), true)),
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => figure(inner),
        Expr::Cast { expr, data_type, .. } => match figure(expr) {
            Some((name, true)) => Some((name, true)),
            _ => Some((cast_name(data_type), false)),
        },
        Expr::Case { else_result, .. } => match else_result.as_deref().and_then(figure) {
            Some((name, true)) => Some((name, true)),
            _ => Some(("case".to_owned(), false)),
        },
        Expr::Exists { .. } => Some(("exists".to_owned(), true)),
        Expr::Array(_) => Some(("array".to_owned(), true)),
        Expr::Subquery(query) => match query.body.as_ref() {
            SetExpr::Select(select) => match select.projection.first()? {
                SelectItem::UnnamedExpr(expr) => figure(expr),
                SelectItem::ExprWithAlias { alias, .. } => Some((folded(alias), true)),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}

fn cast_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Custom(name, _) => last(name),
        other => {
            let text = other.to_string().to_lowercase();
            let name = match text.as_str() {
                "integer" | "int" => "int4",
                "bigint" => "int8",
                "smallint" => "int2",
                "boolean" => "bool",
                "double precision" => "float8",
                "real" => "float4",
                "character varying" => "varchar",
                other => other,
            };
            name.to_owned()
        }
    }
}
