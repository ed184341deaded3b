//! `a ASOF [LEFT] JOIN b ON …`, which sqlparser knows with another clause only.
//!
//! It reads `ASOF JOIN b MATCH_CONDITION (…) ON …`; that clause is put in, and says whether rows without a match stay.

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan};

fn is(token: &TokenWithSpan, keyword: Keyword) -> bool {
    matches!(&token.token, Token::Word(word) if word.quote_style.is_none() && word.keyword == keyword)
}

/// The next token from `at` on that is no blank.
fn solid(tokens: &[TokenWithSpan], at: usize) -> Option<usize> {
    (at..tokens.len()).find(|at| !matches!(tokens[*at].token, Token::Whitespace(_)))
}

/// The words between ASOF at `at` and its JOIN, that JOIN, and whether LEFT is among them.
fn join_of(tokens: &[TokenWithSpan], at: usize) -> Option<(usize, bool)> {
    let mut next = solid(tokens, at + 1)?;
    let left = is(&tokens[next], Keyword::LEFT);
    if left || is(&tokens[next], Keyword::INNER) {
        next = solid(tokens, next + 1)?;
        if left && is(&tokens[next], Keyword::OUTER) {
            next = solid(tokens, next + 1)?;
        }
    }
    is(&tokens[next], Keyword::JOIN).then_some((next, left))
}

/// Where its ON stands; `None` if it has none, or the clause of sqlparser's.
fn on_of(tokens: &[TokenWithSpan], join: usize) -> Option<usize> {
    let (mut depth, mut nested) = (0usize, 0usize);
    for (at, token) in tokens.iter().enumerate().skip(join + 1) {
        match &token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.checked_sub(1)?,
            Token::SemiColon if depth == 0 => return None,
            _ if depth > 0 => {}
            _ if is(token, Keyword::MATCH_CONDITION) => return None,
            _ if is(token, Keyword::JOIN) => nested += 1,
            _ if is(token, Keyword::ON) && nested == 0 => return Some(at),
            _ => {}
        }
    }
    None
}

/// The tokens with the clause put in.
pub(crate) fn with_match_conditions(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    if !tokens.iter().any(|token| is(token, Keyword::ASOF)) {
        return tokens;
    }
    let mut given = Vec::with_capacity(tokens.len() + 8);
    let mut clauses: Vec<(usize, bool)> = Vec::new();
    let mut skip_to = 0;
    for (at, token) in tokens.iter().enumerate() {
        if at < skip_to {
            continue;
        }
        if let Some(found) = clauses.iter().position(|(on, _)| *on == at) {
            let (_, left) = clauses.swap_remove(found);
            let put = |token| TokenWithSpan { token, span: tokens[at].span };
            let stays = if left { "true" } else { "false" };
            given.extend(
                [
                    Token::make_keyword("MATCH_CONDITION"),
                    Token::LParen,
                    Token::make_keyword(stays),
                    Token::RParen,
                ]
                .map(put),
            );
        }
        given.push(token.clone());
        if is(token, Keyword::ASOF)
            && let Some((join, left)) = join_of(&tokens, at)
            && let Some(on) = on_of(&tokens, join)
        {
            clauses.push((on, left));
            skip_to = join;
        }
    }
    given
}
