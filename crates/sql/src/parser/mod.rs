//! One statement's tokens, read by sqlparser's parser where it can and by hand where it cannot.

mod alter;
mod columns;
mod copy;
mod create;
mod cursor;
mod query;
mod session;

use millpond_types::{SqlError, SqlState, SqlType};
use sqlparser::ast;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::Token;

use crate::asof::with_match_conditions;
use crate::dialect::MillpondDialect;
use crate::lexer::{Source, lex};
use crate::limits::{ATTEMPTS_PER_TOKEN, RECURSION_MAX, check_depth, too_deep, with_stack};
use crate::name::{RelationName, fold, fold_word, is_reserved};
use crate::options::{OptionEntry, OptionValue, Options};
use crate::statement::{ColumnName, Expression, ParsedStatement, QueryText, Statement};
use crate::types;

/// Reads one statement. Indices of tokens count from the beginning of the whole text.
pub(crate) struct Reader<'a> {
    source: &'a Source<'a>,
    /// Index behind the statement's last token.
    end: usize,
    parser: Parser<'a>,
}

/// Runs `read` on each statement of a text.
pub(crate) fn each<T>(
    text: &str,
    mut read: impl FnMut(&mut Reader) -> Result<T, SqlError>,
) -> Result<Vec<T>, SqlError> {
    let mut lexed = lex(text)?;
    let nesting = check_depth(&lexed.tokens)?;
    let ranges = lexed.statements();
    let mut results = Vec::with_capacity(ranges.len());
    for range in ranges {
        let dialect = MillpondDialect::with_attempts(range.len() as u64 * ATTEMPTS_PER_TOKEN + 1000);
        let tokens = with_match_conditions(lexed.take(range.clone()));
        let parser =
            Parser::new(&dialect).with_recursion_limit(RECURSION_MAX).with_tokens_with_locations(tokens);
        let mut reader = Reader { source: &lexed.source, end: range.end, parser };
        let result = with_stack(nesting, || {
            let result = read(&mut reader)?;
            reader.expect_end()?;
            Ok(result)
        })?;
        results.push(result);
    }
    Ok(results)
}

/// Runs `read` on a text that is one statement.
pub(crate) fn one<T>(
    text: &str,
    read: impl FnMut(&mut Reader) -> Result<T, SqlError>,
) -> Result<T, SqlError> {
    let mut all = each(text, read)?;
    match all.pop() {
        Some(result) if all.is_empty() => Ok(result),
        Some(_) => Err(SqlError::new(SqlState::SYNTAX_ERROR, "cannot use multiple statements here")),
        None => Err(SqlError::new(SqlState::SYNTAX_ERROR, "syntax error at end of input")
            .at(text.chars().count() + 1)),
    }
}

impl<'a> Reader<'a> {
    // Where we are.

    /// The index of the next token.
    fn index(&self) -> usize {
        match self.parser.peek_token_ref().span.start.column {
            0 => self.end,
            column => self.source.index_at(column as usize),
        }
    }

    /// The position of the next token.
    fn position(&self) -> usize {
        self.source.position(self.index())
    }

    /// The text from a token up to the next one.
    fn text_since(&self, start: usize) -> String {
        self.source.text_of(start..self.index()).to_owned()
    }

    fn at_end(&self) -> bool {
        self.parser.peek_token_ref().token == Token::EOF
    }

    // Complaints.

    /// The next token is not what it should be.
    fn unexpected<T>(&self) -> Result<T, SqlError> {
        Err(self.source.syntax_error(self.index()))
    }

    fn expect_end(&self) -> Result<(), SqlError> {
        if self.at_end() { Ok(()) } else { self.unexpected() }
    }

    /// sqlparser's complaint in PostgreSQL's words, at the place it names.
    fn complain(&self, error: ParserError) -> SqlError {
        let (ParserError::TokenizerError(message) | ParserError::ParserError(message)) = error else {
            return too_deep().at(self.position());
        };
        // "Expected: x, found: y at Line: 1, Column: 17"; of a missing token, no place.
        let place = message.rsplit_once("at Line: 1, Column: ").and_then(|(_, column)| column.parse().ok());
        match place {
            Some(position) => self.source.syntax_error(self.source.index_at(position)),
            None if message.contains("found: EOF") => self.source.syntax_error(self.end),
            None => self.source.syntax_error(self.index()),
        }
    }

    /// Runs one of sqlparser's own methods.
    fn sqlparser<T>(
        &mut self,
        read: impl FnOnce(&mut Parser<'a>) -> Result<T, ParserError>,
    ) -> Result<T, SqlError> {
        read(&mut self.parser).map_err(|error| self.complain(error))
    }

    // Words and signs.

    /// The nth token from here is this unquoted word.
    fn peeks_nth(&self, n: usize, word: &str) -> bool {
        match &self.parser.peek_nth_token_ref(n).token {
            Token::Word(w) => w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word),
            _ => false,
        }
    }

    /// The next tokens are these words.
    fn peeks(&self, words: &str) -> bool {
        words.split(' ').enumerate().all(|(n, word)| self.peeks_nth(n, word))
    }

    /// Takes these words if they come next.
    fn accept(&mut self, words: &str) -> bool {
        let found = self.peeks(words);
        if found {
            words.split(' ').for_each(|_| self.parser.advance_token());
        }
        found
    }

    /// Takes one of some alternatives, and says which.
    fn accept_one<'w>(&mut self, alternatives: &[&'w str]) -> Option<&'w str> {
        alternatives.iter().copied().find(|words| self.accept(words))
    }

    fn expect(&mut self, words: &str) -> Result<(), SqlError> {
        for word in words.split(' ') {
            if !self.accept(word) {
                return self.unexpected();
            }
        }
        Ok(())
    }

    fn peeks_sign(&self, sign: &Token) -> bool {
        self.parser.peek_token_ref().token == *sign
    }

    fn accept_sign(&mut self, sign: &Token) -> bool {
        self.parser.consume_token(sign)
    }

    fn expect_sign(&mut self, sign: &Token) -> Result<(), SqlError> {
        if self.accept_sign(sign) { Ok(()) } else { self.unexpected() }
    }

    /// `(item, item, …)`, at least one.
    fn list<T>(&mut self, item: impl FnMut(&mut Self) -> Result<T, SqlError>) -> Result<Vec<T>, SqlError> {
        self.expect_sign(&Token::LParen)?;
        let items = self.separated(item)?;
        self.expect_sign(&Token::RParen)?;
        Ok(items)
    }

    /// `item, item, …`, at least one.
    fn separated<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<T, SqlError>,
    ) -> Result<Vec<T>, SqlError> {
        let mut items = vec![item(self)?];
        while self.accept_sign(&Token::Comma) {
            items.push(item(self)?);
        }
        Ok(items)
    }

    // Names and values.

    /// A name that PostgreSQL allows without `AS`: a quoted one, or an unreserved word.
    fn identifier(&mut self) -> Result<ColumnName, SqlError> {
        let position = self.position();
        let name = match &self.parser.peek_token_ref().token {
            Token::Word(word) => {
                let name = fold_word(&word.value, word.quote_style.is_some());
                if word.quote_style.is_none() && is_reserved(&name) {
                    return self.unexpected();
                }
                name
            }
            _ => return self.unexpected(),
        };
        self.parser.advance_token();
        Ok(ColumnName { name, position })
    }

    /// A name where any word will do, reserved or not: after a dot, or of an option.
    fn label(&mut self) -> Result<ColumnName, SqlError> {
        let position = self.position();
        let Token::Word(word) = &self.parser.peek_token_ref().token else { return self.unexpected() };
        let name = fold_word(&word.value, word.quote_style.is_some());
        self.parser.advance_token();
        Ok(ColumnName { name, position })
    }

    fn name(&mut self) -> Result<String, SqlError> {
        self.identifier().map(|identifier| identifier.name)
    }

    fn relation_name(&mut self) -> Result<RelationName, SqlError> {
        let first = self.identifier()?;
        let mut parts = vec![first.name];
        while self.accept_sign(&Token::Period) {
            parts.push(self.label()?.name);
        }
        RelationName::from_parts(parts, first.position)
    }

    fn column_list(&mut self) -> Result<Vec<ColumnName>, SqlError> {
        self.list(Self::identifier)
    }

    /// Columns in parentheses, if any.
    fn optional_columns(&mut self) -> Result<Vec<ColumnName>, SqlError> {
        if self.peeks_sign(&Token::LParen) { self.column_list() } else { Ok(Vec::new()) }
    }

    /// A string constant, if one comes next.
    fn accept_string(&mut self) -> Option<String> {
        let text = match &self.parser.peek_token_ref().token {
            Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text) => text.clone(),
            Token::UnicodeStringLiteral(text) => text.clone(),
            Token::DollarQuotedString(text) => text.value.clone(),
            _ => return None,
        };
        self.parser.advance_token();
        Some(text)
    }

    fn string(&mut self) -> Result<String, SqlError> {
        match self.accept_string() {
            Some(text) => Ok(text),
            None => self.unexpected(),
        }
    }

    /// A number, perhaps with a sign, as written.
    fn accept_number(&mut self) -> Option<String> {
        let sign = match self.parser.peek_token_ref().token {
            Token::Minus => "-",
            Token::Plus => "+",
            _ => "",
        };
        let at = usize::from(!sign.is_empty());
        let Token::Number(digits, _) = &self.parser.peek_nth_token_ref(at).token else { return None };
        let number = format!("{}{digits}", sign.trim_start_matches('+'));
        (0..=at).for_each(|_| self.parser.advance_token());
        Some(number)
    }

    // Pieces that keep their text.

    pub fn expression(&mut self) -> Result<Expression, SqlError> {
        let (start, position) = (self.index(), self.position());
        let expr = Box::new(self.sqlparser(|p| p.parse_expr())?);
        query::refuse_in(expr.as_ref())?;
        Ok(Expression { expr, text: self.text_since(start), position })
    }

    fn query_text(&mut self) -> Result<QueryText, SqlError> {
        let (start, position) = (self.index(), self.position());
        let query = self.query()?;
        Ok(QueryText { query, text: self.text_since(start), position })
    }

    pub fn data_type(&mut self) -> Result<SqlType, SqlError> {
        let position = self.position();
        let ty = self.sqlparser(|p| p.parse_data_type())?;
        types::resolve(&ty, position)
    }

    pub fn query(&mut self) -> Result<Box<ast::Query>, SqlError> {
        if self.peeks("TABLE") {
            self.parser.advance_token();
            let name = self.sqlparser(|p| p.parse_object_name(false))?;
            return Ok(crate::dialect::select_all(name));
        }
        if !["SELECT", "WITH", "VALUES"].iter().any(|word| self.peeks(word))
            && !self.peeks_sign(&Token::LParen)
        {
            return self.unexpected();
        }
        let query = self.sqlparser(|p| p.parse_query())?;
        query::refuse_in(&query)?;
        Ok(query)
    }

    // Options.

    /// `WITH (…)`, if it comes next.
    fn with_options(&mut self) -> Result<Options, SqlError> {
        if !(self.peeks("WITH") && self.parser.peek_nth_token_ref(1).token == Token::LParen) {
            return Ok(Options::default());
        }
        self.expect("WITH")?;
        self.option_list()
    }

    /// `(name = value, name value, name, …)`
    fn option_list(&mut self) -> Result<Options, SqlError> {
        self.expect_sign(&Token::LParen)?;
        if self.accept_sign(&Token::RParen) {
            return Ok(Options::default());
        }
        let entries = self.separated(Self::option)?;
        self.expect_sign(&Token::RParen)?;
        for (at, entry) in entries.iter().enumerate() {
            if entries[..at].iter().any(|earlier| earlier.name == entry.name) {
                let message = format!("option \"{}\" specified more than once", entry.name);
                return Err(SqlError::new(SqlState::SYNTAX_ERROR, message).at(entry.position));
            }
        }
        Ok(Options::new(entries))
    }

    fn option(&mut self) -> Result<OptionEntry, SqlError> {
        let ColumnName { mut name, position } = self.label()?;
        while self.accept_sign(&Token::Period) {
            name = format!("{name}.{}", self.label()?.name);
        }
        let has_sign = self.accept_sign(&Token::Eq);
        let value_position = self.position();
        let value = if let Some(text) = self.accept_string() {
            OptionValue::String(text)
        } else if let Some(number) = self.accept_number() {
            OptionValue::Number(number)
        } else if let Token::Word(word) = &self.parser.peek_token_ref().token {
            let value = match fold(&word.clone().into_ident(sqlparser::tokenizer::Span::empty())) {
                word if word == "true" => OptionValue::Boolean(true),
                word if word == "false" => OptionValue::Boolean(false),
                word => OptionValue::Word(word),
            };
            self.parser.advance_token();
            value
        } else if has_sign {
            return self.unexpected();
        } else {
            OptionValue::None
        };
        let value_position = if value == OptionValue::None { position } else { value_position };
        Ok(OptionEntry { name, value, position, value_position })
    }

    // Statements.

    pub fn parsed_statement(&mut self) -> Result<ParsedStatement, SqlError> {
        let (start, position) = (self.index(), self.position());
        let statement = self.statement()?;
        Ok(ParsedStatement { statement, text: self.text_since(start), position })
    }

    fn statement(&mut self) -> Result<Statement, SqlError> {
        let token = self.parser.peek_token_ref();
        let word = match &token.token {
            Token::LParen => return self.query_statement(),
            Token::Word(word) if word.quote_style.is_none() => word.value.to_ascii_lowercase(),
            _ => return self.unexpected(),
        };
        match word.as_str() {
            "select" | "with" | "values" | "table" => self.query_statement(),
            "insert" | "update" | "delete" | "merge" => self.data_statement(),
            "truncate" => self.truncate(),
            "copy" => self.copy(),
            "subscribe" => self.subscribe().map(Statement::Subscribe),
            "create" => self.create(),
            "drop" => self.drop_statement(),
            "alter" => self.alter(),
            "comment" => self.comment(),
            "begin" | "start" | "commit" | "end" | "rollback" | "abort" | "savepoint" | "release" => {
                self.transaction()
            }
            "set" => self.set(),
            "reset" => self.reset(),
            "discard" => self.discard(),
            "show" => self.show(),
            "describe" | "desc" => self.describe(),
            "explain" => self.explain(),
            "flush" => self.bare("FLUSH", Statement::Flush),
            "checkpoint" => self.bare("CHECKPOINT", Statement::Checkpoint),
            "verify" => self.verify(),
            "declare" => self.declare(),
            "fetch" | "move" => self.fetch(),
            "close" => self.close(),
            "prepare" => self.prepare(),
            "execute" => self.execute(),
            "deallocate" => self.deallocate(),
            "listen" | "unlisten" | "notify" => self.notifications(),
            _ => self.other(),
        }
    }

    fn bare(&mut self, words: &str, statement: Statement) -> Result<Statement, SqlError> {
        self.expect(words)?;
        Ok(statement)
    }

    fn query_statement(&mut self) -> Result<Statement, SqlError> {
        self.query().map(Statement::Query)
    }

    /// What sqlparser reads whole.
    fn data_statement(&mut self) -> Result<Statement, SqlError> {
        let position = self.position();
        // Other databases leave these words out.
        for (verb, preposition) in [("INSERT", "INTO"), ("DELETE", "FROM")] {
            if self.accept(verb) {
                if !self.peeks(preposition) {
                    return self.unexpected();
                }
                self.parser.prev_token();
            }
        }
        let statement = self.sqlparser(|p| p.parse_statement())?;
        query::refuse_in(&statement)?;
        Ok(match statement {
            ast::Statement::Insert(insert) => Statement::Insert(Box::new(insert)),
            ast::Statement::Update(update) => Statement::Update(Box::new(update)),
            ast::Statement::Delete(delete) => Statement::Delete(Box::new(delete)),
            ast::Statement::Merge(_) => Statement::Unsupported { command: "MERGE".to_owned(), position },
            other => Statement::Other(Box::new(other)),
        })
    }

    /// PostgreSQL's commands, and others', that Millpond has no struct for.
    fn other(&mut self) -> Result<Statement, SqlError> {
        if let Some(command) = KNOWN_COMMANDS.iter().find(|words| self.peeks(words)) {
            return Ok(self.unsupported(command));
        }
        self.unexpected()
    }

    /// A command known by its first words: what follows is skipped.
    fn unsupported(&mut self, command: &str) -> Statement {
        let position = self.position();
        while !self.at_end() {
            self.parser.advance_token();
        }
        Statement::Unsupported { command: command.to_owned(), position }
    }

    /// A command of this many words that begin it.
    fn unsupported_words(&mut self, count: usize) -> Result<Statement, SqlError> {
        let words: Vec<_> = (0..count)
            .map_while(|n| match &self.parser.peek_nth_token_ref(n).token {
                Token::Word(word) if word.quote_style.is_none() => Some(word.value.to_ascii_uppercase()),
                _ => None,
            })
            .collect();
        Ok(self.unsupported(&words.join(" ")))
    }
}

const KNOWN_COMMANDS: [&str; 20] = [
    "ANALYZE",
    "ANALYSE",
    "CALL",
    "CLUSTER",
    "DO",
    "GRANT",
    "IMPORT FOREIGN SCHEMA",
    "LOAD",
    "LOCK",
    "REASSIGN OWNED",
    "REFRESH MATERIALIZED VIEW",
    "REINDEX",
    "REVOKE",
    "SECURITY LABEL",
    "VACUUM",
    "WAIT FOR",
    "KILL",
    "RECOVER",
    "USE",
    "CANCEL",
];
