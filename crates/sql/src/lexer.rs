//! Text to tokens, with PostgreSQL's complaints about texts that are no tokens at all.

use std::ops::Range;

use millpond_types::{SqlError, SqlState};
use sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer, Whitespace};

use crate::dialect::MillpondDialect;
use crate::limits::{TEXT_BYTES_MAX, TOKENS_MAX};

/// Where the tokens of a text lie; the tokens themselves move into the parser.
pub(crate) struct Source<'a> {
    pub text: &'a str,
    places: Vec<Place>,
}

/// Where a token begins, and whether it is white space or a comment. One more entry marks the end.
#[derive(Clone, Copy)]
struct Place {
    byte: u32,
    /// In characters from 1.
    position: u32,
    blank: bool,
}

/// A text and its tokens. Spans are renumbered: line 1, and the column is the character position in the whole text.
pub(crate) struct Lexed<'a> {
    pub source: Source<'a>,
    pub tokens: Vec<TokenWithSpan>,
}

/// # Errors
/// 54000 for too much, 22021 for NUL, 42601 for what PostgreSQL's scanner refuses.
pub(crate) fn lex(text: &str) -> Result<Lexed<'_>, SqlError> {
    if text.len() > TEXT_BYTES_MAX {
        let message = format!("a statement's text is limited to {} MB", TEXT_BYTES_MAX >> 20);
        return Err(too_large(message));
    }
    if scan(text)? > TOKENS_MAX {
        return Err(too_large(format!("a statement's text is limited to {TOKENS_MAX} words and signs")));
    }
    let dialect = MillpondDialect::default();
    let mut tokens = Vec::new();
    let outcome = Tokenizer::new(&dialect, text).tokenize_with_location_into_buf(&mut tokens);
    join_strings(&mut tokens);
    let source = Source { text, places: renumber(text, &mut tokens) };
    if outcome.is_err() {
        // What the scan let through and sqlparser's tokenizer does not know: what follows is the culprit.
        let end = source.places[tokens.len()];
        let word = text[end.byte as usize..].split_whitespace().next().unwrap_or_default();
        return Err(syntax_error_near(word).at(end.position as usize));
    }
    Ok(Lexed { source, tokens })
}

fn too_large(message: String) -> SqlError {
    SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, message)
        .hint("Load bulk data by COPY, or split the statement.")
}

/// PostgreSQL's message for a text that stops making sense at `token`.
pub(crate) fn syntax_error_near(token: &str) -> SqlError {
    SqlError::new(SqlState::SYNTAX_ERROR, format!("syntax error at or near \"{token}\""))
}

/// String constants with a line break between them are one, as in the standard; without one they are a mistake, which is
/// the parser's to complain about. The parts become blanks, so that every place stays where it was.
fn join_strings(tokens: &mut [TokenWithSpan]) {
    let mut first = None; // the string that later ones join
    let mut line_break = false;
    for at in 0..tokens.len() {
        match &tokens[at].token {
            Token::Whitespace(Whitespace::Newline | Whitespace::SingleLineComment { .. }) => {
                line_break = true
            }
            Token::Whitespace(_) => {}
            Token::SingleQuotedString(part) if line_break && first.is_some() => {
                let part = part.clone();
                let first: usize = first.expect("looked at in the guard");
                if let Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text) =
                    &mut tokens[first].token
                {
                    text.push_str(&part);
                }
                tokens[at].token = Token::Whitespace(Whitespace::Space);
                line_break = false;
            }
            Token::SingleQuotedString(_) | Token::EscapedStringLiteral(_) => {
                (first, line_break) = (Some(at), false)
            }
            _ => first = None,
        }
    }
}

/// Gives every span its place in characters.
fn renumber(text: &str, tokens: &mut [TokenWithSpan]) -> Vec<Place> {
    let mut places = Vec::with_capacity(tokens.len() + 1);
    let mut rest = text.char_indices();
    let (mut line, mut column) = (1, 1);
    let mut here = Place { byte: 0, position: 1, blank: false };
    let mut seek = |to: Location| {
        while line < to.line || (line == to.line && column < to.column) {
            let Some((at, c)) = rest.next() else { break };
            here.byte = (at + c.len_utf8()) as u32; // texts are shorter than TEXT_BYTES_MAX
            here.position += 1;
            (line, column) = if c == '\n' { (line + 1, 1) } else { (line, column + 1) };
        }
        here
    };
    let location = |place: Place| Location { line: 1, column: u64::from(place.position) };
    let mut end = Place { byte: 0, position: 1, blank: false };
    for token in tokens {
        let start = seek(token.span.start);
        end = seek(token.span.end);
        places.push(Place { blank: matches!(token.token, Token::Whitespace(_)), ..start });
        token.span = Span::new(location(start), location(end));
    }
    places.push(end);
    places
}

/// Walks the text once as PostgreSQL's scanner would, and counts its tokens (roughly, and not too few).
fn scan(text: &str) -> Result<usize, SqlError> {
    let bytes = text.as_bytes();
    let mut at = 0;
    let mut tokens = 0;
    while at < bytes.len() {
        let start = at;
        tokens += 1;
        match bytes[at] {
            0 => {
                let message = "invalid byte sequence for encoding \"UTF8\": 0x00";
                return Err(SqlError::new(SqlState::CHARACTER_NOT_IN_REPERTOIRE, message));
            }
            b'\'' => at = quoted(text, start, at, b'\'', false, "quoted string")?,
            b'"' => {
                at = quoted(text, start, at, b'"', false, "quoted identifier")?;
                if at == start + 2 {
                    return Err(scanner_error("zero-length delimited identifier", text, start, at));
                }
            }
            b'-' if bytes.get(at + 1) == Some(&b'-') => {
                at = bytes[at..].iter().position(|b| *b == b'\n').map_or(bytes.len(), |n| at + n);
            }
            b'/' if bytes.get(at + 1) == Some(&b'*') => at = block_comment(text, at)?,
            b'$' => at = dollar_quoted(text, at)?.unwrap_or(at + 1),
            b if is_identifier_start(b) => {
                at += bytes[at..].iter().take_while(|b| is_identifier_part(**b)).count();
                // A letter that belongs to the string behind it: E'…', B'…', X'…', N'…', U&'…'.
                if bytes.get(at) == Some(&b'\'') && at == start + 1 {
                    match bytes[start] {
                        b'e' | b'E' => at = quoted(text, start, at, b'\'', true, "quoted string")?,
                        b'b' | b'B' => at = quoted(text, start, at, b'\'', false, "bit string literal")?,
                        b'x' | b'X' => {
                            at = quoted(text, start, at, b'\'', false, "hexadecimal string literal")?
                        }
                        _ => {}
                    }
                }
            }
            b if b.is_ascii_digit() => {
                at = number_end(bytes, at);
                if bytes.get(at).is_some_and(|b| is_identifier_start(*b)) {
                    let end = at + bytes[at..].iter().take_while(|b| is_identifier_part(**b)).count();
                    return Err(scanner_error("trailing junk after numeric literal", text, start, end));
                }
            }
            b if b.is_ascii_whitespace() => {
                at += bytes[at..].iter().take_while(|b| b.is_ascii_whitespace()).count();
                // sqlparser makes a token of each blank.
                tokens += (at - start) / 4;
            }
            _ => at += 1,
        }
    }
    Ok(tokens)
}

fn is_identifier_start(b: u8) -> bool {
    b.is_ascii_alphabetic() || b == b'_' || b >= 0x80
}

fn is_identifier_part(b: u8) -> bool {
    is_identifier_start(b) || b.is_ascii_digit() || b == b'$'
}

/// After the number at `at`: `12`, `1.5`, `1e-5`. A dot that begins a range or a field is not ours to judge.
fn number_end(bytes: &[u8], mut at: usize) -> usize {
    let digits = |from: usize| bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    at += digits(at);
    if bytes.get(at) == Some(&b'.') {
        at += 1;
        at += digits(at);
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        let exponent = bytes.get(at + 1 + sign..).map_or(0, |_| digits(at + 1 + sign));
        if exponent > 0 {
            at += 1 + sign + exponent;
        }
    }
    at
}

/// After the string that opens at `open`; `start` is where its token begins, which may be a letter earlier.
fn quoted(
    text: &str,
    start: usize,
    open: usize,
    quote: u8,
    backslash: bool,
    what: &str,
) -> Result<usize, SqlError> {
    let bytes = text.as_bytes();
    let mut at = open + 1;
    while at < bytes.len() {
        match bytes[at] {
            0 => break,
            b'\\' if backslash => at += 2,
            // A doubled quote closes and opens again, which comes to the same.
            b if b == quote && bytes.get(at + 1) == Some(&quote) => at += 2,
            b if b == quote => return Ok(at + 1),
            _ => at += 1,
        }
    }
    if bytes.get(at) == Some(&0) {
        return Ok(at); // the caller meets the NUL next
    }
    Err(scanner_error(&format!("unterminated {what}"), text, start, bytes.len()))
}

fn block_comment(text: &str, start: usize) -> Result<usize, SqlError> {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (start + 2, 1);
    while at < bytes.len() {
        match (bytes[at], bytes.get(at + 1)) {
            (b'/', Some(b'*')) => (at, depth) = (at + 2, depth + 1),
            (b'*', Some(b'/')) => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
        if depth == 0 {
            return Ok(at);
        }
    }
    Err(scanner_error("unterminated /* comment", text, start, bytes.len()))
}

/// After `$tag$ … $tag$`; `None` when `$` begins something else, such as `$1`.
fn dollar_quoted(text: &str, start: usize) -> Result<Option<usize>, SqlError> {
    let bytes = text.as_bytes();
    let tag =
        bytes[start + 1..].iter().take_while(|b| is_identifier_start(**b) || b.is_ascii_digit()).count();
    let open = start + 1 + tag;
    if bytes.get(open) != Some(&b'$') || bytes[start + 1].is_ascii_digit() {
        return Ok(None);
    }
    let delimiter = &text[start..=open];
    match text[open + 1..].find(delimiter) {
        Some(length) => Ok(Some(open + 1 + length + delimiter.len())),
        None => Err(scanner_error("unterminated dollar-quoted string", text, start, bytes.len())),
    }
}

/// As PostgreSQL's scanner words it, with the offending text and its place.
fn scanner_error(what: &str, text: &str, start: usize, end: usize) -> SqlError {
    let position = text[..start].chars().count() + 1;
    // Indices come from ASCII signs, so both ends are character boundaries.
    SqlError::new(SqlState::SYNTAX_ERROR, format!("{what} at or near \"{}\"", &text[start..end])).at(position)
}

impl Lexed<'_> {
    /// The statements' tokens as ranges, without the semicolons between them; empty ones left out. A semicolon inside
    /// brackets ends a statement too, as it does in PostgreSQL's grammar.
    pub fn statements(&self) -> Vec<Range<usize>> {
        let mut ranges = Vec::new();
        let mut start = None;
        let mut end = 0;
        for (index, token) in self.tokens.iter().enumerate() {
            match token.token {
                Token::Whitespace(_) => {}
                Token::SemiColon => ranges.extend(start.take().map(|start| start..end)),
                _ => {
                    start.get_or_insert(index);
                    end = index + 1;
                }
            }
        }
        ranges.extend(start.map(|start| start..end));
        ranges
    }

    /// Moves a statement's tokens out.
    pub fn take(&mut self, range: Range<usize>) -> Vec<TokenWithSpan> {
        self.tokens[range]
            .iter_mut()
            .map(|token| std::mem::replace(token, TokenWithSpan::new_eof()))
            .collect()
    }
}

impl Source<'_> {
    /// The token's own text, as PostgreSQL shows it in "at or near".
    pub fn raw(&self, index: usize) -> &str {
        &self.text[self.places[index].byte as usize..self.places[index + 1].byte as usize]
    }

    /// Of a token, or of the end of the text; in characters from 1.
    pub fn position(&self, index: usize) -> usize {
        self.places[index].position as usize
    }

    /// The token that begins at a position, or the first one behind it.
    pub fn index_at(&self, position: usize) -> usize {
        let last = self.places.len() - 1;
        self.places[..last].partition_point(|place| (place.position as usize) < position)
    }

    /// The text of some tokens, without blanks and comments at either end.
    pub fn text_of(&self, range: Range<usize>) -> &str {
        let mut indices = range.filter(|index| !self.places[*index].blank);
        let Some(first) = indices.next() else { return "" };
        let last = indices.next_back().unwrap_or(first);
        &self.text[self.places[first].byte as usize..self.places[last + 1].byte as usize]
    }

    /// The first token at or behind an index that is not blank; `None` at the end of the text.
    pub fn next_solid(&self, index: usize) -> Option<usize> {
        (index..self.places.len() - 1).find(|index| !self.places[*index].blank)
    }

    /// The complaint about a token; about the end of the text for an index behind the last.
    pub fn syntax_error(&self, index: usize) -> SqlError {
        match self.next_solid(index) {
            Some(index) => syntax_error_near(self.raw(index)).at(self.position(index)),
            None => {
                // PostgreSQL points behind the text, not behind its last token.
                let error = SqlError::new(SqlState::SYNTAX_ERROR, "syntax error at end of input");
                error.at(self.text.chars().count() + 1)
            }
        }
    }
}
