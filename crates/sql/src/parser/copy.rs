//! COPY, in PostgreSQL's present grammar and in the one before it, which psql's `\copy … CSV` still sends.

use millpond_types::{SqlError, SqlState};
use sqlparser::tokenizer::Token;

use super::Reader;
use super::create::refused;
use crate::statement::{
    Copy, CopyColumns, CopyDirection, CopyFormat, CopyHeader, CopyOnError, CopyOptions, CopyRelation,
    CopyTarget, Statement,
};

/// Options as given, before defaults.
#[derive(Default)]
struct Given {
    format: Option<CopyFormat>,
    delimiter: Option<(String, usize)>,
    null: Option<(String, usize)>,
    header: Option<(CopyHeader, usize)>,
    quote: Option<(String, usize)>,
    escape: Option<(String, usize)>,
    force_quote: Option<(CopyColumns, usize)>,
    force_not_null: Option<(CopyColumns, usize)>,
    force_null: Option<(CopyColumns, usize)>,
    on_error: Option<CopyOnError>,
    commit_rows: Option<u64>,
}

impl Reader<'_> {
    pub(super) fn copy(&mut self) -> Result<Statement, SqlError> {
        self.expect("COPY")?;
        let relation = self.copy_relation()?;
        let position = self.position();
        let direction = match self.accept_one(&["FROM", "TO"]) {
            Some("FROM") => CopyDirection::From,
            Some(_) => CopyDirection::To,
            None => return self.unexpected(),
        };
        if direction == CopyDirection::From && !matches!(relation, CopyRelation::Table { .. }) {
            return Err(crate::lexer::syntax_error_near("FROM").at(position));
        }
        let target = self.copy_target()?;
        let has_with = self.accept("WITH");
        let options = self.position();
        let mut given = Given::default();
        if self.peeks_sign(&Token::LParen) {
            self.list(|reader| reader.copy_option(&mut given))?;
        } else {
            let any = self.copy_legacy_options(&mut given)?;
            if has_with && !any {
                return self.unexpected();
            }
        }
        let filter = if self.accept("WHERE") { Some(self.expression()?) } else { None };
        if filter.is_some() && direction == CopyDirection::To {
            let message = "WHERE clause not allowed with COPY TO";
            return Err(SqlError::new(SqlState::SYNTAX_ERROR, message).at(options));
        }
        let options = given.finish(direction)?;
        Ok(Statement::Copy(Box::new(Copy { relation, direction, target, options, filter })))
    }

    fn copy_relation(&mut self) -> Result<CopyRelation, SqlError> {
        if !self.accept_sign(&Token::LParen) {
            let name = self.relation_name()?;
            return Ok(CopyRelation::Table { name, columns: self.optional_columns()? });
        }
        let relation = if self.peeks("SUBSCRIBE") {
            CopyRelation::Subscribe(self.subscribe()?)
        } else if ["INSERT", "UPDATE", "DELETE"].iter().any(|word| self.peeks(word)) {
            return Err(refused("COPY of a data-modifying statement", "Use RETURNING.", self.position()));
        } else {
            CopyRelation::Query(self.query_text()?)
        };
        self.expect_sign(&Token::RParen)?;
        Ok(relation)
    }

    fn copy_target(&mut self) -> Result<CopyTarget, SqlError> {
        // PostgreSQL takes either word for either direction.
        if self.accept("STDIN") || self.accept("STDOUT") {
            return Ok(CopyTarget::Client);
        }
        if self.accept("PROGRAM") {
            return Ok(CopyTarget::Program(self.string()?));
        }
        Ok(CopyTarget::Location(self.string()?))
    }

    fn copy_option(&mut self, given: &mut Given) -> Result<(), SqlError> {
        let option = self.label()?;
        let at = option.position;
        let name = option.name.as_str();
        let repeated = match name {
            "format" => {
                let position = self.position();
                let format = self.word_or_string()?;
                let known = match format.to_ascii_lowercase().as_str() {
                    "text" => CopyFormat::Text,
                    "csv" => CopyFormat::Csv,
                    "binary" => CopyFormat::Binary,
                    "parquet" => CopyFormat::Parquet,
                    "json" => CopyFormat::Json,
                    _ => {
                        let message = format!("COPY format \"{format}\" not recognized");
                        return Err(invalid(message)
                            .hint("Use text, csv, binary, parquet or json.")
                            .at(position));
                    }
                };
                given.format.replace(known).is_some()
            }
            "delimiter" => given.delimiter.replace((self.string()?, at)).is_some(),
            "null" => given.null.replace((self.string()?, at)).is_some(),
            "quote" => given.quote.replace((self.string()?, at)).is_some(),
            "escape" => given.escape.replace((self.string()?, at)).is_some(),
            "header" => {
                let header = if self.accept("MATCH") {
                    CopyHeader::Match
                } else if self.copy_boolean("header")? {
                    CopyHeader::Present
                } else {
                    CopyHeader::None
                };
                given.header.replace((header, at)).is_some()
            }
            "force_quote" => given.force_quote.replace((self.copy_columns()?, at)).is_some(),
            "force_not_null" => given.force_not_null.replace((self.copy_columns()?, at)).is_some(),
            "force_null" => given.force_null.replace((self.copy_columns()?, at)).is_some(),
            "freeze" => {
                self.copy_boolean("freeze")?; // a hint to PostgreSQL's storage, which we have no equal of
                false
            }
            "encoding" => {
                self.copy_encoding()?;
                false
            }
            "on_error" => {
                let position = self.position();
                let action = match self.word_or_string()?.to_ascii_lowercase().as_str() {
                    "stop" => CopyOnError::Stop,
                    "ignore" => CopyOnError::Ignore,
                    other => {
                        let message = format!("COPY ON_ERROR \"{other}\" not recognized");
                        return Err(invalid(message).hint("Use stop or ignore.").at(position));
                    }
                };
                given.on_error.replace(action).is_some()
            }
            "commit_rows" => {
                let position = self.position();
                let rows = self.accept_number().and_then(|n| n.parse().ok()).filter(|rows| *rows > 0);
                let Some(rows) = rows else {
                    return Err(invalid("COPY COMMIT_ROWS must be a whole number above 0").at(position));
                };
                given.commit_rows.replace(rows).is_some()
            }
            _ => {
                let known = [
                    "format",
                    "delimiter",
                    "null",
                    "header",
                    "quote",
                    "escape",
                    "force_quote",
                    "force_not_null",
                    "force_null",
                    "freeze",
                    "encoding",
                    "on_error",
                    "commit_rows",
                ];
                let error =
                    SqlError::new(SqlState::SYNTAX_ERROR, format!("option \"{name}\" not recognized")).at(at);
                return Err(match crate::name::nearest(name, known) {
                    Some(near) => error.hint(format!("Perhaps you meant the option \"{near}\".")),
                    None => error,
                });
            }
        };
        if repeated {
            return Err(SqlError::new(SqlState::SYNTAX_ERROR, "conflicting or redundant options").at(at));
        }
        Ok(())
    }

    /// `CSV HEADER DELIMITER AS ',' …`; true if there was any.
    fn copy_legacy_options(&mut self, given: &mut Given) -> Result<bool, SqlError> {
        let words = [
            "BINARY",
            "CSV",
            "HEADER",
            "DELIMITER",
            "NULL",
            "QUOTE",
            "ESCAPE",
            "FORCE QUOTE",
            "FORCE NOT NULL",
            "FORCE NULL",
            "ENCODING",
            "FREEZE",
        ];
        let mut any = false;
        loop {
            let at = self.position();
            let Some(word) = self.accept_one(&words) else { return Ok(any) };
            any = true;
            match word {
                "BINARY" => given.format = Some(CopyFormat::Binary),
                "CSV" => given.format = Some(CopyFormat::Csv),
                "HEADER" => given.header = Some((CopyHeader::Present, at)),
                "FREEZE" => {}
                "ENCODING" => self.copy_encoding()?,
                "FORCE QUOTE" => given.force_quote = Some((self.copy_legacy_columns()?, at)),
                "FORCE NOT NULL" => given.force_not_null = Some((self.copy_legacy_columns()?, at)),
                "FORCE NULL" => given.force_null = Some((self.copy_legacy_columns()?, at)),
                _ => {
                    self.accept("AS");
                    let text = Some((self.string()?, at));
                    match word {
                        "DELIMITER" => given.delimiter = text,
                        "NULL" => given.null = text,
                        "QUOTE" => given.quote = text,
                        _ => given.escape = text,
                    }
                }
            }
        }
    }

    fn word_or_string(&mut self) -> Result<String, SqlError> {
        match self.accept_string() {
            Some(text) => Ok(text),
            None => self.label().map(|label| label.name),
        }
    }

    /// Left out is true.
    fn copy_boolean(&mut self, name: &str) -> Result<bool, SqlError> {
        if matches!(self.parser.peek_token_ref().token, Token::Comma | Token::RParen) {
            return Ok(true);
        }
        let position = self.position();
        let value = match self.accept_number() {
            Some(number) => number,
            None => self.word_or_string()?.to_ascii_lowercase(),
        };
        match value.as_str() {
            "true" | "on" | "1" => Ok(true),
            "false" | "off" | "0" => Ok(false),
            _ => {
                let wanted =
                    if name == "header" { "a Boolean value or \"match\"" } else { "a Boolean value" };
                Err(SqlError::new(SqlState::SYNTAX_ERROR, format!("{name} requires {wanted}")).at(position))
            }
        }
    }

    /// `*` or `(a, b)`
    fn copy_columns(&mut self) -> Result<CopyColumns, SqlError> {
        if self.accept_sign(&Token::Mul) {
            return Ok(CopyColumns::All);
        }
        Ok(CopyColumns::Named(self.column_list()?.into_iter().map(|column| column.name).collect()))
    }

    /// `*` or `a, b`
    fn copy_legacy_columns(&mut self) -> Result<CopyColumns, SqlError> {
        if self.accept_sign(&Token::Mul) {
            return Ok(CopyColumns::All);
        }
        Ok(CopyColumns::Named(
            self.separated(Self::identifier)?.into_iter().map(|column| column.name).collect(),
        ))
    }

    fn copy_encoding(&mut self) -> Result<(), SqlError> {
        let position = self.position();
        let encoding = self.word_or_string()?;
        match encoding.to_ascii_lowercase().replace(['-', '_'], "").as_str() {
            "utf8" | "unicode" | "sqlascii" => Ok(()),
            _ => Err(SqlError::unsupported(format!("the encoding \"{encoding}\" is not supported"))
                .hint("Convert the data to UTF8.")
                .at(position)),
        }
    }
}

fn invalid(message: impl Into<String>) -> SqlError {
    SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message)
}

impl Given {
    /// Defaults, and PostgreSQL's rules for what goes together.
    fn finish(self, direction: CopyDirection) -> Result<CopyOptions, SqlError> {
        let format = self.format.unwrap_or_default();
        let csv = format == CopyFormat::Csv;
        let lines = csv || format == CopyFormat::Text;
        let syntax = |message: String, at: usize| Err(SqlError::new(SqlState::SYNTAX_ERROR, message).at(at));
        let named = match format {
            CopyFormat::Text => "TEXT",
            CopyFormat::Csv => "CSV",
            CopyFormat::Binary => "BINARY",
            CopyFormat::Parquet => "PARQUET",
            CopyFormat::Json => "JSON",
        };
        for (given, option) in [(&self.delimiter, "DELIMITER"), (&self.null, "NULL")] {
            if let (Some((_, at)), false) = (given, lines) {
                return syntax(format!("cannot specify {option} in {named} mode"), *at);
            }
        }
        if let (Some((_, at)), false) = (&self.header, lines) {
            return syntax(format!("cannot specify HEADER in {named} mode"), *at);
        }
        for (given, option) in [(&self.quote, "quote"), (&self.escape, "escape")] {
            if let (Some((_, at)), false) = (given, csv) {
                let message = format!("COPY {option} available only in CSV mode");
                return Err(SqlError::unsupported(message).at(*at));
            }
        }
        let force = [
            (&self.force_quote, "force quote", CopyDirection::To),
            (&self.force_not_null, "force not null", CopyDirection::From),
            (&self.force_null, "force null", CopyDirection::From),
        ];
        for (given, option, only) in force {
            if let Some((_, at)) = given {
                if !csv {
                    return Err(
                        SqlError::unsupported(format!("COPY {option} available only in CSV mode")).at(*at)
                    );
                }
                if direction != only {
                    let word = if only == CopyDirection::To { "TO" } else { "FROM" };
                    let message = format!("COPY {option} only available using COPY {word}");
                    return Err(SqlError::unsupported(message).at(*at));
                }
            }
        }
        if let (Some((CopyHeader::Match, at)), CopyDirection::To) = (&self.header, direction) {
            return Err(SqlError::unsupported("cannot use \"match\" with HEADER in COPY TO").at(*at));
        }
        let delimiter = one_byte(self.delimiter, "delimiter", if csv { b',' } else { b'\t' })?;
        let quote = one_byte(self.quote, "quote", b'"')?;
        let escape = one_byte(self.escape, "escape", quote)?;
        let null =
            self.null.map_or_else(|| if csv { String::new() } else { "\\N".to_owned() }, |(null, _)| null);
        if csv && delimiter == quote {
            return Err(invalid("COPY delimiter and quote must be different"));
        }
        if null.contains(['\r', '\n']) {
            return Err(invalid("COPY null representation cannot use newline or carriage return"));
        }
        if matches!(delimiter, b'\r' | b'\n') {
            return Err(invalid("COPY delimiter cannot be newline or carriage return"));
        }
        if !csv
            && (delimiter.is_ascii_lowercase()
                || delimiter.is_ascii_digit()
                || matches!(delimiter, b'\\' | b'.'))
        {
            return Err(invalid(format!("COPY delimiter cannot be \"{}\"", char::from(delimiter))));
        }
        if null.as_bytes().contains(&delimiter) {
            return Err(SqlError::unsupported("COPY delimiter must not appear in the NULL specification"));
        }
        if csv && null.as_bytes().contains(&quote) {
            return Err(SqlError::unsupported(
                "CSV quote character must not appear in the NULL specification",
            ));
        }
        let columns =
            |given: Option<(CopyColumns, usize)>| given.map(|(columns, _)| columns).unwrap_or_default();
        Ok(CopyOptions {
            format,
            delimiter,
            null,
            header: self.header.map(|(header, _)| header).unwrap_or_default(),
            quote,
            escape,
            force_quote: columns(self.force_quote),
            force_not_null: columns(self.force_not_null),
            force_null: columns(self.force_null),
            on_error: self.on_error.unwrap_or_default(),
            commit_rows: self.commit_rows,
        })
    }
}

fn one_byte(given: Option<(String, usize)>, option: &str, default: u8) -> Result<u8, SqlError> {
    match given {
        None => Ok(default),
        Some((text, at)) => {
            match text.as_bytes() {
                [byte] => Ok(*byte),
                _ => Err(SqlError::unsupported(format!("COPY {option} must be a single one-byte character"))
                    .at(at)),
            }
        }
    }
}

impl Reader<'_> {
    /// `TRUNCATE [TABLE] [ONLY] t [*], … [RESTART|CONTINUE IDENTITY] [CASCADE|RESTRICT]`
    pub(super) fn truncate(&mut self) -> Result<Statement, SqlError> {
        self.expect("TRUNCATE")?;
        self.accept("TABLE");
        let tables = self.separated(|reader| {
            reader.accept("ONLY");
            let name = reader.relation_name();
            reader.accept_sign(&Token::Mul);
            name
        })?;
        let restart_identity = self.accept("RESTART IDENTITY");
        if !restart_identity {
            self.accept("CONTINUE IDENTITY");
        }
        let cascade = self.accept("CASCADE");
        if !cascade {
            self.accept("RESTRICT");
        }
        Ok(Statement::Truncate { tables, cascade, restart_identity })
    }
}
