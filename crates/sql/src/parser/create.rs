//! CREATE and DROP.

use millpond_types::{SqlError, SqlState};
use sqlparser::tokenizer::Token;

use super::Reader;
use super::columns::Elements;
use crate::name::RelationName;
use crate::options::Options;
use crate::statement::{
    CreateIndex, CreateMaterializedView, CreateSink, CreateSource, CreateTable, CreateView, Drop, Emit,
    Expression, Format, Include, ObjectKind, SinkInput, Statement, TableConflict,
};

impl Reader<'_> {
    pub(super) fn create(&mut self) -> Result<Statement, SqlError> {
        let start = self.position();
        // Look past the words between CREATE and the kind of object.
        let mut n = 1;
        let or_replace = self.peeks("CREATE OR REPLACE");
        n += if or_replace { 2 } else { 0 };
        let scope = self.peeks_nth(n, "GLOBAL") || self.peeks_nth(n, "LOCAL");
        n += usize::from(scope);
        let temporary = self.peeks_nth(n, "TEMP") || self.peeks_nth(n, "TEMPORARY");
        let unlogged = self.peeks_nth(n, "UNLOGGED");
        n += usize::from(temporary || unlogged);
        let kind =
            ["SOURCE", "TABLE", "VIEW", "RECURSIVE", "MATERIALIZED", "SINK", "INDEX", "UNIQUE", "SCHEMA"]
                .into_iter()
                .find(|kind| self.peeks_nth(n, kind));
        let Some(kind) = kind else { return self.create_other(n) };
        let replaceable = matches!(kind, "VIEW" | "RECURSIVE" | "MATERIALIZED");
        let mut advance = |count: usize| (0..count).for_each(|_| self.parser.advance_token());
        if (or_replace && !replaceable) || (temporary && !matches!(kind, "TABLE" | "VIEW" | "RECURSIVE")) {
            if or_replace && matches!(kind, "SOURCE" | "TABLE" | "SINK" | "INDEX") {
                return Err(SqlError::unsupported(format!("CREATE OR REPLACE {kind} is not supported"))
                    .hint(format!("Use DROP {kind} IF EXISTS, then CREATE {kind}."))
                    .at(start));
            }
            advance(if or_replace { 1 } else { n - 1 });
            return self.unexpected();
        }
        if unlogged {
            advance(n);
            return Err(SqlError::unsupported("an unlogged table is not supported")
                .hint("The log is the truth here: leave UNLOGGED out.")
                .at(start));
        }
        advance(n);
        match kind {
            "SOURCE" => self.create_source(),
            "TABLE" => self.create_table(temporary),
            "VIEW" => self.create_view(or_replace, temporary),
            "MATERIALIZED" => self.create_materialized_view(or_replace),
            "SINK" => self.create_sink(),
            "INDEX" | "UNIQUE" => self.create_index(),
            "SCHEMA" => self.create_schema(),
            _ => Err(SqlError::unsupported("a recursive view is not supported").at(start)),
        }
    }

    /// What PostgreSQL or sql.md can create and Millpond cannot yet.
    fn create_other(&mut self, n: usize) -> Result<Statement, SqlError> {
        const KINDS: [&str; 32] = [
            "ACCESS",
            "AGGREGATE",
            "CAST",
            "COLLATION",
            "CONNECTION",
            "CONVERSION",
            "DATABASE",
            "DOMAIN",
            "EVENT",
            "EXTENSION",
            "FOREIGN",
            "FUNCTION",
            "GROUP",
            "LANGUAGE",
            "OPERATOR",
            "POLICY",
            "PROCEDURE",
            "PUBLICATION",
            "ROLE",
            "RULE",
            "SECRET",
            "SEQUENCE",
            "SERVER",
            "STATISTICS",
            "STREAM",
            "SUBSCRIPTION",
            "TABLESPACE",
            "TEXT",
            "TRANSFORM",
            "TRIGGER",
            "TYPE",
            "USER",
        ];
        match KINDS.into_iter().find(|kind| self.peeks_nth(n, kind)) {
            Some("ACCESS" | "EVENT" | "FOREIGN" | "TEXT") => self.unsupported_words(n + 2),
            Some(kind) => Ok(self.unsupported(&format!("CREATE {kind}"))),
            None => {
                (0..n).for_each(|_| self.parser.advance_token());
                self.unexpected()
            }
        }
    }

    fn if_not_exists(&mut self) -> bool {
        self.accept("IF NOT EXISTS")
    }

    fn create_source(&mut self) -> Result<Statement, SqlError> {
        self.expect("SOURCE")?;
        let if_not_exists = self.if_not_exists();
        let name = self.relation_name()?;
        let elements =
            if self.peeks_sign(&Token::LParen) { self.elements(&name)? } else { Elements::default() };
        let (mut options, mut include, mut format) = (Options::default(), Vec::new(), None);
        // In any order: other databases do not agree on one.
        loop {
            let position = self.position();
            if self.peeks("INCLUDE") {
                include.push(self.include()?);
            } else if self.peeks("FORMAT") {
                let given = self.format()?;
                if format.replace(given).is_some() {
                    return Err(twice("FORMAT", position));
                }
            } else if self.peeks("WITH") {
                let given = self.with_options()?;
                if !options.is_empty() {
                    return Err(twice("WITH", position));
                }
                if given.is_empty() && !self.at_end() && self.peeks("WITH") {
                    return self.unexpected();
                }
                options = given;
            } else {
                break;
            }
        }
        let Elements { columns, constraints, watermark } = elements;
        let source =
            CreateSource { name, if_not_exists, columns, constraints, watermark, options, format, include };
        Ok(Statement::CreateSource(source))
    }

    /// `INCLUDE field [AS column]`
    fn include(&mut self) -> Result<Include, SqlError> {
        let position = self.position();
        self.expect("INCLUDE")?;
        let field = self.label()?.name;
        let column = if self.accept("AS") { Some(self.identifier()?) } else { None };
        Ok(Include { field, column, position })
    }

    /// `FORMAT plain [ENCODE json [(options)]]`
    fn format(&mut self) -> Result<Format, SqlError> {
        let position = self.position();
        self.expect("FORMAT")?;
        let format = self.label()?.name;
        let encode = if self.accept("ENCODE") { Some(self.label()?.name) } else { None };
        let options = if self.peeks_sign(&Token::LParen) { self.option_list()? } else { Options::default() };
        Ok(Format { format, encode, options, position })
    }

    fn create_table(&mut self, temporary: bool) -> Result<Statement, SqlError> {
        self.expect("TABLE")?;
        let if_not_exists = self.if_not_exists();
        let name = self.relation_name()?;
        if self.peeks("OF") || self.peeks("PARTITION OF") {
            return Err(refused("CREATE TABLE … OF", "Write the columns.", self.position()));
        }
        let mut table = CreateTable {
            name,
            if_not_exists,
            temporary,
            columns: Vec::new(),
            constraints: Vec::new(),
            watermark: None,
            append_only: false,
            on_conflict: None,
            options: Options::default(),
            query: None,
            query_columns: Vec::new(),
            no_data: false,
        };
        if self.is_list_of_names() {
            table.query_columns = self.column_list()?;
        } else if self.peeks_sign(&Token::LParen) {
            let Elements { columns, constraints, watermark } = self.elements(&table.name)?;
            (table.columns, table.constraints, table.watermark) = (columns, constraints, watermark);
        }
        let has_list = !table.query_columns.is_empty() || !table.columns.is_empty();
        self.table_clauses(&mut table)?;
        if self.accept("AS") {
            let query_position = self.position();
            if !table.columns.is_empty() {
                return Err(SqlError::new(
                    SqlState::SYNTAX_ERROR,
                    "CREATE TABLE AS takes names of columns only",
                )
                .at(query_position));
            }
            table.query = Some(self.query_text()?);
            table.no_data = self.with_no_data()?;
        } else if !table.query_columns.is_empty()
            || (!has_list && self.at_end() && !self.previous_is(&Token::RParen))
        {
            return self.unexpected();
        }
        Ok(Statement::CreateTable(table))
    }

    /// `(a, b)` before AS: names without types.
    fn is_list_of_names(&self) -> bool {
        self.peeks_sign(&Token::LParen)
            && matches!(self.parser.peek_nth_token_ref(1).token, Token::Word(_))
            && matches!(self.parser.peek_nth_token_ref(2).token, Token::Comma | Token::RParen)
    }

    fn previous_is(&self, sign: &Token) -> bool {
        self.parser.get_current_token().token == *sign
    }

    /// What may stand between a table's columns and AS.
    fn table_clauses(&mut self, table: &mut CreateTable) -> Result<(), SqlError> {
        loop {
            let position = self.position();
            if self.accept("APPEND ONLY") {
                table.append_only = true;
            } else if self.accept("ON CONFLICT") {
                table.on_conflict =
                    Some(match self.accept_one(&["DO NOTHING", "IGNORE", "DO UPDATE FULL", "OVERWRITE"]) {
                        Some("DO NOTHING" | "IGNORE") => TableConflict::DoNothing,
                        Some(_) => TableConflict::Overwrite,
                        None => return self.unexpected(),
                    });
            } else if self.peeks("WITH") && !table.options.is_empty() {
                return Err(twice("WITH", position));
            } else if self.peeks("WITH") {
                let before = self.index();
                table.options = self.with_options()?;
                if self.index() == before {
                    return self.unexpected();
                }
            } else if self.accept("WITHOUT OIDS") {
            } else if self.peeks("PARTITION BY") {
                return Err(refused(
                    "PARTITION BY of a table",
                    "Rows are sharded by their key without it.",
                    position,
                ));
            } else if self.peeks("INHERITS") {
                return Err(refused("table inheritance", "Write the columns.", position));
            } else if self.peeks("ON COMMIT") || self.peeks("TABLESPACE") || self.peeks("USING") {
                return Err(refused("this clause of CREATE TABLE", "Leave it out.", position));
            } else {
                return Ok(());
            }
        }
    }

    /// `WITH [NO] DATA` at the end; true for NO.
    fn with_no_data(&mut self) -> Result<bool, SqlError> {
        if self.accept("WITH NO DATA") {
            return Ok(true);
        }
        self.accept("WITH DATA");
        Ok(false)
    }

    fn create_view(&mut self, or_replace: bool, temporary: bool) -> Result<Statement, SqlError> {
        self.expect("VIEW")?;
        let if_not_exists = self.if_not_exists();
        let name = self.relation_name()?;
        let columns = self.optional_columns()?;
        let options = self.with_options()?;
        self.expect("AS")?;
        let query = self.query_text()?;
        if self.peeks("WITH") {
            return Err(refused("WITH CHECK OPTION", "Views are not updatable.", self.position()));
        }
        let view = CreateView { name, or_replace, if_not_exists, temporary, columns, options, query };
        Ok(Statement::CreateView(view))
    }

    fn create_materialized_view(&mut self, or_replace: bool) -> Result<Statement, SqlError> {
        self.expect("MATERIALIZED VIEW")?;
        let if_not_exists = self.if_not_exists();
        let name = self.relation_name()?;
        let columns = self.optional_columns()?;
        let options = self.with_options()?;
        self.expect("AS")?;
        let query = self.query_text()?;
        let no_data = self.with_no_data()?;
        let emit_position = self.peeks("EMIT").then(|| self.position());
        let emit = if emit_position.is_some() { self.emit()? } else { Emit::default() };
        Ok(Statement::CreateMaterializedView(CreateMaterializedView {
            name,
            or_replace,
            if_not_exists,
            columns,
            options,
            query,
            emit,
            emit_position,
            no_data,
        }))
    }

    fn emit(&mut self) -> Result<Emit, SqlError> {
        self.expect("EMIT")?;
        match self.accept_one(&["ON UPDATE", "CHANGES", "ON WINDOW CLOSE", "FINAL", "AFTER WINDOW CLOSE"]) {
            Some("ON UPDATE" | "CHANGES") => Ok(Emit::OnUpdate),
            Some(_) => Ok(Emit::OnWindowClose),
            None => self.unexpected(),
        }
    }

    fn create_sink(&mut self) -> Result<Statement, SqlError> {
        self.expect("SINK")?;
        let if_not_exists = self.if_not_exists();
        let name = self.relation_name()?;
        let into = if self.accept("INTO") { Some(self.relation_name()?) } else { None };
        let input = if self.accept("FROM") {
            SinkInput::From(self.relation_name()?)
        } else {
            self.expect("AS")?;
            SinkInput::As(self.query_text()?)
        };
        let options = self.with_options()?;
        let format = if self.peeks("FORMAT") { Some(self.format()?) } else { None };
        Ok(Statement::CreateSink(CreateSink { name, if_not_exists, input, into, options, format }))
    }

    fn create_index(&mut self) -> Result<Statement, SqlError> {
        let unique = self.accept("UNIQUE");
        self.expect("INDEX")?;
        self.accept("CONCURRENTLY");
        let if_not_exists = self.if_not_exists();
        let position = self.position();
        let name = if self.peeks("ON") { None } else { Some(self.name()?) };
        self.expect("ON")?;
        self.accept("ONLY");
        let relation = self.relation_name()?;
        let method = if self.accept("USING") { Some(self.name()?) } else { None };
        let columns = self.list(Self::index_column)?;
        let include = if self.accept("INCLUDE") { self.column_list()? } else { Vec::new() };
        let options = self.with_options()?;
        let predicate = if self.accept("WHERE") { Some(self.expression()?) } else { None };
        Ok(Statement::CreateIndex(CreateIndex {
            name,
            if_not_exists,
            unique,
            relation,
            method,
            columns,
            include,
            predicate,
            options,
            position,
        }))
    }

    /// A column or expression; the direction is read and means nothing, as an index answers both.
    fn index_column(&mut self) -> Result<Expression, SqlError> {
        let column = self.expression()?;
        self.accept_one(&["ASC", "DESC"]);
        self.accept_one(&["NULLS FIRST", "NULLS LAST"]);
        Ok(column)
    }

    fn create_schema(&mut self) -> Result<Statement, SqlError> {
        self.expect("SCHEMA")?;
        let if_not_exists = self.if_not_exists();
        let schema = self.identifier()?;
        if self.peeks("AUTHORIZATION") {
            return Err(refused("CREATE SCHEMA … AUTHORIZATION", "Leave it out.", self.position()));
        }
        Ok(Statement::CreateSchema { name: schema.name, if_not_exists, position: schema.position })
    }

    /// The kind of object that comes next, if it is one of ours.
    pub(super) fn accept_kind(&mut self) -> Option<ObjectKind> {
        use ObjectKind::*;
        [Table, Source, MaterializedView, View, Sink, Index, Schema]
            .into_iter()
            .find(|kind| self.accept(kind.command()))
    }

    pub(super) fn drop_statement(&mut self) -> Result<Statement, SqlError> {
        const OTHERS: [&str; 27] = [
            "AGGREGATE",
            "CAST",
            "COLLATION",
            "CONNECTION",
            "CONVERSION",
            "DATABASE",
            "DOMAIN",
            "EXTENSION",
            "FUNCTION",
            "GROUP",
            "LANGUAGE",
            "OPERATOR",
            "OWNED",
            "POLICY",
            "PROCEDURE",
            "PUBLICATION",
            "ROLE",
            "ROUTINE",
            "RULE",
            "SECRET",
            "SEQUENCE",
            "SERVER",
            "SUBSCRIPTION",
            "TABLESPACE",
            "TRIGGER",
            "TYPE",
            "USER",
        ];
        if let Some(kind) = OTHERS.into_iter().find(|kind| self.peeks_nth(1, kind)) {
            return Ok(self.unsupported(&format!("DROP {kind}")));
        }
        self.expect("DROP")?;
        let Some(kind) = self.accept_kind() else { return self.unexpected() };
        if kind == ObjectKind::Index {
            self.accept("CONCURRENTLY");
        }
        let if_exists = self.accept("IF EXISTS");
        let names = self.separated(|reader| match kind {
            ObjectKind::Schema => {
                let schema = reader.identifier()?;
                Ok(RelationName { schema: None, name: schema.name, position: schema.position })
            }
            _ => reader.relation_name(),
        })?;
        let cascade = self.accept("CASCADE");
        if !cascade {
            self.accept("RESTRICT");
        }
        Ok(Statement::Drop(Drop { kind, names, if_exists, cascade }))
    }
}

pub(super) fn refused(what: &str, hint: &str, position: usize) -> SqlError {
    SqlError::unsupported(format!("{what} is not supported")).hint(hint).at(position)
}

fn twice(clause: &str, position: usize) -> SqlError {
    SqlError::new(SqlState::SYNTAX_ERROR, format!("{clause} specified more than once")).at(position)
}
