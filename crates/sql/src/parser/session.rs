//! Transactions, settings, SHOW.

use millpond_types::SqlError;
use sqlparser::tokenizer::Token;

use super::Reader;
use super::create::refused;
use crate::name::{fold_word, quote_identifier};
use crate::statement::{Discard, IsolationLevel, ObjectKind, Reset, Set, Show, Statement, TransactionModes};

impl Reader<'_> {
    pub(super) fn transaction(&mut self) -> Result<Statement, SqlError> {
        if let Some(command) =
            ["COMMIT PREPARED", "ROLLBACK PREPARED"].into_iter().find(|words| self.peeks(words))
        {
            return Ok(self.unsupported(command));
        }
        if self.accept("START TRANSACTION") {
            return Ok(Statement::Begin(self.transaction_modes()?));
        }
        if self.accept("BEGIN") {
            self.accept_work();
            return Ok(Statement::Begin(self.transaction_modes()?));
        }
        if self.accept("COMMIT") || self.accept("END") {
            self.accept_work();
            return Ok(Statement::Commit { chain: self.chain()? });
        }
        if self.accept("SAVEPOINT") {
            return Ok(Statement::Savepoint { name: self.name()? });
        }
        if self.accept("RELEASE") {
            self.accept("SAVEPOINT");
            return Ok(Statement::ReleaseSavepoint { name: self.name()? });
        }
        if self.accept("ROLLBACK") || self.accept("ABORT") {
            self.accept_work();
            if self.accept("TO") {
                self.accept("SAVEPOINT");
                return Ok(Statement::RollbackToSavepoint { name: self.name()? });
            }
            return Ok(Statement::Rollback { chain: self.chain()? });
        }
        self.parser.advance_token(); // START and no TRANSACTION
        self.unexpected()
    }

    fn accept_work(&mut self) {
        self.accept_one(&["WORK", "TRANSACTION"]);
    }

    fn chain(&mut self) -> Result<bool, SqlError> {
        if !self.accept("AND") {
            return Ok(false);
        }
        let chain = !self.accept("NO");
        self.expect("CHAIN")?;
        Ok(chain)
    }

    fn transaction_modes(&mut self) -> Result<TransactionModes, SqlError> {
        let mut modes = TransactionModes::default();
        let mut comma = false;
        loop {
            if self.accept("ISOLATION LEVEL") {
                modes.isolation = Some(self.isolation_level()?);
            } else if self.accept("READ ONLY") {
                modes.read_only = Some(true);
            } else if self.accept("READ WRITE") {
                modes.read_only = Some(false);
            } else if self.accept("DEFERRABLE") {
                modes.deferrable = Some(true);
            } else if self.accept("NOT DEFERRABLE") {
                modes.deferrable = Some(false);
            } else if comma {
                return self.unexpected();
            } else {
                return Ok(modes);
            }
            comma = self.accept_sign(&Token::Comma);
        }
    }

    fn isolation_level(&mut self) -> Result<IsolationLevel, SqlError> {
        use IsolationLevel::*;
        let levels = [ReadUncommitted, ReadCommitted, RepeatableRead, Serializable];
        match levels.into_iter().find(|level| self.accept(level.as_str())) {
            Some(level) => Ok(level),
            None => self.unexpected(),
        }
    }

    pub(super) fn set(&mut self) -> Result<Statement, SqlError> {
        if self.peeks("SET CONSTRAINTS") || self.peeks("SET TRANSACTION SNAPSHOT") {
            return self.unsupported_words(2);
        }
        self.expect("SET")?;
        if self.accept("SESSION CHARACTERISTICS AS TRANSACTION") {
            return Ok(Statement::SetSessionCharacteristics(self.transaction_modes()?));
        }
        // SET SESSION AUTHORIZATION is no setting called AUTHORIZATION.
        let local = self.accept("LOCAL");
        if !local && !self.peeks("SESSION AUTHORIZATION") {
            self.accept("SESSION");
        }
        if self.accept("TRANSACTION") {
            return Ok(Statement::SetTransaction(self.transaction_modes()?));
        }
        let position = self.position();
        let set =
            |name: &str, value| Ok(Statement::Set(Set { local, name: name.to_owned(), value, position }));
        if self.accept("TIME ZONE") {
            if self.accept("LOCAL") {
                return set("timezone", None);
            }
            if self.peeks("INTERVAL") {
                return Err(refused(
                    "SET TIME ZONE INTERVAL",
                    "Name the zone, as in 'Europe/Berlin'.",
                    self.position(),
                ));
            }
            let value = self.setting_value()?;
            return set("timezone", value);
        }
        if self.accept("NAMES") {
            let value = if self.at_end() { None } else { self.setting_value()? };
            return set("client_encoding", value);
        }
        if self.accept("SESSION AUTHORIZATION") {
            let value = self.setting_value()?;
            return set("session_authorization", value);
        }
        if self.accept("ROLE") {
            let value = self.setting_value()?;
            return set("role", value);
        }
        let name = self.setting_name()?;
        if !self.accept_sign(&Token::Eq) {
            self.expect("TO")?;
        }
        let mut value = self.setting_value_in(&name)?;
        while self.accept_sign(&Token::Comma) {
            let next = self.setting_value_in(&name)?;
            value = match (value, next) {
                (Some(value), Some(next)) => Some(format!("{value}, {next}")),
                _ => return self.unexpected(),
            };
        }
        set(&name, value)
    }

    /// `name` or `prefix.name`, lower case.
    fn setting_name(&mut self) -> Result<String, SqlError> {
        let mut name = self.label()?.name.to_ascii_lowercase();
        while self.accept_sign(&Token::Period) {
            name = format!("{name}.{}", self.label()?.name.to_ascii_lowercase());
        }
        Ok(name)
    }

    /// As PostgreSQL flattens it: elements of search_path are identifiers, and quoted where needed.
    fn setting_value_in(&mut self, name: &str) -> Result<Option<String>, SqlError> {
        let value = self.setting_value()?;
        Ok(if name == "search_path" { value.map(|schema| quote_identifier(&schema)) } else { value })
    }

    /// `None` is DEFAULT.
    fn setting_value(&mut self) -> Result<Option<String>, SqlError> {
        if self.accept("DEFAULT") {
            return Ok(None);
        }
        if let Some(text) = self.accept_string() {
            return Ok(Some(text));
        }
        if let Some(number) = self.accept_number() {
            return Ok(Some(number));
        }
        let Token::Word(word) = &self.parser.peek_token_ref().token else { return self.unexpected() };
        let value = fold_word(&word.value, word.quote_style.is_some());
        self.parser.advance_token();
        Ok(Some(value))
    }

    /// A setting in SHOW and RESET, where some have names of several words.
    fn shown_setting(&mut self) -> Result<String, SqlError> {
        let special = [
            ("TIME ZONE", "timezone"),
            ("TRANSACTION ISOLATION LEVEL", "transaction_isolation"),
            ("SESSION AUTHORIZATION", "session_authorization"),
        ];
        match special.into_iter().find(|(words, _)| self.accept(words)) {
            Some((_, name)) => Ok(name.to_owned()),
            None => self.setting_name(),
        }
    }

    pub(super) fn reset(&mut self) -> Result<Statement, SqlError> {
        self.expect("RESET")?;
        if self.accept("ALL") {
            return Ok(Statement::Reset(Reset::All));
        }
        let position = self.position();
        Ok(Statement::Reset(Reset::Setting { name: self.shown_setting()?, position }))
    }

    pub(super) fn discard(&mut self) -> Result<Statement, SqlError> {
        self.expect("DISCARD")?;
        Ok(Statement::Discard(match self.accept_one(&["ALL", "PLANS", "SEQUENCES", "TEMPORARY", "TEMP"]) {
            Some("ALL") => Discard::All,
            Some("PLANS") => Discard::Plans,
            Some("SEQUENCES") => Discard::Sequences,
            Some(_) => Discard::Temp,
            None => return self.unexpected(),
        }))
    }

    pub(super) fn show(&mut self) -> Result<Statement, SqlError> {
        self.expect("SHOW")?;
        Ok(Statement::Show(self.shown()?))
    }

    fn shown(&mut self) -> Result<Show, SqlError> {
        let plurals = [
            ("TABLES", ObjectKind::Table),
            ("SOURCES", ObjectKind::Source),
            ("MATERIALIZED VIEWS", ObjectKind::MaterializedView),
            ("VIEWS", ObjectKind::View),
            ("SINKS", ObjectKind::Sink),
            ("INDEXES", ObjectKind::Index),
        ];
        if let Some((_, kind)) = plurals.into_iter().find(|(words, _)| self.accept(words)) {
            if kind == ObjectKind::Index && (self.accept("FROM") || self.accept("ON")) {
                return Ok(Show::IndexesOf(self.relation_name()?));
            }
            let schema = if self.accept("FROM") || self.accept("IN") { Some(self.name()?) } else { None };
            return Ok(Show::Objects { kind, schema });
        }
        if self.accept("CREATE") {
            let Some(kind) = self.accept_kind().filter(|kind| *kind != ObjectKind::Schema) else {
                return self.unexpected();
            };
            return Ok(Show::Create { kind, name: self.relation_name()? });
        }
        if self.accept("COLUMNS FROM") || self.accept("COLUMNS IN") {
            return Ok(Show::Columns(self.relation_name()?));
        }
        if self.accept("SCHEMAS") {
            return Ok(Show::Schemas);
        }
        if self.accept("JOBS") {
            return Ok(Show::Jobs);
        }
        if self.accept("ALL") {
            return Ok(Show::All);
        }
        let position = self.position();
        Ok(Show::Setting { name: self.shown_setting()?, position })
    }

    pub(super) fn describe(&mut self) -> Result<Statement, SqlError> {
        if !self.accept("DESCRIBE") {
            self.expect("DESC")?;
        }
        // The kind may be said, and need not.
        if !matches!(self.parser.peek_nth_token_ref(1).token, Token::EOF | Token::Period) {
            self.accept_kind();
        }
        Ok(Statement::Describe(self.relation_name()?))
    }
}
