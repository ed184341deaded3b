//! Random changes of tables, as statements.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::Session;
use super::suite::{Definitions, Table};

/// Values of a column that changes take from, at most.
const VALUES_MAX: usize = 40;

struct Column {
    name: String,
    ty: String,
    /// Some that were there at first, as literals.
    values: Vec<String>,
}

impl Column {
    fn is_integer(&self) -> bool {
        matches!(self.ty.as_str(), "integer" | "bigint" | "smallint")
    }
}

struct Relation {
    name: String,
    key: Vec<String>,
    columns: Vec<Column>,
    rows: i64,
}

pub(super) struct Changes {
    random: StdRng,
    relations: Vec<Relation>,
}

impl Changes {
    pub(super) async fn new(
        seed: u64,
        definitions: &Definitions,
        session: &mut Session,
    ) -> Result<Self, String> {
        let mut relations = Vec::new();
        for table in &definitions.tables {
            relations.push(Relation::of(table, session).await?);
        }
        Ok(Self { random: StdRng::seed_from_u64(seed), relations })
    }

    /// A statement, or several in a transaction.
    pub(super) fn next(&mut self) -> String {
        let random = &mut self.random;
        // Large tables more often.
        let weight = |relation: &Relation| 20 + relation.rows.min(1000);
        let relation = self.relations.choose_weighted(random, weight).expect("there are tables");
        match random.random_range(0..10) {
            0..2 => relation.delete(random),
            2..5 => relation.update(random),
            5..8 => relation.insert(random),
            8 if !relation.key.is_empty() => relation.move_keys(random),
            _ => {
                let parts = [relation.delete(random), relation.insert(random), relation.update(random)];
                format!("BEGIN; {}; COMMIT", parts.join("; "))
            }
        }
    }
}

impl Relation {
    async fn of(table: &Table, session: &mut Session) -> Result<Self, String> {
        let name = table.name.clone();
        let sql = format!(
            "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = '{name}' ORDER BY ordinal_position"
        );
        let mut columns = Vec::new();
        for row in session.rows(&sql).await? {
            let [column, ty] = &row[..] else { return Err(format!("{name} has no columns")) };
            let sql = format!(
                "SELECT DISTINCT {column} FROM {name} WHERE {column} IS NOT NULL ORDER BY 1 LIMIT {VALUES_MAX}"
            );
            let literal = |value: String| format!("'{}'::{ty}", value.replace('\'', "''"));
            let values = session.rows(&sql).await?.into_iter().map(|mut row| literal(row.remove(0)));
            columns.push(Column { name: column.clone(), ty: ty.clone(), values: values.collect() });
        }
        let rows = session.count(&name).await?;
        Ok(Self { name, key: table.key.clone(), columns, rows })
    }

    /// One row of so many, of about so many rows.
    fn some(&self, rows: i64, random: &mut StdRng) -> String {
        let integers: Vec<&Column> = self.columns.iter().filter(|column| column.is_integer()).collect();
        let column = integers.choose(random).expect("every table has an integer");
        let share = (self.rows / rows.max(1)).clamp(2, 500);
        format!("{} % {share} = {}", column.name, random.random_range(0..share))
    }

    fn delete(&self, random: &mut StdRng) -> String {
        format!("DELETE FROM {} WHERE {}", self.name, self.some(30, random))
    }

    fn update(&self, random: &mut StdRng) -> String {
        let plain: Vec<&Column> =
            self.columns.iter().filter(|column| !self.key.contains(&column.name)).collect();
        let set: Vec<String> = plain
            .choose_multiple(random, 2)
            .map(|column| {
                let value = match random.random_range(0..20) {
                    0 => "NULL".to_owned(),
                    1..5 if column.is_integer() => format!("{} + 1", column.name),
                    _ => column.values.choose(random).cloned().unwrap_or_else(|| "NULL".to_owned()),
                };
                format!("{} = {value}", column.name)
            })
            .collect();
        format!("UPDATE {} SET {} WHERE {}", self.name, set.join(", "), self.some(60, random))
    }

    /// Rows that are there, again: with other keys, where they have some.
    fn insert(&self, random: &mut StdRng) -> String {
        let shift = random.random_range(1..2000);
        let moved = self.key.last();
        let columns = self.columns.iter().map(|column| match moved {
            Some(key) if *key == column.name => format!("{key} + {shift}"),
            _ => column.name.clone(),
        });
        let columns: Vec<String> = columns.collect();
        let conflict = match random.random_range(0..3) {
            _ if self.key.is_empty() => String::new(),
            0 => {
                let plain: Vec<&Column> =
                    self.columns.iter().filter(|column| !self.key.contains(&column.name)).collect();
                let column = &plain.choose(random).expect("a table is more than its key").name;
                format!(" ON CONFLICT ({}) DO UPDATE SET {column} = excluded.{column}", self.key.join(", "))
            }
            _ => " ON CONFLICT DO NOTHING".to_owned(),
        };
        let (name, some) = (&self.name, self.some(50, random));
        format!("INSERT INTO {name} SELECT {} FROM {name} WHERE {some}{conflict}", columns.join(", "))
    }

    fn move_keys(&self, random: &mut StdRng) -> String {
        let key = self.key.last().expect("the caller has looked");
        let shift = random.random_range(1..3000);
        format!("UPDATE {} SET {key} = {key} + {shift} WHERE {}", self.name, self.some(20, random))
    }
}
