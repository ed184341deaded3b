//! Which tables and views there are.

use std::time::{Duration, Instant};

use super::Session;
use crate::file::sql_tests;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    TpcH,
    Nexmark,
}

pub(super) struct Table {
    pub(super) name: String,
    /// Columns of the primary key; none where rows have no key of their own.
    pub(super) key: Vec<String>,
}

pub(super) struct Definitions {
    /// Statements that make the tables and fill them.
    tables_sql: Vec<String>,
    views_sql: Vec<String>,
    /// Streams that come from a generator, by the name of the table that takes their rows; and all of their rows.
    streams: Vec<String>,
    stream_rows: i64,
    pub(super) tables: Vec<Table>,
    pub(super) views: Vec<String>,
}

/// A generator that has not given its rows by then is stuck.
const STREAM_SECONDS_MAX: u64 = 120;

impl Suite {
    pub const ALL: [Self; 2] = [Self::TpcH, Self::Nexmark];

    fn folder(self) -> &'static str {
        match self {
            Self::TpcH => "tpch",
            Self::Nexmark => "nexmark",
        }
    }

    /// What the suite's file makes, before it changes anything.
    ///
    /// # Errors
    /// If the file is not there.
    pub(super) fn definitions(self) -> Result<Definitions, String> {
        let path = sql_tests().join(self.folder()).join("queries.slt");
        let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let mut made = Definitions {
            tables_sql: Vec::new(),
            views_sql: Vec::new(),
            streams: Vec::new(),
            stream_rows: 0,
            tables: Vec::new(),
            views: Vec::new(),
        };
        for record in text.split("\n\n").filter_map(statement) {
            let words: Vec<&str> = record.split_whitespace().collect();
            match words[..] {
                ["CREATE", "SOURCE", name, ..] => made.stream(name, record),
                ["CREATE", "TABLE", name, ..] => {
                    made.tables.push(Table { name: name.to_owned(), key: key(record) });
                    made.tables_sql.push(record.to_owned());
                }
                ["CREATE", "VIEW", ..] => made.views_sql.push(record.to_owned()),
                // The time at which a row was appended: only streams have it.
                ["CREATE", "MATERIALIZED", "VIEW", ..] if record.contains("PROCTIME()") => {}
                ["CREATE", "MATERIALIZED", "VIEW", name, ..] => {
                    made.views.push(name.to_owned());
                    made.views_sql.push(record.to_owned());
                }
                ["INSERT", ..] => made.tables_sql.push(record.to_owned()),
                _ => break,
            }
        }
        Ok(made)
    }
}

/// The text of a record that is expected to succeed.
fn statement(record: &str) -> Option<&str> {
    let (_, sql) = record.split_once("statement ok\n")?;
    Some(sql.trim())
}

/// `x int PRIMARY KEY`, or `PRIMARY KEY (a, b)`.
fn key(definition: &str) -> Vec<String> {
    let Some((before, after)) = definition.split_once("PRIMARY KEY") else { return Vec::new() };
    match after.trim_start().strip_prefix('(') {
        Some(list) => {
            let list = list.split(')').next().unwrap_or_default();
            list.split(',').map(|name| name.trim().to_owned()).collect()
        }
        None => {
            let column = before.rsplit([',', '(']).next().unwrap_or_default();
            column.split_whitespace().take(1).map(str::to_owned).collect()
        }
    }
}

impl Definitions {
    /// The stream under another name, and a table of its rows.
    fn stream(&mut self, name: &str, definition: &str) {
        let renamed = definition.replacen(name, &format!("{name}_events"), 1);
        let rows =
            definition.rsplit("events = ").next().and_then(|rest| rest.trim_end_matches(')').parse().ok());
        self.stream_rows = rows.unwrap_or(self.stream_rows);
        self.tables_sql.push(renamed);
        self.streams.push(name.to_owned());
        self.tables.push(Table { name: name.to_owned(), key: Vec::new() });
    }

    /// Tables, then views, over what is there already: they are filled by their history first.
    pub(super) async fn build(&self, session: &mut Session) -> Result<(), String> {
        for sql in &self.tables_sql {
            session.rows(sql).await?;
        }
        let begun = Instant::now();
        loop {
            let mut rows = 0;
            for stream in &self.streams {
                rows += session.count(&format!("{stream}_events")).await?;
            }
            if rows >= self.stream_rows {
                break;
            }
            if begun.elapsed() > Duration::from_secs(STREAM_SECONDS_MAX) {
                return Err(format!("{rows} of {} rows came", self.stream_rows));
            }
        }
        for stream in &self.streams {
            let columns = format!(
                "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = '{stream}_events' ORDER BY ordinal_position"
            );
            let columns: Vec<String> =
                session.rows(&columns).await?.iter().map(|column| column.join(" ")).collect();
            session.rows(&format!("CREATE TABLE {stream} ({})", columns.join(", "))).await?;
            session.rows(&format!("INSERT INTO {stream} SELECT * FROM {stream}_events")).await?;
        }
        for sql in &self.views_sql {
            session.rows(sql).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_from_definitions() {
        assert_eq!(key("CREATE TABLE t (a int PRIMARY KEY, b text)"), ["a"]);
        assert_eq!(key("CREATE TABLE t (a int, b int, c text, PRIMARY KEY (a, b))"), ["a", "b"]);
        assert!(key("CREATE TABLE t (a int)").is_empty());
    }

    #[test]
    fn both_suites_have_their_queries() {
        let tpch = Suite::TpcH.definitions().unwrap();
        assert_eq!((tpch.tables.len(), tpch.views.len()), (8, 22));
        let nexmark = Suite::Nexmark.definitions().unwrap();
        assert_eq!((nexmark.tables.len(), nexmark.views.len(), nexmark.stream_rows), (4, 22, 1500));
    }
}
