//! The extended query protocol: statements are parsed and planned, bound to parameters as portals, and executed, all of
//! a portal's rows or some at a time.

use millpond_engine::{Outcome, ParsedStatement, Prepared};
use millpond_sql::Statement as Sql;
use millpond_types::{SqlError, SqlState, SqlType};
use pgwire::messages::PgWireBackendMessage as Backend;
use pgwire::messages::data::{NoData, ParameterDescription};
use pgwire::messages::extendedquery::{
    Bind, BindComplete, Close, CloseComplete, Describe, Execute, Parse, ParseComplete, PortalSuspended,
};

use datafusion::scalar::ScalarValue;

use crate::catalog;
use crate::connection::Connection;
use crate::copy;
use crate::error::{Failure, Stop};
use crate::frontend::violation;
use crate::rows::{Progress, Rows, description};
use crate::value::{Format, parameter};
use millpond_engine::Zone;

/// The name in `DEALLOCATE name`. Statements of the protocol are the connection's, those of PREPARE the session's, and
/// DEALLOCATE names either.
pub(crate) fn deallocated(statement: &ParsedStatement) -> Option<&str> {
    match &statement.statement {
        Sql::Deallocate { name } => name.as_deref(),
        _ => None,
    }
}

/// OIDs by which clients say that they leave a parameter's type to the server: none, and `unknown`.
const UNDECIDED: [u32; 2] = [0, 705];

/// A named (or the unnamed) prepared statement; without a plan if its text was empty.
#[derive(Clone)]
pub(crate) struct Statement {
    prepared: Option<Prepared>,
    /// It is a DEALLOCATE of this name.
    deallocates: Option<String>,
}

/// A statement with its parameters, and how far it has come.
pub(crate) struct Portal {
    statement: Statement,
    parameters: Vec<ScalarValue>,
    formats: Vec<Format>,
    state: State,
}

enum State {
    Bound,
    Running(Box<Rows>),
    Done,
}

fn is_portal(target: u8) -> Result<bool, SqlError> {
    match target {
        b'S' => Ok(false),
        b'P' => Ok(true),
        other => Err(violation(format!("invalid subtype {other} of a Describe or Close message"))),
    }
}

fn parameter_type(oid: u32) -> Result<Option<SqlType>, SqlError> {
    let array =
        || catalog::array_element(oid).and_then(SqlType::from_oid).map(|e| SqlType::Array(Box::new(e)));
    match SqlType::from_oid(oid).or_else(array) {
        _ if UNDECIDED.contains(&oid) => Ok(None),
        Some(ty) => Ok(Some(ty)),
        None => Err(SqlError::new(SqlState::UNDEFINED_OBJECT, format!("type with OID {oid} does not exist"))
            .hint("Leave the type of the parameter to the server, or cast it in the statement.")),
    }
}

impl Connection {
    pub async fn parse(&mut self, parse: Parse) -> Result<(), Stop> {
        let name = parse.name.unwrap_or_default();
        if name.is_empty() {
            self.statements.remove("");
        } else if self.statements.contains_key(&name) {
            let message = format!("prepared statement \"{name}\" already exists");
            return Err(SqlError::new(SqlState::DUPLICATE_PREPARED_STATEMENT, message).into());
        }
        let mut parsed = self.session.parse(&parse.query)?;
        if parsed.len() > 1 {
            let message = "cannot insert multiple commands into a prepared statement";
            return Err(SqlError::new(SqlState::SYNTAX_ERROR, message).into());
        }
        let types = parse.type_oids.iter().map(|oid| parameter_type(*oid)).collect::<Result<Vec<_>, _>>()?;
        let mut deallocates = None;
        let prepared = match parsed.pop() {
            Some(statement) => {
                deallocates = deallocated(&statement).map(str::to_owned);
                let planning = self.session.prepare(&statement, &types);
                Some(self.socket.watch(&self.cancel, planning).await??)
            }
            None => None,
        };
        self.statements.insert(name, Statement { prepared, deallocates });
        self.send_beside();
        self.send(Backend::ParseComplete(ParseComplete::new()));
        Ok(())
    }

    fn statement(&self, name: &str) -> Result<&Statement, SqlError> {
        self.statements.get(name).ok_or_else(|| {
            let message = match name {
                "" => "unnamed prepared statement does not exist".to_owned(),
                name => format!("prepared statement \"{name}\" does not exist"),
            };
            SqlError::new(SqlState::INVALID_SQL_STATEMENT_NAME, message)
        })
    }

    pub fn bind(&mut self, bind: Bind) -> Result<(), Stop> {
        let (portal, name) = (bind.portal_name.unwrap_or_default(), bind.statement_name.unwrap_or_default());
        let statement = self.statement(&name)?.clone();
        let types = statement.prepared.as_ref().map_or(&[][..], |p| p.parameters());
        let zone = statement.prepared.as_ref().map_or(Zone::UTC, |p| p.zone());
        if bind.parameters.len() != types.len() {
            let (given, wanted) = (bind.parameters.len(), types.len());
            let message = format!(
                "bind message supplies {given} parameters, but prepared statement \"{name}\" requires {wanted}"
            );
            return Err(violation(message).into());
        }
        let formats = Format::each(&bind.parameter_format_codes, types.len()).ok_or_else(|| {
            let (codes, parameters) = (bind.parameter_format_codes.len(), types.len());
            violation(format!("bind message has {codes} parameter formats but {parameters} parameters"))
        })?;
        let mut parameters = Vec::with_capacity(types.len());
        for (i, ((bytes, ty), format)) in bind.parameters.iter().zip(types).zip(formats).enumerate() {
            let value = parameter(bytes.as_ref(), ty, format, zone).map_err(|error| {
                let place = match name.as_str() {
                    "" => format!("unnamed portal parameter ${}", i + 1),
                    _ => format!("portal \"{portal}\" parameter ${}", i + 1),
                };
                Failure { error, context: Some(place) }
            })?;
            parameters.push(value);
        }
        let columns = statement.prepared.as_ref().and_then(|p| p.columns()).map_or(0, <[_]>::len);
        let formats = Format::each(&bind.result_column_format_codes, columns);
        let formats = match formats {
            Some(formats) => formats,
            // A client need not know that the statement returns nothing.
            None if columns == 0 => Vec::new(),
            None => {
                let codes = bind.result_column_format_codes.len();
                let message =
                    format!("bind message has {codes} result formats but query has {columns} columns");
                return Err(violation(message).into());
            }
        };
        if !portal.is_empty() && self.portals.contains_key(&portal) {
            let message = format!("cursor \"{portal}\" already exists");
            return Err(SqlError::new(SqlState::DUPLICATE_CURSOR, message).into());
        }
        self.portals.insert(portal, Portal { statement, parameters, formats, state: State::Bound });
        self.send(Backend::BindComplete(BindComplete::new()));
        Ok(())
    }

    pub fn describe(&mut self, describe: &Describe) -> Result<(), Stop> {
        let name = describe.name.as_deref().unwrap_or("");
        // A cursor of DECLARE is a portal too; its rows come by FETCH.
        if describe.target_type == b'P'
            && !self.portals.contains_key(name)
            && let Some(columns) = self.session.cursor_columns(name)
        {
            let described = description(columns, &vec![Format::Text; columns.len()]);
            self.send(described);
            return Ok(());
        }
        let (prepared, formats) = if is_portal(describe.target_type)? {
            let portal = self.portals.get(name).ok_or_else(|| no_portal(name))?;
            (portal.statement.prepared.clone(), portal.formats.clone())
        } else {
            let prepared = self.statement(name)?.prepared.clone();
            let types =
                prepared.as_ref().map_or(Vec::new(), |p| p.parameters().iter().map(SqlType::oid).collect());
            self.send(Backend::ParameterDescription(ParameterDescription::new(types)));
            let columns = prepared.as_ref().and_then(|p| p.columns()).map_or(0, <[_]>::len);
            (prepared, vec![Format::Text; columns])
        };
        match prepared.as_ref().and_then(|p| p.columns()) {
            Some(columns) => self.send(description(columns, &formats)),
            None => self.send(Backend::NoData(NoData::new())),
        }
        Ok(())
    }

    pub fn close(&mut self, close: &Close) {
        let name = close.name.as_deref().unwrap_or("");
        // To close what does not exist is no error.
        match close.target_type {
            b'P' => drop(self.portals.remove(name)),
            _ => drop(self.statements.remove(name)),
        }
        self.send(Backend::CloseComplete(CloseComplete::new()));
    }

    pub async fn execute(&mut self, execute: &Execute) -> Result<(), Stop> {
        let name = execute.name.clone().unwrap_or_default();
        // Taken out while it runs: an error leaves no portal behind.
        let mut portal = self.portals.remove(&name).ok_or_else(|| no_portal(&name))?;
        let limit = u64::try_from(execute.max_rows).unwrap_or(0);
        if matches!(portal.state, State::Bound) {
            match self.start(&mut portal).await? {
                Started::Rows(rows) => portal.state = State::Running(Box::new(rows)),
                Started::Complete(tag) => {
                    portal.state = State::Done;
                    self.complete(tag);
                    self.portals.insert(name, portal);
                    return Ok(());
                }
            }
        }
        match &mut portal.state {
            State::Running(rows) => match rows.send(&mut self.socket, &self.cancel, limit).await? {
                Progress::Suspended => self.send(Backend::PortalSuspended(PortalSuspended::new())),
                Progress::Done(tag) => {
                    portal.state = State::Done;
                    self.complete(Some(tag));
                }
            },
            State::Done if portal.statement.prepared.as_ref().is_some_and(|p| p.columns().is_some()) => {
                self.complete(Some("SELECT 0".to_owned()));
            }
            _ => {
                let message = format!("portal \"{name}\" cannot be run anymore");
                return Err(SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message).into());
            }
        }
        self.portals.insert(name, portal);
        Ok(())
    }

    async fn start(&mut self, portal: &mut Portal) -> Result<Started, Stop> {
        let Some(prepared) = &portal.statement.prepared else {
            return Ok(Started::Complete(None));
        };
        if let Some(name) = &portal.statement.deallocates
            && self.statements.remove(name).is_some()
        {
            return Ok(Started::Complete(Some("DEALLOCATE".to_owned())));
        }
        // All statements up to Sync are one transaction. With a single one, which is the rule, there is nothing to join.
        if !self.implicit && !self.socket.next_is(b'S') {
            self.session.begin_implicit();
            self.implicit = true;
        }
        let work = self.session.execute(prepared, &portal.parameters);
        let outcome = self.socket.watch(&self.cancel, work).await??;
        self.send_beside();
        Ok(match outcome {
            Outcome::Rows { columns, stream, tag } => {
                let formats = portal.formats.clone();
                if formats.len() != columns.len() {
                    // Planned again after a change of the catalog, and with another result.
                    let message = "cached plan must not change result type";
                    return Err(SqlError::unsupported(message).hint("Prepare the statement again.").into());
                }
                Started::Rows(Rows::new(columns, formats, stream, tag))
            }
            Outcome::Command { tag } => Started::Complete(Some(tag)),
            Outcome::CopyIn(copy_in) => {
                Started::Complete(Some(copy::receive(&mut self.socket, &self.cancel, *copy_in).await?))
            }
            Outcome::CopyOut { columns, stream, format } => Started::Complete(Some(
                copy::send(&mut self.socket, &self.cancel, &columns, stream, &format).await?,
            )),
            Outcome::Empty => Started::Complete(None),
        })
    }
}

enum Started {
    Rows(Rows),
    /// Nothing more to send but the command tag.
    Complete(Option<String>),
}

fn no_portal(name: &str) -> SqlError {
    SqlError::new(SqlState::INVALID_CURSOR_NAME, format!("portal \"{name}\" does not exist"))
}
