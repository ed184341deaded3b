//! Rules for single expressions.

use datafusion::sql::sqlparser::ast::{
    self, AccessExpr, BinaryOperator, DataType, Expr, Function, FunctionArguments, Ident, ObjectName, Query,
    SelectItem, SetExpr, Subscript, Value,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;

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
        "oid" | "xid" | "cid" | "xid8" => "bigint",
        "name" | "char" | "sql_identifier" | "character_data" | "yes_or_no" | "aclitem" | "pg_node_tree" => {
            "text"
        }
        "cardinal_number" => "integer",
        "int2vector" => "smallint[]",
        "oidvector" => "bigint[]",
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
            // The number behind a reg type, or its name.
            let is_oid = custom_name(data_type).as_deref() == Some("oid");
            if let Some(plain) = plain_type(data_type) {
                *data_type = plain;
            }
            if let Expr::Function(function) = inner.as_mut()
                && input_prefix(function).is_some()
            {
                if is_textual(data_type) {
                    show_names(inner);
                }
                if is_textual(data_type) || is_oid {
                    *expr = std::mem::replace(inner, super::null());
                }
            }
        }
        Expr::Like { escape_char, .. } | Expr::ILike { escape_char, .. } => {
            // That is the escape character anyway.
            let default = |v: &mut ast::ValueWithSpan| matches!(&v.value, Value::SingleQuotedString(s) | Value::EscapedStringLiteral(s) if s == "\\");
            escape_char.take_if(default);
        }
        Expr::CompoundFieldAccess { root, access_chain } => {
            let is_vector = match root.as_ref() {
                Expr::Identifier(ident) => VECTORS.contains(&folded(ident).as_str()),
                Expr::CompoundIdentifier(parts) => {
                    parts.last().is_some_and(|ident| VECTORS.contains(&folded(ident).as_str()))
                }
                _ => false,
            };
            let first = access_chain.first_mut().filter(|_| is_vector);
            if let Some(AccessExpr::Subscript(Subscript::Index { index })) = first {
                let one = Expr::Value(Value::Number("1".to_owned(), false).into());
                let from_zero = std::mem::replace(index, super::null());
                *index = Expr::BinaryOp {
                    left: Box::new(from_zero),
                    op: BinaryOperator::Plus,
                    right: Box::new(one),
                };
            }
        }
        _ => {}
    }
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

/// `ARRAY(SELECT x …)`. An ORDER BY inside stays where it is: array_agg takes the rows as they come.
fn array_of(query: &mut Query) -> Expr {
    let mut inner = query.clone();
    if let SetExpr::Select(select) = inner.body.as_mut()
        && let [SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }] =
            &mut select.projection[..]
    {
        let expr = std::mem::replace(expr, super::null());
        select.projection =
            vec![SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', "element") }];
    }
    // Written as text, because a query's struct has a dozen fields that say nothing here.
    let text = "SELECT array_agg(\"element\") FROM (SELECT 1) AS \"elements\"";
    let parsed = Parser::new(&PostgreSqlDialect {}).try_with_sql(text).and_then(|mut p| p.parse_query());
    let mut outer = parsed.expect("the text is a query");
    if let SetExpr::Select(select) = outer.body.as_mut()
        && let Some(ast::TableFactor::Derived { subquery, .. }) =
            select.from.first_mut().map(|f| &mut f.relation)
    {
        **subquery = inner;
    }
    call("text_array_or_empty", vec![Expr::Subquery(outer)])
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
