//! Bounds on a text, checked before a tree is built from it.
//!
//! Trees of expressions are walked, cloned, compared and dropped by recursion, in many crates that we do not own, on
//! threads with 2 MiB of stack. So the depth is bounded here, by counting tokens: brackets and CASE nest, and a chain
//! of operators `a + a + a` is a tree as deep as it is long. The count never falls below the true depth; it may be
//! above it by a small factor, because precedence is not looked at.

use millpond_types::{SqlError, SqlState};
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan};

/// Longer texts are refused with 54000: bulk data goes through COPY.
pub const TEXT_BYTES_MAX: usize = 64 << 20;

/// More words and signs in one text are refused with 54000: a token costs some hundred bytes while it is parsed.
pub const TOKENS_MAX: usize = 2_000_000;

/// Brackets, CASE and prefix operators inside one another; a subquery counts as several of them.
pub const NESTING_MAX: usize = 128;

/// A tree has more and larger nodes for a level of subquery in FROM or WITH than for one of parentheses.
const QUERY_WEIGHT: usize = 4;

/// DataFusion's type coercion visits a subquery in an expression twice, and so the innermost of twenty a million times.
const EXPRESSION_QUERY_WEIGHT: usize = 10;

/// Levels of [`DEPTH_MAX`] that a UNION, INTERSECT or EXCEPT counts for, by the same reason.
const SET_OPERATION_WEIGHT: usize = 5;

/// Levels of the whole tree: nesting, and operators in a chain. Frames of unoptimized builds are larger: to clone an
/// expression takes 3 KB of stack for each level there.
pub const DEPTH_MAX: usize = if cfg!(debug_assertions) { 300 } else { 800 };

/// How often the parser may begin an expression per token. Its backtracking is exponential in nesting for some wrong
/// texts; no text that parses needs more than a few attempts per token.
pub(crate) const ATTEMPTS_PER_TOKEN: u64 = 60;

/// The parser's own bound on recursion: several levels of precedence for each level of nesting.
pub(crate) const RECURSION_MAX: usize = NESTING_MAX * 12;

/// 54001, in the words that PostgreSQL has for the same.
pub(crate) fn too_deep() -> SqlError {
    SqlError::new(SqlState::STATEMENT_TOO_COMPLEX, "stack depth limit exceeded")
        .detail(format!(
            "A statement may nest {NESTING_MAX} levels deep, and chain about {DEPTH_MAX} operators."
        ))
        .hint("Write a long OR of comparisons as IN (…) or = ANY (ARRAY[…]), and split a deep query by WITH.")
}

/// What is open at one level of brackets.
#[derive(Clone, Copy, Default)]
struct Level {
    /// AND and OR since the expression began.
    logical: usize,
    /// Other operators since the last AND or OR.
    operators: usize,
    /// The most of `operators` before that.
    operators_max: usize,
    /// Prefix operators in a row: NOT NOT NOT.
    prefixes: usize,
    /// UNION and the like in this query.
    set_operations: usize,
    /// JOIN and the like in this query: a plan is as deep as they are many.
    joins: usize,
    /// Began with CASE rather than a bracket.
    case: bool,
    /// Follows FROM, JOIN, LATERAL or AS: a query in it is no part of an expression.
    relation: bool,
    /// What it counts for besides itself, for being a query.
    query_weight: usize,
}

impl Level {
    fn depth(&self) -> usize {
        let operators = self.logical + self.operators.max(self.operators_max);
        1 + operators + self.set_operations * SET_OPERATION_WEIGHT + self.joins
    }

    fn next_expression(&mut self) {
        *self = Level { logical: 0, operators: 0, operators_max: 0, prefixes: 0, ..*self };
    }
}

/// Stack for each level of nesting while a statement is read or planned: frames of unoptimized builds are large.
const STACK_BYTES_PER_LEVEL: usize = if cfg!(debug_assertions) { 512 << 10 } else { 128 << 10 };

/// Nesting that any thread's stack has room for.
const NESTING_SMALL: usize = 3;

/// Runs `work` on a stack that has room for recursion over a statement of this nesting (of [`nesting`]).
///
/// For whoever recurses over a statement by functions that are heavier than clone or drop: parsers and planners.
pub fn with_stack<T>(nesting: usize, work: impl FnOnce() -> T) -> T {
    if nesting <= NESTING_SMALL {
        return work();
    }
    stacker::grow((nesting + NESTING_SMALL) * STACK_BYTES_PER_LEVEL, work)
}

/// The levels of nesting in tokens, after the bounds were checked.
///
/// # Errors
/// 54001 at the token that goes too deep.
pub(crate) fn check_depth(tokens: &[TokenWithSpan]) -> Result<usize, SqlError> {
    let mut gauge = Gauge::new();
    let mut nesting_max = 0;
    for TokenWithSpan { token, span } in tokens {
        if matches!(token, Token::Whitespace(_)) {
            continue;
        }
        gauge.read(token);
        nesting_max = nesting_max.max(gauge.nesting());
        if gauge.nesting() > NESTING_MAX || gauge.depth() > DEPTH_MAX {
            return Err(too_deep().at(span.start.column as usize));
        }
    }
    Ok(nesting_max)
}

/// Reads tokens, and knows how deep the tree is at the last one. Sums over all levels are kept, not computed.
struct Gauge {
    /// Never empty.
    levels: Vec<Level>,
    /// Of all levels but the last.
    outer_depth: usize,
    prefixes: usize,
    query_weights: usize,
    /// Types in angle brackets, which PostgreSQL does not have and sqlparser reads by recursion.
    angles: usize,
    last_keyword: Option<Keyword>,
}

impl Gauge {
    fn new() -> Self {
        // The statement itself is a query in no expression.
        let levels = vec![Level { relation: true, ..Level::default() }];
        Self { levels, outer_depth: 0, prefixes: 0, query_weights: 0, angles: 0, last_keyword: None }
    }

    fn nesting(&self) -> usize {
        self.levels.len() + self.prefixes + self.query_weights + self.angles
    }

    fn depth(&self) -> usize {
        self.outer_depth + self.levels.last().map_or(0, Level::depth)
    }

    fn level(&mut self) -> &mut Level {
        self.levels.last_mut().expect("the first level is never closed")
    }

    fn read(&mut self, token: &Token) {
        let is_prefix = match token {
            Token::LParen | Token::LBracket | Token::LBrace => {
                self.open(false);
                self.last_keyword = None;
                return;
            }
            Token::RParen | Token::RBracket | Token::RBrace => self.close(),
            Token::Comma => self.next_expression(),
            Token::SemiColon => {
                *self = Gauge::new();
                false
            }
            Token::Word(word) if word.quote_style.is_none() => self.read_keyword(word.keyword),
            Token::Lt
                if matches!(self.last_keyword, Some(Keyword::ARRAY | Keyword::STRUCT | Keyword::MAP)) =>
            {
                self.angles += 1;
                false
            }
            Token::Word(_) | Token::Number(..) | Token::Period | Token::Placeholder(_) => false,
            Token::SingleQuotedString(_) | Token::EscapedStringLiteral(_) | Token::DollarQuotedString(_) => {
                false
            }
            // Every other sign counts as an operator, and may be a prefix.
            _ => {
                self.level().operators += 1;
                true
            }
        };
        let level = self.levels.last_mut().expect("the first level is never closed");
        if is_prefix {
            level.prefixes += 1;
            self.prefixes += 1;
        } else {
            self.prefixes -= std::mem::take(&mut level.prefixes);
        }
        self.last_keyword = match token {
            Token::Word(word) if word.quote_style.is_none() => Some(word.keyword),
            _ => None,
        };
    }

    /// True for a word that may stand in a row before an operand.
    fn read_keyword(&mut self, keyword: Keyword) -> bool {
        match keyword {
            Keyword::CASE => return self.open(true),
            Keyword::END if self.level().case => return self.close(),
            Keyword::AND | Keyword::OR => {
                let level = self.level();
                level.logical += 1;
                level.operators_max = level.operators_max.max(std::mem::take(&mut level.operators));
            }
            Keyword::NOT | Keyword::INTERVAL | Keyword::PRIOR | Keyword::EXISTS => {
                self.level().operators += 1;
                return true;
            }
            Keyword::EXPLAIN | Keyword::PREPARE => return true,
            Keyword::IS
            | Keyword::IN
            | Keyword::BETWEEN
            | Keyword::LIKE
            | Keyword::ILIKE
            | Keyword::SIMILAR
            | Keyword::COLLATE
            | Keyword::AT
            | Keyword::NOTNULL
            | Keyword::OPERATOR
            | Keyword::REGEXP
            | Keyword::RLIKE
            | Keyword::OVERLAPS => self.level().operators += 1,
            Keyword::JOIN => self.level().joins += 1,
            Keyword::UNION | Keyword::INTERSECT | Keyword::EXCEPT => {
                self.level().set_operations += 1;
                return self.next_expression();
            }
            Keyword::SELECT | Keyword::VALUES => {
                let level = self.level();
                if level.query_weight == 0 {
                    level.query_weight =
                        if level.relation { QUERY_WEIGHT } else { EXPRESSION_QUERY_WEIGHT } - 1;
                    self.query_weights += self.level().query_weight;
                }
                return self.next_expression();
            }
            Keyword::FROM
            | Keyword::WHERE
            | Keyword::GROUP
            | Keyword::HAVING
            | Keyword::WHEN
            | Keyword::THEN
            | Keyword::ELSE
            | Keyword::ON
            | Keyword::SET => return self.next_expression(),
            _ => {}
        }
        false
    }

    fn next_expression(&mut self) -> bool {
        let level = self.levels.last_mut().expect("the first level is never closed");
        self.prefixes -= level.prefixes;
        level.next_expression();
        false
    }

    fn open(&mut self, case: bool) -> bool {
        use Keyword::{AS, FROM, JOIN, LATERAL, MATERIALIZED};
        self.outer_depth += self.level().depth();
        // A bracket inside of a bracket is whatever the outer one is: FROM ((SELECT …) UNION …).
        let first_inside = self.last_keyword.is_none() && self.level().depth() == 1;
        let relation = matches!(self.last_keyword, Some(AS | FROM | JOIN | LATERAL | MATERIALIZED))
            || (first_inside && self.level().relation && self.level().query_weight == 0);
        self.levels.push(Level { case, relation, ..Level::default() });
        false
    }

    /// A bracket without its partner is the parser's to complain about.
    fn close(&mut self) -> bool {
        if self.levels.len() > 1 {
            let closed = self.levels.pop().expect("more than one");
            self.prefixes -= closed.prefixes;
            self.query_weights -= closed.query_weight;
            self.outer_depth -= self.level().depth();
        }
        false
    }
}
