//! ALTER and COMMENT ON.

use millpond_types::SqlError;
use sqlparser::tokenizer::Token;

use super::Reader;
use super::create::refused;
use crate::name::RelationName;
use crate::statement::{Alter, AlterAction, Comment, ObjectKind, Statement};

impl Reader<'_> {
    pub(super) fn alter(&mut self) -> Result<Statement, SqlError> {
        const OTHERS: [&str; 18] = [
            "AGGREGATE",
            "COLLATION",
            "CONVERSION",
            "DATABASE",
            "DEFAULT",
            "DOMAIN",
            "EXTENSION",
            "FUNCTION",
            "GROUP",
            "OPERATOR",
            "POLICY",
            "PROCEDURE",
            "ROLE",
            "SECRET",
            "SEQUENCE",
            "SYSTEM",
            "TYPE",
            "USER",
        ];
        if self.peeks_nth(1, "SYSTEM") && self.peeks_nth(2, "ADVANCE") {
            self.expect("ALTER SYSTEM ADVANCE CLOCK TO")?;
            return Ok(Statement::AdvanceClock(self.expression()?));
        }
        if let Some(kind) = OTHERS.into_iter().find(|kind| self.peeks_nth(1, kind)) {
            return Ok(self.unsupported(&format!("ALTER {kind}")));
        }
        self.expect("ALTER")?;
        let Some(kind) = self.accept_kind() else { return self.unexpected() };
        let if_exists = self.accept("IF EXISTS");
        self.accept("ONLY");
        let name = match kind {
            ObjectKind::Schema => {
                let schema = self.identifier()?;
                RelationName { schema: None, name: schema.name, position: schema.position }
            }
            _ => self.relation_name()?,
        };
        let position = self.position();
        let action = self.alter_action()?;
        Ok(Statement::Alter(Alter { kind, name, if_exists, action, position }))
    }

    fn alter_action(&mut self) -> Result<AlterAction, SqlError> {
        if self.accept("RENAME TO") {
            return Ok(AlterAction::RenameTo(self.identifier()?));
        }
        if self.accept("RENAME") {
            if self.peeks("CONSTRAINT") {
                return Ok(self.unsupported_action("RENAME CONSTRAINT"));
            }
            self.accept("COLUMN");
            let from = self.identifier()?;
            self.expect("TO")?;
            return Ok(AlterAction::RenameColumn { from, to: self.identifier()? });
        }
        if self.accept("ADVANCE WATERMARK TO") {
            return Ok(AlterAction::AdvanceWatermark(self.expression()?));
        }
        if let Some(action) = self.accept_one(&["PAUSE", "RESUME"]) {
            return Ok(if action == "PAUSE" { AlterAction::Pause } else { AlterAction::Resume });
        }
        if self.accept("OWNER TO") {
            return Ok(AlterAction::OwnerTo(self.label()?.name));
        }
        if self.accept("SET SCHEMA") {
            return Ok(AlterAction::SetSchema(self.name()?));
        }
        if self.accept("SET") {
            if !self.peeks_sign(&Token::LParen) {
                return Ok(self.unsupported_action("SET"));
            }
            return Ok(AlterAction::SetOptions(self.option_list()?));
        }
        if self.accept("RESET") {
            let names = self.list(|reader| reader.label().map(|label| label.name))?;
            return Ok(AlterAction::ResetOptions(names));
        }
        if self.peeks("ADD") {
            return self.alter_add();
        }
        if self.accept("DROP") {
            if self.peeks("CONSTRAINT") {
                return Ok(self.unsupported_action("DROP CONSTRAINT"));
            }
            self.accept("COLUMN");
            let if_exists = self.accept("IF EXISTS");
            let column = self.identifier()?;
            let cascade = self.accept("CASCADE");
            if !cascade {
                self.accept("RESTRICT");
            }
            self.refuse_more_actions()?;
            return Ok(AlterAction::DropColumn { column, if_exists, cascade });
        }
        // PostgreSQL's other actions, and Millpond's of later days.
        for action in [
            "ALTER COLUMN",
            "ALTER",
            "AS",
            "ATTACH PARTITION",
            "CLUSTER ON",
            "DETACH PARTITION",
            "DISABLE",
            "ENABLE",
            "FORCE ROW LEVEL SECURITY",
            "INHERIT",
            "NO INHERIT",
            "REPLICA IDENTITY",
            "SEEK TO",
            "SWAP WITH",
            "VALIDATE",
        ] {
            if self.peeks(action) {
                return Ok(self.unsupported_action(action));
            }
        }
        self.unexpected()
    }

    fn alter_add(&mut self) -> Result<AlterAction, SqlError> {
        self.expect("ADD")?;
        if ["CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN"].iter().any(|word| self.peeks(word)) {
            return Ok(self.unsupported_action("ADD CONSTRAINT"));
        }
        self.accept("COLUMN");
        let if_not_exists = self.accept("IF NOT EXISTS");
        let mut constraints = Vec::new();
        let column = Box::new(self.column_def(&mut constraints)?);
        self.refuse_more_actions()?;
        Ok(AlterAction::AddColumn { column, constraints, if_not_exists })
    }

    fn refuse_more_actions(&mut self) -> Result<(), SqlError> {
        if self.peeks_sign(&Token::Comma) {
            let what = "more than one action in ALTER";
            return Err(refused(what, "Use one ALTER for each, in a transaction.", self.position()));
        }
        Ok(())
    }

    /// Skips the rest.
    fn unsupported_action(&mut self, action: &str) -> AlterAction {
        self.unsupported(action);
        AlterAction::Unsupported(action.to_owned())
    }

    pub(super) fn comment(&mut self) -> Result<Statement, SqlError> {
        self.expect("COMMENT ON")?;
        if self.accept("COLUMN") {
            let first = self.identifier()?;
            let mut parts = vec![first.clone()];
            while self.accept_sign(&Token::Period) {
                parts.push(self.label()?);
            }
            let column = parts.pop().filter(|_| !parts.is_empty());
            if column.is_none() {
                return self.unexpected();
            }
            let name =
                RelationName::from_parts(parts.into_iter().map(|part| part.name).collect(), first.position)?;
            let comment = self.comment_text()?;
            return Ok(Statement::Comment(Comment { kind: ObjectKind::Table, name, column, comment }));
        }
        let Some(kind) = self.accept_kind() else {
            let known = ["DATABASE", "EXTENSION", "FUNCTION", "CONSTRAINT", "ROLE", "TYPE", "SEQUENCE"];
            return match known.into_iter().find(|kind| self.peeks(kind)) {
                Some(kind) => Ok(self.unsupported(&format!("COMMENT ON {kind}"))),
                None => self.unexpected(),
            };
        };
        let name = self.relation_name()?;
        let comment = self.comment_text()?;
        Ok(Statement::Comment(Comment { kind, name, column: None, comment }))
    }

    /// `IS 'text'`, or `IS NULL`, which takes the comment away; so does an empty text.
    fn comment_text(&mut self) -> Result<Option<String>, SqlError> {
        self.expect("IS")?;
        if self.accept("NULL") {
            return Ok(None);
        }
        Ok(Some(self.string()?).filter(|text| !text.is_empty()))
    }
}
