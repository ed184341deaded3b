//! Cursors, prepared statements, notifications, SUBSCRIBE.

use millpond_types::{SqlError, SqlState};
use sqlparser::tokenizer::Token;

use super::Reader;
use crate::options::{OptionEntry, Options};
use crate::statement::{
    Declare, Fetch, FetchDirection, ParsedStatement, Prepare, Statement, Subscribe, SubscribeRelation,
};

impl Reader<'_> {
    pub(super) fn declare(&mut self) -> Result<Statement, SqlError> {
        self.expect("DECLARE")?;
        let name = self.name()?;
        let (mut binary, mut scroll, mut hold) = (false, None, false);
        while let Some(word) =
            self.accept_one(&["BINARY", "ASENSITIVE", "INSENSITIVE", "NO SCROLL", "SCROLL"])
        {
            match word {
                "BINARY" => binary = true,
                "SCROLL" => scroll = Some(true),
                "NO SCROLL" => scroll = Some(false),
                _ => {} // every cursor reads one cut
            }
        }
        self.expect("CURSOR")?;
        if self.accept("WITH HOLD") {
            hold = true;
        } else {
            self.accept("WITHOUT HOLD");
        }
        self.expect("FOR")?;
        let statement = self.parsed_query_or_subscribe()?;
        Ok(Statement::Declare(Declare { name, binary, scroll, hold, statement: Box::new(statement) }))
    }

    fn parsed_query_or_subscribe(&mut self) -> Result<ParsedStatement, SqlError> {
        let (start, position) = (self.index(), self.position());
        let statement = if self.peeks("SUBSCRIBE") {
            Statement::Subscribe(self.subscribe()?)
        } else {
            Statement::Query(self.query()?)
        };
        Ok(ParsedStatement { statement, text: self.text_since(start), position })
    }

    /// `FETCH [direction] [FROM|IN] cursor`, and MOVE.
    pub(super) fn fetch(&mut self) -> Result<Statement, SqlError> {
        let move_only = self.accept("MOVE");
        if !move_only {
            self.expect("FETCH")?;
        }
        let direction = self.fetch_direction()?;
        if !self.accept("FROM") {
            self.accept("IN");
        }
        Ok(Statement::Fetch(Fetch { name: self.name()?, direction, move_only }))
    }

    fn fetch_direction(&mut self) -> Result<FetchDirection, SqlError> {
        use FetchDirection::*;
        // A cursor may be called like a direction: then nothing follows it.
        if self.parser.peek_nth_token_ref(1).token == Token::EOF {
            return Ok(Forward(1));
        }
        let words = [
            "NEXT",
            "PRIOR",
            "FIRST",
            "LAST",
            "ABSOLUTE",
            "RELATIVE",
            "ALL",
            "FORWARD ALL",
            "BACKWARD ALL",
            "FORWARD",
            "BACKWARD",
        ];
        Ok(match self.accept_one(&words) {
            Some("NEXT") => Forward(1),
            Some("PRIOR") => Backward(1),
            Some("FIRST") => Absolute(1),
            Some("LAST") => Absolute(-1),
            Some("ABSOLUTE") => Absolute(self.integer()?),
            Some("RELATIVE") => Relative(self.integer()?),
            Some("ALL" | "FORWARD ALL") => ForwardAll,
            Some("BACKWARD ALL") => BackwardAll,
            Some(word) => {
                let forward = word == "FORWARD";
                let count = self.optional_integer()?.unwrap_or(1);
                if (count >= 0) == forward {
                    Forward(count.unsigned_abs())
                } else {
                    Backward(count.unsigned_abs())
                }
            }
            None => match self.optional_integer()? {
                Some(count) if count < 0 => Backward(count.unsigned_abs()),
                Some(count) => Forward(count as u64),
                None => Forward(1),
            },
        })
    }

    fn optional_integer(&mut self) -> Result<Option<i64>, SqlError> {
        let position = self.position();
        let Some(number) = self.accept_number() else { return Ok(None) };
        match number.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(crate::lexer::syntax_error_near(&number).at(position)),
        }
    }

    fn integer(&mut self) -> Result<i64, SqlError> {
        match self.optional_integer()? {
            Some(number) => Ok(number),
            None => self.unexpected(),
        }
    }

    /// The name, or `None` for ALL.
    fn name_or_all(&mut self) -> Result<Option<String>, SqlError> {
        if self.accept("ALL") { Ok(None) } else { self.name().map(Some) }
    }

    pub(super) fn close(&mut self) -> Result<Statement, SqlError> {
        self.expect("CLOSE")?;
        Ok(Statement::Close { name: self.name_or_all()? })
    }

    pub(super) fn prepare(&mut self) -> Result<Statement, SqlError> {
        if self.peeks("PREPARE TRANSACTION") {
            return Ok(self.unsupported("PREPARE TRANSACTION"));
        }
        self.expect("PREPARE")?;
        let name = self.name()?;
        let types = if self.peeks_sign(&Token::LParen) { self.list(Self::data_type)? } else { Vec::new() };
        self.expect("AS")?;
        // Looked at before it is read: a PREPARE of a PREPARE of a … must not recurse.
        let can_be_prepared = ["SELECT", "WITH", "VALUES", "TABLE", "INSERT", "UPDATE", "DELETE"];
        if !can_be_prepared.iter().any(|word| self.peeks(word)) && !self.peeks_sign(&Token::LParen) {
            return self.unexpected();
        }
        let statement = self.parsed_statement()?;
        Ok(Statement::Prepare(Prepare { name, types, statement: Box::new(statement) }))
    }

    pub(super) fn execute(&mut self) -> Result<Statement, SqlError> {
        self.expect("EXECUTE")?;
        let name = self.name()?;
        let parameters = if self.peeks_sign(&Token::LParen) {
            self.list(|reader| reader.expression().map(|expression| *expression.expr))?
        } else {
            Vec::new()
        };
        Ok(Statement::Execute { name, parameters })
    }

    pub(super) fn deallocate(&mut self) -> Result<Statement, SqlError> {
        self.expect("DEALLOCATE")?;
        self.accept("PREPARE");
        Ok(Statement::Deallocate { name: self.name_or_all()? })
    }

    pub(super) fn notifications(&mut self) -> Result<Statement, SqlError> {
        if self.accept("LISTEN") {
            return Ok(Statement::Listen { channel: self.name()? });
        }
        if self.accept("UNLISTEN") {
            let all = self.accept_sign(&Token::Mul);
            return Ok(Statement::Unlisten { channel: if all { None } else { Some(self.name()?) } });
        }
        self.expect("NOTIFY")?;
        let channel = self.name()?;
        let payload = if self.accept_sign(&Token::Comma) { Some(self.string()?) } else { None };
        Ok(Statement::Notify { channel, payload })
    }

    /// `SUBSCRIBE [TO] v|(query) [WITH (SNAPSHOT, PROGRESS)] [AS OF e] [UP TO e]`
    pub(super) fn subscribe(&mut self) -> Result<Subscribe, SqlError> {
        self.expect("SUBSCRIBE")?;
        self.accept("TO");
        let relation = if self.accept_sign(&Token::LParen) {
            let query = self.query_text()?;
            self.expect_sign(&Token::RParen)?;
            SubscribeRelation::Query(query)
        } else {
            SubscribeRelation::Name(self.relation_name()?)
        };
        let options = self.with_options()?;
        let as_of = if self.accept("AS OF") { Some(self.expression()?) } else { None };
        let up_to = if self.accept("UP TO") { Some(self.expression()?) } else { None };
        Ok(Subscribe { relation, options, as_of, up_to })
    }

    pub(super) fn verify(&mut self) -> Result<Statement, SqlError> {
        self.expect("VERIFY MATERIALIZED VIEW")?;
        Ok(Statement::Verify(self.relation_name()?))
    }

    /// `EXPLAIN [ANALYZE] [VERBOSE] s`, `EXPLAIN (option, …) s`; `s` is a statement or `MATERIALIZED VIEW v`
    pub(super) fn explain(&mut self) -> Result<Statement, SqlError> {
        use crate::statement::{Explain, ExplainFormat, Explained};
        self.expect("EXPLAIN")?;
        let (analyze, verbose);
        let mut format = ExplainFormat::Text;
        if self.peeks_sign(&Token::LParen) && !self.is_query_in_parentheses() {
            let mut options = self.option_list()?;
            analyze = options.take_bool("analyze")?.or(options.take_bool("analyse")?).unwrap_or(false);
            verbose = options.take_bool("verbose")?.unwrap_or(false);
            if options.take_choice("format", &["text", "json"])? == Some("json") {
                format = ExplainFormat::Json;
            }
            // What PostgreSQL would add to its answer, and Millpond has no equal of: only its absence can be asked for.
            for name in ["costs", "settings", "buffers", "wal", "timing", "summary"] {
                let entry = options.entries().iter().find(|entry| entry.name == name).cloned();
                if options.take_bool(name)? == Some(true)
                    && let Some(OptionEntry { position, .. }) = entry
                {
                    let message = format!("EXPLAIN option {} is not supported", name.to_uppercase());
                    return Err(SqlError::unsupported(message)
                        .hint("Use ANALYZE, VERBOSE or FORMAT.")
                        .at(position));
                }
            }
            refuse_unknown(options)?;
        } else {
            analyze = self.accept_one(&["ANALYZE", "ANALYSE"]).is_some();
            verbose = self.accept("VERBOSE");
        }
        if self.peeks("EXPLAIN") || self.peeks("PREPARE") {
            return self.unexpected();
        }
        if self.accept("MATERIALIZED VIEW") {
            let what = Explained::View(self.relation_name()?);
            return Ok(Statement::Explain(Explain { analyze, verbose, format, what }));
        }
        let position = self.position();
        let statement = self.parsed_statement()?;
        let can_be_explained = matches!(
            statement.statement,
            Statement::Query(_)
                | Statement::Insert(_)
                | Statement::Update(_)
                | Statement::Delete(_)
                | Statement::CreateMaterializedView(_)
                | Statement::CreateView(_)
                | Statement::CreateTable(_)
                | Statement::CreateSink(_)
                | Statement::Declare(_)
                | Statement::Execute { .. }
                | Statement::Subscribe(_)
        );
        if !can_be_explained {
            let word = statement.text.split_whitespace().next().unwrap_or_default();
            return Err(crate::lexer::syntax_error_near(word).at(position));
        }
        let what = Explained::Statement(Box::new(statement));
        Ok(Statement::Explain(Explain { analyze, verbose, format, what }))
    }

    fn is_query_in_parentheses(&self) -> bool {
        let next = self.parser.peek_nth_token_ref(1);
        next.token == Token::LParen
            || ["SELECT", "WITH", "VALUES", "TABLE"].iter().any(|word| self.peeks_nth(1, word))
    }
}

/// In PostgreSQL's words for EXPLAIN.
fn refuse_unknown(options: Options) -> Result<(), SqlError> {
    match options.entries().first() {
        Some(OptionEntry { name, position, .. }) => {
            Err(SqlError::new(SqlState::SYNTAX_ERROR, format!("unrecognized EXPLAIN option \"{name}\""))
                .at(*position))
        }
        None => Ok(()),
    }
}
