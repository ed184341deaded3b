//! PostgreSQL's dialect with Millpond's additions inside of expressions and FROM.
//!
//! sqlparser asks for PostgreSQL's identity by `TypeId` in some places and by method in others, so ours answers both:
//! everything that `PostgreSqlDialect` overrides is handed on to it, method by method, but for what is named below. A test
//! holds the version that the list was made from: sqlparser's own macro for this does not work outside of its crate in 0.62.
//!
//! Left out: `json_object('a': 1)` (of PostgreSQL 16), for which sqlparser reads every argument of every function twice, so
//! that twenty nested calls take a million attempts; and hints in comments.

use std::any::TypeId;
use std::cell::Cell;

use sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, ObjectName,
    Query, SetExpr, Statement, TableFactor,
};
use sqlparser::dialect::{Dialect, PostgreSqlDialect, Precedence};
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Token, Tokenizer};

const POSTGRES: PostgreSqlDialect = PostgreSqlDialect {};

/// One per text: it counts the parser's attempts.
#[derive(Debug)]
pub(crate) struct MillpondDialect {
    /// Expressions that may still be begun. sqlparser tries alternatives and goes back, which some wrong texts make
    /// exponential; a statement that parses stays far below.
    attempts: Cell<u64>,
}

impl Default for MillpondDialect {
    fn default() -> Self {
        Self { attempts: Cell::new(u64::MAX) }
    }
}

impl MillpondDialect {
    pub fn with_attempts(attempts: u64) -> Self {
        Self { attempts: Cell::new(attempts) }
    }
}

macro_rules! as_postgres {
    ($($name:ident)*) => { $(fn $name(&self) -> bool { POSTGRES.$name() })* };
}

impl Dialect for MillpondDialect {
    fn dialect(&self) -> TypeId {
        POSTGRES.dialect()
    }

    as_postgres! {
        supports_unicode_string_literal supports_filter_during_aggregation supports_group_by_expr
        allow_extract_custom allow_extract_single_quotes supports_create_index_with_clause
        supports_explain_with_utility_options supports_listen_notify supports_factorial_operator
        supports_bitwise_shift_operators supports_comment_on supports_load_extension

        supports_empty_projections supports_nested_comments supports_string_escape_constant
        supports_numeric_literal_underscores supports_array_typedef_with_brackets supports_geometric_types
        supports_set_names supports_alter_column_type_using supports_notnull_operator
        supports_interval_options supports_insert_table_alias supports_create_table_like_parenthesized
        supports_select_wildcard_with_alias supports_comma_separated_trim supports_xml_expressions

    }

    fn identifier_quote_style(&self, identifier: &str) -> Option<char> {
        POSTGRES.identifier_quote_style(identifier)
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        POSTGRES.is_delimited_identifier_start(ch)
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        POSTGRES.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        POSTGRES.is_identifier_part(ch)
    }

    fn is_custom_operator_part(&self, ch: char) -> bool {
        POSTGRES.is_custom_operator_part(ch)
    }

    fn is_reserved_for_identifier(&self, keyword: Keyword) -> bool {
        POSTGRES.is_reserved_for_identifier(keyword)
    }

    fn get_next_precedence(&self, parser: &Parser) -> Option<Result<u8, ParserError>> {
        POSTGRES.get_next_precedence(parser)
    }

    fn prec_value(&self, precedence: Precedence) -> u8 {
        POSTGRES.prec_value(precedence)
    }

    // From here on, ours.

    fn supports_table_versioning(&self) -> bool {
        true
    }

    fn supports_match_recognize(&self) -> bool {
        true
    }

    /// `TABLE t` as an argument is the relation itself: read as `(SELECT * FROM t)`, so that resolvers see it.
    fn parse_prefix(&self, parser: &mut Parser) -> Option<Result<Expr, ParserError>> {
        let attempts = self.attempts.get();
        if attempts == 0 {
            return Some(Err(ParserError::RecursionLimitExceeded));
        }
        self.attempts.set(attempts - 1);
        if is_partitioned(parser) {
            return Some(partitioned(parser));
        }
        let is_table = parser.peek_keyword(Keyword::TABLE)
            && matches!(parser.peek_nth_token_ref(1).token, Token::Word(_));
        is_table.then(|| {
            parser.advance_token();
            parser.parse_object_name(false).map(|name| Expr::Subquery(select_all(name)))
        })
    }

    fn is_table_factor_alias(&self, explicit: bool, keyword: &Keyword, parser: &mut Parser) -> bool {
        explicit || (self.is_table_alias(keyword, parser) && !at_emit(parser))
    }

    fn is_select_item_alias(&self, explicit: bool, keyword: &Keyword, parser: &mut Parser) -> bool {
        explicit || (self.is_column_alias(keyword, parser) && !at_emit(parser))
    }
}

/// The current word begins an EMIT clause, and is no alias.
fn at_emit(parser: &Parser) -> bool {
    let is_emit = match &parser.get_current_token().token {
        Token::Word(word) => word.quote_style.is_none() && word.value.eq_ignore_ascii_case("emit"),
        _ => false,
    };
    is_emit
        && match &parser.peek_token_ref().token {
            Token::Word(next) => {
                ["on", "changes", "final", "after"].iter().any(|w| next.value.eq_ignore_ascii_case(w))
            }
            _ => false,
        }
}

/// The function that `t PARTITION BY a, b` is read as, in SESSION(…): of the relation, then the columns. Nobody calls one so.
pub const PARTITIONED: &str = "partition by";

/// How far the parser looks ahead for them.
const TOKENS_AHEAD: usize = 2_000;

/// At `t PARTITION BY`, `TABLE t PARTITION BY` or `(SELECT …) PARTITION BY`, as the first argument of SESSION.
fn is_partitioned(parser: &Parser) -> bool {
    let is = |token: &Token, word: &str| match token {
        Token::Word(w) => w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word),
        _ => false,
    };
    let current = parser.get_current_index();
    let blank = |at: &usize| matches!(parser.token_at(*at).token, Token::Whitespace(_));
    let before = (0..current).rev().find(|at| !blank(at)).map(|at| &parser.token_at(at).token);
    let opened = before.is_some_and(|before| match &parser.token_at(current).token {
        Token::LParen => is(before, "session"),
        Token::RArrow => is(before, "data"),
        _ => false,
    });
    if !opened {
        return false;
    }
    let token = |n: usize| &parser.peek_nth_token_ref(n).token;
    let mut at = usize::from(is(token(0), "table") && matches!(token(1), Token::Word(_)));
    if *token(at) == Token::LParen {
        let mut depth = 0usize;
        loop {
            match token(at) {
                Token::LParen => depth += 1,
                Token::RParen => depth -= 1,
                Token::EOF => return false,
                _ => {}
            }
            at += 1;
            if at > TOKENS_AHEAD {
                return false;
            }
            if depth == 0 {
                break;
            }
        }
    } else {
        at += 1;
        while *token(at) == Token::Period {
            at += 2;
        }
    }
    is(token(at), "partition") && is(token(at + 1), "by")
}

/// The columns are separated by commas as the arguments are: two of these follow, the time and the gap.
fn partitioned(parser: &mut Parser) -> Result<Expr, ParserError> {
    let table = if parser.consume_token(&Token::LParen) {
        let query = parser.parse_query()?;
        parser.expect_token(&Token::RParen)?;
        Expr::Subquery(query)
    } else {
        let _ = parser.parse_keyword(Keyword::TABLE);
        Expr::Subquery(select_all(parser.parse_object_name(false)?))
    };
    parser.expect_keywords(&[Keyword::PARTITION, Keyword::BY])?;
    let argument = |expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr));
    let mut args = vec![argument(table)];
    loop {
        match parser.parse_expr()? {
            Expr::Tuple(keys) => args.extend(keys.into_iter().map(argument)),
            Expr::Nested(key) => args.push(argument(*key)),
            key => args.push(argument(key)),
        }
        if commas_ahead(parser) <= 2 {
            break;
        }
        parser.expect_token(&Token::Comma)?;
    }
    Ok(Expr::Function(Function {
        name: ObjectName::from(vec![Ident::with_quote('"', PARTITIONED)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args,
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    }))
}

/// Commas between here and the end of the argument list.
fn commas_ahead(parser: &Parser) -> usize {
    let (mut depth, mut commas) = (0usize, 0);
    for at in 0..TOKENS_AHEAD {
        match &parser.peek_nth_token_ref(at).token {
            Token::LParen | Token::LBracket => depth += 1,
            Token::RParen | Token::RBracket if depth > 0 => depth -= 1,
            Token::RParen | Token::RBracket | Token::EOF | Token::SemiColon => break,
            Token::Comma if depth == 0 => commas += 1,
            _ => {}
        }
    }
    commas
}

/// `SELECT * FROM name`
pub(crate) fn select_all(name: ObjectName) -> Box<Query> {
    let tokens = Tokenizer::new(&POSTGRES, "SELECT * FROM t").tokenize().expect("a fixed text");
    let parsed = Parser::new(&POSTGRES).with_tokens(tokens).parse_statement().expect("a fixed text");
    let Statement::Query(mut query) = parsed else { unreachable!("a fixed text that is a query") };
    if let SetExpr::Select(select) = query.body.as_mut()
        && let TableFactor::Table { name: placeholder, .. } = &mut select.from[0].relation
    {
        *placeholder = name;
    }
    query
}

#[cfg(test)]
mod tests {
    /// `PostgreSqlDialect` overrides 38 methods in 0.62, and the next version may override more.
    #[test]
    fn the_version_is_the_one_that_was_copied_from() {
        let lock = include_str!("../../../Cargo.lock");
        let version =
            lock.split("name = \"sqlparser\"\nversion = \"").nth(1).and_then(|rest| rest.split('"').next());
        assert_eq!(
            version,
            Some("0.62.0"),
            "hand on what the new PostgreSqlDialect overrides, then change this"
        );
    }
}
