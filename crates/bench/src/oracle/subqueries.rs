//! The grammar of subqueries that name the row around them: LATERAL, and values and conditions anywhere.

use rand::Rng;

use super::grammar::Side;
use super::{Kind, World};

type Columns = Vec<(&'static str, Kind)>;

impl World {
    /// What the rows of `b` say of each row of `a`.
    pub(super) fn correlated(&mut self, a: &Side, b: &Side) -> (String, Columns) {
        match self.rng.random_range(0..8) {
            0..3 => self.lateral(a, b),
            3 => self.lateral_of_lateral(a, b),
            4 => self.subquery_value(a, b),
            5 => self.subquery_condition(a, b),
            6 => self.single_value(a, b),
            _ => self.subquery_in_on(a, b),
        }
    }

    /// How the subquery names the row: by an equality, which a column of its own can stand for, or by anything.
    fn naming(&mut self, a: &Side, b: &Side) -> String {
        let (x, y) = (self.of(a, Kind::Number), self.of(b, Kind::Number));
        match self.rng.random_range(0..7) {
            0..3 => format!("{y} = {x}"),
            3 => {
                let (v, w) = (self.of(a, Kind::Number), self.of(b, Kind::Number));
                format!("{y} = {x} AND {w} <= {v}")
            }
            4 => {
                self.drew("named by what is not distinct");
                format!("{y} IS NOT DISTINCT FROM {x}")
            }
            5 => {
                self.drew("named by an order");
                format!("{y} < {x}")
            }
            _ => {
                self.drew("named by an expression");
                format!("{y} % 3 = {x} % 3")
            }
        }
    }

    fn lateral(&mut self, a: &Side, b: &Side) -> (String, Columns) {
        use Kind::Number;
        let named = self.naming(a, b);
        let (value, key) = (self.of(b, Number), self.of_any(b).0);
        let n = self.rng.random_range(1..4);
        let of = &b.relation;
        let (rule, inside) = match self.rng.random_range(0..8) {
            0 | 1 => {
                let order = ["", " DESC", " DESC NULLS LAST"][self.rng.random_range(0..3)];
                let offset = ["", "", " OFFSET 1"][self.rng.random_range(0..3)];
                let rest = format!("ORDER BY 1{order} LIMIT {n}{offset}");
                (
                    "lateral limit",
                    format!("SELECT cast({value} AS bigint) AS n FROM {of} WHERE {named} {rest}"),
                )
            }
            2 => {
                let function = ["count", "sum", "max"][self.rng.random_range(0..3)];
                let having = ["", " HAVING count(*) > 1"][self.rng.random_range(0..2)];
                let call = format!("cast({function}({value}) AS bigint)");
                ("lateral aggregate", format!("SELECT {call} AS n FROM {of} WHERE {named}{having}"))
            }
            3 => ("lateral group by", format!("SELECT count(*) AS n FROM {of} WHERE {named} GROUP BY {key}")),
            4 => (
                "lateral distinct",
                format!("SELECT DISTINCT cast({value} AS bigint) AS n FROM {of} WHERE {named}"),
            ),
            5 => {
                let outside = self.of(a, Number);
                let operator = ["UNION ALL", "UNION", "EXCEPT", "INTERSECT ALL"][self.rng.random_range(0..4)];
                let first = format!("SELECT cast({value} AS bigint) AS n FROM {of} WHERE {named}");
                ("lateral set operation", format!("{first} {operator} SELECT cast({outside} AS bigint)"))
            }
            6 => {
                let call = format!("row_number() OVER (ORDER BY {value})");
                ("lateral window", format!("SELECT cast({call} AS bigint) AS n FROM {of} WHERE {named}"))
            }
            _ => {
                let outside = self.of(a, Number);
                let computed = format!("cast({outside} AS bigint) + cast({value} AS bigint)");
                ("lateral rows", format!("SELECT {computed} AS n FROM {of} WHERE {named}"))
            }
        };
        self.drew(rule);
        let (k, kind) = self.of_any(a);
        let join = match self.rng.random_range(0..4) {
            0 => format!("LEFT JOIN LATERAL ({inside}) AS l ON true"),
            1 => format!("LEFT JOIN LATERAL ({inside}) AS l ON l.n > 2"),
            2 => format!("JOIN LATERAL ({inside}) AS l ON l.n < 9"),
            _ => format!("CROSS JOIN LATERAL ({inside}) AS l"),
        };
        (format!("SELECT {k} AS k, l.n FROM {} {join}", a.relation), vec![("k", kind), ("n", Number)])
    }

    fn lateral_of_lateral(&mut self, a: &Side, b: &Side) -> (String, Columns) {
        use Kind::Number;
        self.drew("lateral in lateral");
        let c = self.side("c");
        let (outer, inner) = (self.naming(a, b), self.naming(b, &c));
        let (x, z) = (self.of(a, Number), self.of(&c, Number));
        let further = ["", " AND 1 = 1"][self.rng.random_range(0..2)];
        let further = if further.is_empty() { format!(" AND {z} <= {x}") } else { further.to_owned() };
        let innermost = format!(
            "SELECT cast({z} AS bigint) AS n FROM {} WHERE {inner}{further} ORDER BY 1 LIMIT 1",
            c.relation
        );
        let inside = match self.rng.random_bool(0.5) {
            true => format!("SELECT m.n FROM {}, LATERAL ({innermost}) AS m WHERE {outer}", b.relation),
            false => format!("SELECT max(({innermost})) AS n FROM {} WHERE {outer}", b.relation),
        };
        let (k, kind) = self.of_any(a);
        let query = format!("SELECT {k} AS k, l.n FROM {}, LATERAL ({inside}) AS l", a.relation);
        (query, vec![("k", kind), ("n", Number)])
    }

    /// A condition that asks a subquery, with NULL as a third answer.
    fn asking(&mut self, a: &Side, b: &Side) -> String {
        use Kind::Number;
        let (x, y) = (self.of(a, Number), self.of(b, Number));
        let filter = match self.rng.random_range(0..3) {
            0 => String::new(),
            1 => format!(" WHERE {y} > 2"),
            _ => format!(" WHERE {}", self.naming(a, b)),
        };
        let of = format!("FROM {}{filter}", b.relation);
        let (rule, text) = match self.rng.random_range(0..6) {
            0 => ("in as a value", format!("{x} IN (SELECT {y} {of})")),
            1 => ("not in as a value", format!("{x} NOT IN (SELECT {y} {of})")),
            2 => ("any", format!("{x} > ANY (SELECT {y} {of})")),
            3 => ("all", format!("{x} <= ALL (SELECT {y} {of})")),
            4 => {
                let (v, w) = (self.of(a, Number), self.of(b, Number));
                ("row in", format!("({x}, {v}) IN (SELECT {y}, {w} {of})"))
            }
            _ => ("exists as a value", format!("EXISTS (SELECT 1 {of})")),
        };
        self.drew(rule);
        text
    }

    fn subquery_value(&mut self, a: &Side, b: &Side) -> (String, Columns) {
        let asked = self.asking(a, b);
        let (k, kind) = self.of_any(a);
        let query = format!(
            "SELECT {k} AS k, CASE {asked} WHEN true THEN 1 WHEN false THEN 2 ELSE 3 END AS n FROM {}",
            a.relation
        );
        (query, vec![("k", kind), ("n", Kind::Number)])
    }

    fn subquery_condition(&mut self, a: &Side, b: &Side) -> (String, Columns) {
        let (asked, number) = (self.asking(a, b), self.of(a, Kind::Number));
        let condition = match self.rng.random_range(0..4) {
            0 => asked,
            1 => format!("NOT ({asked})"),
            2 => format!("({asked}) IS NULL"),
            _ => format!("{number} = 3 OR {asked}"),
        };
        (format!("SELECT a.* FROM {} WHERE {condition}", a.relation), a.columns.clone())
    }

    fn single_value(&mut self, a: &Side, b: &Side) -> (String, Columns) {
        use Kind::Number;
        self.drew("value of one row");
        let named = self.naming(a, b);
        let value = self.of(b, Number);
        let of = format!("FROM {} WHERE {named}", b.relation);
        let subquery = match self.rng.random_range(0..3) {
            0 => format!("SELECT cast({value} AS bigint) {of} ORDER BY 1 DESC LIMIT 1"),
            1 => format!("SELECT cast(sum({value}) AS bigint) + count(*) {of}"),
            _ => format!("SELECT array_length(ARRAY(SELECT {value} {of}), 1)"),
        };
        let (k, kind) = self.of_any(a);
        let query = format!("SELECT {k} AS k, ({subquery}) AS n FROM {}", a.relation);
        (query, vec![("k", kind), ("n", Number)])
    }

    fn subquery_in_on(&mut self, a: &Side, b: &Side) -> (String, Columns) {
        use Kind::Number;
        self.drew("subquery in ON");
        let c = self.side("c");
        let key = format!("{} = {}", self.of(a, Number), self.of(b, Number));
        let asked = match self.rng.random_range(0..3) {
            0 => self.asking(a, &c),
            1 => self.asking(b, &c),
            _ => {
                let (of_a, of_b) = (self.naming(a, &c), self.naming(b, &c));
                format!("EXISTS (SELECT 1 FROM {} WHERE {of_a} AND {of_b})", c.relation)
            }
        };
        let kind = ["JOIN", "LEFT JOIN", "RIGHT JOIN"][self.rng.random_range(0..3)];
        let (k, n) = (self.of_any(a), self.of(b, Number));
        let query = format!(
            "SELECT {} AS k, {n} AS n FROM {} {kind} {} ON {key} AND {asked}",
            k.0, a.relation, b.relation
        );
        (query, vec![("k", k.1), ("n", Number)])
    }
}
