//! The list in parentheses of CREATE TABLE and CREATE SOURCE: columns, constraints, a watermark.

use millpond_types::{SqlError, SqlState, SqlType};
use sqlparser::ast;
use sqlparser::tokenizer::Token;

use super::Reader;
use crate::name::RelationName;
use crate::statement::{
    ColumnDef, ColumnName, Constraint, ConstraintKind, Expression, Identity, WatermarkDef,
};
use crate::types;

/// What stands in the list.
#[derive(Default)]
pub(super) struct Elements {
    pub columns: Vec<ColumnDef>,
    pub constraints: Vec<Constraint>,
    pub watermark: Option<WatermarkDef>,
}

impl Reader<'_> {
    /// `(column type …, CONSTRAINT …, WATERMARK FOR c AS e, …)`; may be empty.
    pub(super) fn elements(&mut self, relation: &RelationName) -> Result<Elements, SqlError> {
        let mut elements = Elements::default();
        self.expect_sign(&Token::LParen)?;
        if self.accept_sign(&Token::RParen) {
            return Ok(elements);
        }
        self.separated(|reader| reader.element(&mut elements))?;
        self.expect_sign(&Token::RParen)?;
        check(relation, &mut elements)?;
        Ok(elements)
    }

    fn element(&mut self, elements: &mut Elements) -> Result<(), SqlError> {
        let position = self.position();
        if self.peeks("WATERMARK FOR") {
            let watermark = self.watermark()?;
            if elements.watermark.is_some() {
                let message = "a relation can have only one watermark";
                return Err(SqlError::new(SqlState::INVALID_TABLE_DEFINITION, message).at(position));
            }
            elements.watermark = Some(watermark);
        } else if self.peeks("LIKE") {
            return Err(SqlError::unsupported("LIKE in a list of columns is not supported")
                .hint("Write the columns.")
                .at(position));
        } else if ["CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN", "EXCLUDE USING"]
            .iter()
            .any(|w| self.peeks(w))
        {
            let constraint = self.table_constraint()?;
            elements.constraints.push(constraint);
        } else {
            let column = self.column_def(&mut elements.constraints)?;
            elements.columns.push(column);
        }
        Ok(())
    }

    fn watermark(&mut self) -> Result<WatermarkDef, SqlError> {
        let position = self.position();
        self.expect("WATERMARK FOR")?;
        let column = self.identifier()?;
        self.expect("AS")?;
        Ok(WatermarkDef { column, expression: self.expression()?, position })
    }

    /// A column; its PRIMARY KEY, UNIQUE, CHECK and REFERENCES go to `constraints`.
    pub(super) fn column_def(&mut self, constraints: &mut Vec<Constraint>) -> Result<ColumnDef, SqlError> {
        let ColumnName { name, position } = self.identifier()?;
        let type_position = self.position();
        if self.accept("AS") {
            return self.computed(name, position);
        }
        let (ty, serial) = self.column_type()?;
        let identity = serial.then_some(Identity::Serial);
        let mut column = ColumnDef {
            name,
            ty,
            nullable: true,
            default: None,
            generated: None,
            identity,
            collation: None,
            position,
            type_position,
        };
        let mut explicit_null = false;
        loop {
            let position = self.position();
            let name = if self.accept("CONSTRAINT") { Some(self.name()?) } else { None };
            let this = || vec![ColumnName { name: column.name.clone(), position: column.position }];
            let kind = if self.accept("PRIMARY KEY") {
                self.refuse_deferrable()?;
                ConstraintKind::PrimaryKey(this())
            } else if self.accept("UNIQUE") {
                self.refuse_deferrable()?;
                ConstraintKind::Unique(this())
            } else if self.peeks("CHECK") {
                self.check_constraint()?
            } else if self.peeks("REFERENCES") {
                self.references(this())?
            } else if self.accept("NOT NULL") {
                if explicit_null {
                    return Err(conflicting(&column, "NULL/NOT NULL declarations").at(position));
                }
                column.nullable = false;
                continue;
            } else if self.accept("NULL") {
                if !column.nullable {
                    return Err(conflicting(&column, "NULL/NOT NULL declarations").at(position));
                }
                explicit_null = true;
                continue;
            } else if self.peeks("DEFAULT") {
                let default = self.default_value()?;
                if column.default.replace(default).is_some() {
                    let message = format!("multiple default values specified for column \"{}\"", column.name);
                    return Err(SqlError::new(SqlState::SYNTAX_ERROR, message).at(position));
                }
                continue;
            } else if self.accept("GENERATED") {
                self.generated(&mut column, position)?;
                continue;
            } else if self.accept("COLLATE") {
                let collation = self.relation_name()?.name;
                // Text compares by bytes, which these names say.
                if !["c", "posix", "c.utf-8", "ucs_basic", "default"]
                    .contains(&collation.to_lowercase().as_str())
                {
                    return Err(SqlError::unsupported(format!("collation \"{collation}\" is not supported"))
                        .hint("Text compares by bytes: COLLATE \"C\".")
                        .at(position));
                }
                column.collation = Some(collation);
                continue;
            } else if name.is_some() {
                return self.unexpected();
            } else {
                break;
            };
            constraints.push(Constraint { name, kind, position });
        }
        if column.default.is_some() && (column.generated.is_some() || column.identity.is_some()) {
            let what = if column.generated.is_some() { "generation expression" } else { "identity" };
            let message = format!("both default and {what} specified for column \"{}\"", column.name);
            return Err(SqlError::new(SqlState::SYNTAX_ERROR, message).at(column.position));
        }
        Ok(column)
    }

    /// The type, and whether it was one of the serial ones.
    fn column_type(&mut self) -> Result<(SqlType, bool), SqlError> {
        const SERIALS: [(&str, SqlType); 6] = [
            ("SERIAL", SqlType::Int4),
            ("SERIAL4", SqlType::Int4),
            ("BIGSERIAL", SqlType::Int8),
            ("SERIAL8", SqlType::Int8),
            ("SMALLSERIAL", SqlType::Int2),
            ("SERIAL2", SqlType::Int2),
        ];
        for (name, ty) in SERIALS {
            if self.accept(name) {
                return Ok((ty, true));
            }
        }
        let position = self.position();
        // A type is one or more words; what can follow a column's name otherwise is a syntax error at that place.
        if !matches!(self.parser.peek_token_ref().token, Token::Word(_)) {
            return self.unexpected();
        }
        let ty = self.sqlparser(|p| p.parse_data_type())?;
        Ok((types::resolve_column(&ty, position)?, false))
    }

    /// `DEFAULT e`, where `NOT NULL` ends the expression.
    fn default_value(&mut self) -> Result<Expression, SqlError> {
        let (keyword, mut position) = (self.index(), 0);
        let start = self.source.next_solid(keyword + 1);
        if let Some(start) = start {
            position = self.source.position(start);
        }
        // sqlparser's own reader knows that a column's NOT NULL is not part of its default.
        match self.sqlparser(|p| p.parse_optional_column_option())? {
            Some(ast::ColumnOption::Default(expr)) => {
                super::query::refuse_in(&expr)?;
                let text = self.text_since(start.unwrap_or(keyword));
                Ok(Expression { expr: Box::new(expr), text, position })
            }
            _ => self.unexpected(),
        }
    }

    /// After `p AS`: Flink's computed columns, of which the time of processing is one that can be stored.
    fn computed(&mut self, name: String, position: usize) -> Result<ColumnDef, SqlError> {
        let type_position = self.position();
        if !self.peeks("PROCTIME") {
            return Err(SqlError::unsupported("a computed column other than PROCTIME() is not supported")
                .hint("Write name type GENERATED ALWAYS AS (expression) STORED.")
                .at(type_position));
        }
        Ok(ColumnDef {
            name,
            ty: SqlType::Timestamptz,
            nullable: false,
            default: None,
            generated: Some(self.expression()?),
            identity: None,
            collation: None,
            position,
            type_position,
        })
    }

    /// After GENERATED.
    fn generated(&mut self, column: &mut ColumnDef, position: usize) -> Result<(), SqlError> {
        let by_default = self.accept("BY DEFAULT");
        if !by_default {
            self.expect("ALWAYS")?;
        }
        self.expect("AS")?;
        if self.accept("IDENTITY") {
            if self.peeks_sign(&Token::LParen) {
                return Err(SqlError::unsupported("options of an identity column are not supported")
                    .at(self.position()));
            }
            if column.identity.is_some() {
                let message = format!("multiple identity specifications for column \"{}\"", column.name);
                return Err(SqlError::new(SqlState::SYNTAX_ERROR, message).at(position));
            }
            column.identity = Some(if by_default { Identity::ByDefault } else { Identity::Always });
            column.nullable = false;
            return Ok(());
        }
        if by_default {
            return self.unexpected();
        }
        self.expect_sign(&Token::LParen)?;
        let expression = self.expression()?;
        self.expect_sign(&Token::RParen)?;
        if self.peeks("VIRTUAL") {
            return Err(SqlError::unsupported("a virtual generated column is not supported")
                .hint("Write STORED.")
                .at(self.position()));
        }
        self.expect("STORED")?;
        if column.generated.replace(expression).is_some() {
            let message = format!("multiple generation clauses specified for column \"{}\"", column.name);
            return Err(SqlError::new(SqlState::SYNTAX_ERROR, message).at(position));
        }
        Ok(())
    }

    pub(super) fn table_constraint(&mut self) -> Result<Constraint, SqlError> {
        let position = self.position();
        let name = if self.accept("CONSTRAINT") { Some(self.name()?) } else { None };
        let kind = if self.accept("PRIMARY KEY") {
            let columns = self.column_list()?;
            self.refuse_deferrable()?;
            ConstraintKind::PrimaryKey(columns)
        } else if self.accept("UNIQUE") {
            let columns = self.column_list()?;
            self.refuse_deferrable()?;
            ConstraintKind::Unique(columns)
        } else if self.peeks("CHECK") {
            self.check_constraint()?
        } else if self.accept("FOREIGN KEY") {
            let columns = self.column_list()?;
            self.references(columns)?
        } else if self.peeks("EXCLUDE") {
            return Err(SqlError::unsupported("an exclusion constraint is not supported").at(self.position()));
        } else {
            return self.unexpected();
        };
        Ok(Constraint { name, kind, position })
    }

    fn check_constraint(&mut self) -> Result<ConstraintKind, SqlError> {
        self.expect("CHECK")?;
        self.expect_sign(&Token::LParen)?;
        let expression = self.expression()?;
        self.expect_sign(&Token::RParen)?;
        if self.peeks("NO INHERIT") || self.peeks("NOT VALID") || self.peeks("NOT ENFORCED") {
            return Err(SqlError::unsupported("this attribute of a check constraint is not supported")
                .at(self.position()));
        }
        Ok(ConstraintKind::Check(expression))
    }

    /// `REFERENCES t [(c)] [MATCH …] [ON DELETE …] [NOT ENFORCED]`
    fn references(&mut self, columns: Vec<ColumnName>) -> Result<ConstraintKind, SqlError> {
        self.expect("REFERENCES")?;
        let table = self.relation_name()?;
        let referred = self.optional_columns()?;
        let mut enforced = true;
        loop {
            if self.accept("MATCH") {
                if self.accept_one(&["FULL", "PARTIAL", "SIMPLE"]).is_none() {
                    return self.unexpected();
                }
            } else if self.accept("ON DELETE") || self.accept("ON UPDATE") {
                let actions = ["NO ACTION", "RESTRICT", "CASCADE", "SET NULL", "SET DEFAULT"];
                if self.accept_one(&actions).is_none() {
                    return self.unexpected();
                }
            } else if self.accept("NOT ENFORCED") {
                enforced = false;
            } else {
                self.refuse_deferrable()?;
                return Ok(ConstraintKind::ForeignKey { columns, table, referred, enforced });
            }
        }
    }

    fn refuse_deferrable(&mut self) -> Result<(), SqlError> {
        if self.accept("NOT DEFERRABLE") || self.accept("INITIALLY IMMEDIATE") {
            return Ok(());
        }
        if self.peeks("DEFERRABLE") || self.peeks("INITIALLY DEFERRED") {
            return Err(SqlError::unsupported("a deferrable constraint is not supported").at(self.position()));
        }
        Ok(())
    }
}

fn conflicting(column: &ColumnDef, what: &str) -> SqlError {
    SqlError::new(SqlState::SYNTAX_ERROR, format!("conflicting {what} for column \"{}\"", column.name))
}

/// Names within the list: each column once, one primary key, constraints on columns that are there.
fn check(relation: &RelationName, elements: &mut Elements) -> Result<(), SqlError> {
    for (at, column) in elements.columns.iter().enumerate() {
        if elements.columns[..at].iter().any(|earlier| earlier.name == column.name) {
            let message = format!("column \"{}\" specified more than once", column.name);
            return Err(SqlError::new(SqlState::DUPLICATE_COLUMN, message).at(column.position));
        }
    }
    let mut keys = 0;
    for constraint in &elements.constraints {
        let columns = match &constraint.kind {
            ConstraintKind::PrimaryKey(columns) => {
                keys += 1;
                columns
            }
            ConstraintKind::Unique(columns) | ConstraintKind::ForeignKey { columns, .. } => columns,
            ConstraintKind::Check(_) => continue,
        };
        if keys > 1 {
            let message = format!("multiple primary keys for table \"{}\" are not allowed", relation.name);
            return Err(SqlError::new(SqlState::INVALID_TABLE_DEFINITION, message).at(constraint.position));
        }
        for (at, column) in columns.iter().enumerate() {
            if !elements.columns.iter().any(|c| c.name == column.name) {
                let message = format!("column \"{}\" named in key does not exist", column.name);
                return Err(SqlError::new(SqlState::UNDEFINED_COLUMN, message).at(column.position));
            }
            if columns[..at].iter().any(|earlier| earlier.name == column.name) {
                let what = if matches!(constraint.kind, ConstraintKind::PrimaryKey(_)) {
                    "primary key"
                } else {
                    "unique"
                };
                let message = format!("column \"{}\" appears twice in {what} constraint", column.name);
                return Err(SqlError::new(SqlState::DUPLICATE_COLUMN, message).at(column.position));
            }
        }
    }
    let key = elements.constraints.iter().find_map(|constraint| match &constraint.kind {
        ConstraintKind::PrimaryKey(columns) => Some(columns),
        _ => None,
    });
    for column in &mut elements.columns {
        if key.is_some_and(|key| key.iter().any(|k| k.name == column.name)) {
            column.nullable = false;
        }
    }
    if let Some(watermark) = &elements.watermark {
        let column = &watermark.column;
        if !elements.columns.is_empty() && !elements.columns.iter().any(|c| c.name == column.name) {
            let message = format!("column \"{}\" named in watermark does not exist", column.name);
            return Err(SqlError::new(SqlState::UNDEFINED_COLUMN, message).at(column.position));
        }
    }
    Ok(())
}
