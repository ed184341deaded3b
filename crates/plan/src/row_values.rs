//! Comparisons of rows, column by column (PostgreSQL 15, chapter 9.24.5).

use sqlparser::ast::BinaryOperator::{self, And, Eq, Gt, GtEq, Lt, LtEq, NotEq, Or};
use sqlparser::ast::{self, Expr, FunctionArg, FunctionArgExpr, FunctionArguments};

/// `(a, b) < (1, 2)`, `ROW(a, b) IN ((1, 2), …)`, `(a, b) IS DISTINCT FROM (1, 2)` as what they mean of the columns.
pub(crate) fn comparison(expr: &Expr) -> Option<Expr> {
    match expr {
        Expr::BinaryOp { left, op: op @ (Eq | NotEq | Lt | LtEq | Gt | GtEq), right } => {
            compare(&fields(left)?, op, &fields(right)?)
        }
        Expr::IsDistinctFrom(left, right) => {
            let of = |l: &Expr, r: &Expr| Expr::IsDistinctFrom(Box::new(l.clone()), Box::new(r.clone()));
            pairs(&fields(left)?, &fields(right)?, of, &Or)
        }
        Expr::IsNotDistinctFrom(left, right) => {
            let of = |l: &Expr, r: &Expr| Expr::IsNotDistinctFrom(Box::new(l.clone()), Box::new(r.clone()));
            pairs(&fields(left)?, &fields(right)?, of, &And)
        }
        Expr::InList { expr, list, negated } => {
            let row = fields(expr)?;
            let each = list.iter().map(|item| compare(&row, &Eq, &fields(item)?));
            let any = join(&Or, each.collect::<Option<Vec<_>>>()?)?;
            Some(match negated {
                true => Expr::UnaryOp { op: ast::UnaryOperator::Not, expr: Box::new(any) },
                false => any,
            })
        }
        _ => None,
    }
}

/// The fields of `(a, b)` or `ROW(a, b)`.
fn fields(expr: &Expr) -> Option<Vec<Expr>> {
    match expr {
        Expr::Tuple(fields) => Some(fields.clone()),
        Expr::Function(call)
            if call.name.0.len() == 1
                && call.name.0[0].as_ident().is_some_and(|name| name.value.eq_ignore_ascii_case("row")) =>
        {
            let FunctionArguments::List(list) = &call.args else { return None };
            let field = |argument: &FunctionArg| match argument {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
                _ => None,
            };
            list.args.iter().map(field).collect()
        }
        _ => None,
    }
}

fn binary(left: Expr, op: &BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op: op.clone(), right: Box::new(right) }
}

fn join(op: &BinaryOperator, parts: Vec<Expr>) -> Option<Expr> {
    let joined = parts.into_iter().reduce(|left, right| binary(left, op, right));
    joined.map(|all| Expr::Nested(Box::new(all)))
}

fn pairs(
    left: &[Expr],
    right: &[Expr],
    of: impl Fn(&Expr, &Expr) -> Expr,
    op: &BinaryOperator,
) -> Option<Expr> {
    if left.len() != right.len() {
        return None;
    }
    join(op, left.iter().zip(right).map(|(l, r)| of(l, r)).collect())
}

/// By the first pair that differs. A NULL leaves it open, unless a pair before it decides.
fn compare(left: &[Expr], op: &BinaryOperator, right: &[Expr]) -> Option<Expr> {
    let strict = match op {
        Eq => return pairs(left, right, |l, r| binary(l.clone(), &Eq, r.clone()), &And),
        NotEq => return pairs(left, right, |l, r| binary(l.clone(), &NotEq, r.clone()), &Or),
        Lt | LtEq => Lt,
        _ => Gt,
    };
    if left.len() != right.len() {
        return None;
    }
    let mut pairs = left.iter().zip(right).rev();
    let (l, r) = pairs.next()?;
    let last = binary(l.clone(), op, r.clone());
    let all = pairs.fold(last, |rest, (l, r)| {
        let equal = binary(l.clone(), &Eq, r.clone());
        let rest = binary(equal, &And, Expr::Nested(Box::new(rest)));
        binary(binary(l.clone(), &strict, r.clone()), &Or, Expr::Nested(Box::new(rest)))
    });
    Some(Expr::Nested(Box::new(all)))
}
