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

/// Brackets, CASE and prefix operators inside one another; a subquery counts as [`QUERY_WEIGHT`] of them.
pub const NESTING_MAX: usize = 128;

/// A tree has more and larger nodes for a level of subquery than for one of parentheses.
const QUERY_WEIGHT: usize = 4;

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
    /// A query, which counts for more.
    query: bool,
}

impl Level {
    fn depth(&self) -> usize {
        1 + self.logical
            + self.operators.max(self.operators_max)
            + self.set_operations * SET_OPERATION_WEIGHT
            + self.joins
    }

    fn next_expression(&mut self) {
        *self = Level {
            set_operations: self.set_operations,
            joins: self.joins,
            case: self.case,
            query: self.query,
            ..Level::default()
        };
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
    let mut nesting_max = 0;
    let mut levels = vec![Level::default()];
    let mut outer_depth = 0; // of all levels but the last
    let mut prefixes = 0; // of all levels
    let mut queries = 0; // of all levels
    let mut angles = 0; // types in angle brackets, which PostgreSQL does not have and sqlparser reads by recursion
    let mut after_array = false;
    for TokenWithSpan { token, span } in tokens {
        let level = levels.last_mut().expect("the first level is never closed");
        let mut prefix = false;
        match token {
            Token::Whitespace(_) => continue,
            Token::LParen | Token::LBracket | Token::LBrace => open(&mut levels, &mut outer_depth, false),
            Token::RParen | Token::RBracket | Token::RBrace => {
                close(&mut levels, &mut outer_depth, &mut prefixes, &mut queries)
            }
            Token::Comma => {
                prefixes -= level.prefixes;
                level.next_expression();
            }
            Token::SemiColon => {
                (levels, outer_depth, prefixes, queries) = (vec![Level::default()], 0, 0, 0);
                continue;
            }
            Token::Word(word) if word.quote_style.is_none() => match word.keyword {
                Keyword::CASE => open(&mut levels, &mut outer_depth, true),
                Keyword::END if level.case => {
                    close(&mut levels, &mut outer_depth, &mut prefixes, &mut queries)
                }
                Keyword::AND | Keyword::OR => {
                    level.logical += 1;
                    level.operators_max = level.operators_max.max(level.operators);
                    level.operators = 0;
                }
                Keyword::NOT | Keyword::INTERVAL | Keyword::PRIOR | Keyword::EXISTS => {
                    level.operators += 1;
                    prefix = true;
                }
                Keyword::IS | Keyword::BETWEEN | Keyword::LIKE | Keyword::ILIKE | Keyword::SIMILAR => {
                    level.operators += 1;
                }
                Keyword::IN | Keyword::COLLATE | Keyword::AT | Keyword::NOTNULL => {
                    level.operators += 1;
                }
                Keyword::OPERATOR | Keyword::REGEXP | Keyword::RLIKE | Keyword::OVERLAPS => {
                    level.operators += 1
                }
                Keyword::UNION | Keyword::INTERSECT | Keyword::EXCEPT => {
                    level.set_operations += 1;
                    prefixes -= level.prefixes;
                    level.next_expression();
                }
                Keyword::JOIN => level.joins += 1,
                Keyword::EXPLAIN | Keyword::PREPARE => prefix = true,
                Keyword::SELECT | Keyword::VALUES => {
                    queries += usize::from(!level.query);
                    level.query = true;
                    prefixes -= level.prefixes;
                    level.next_expression();
                }
                Keyword::FROM | Keyword::WHERE | Keyword::GROUP | Keyword::HAVING => {
                    prefixes -= level.prefixes;
                    level.next_expression();
                }
                Keyword::WHEN | Keyword::THEN | Keyword::ELSE | Keyword::ON | Keyword::SET => {
                    prefixes -= level.prefixes;
                    level.next_expression();
                }
                _ => {}
            },
            Token::Lt if after_array => angles += 1,
            Token::Word(_) | Token::Number(..) | Token::Period | Token::Placeholder(_) => {}
            Token::SingleQuotedString(_) | Token::EscapedStringLiteral(_) | Token::DollarQuotedString(_) => {}
            // Every other sign counts as an operator, and may be a prefix.
            _ => {
                level.operators += 1;
                prefix = true;
            }
        }
        let nested = levels.len() + queries * (QUERY_WEIGHT - 1);
        let level = levels.last_mut().expect("the first level is never closed");
        if prefix {
            level.prefixes += 1;
            prefixes += 1;
        } else if !matches!(token, Token::LParen | Token::LBracket) && level.prefixes > 0 {
            prefixes -= level.prefixes;
            level.prefixes = 0;
        }
        after_array = matches!(token, Token::Word(word) if matches!(word.keyword, Keyword::ARRAY | Keyword::STRUCT | Keyword::MAP));
        let nested = nested + angles;
        nesting_max = nesting_max.max(nested + prefixes);
        if nested + prefixes > NESTING_MAX || outer_depth + level.depth() > DEPTH_MAX {
            return Err(too_deep().at(span.start.column as usize));
        }
    }
    Ok(nesting_max)
}

fn open(levels: &mut Vec<Level>, outer_depth: &mut usize, case: bool) {
    *outer_depth += levels.last().expect("the first level is never closed").depth();
    levels.push(Level { case, ..Level::default() });
}

/// A bracket without its partner is the parser's to complain about.
fn close(levels: &mut Vec<Level>, outer_depth: &mut usize, prefixes: &mut usize, queries: &mut usize) {
    if levels.len() > 1 {
        let closed = levels.pop().expect("more than one");
        *prefixes -= closed.prefixes;
        *queries -= usize::from(closed.query);
        *outer_depth -= levels.last().expect("one is left").depth();
    }
}
