//! Subqueries that name the row around them, as LATERAL, values and conditions: what PostgreSQL answers is unambiguous.

use super::grammar::{Grammar, Query};

impl Grammar {
    pub(super) fn correlated(&mut self) -> Query {
        let named = self.one(&[
            "u.i = t.i",
            "u.x = t.x",
            "u.i = t.i AND u.n <= t.n",
            "u.n < t.n",
            "u.d > t.d",
            "u.i IS NOT DISTINCT FROM t.i",
            "u.i % 3 = t.i % 3 AND u.o",
            "(u.o OR u.x = t.y)",
        ]);
        let order = self.one(&[
            "ORDER BY u.n, u.id",
            "ORDER BY u.x DESC, u.id DESC",
            "ORDER BY u.ts NULLS FIRST, u.id",
        ]);
        let limit = self.one(&["LIMIT 1", "LIMIT 2", "LIMIT 2 OFFSET 1", "LIMIT 0", "OFFSET 1"]);
        let join = self.one(&[
            ", LATERAL {} l",
            " CROSS JOIN LATERAL {} l",
            " LEFT JOIN LATERAL {} l ON true",
            " LEFT JOIN LATERAL {} l ON t.id > 2",
        ]);
        let (rule, sql) = match self.draw(0..12) {
            0 | 1 => (
                "LATERAL with LIMIT",
                format!("SELECT u.id AS uid, u.x FROM u WHERE {named} {order} {limit}"),
            ),
            2 => (
                "LATERAL with aggregates",
                format!(
                    "SELECT count(*) AS c, sum(u.i) AS s, max(u.x) AS m, string_agg(u.x, ',' ORDER BY u.id) AS g FROM u WHERE {named}"
                ),
            ),
            3 => (
                "LATERAL with GROUP BY",
                format!(
                    "SELECT u.o, count(*) AS c, avg(u.n) AS a FROM u WHERE {named} GROUP BY u.o HAVING count(*) > t.id % 2"
                ),
            ),
            4 => {
                let set = self.one(&["UNION ALL", "UNION", "EXCEPT", "EXCEPT ALL", "INTERSECT"]);
                (
                    "LATERAL with a set operation",
                    format!("SELECT u.i AS c FROM u WHERE {named} {set} SELECT t.i"),
                )
            }
            5 => ("LATERAL with DISTINCT", format!("SELECT DISTINCT u.o, u.i % 4 AS m FROM u WHERE {named}")),
            6 => {
                let inner = format!("SELECT u.id AS uid, u.i AS k FROM u WHERE {named} {order} LIMIT 3");
                (
                    "LATERAL in LATERAL",
                    format!(
                        "SELECT q.uid, m.c FROM ({inner}) q, LATERAL (SELECT count(*) AS c FROM u AS w WHERE w.i = q.k AND w.id <> t.id) m"
                    ),
                )
            }
            7 => return self.subquery_value(named, order),
            8 => return self.condition(named),
            9 => return self.in_on(named),
            _ => (
                "LATERAL with OVER",
                format!(
                    "SELECT u.id AS uid, rank() OVER (ORDER BY u.n) AS r, t.i AS ti FROM u WHERE {named}"
                ),
            ),
        };
        let sql = format!("SELECT t.id, l.* FROM t{}", join.replace("{}", &format!("({sql})")));
        self.made(rule, sql)
    }

    fn made(&mut self, rule: &'static str, sql: String) -> Query {
        self.note(rule);
        Query { sql, ordered_by: 0, viewable: self.draw(0..3) > 0 }
    }

    fn subquery_value(&mut self, named: &str, order: &str) -> Query {
        let value = match self.draw(0..8) {
            0 => format!("(SELECT u.x FROM u WHERE {named} {order} LIMIT 1)"),
            1 => format!("(SELECT count(*) FROM u WHERE {named})"),
            2 => format!("(SELECT avg(u.n) FROM u WHERE {named})"),
            3 => format!("ARRAY(SELECT u.i FROM u WHERE {named} {order})"),
            4 => "(SELECT u.x FROM u WHERE u.id = t.id)".to_owned(),
            5 => format!("CASE WHEN t.o THEN (SELECT max(u.x) FROM u WHERE {named}) ELSE 'none' END"),
            6 => format!("(SELECT max(q.c) FROM (SELECT count(*) AS c FROM u WHERE {named} GROUP BY u.o) q)"),
            _ => "(SELECT u.x FROM u WHERE u.i = t.i)".to_owned(),
        };
        let sql = match self.draw(0..5) {
            0 => format!("SELECT {value} AS v, count(*) AS c FROM t GROUP BY 1")
                .replace("ARRAY(SELECT u.i", "ARRAY(SELECT u.id"),
            1 => format!("SELECT t.id FROM t WHERE {value} IS NOT NULL"),
            _ => format!("SELECT t.id, {value} AS v FROM t"),
        };
        self.made("subquery as a value", sql)
    }

    fn asking(&mut self, named: &str) -> String {
        let (column, op) = (self.one(&["i", "x", "n", "d"]), self.one(&["=", "<>", "<", ">="]));
        match self.draw(0..7) {
            0 => format!("t.{column} IN (SELECT u.{column} FROM u WHERE {named})"),
            1 => format!("t.{column} NOT IN (SELECT u.{column} FROM u)"),
            2 => format!("t.{column} {op} ANY (SELECT u.{column} FROM u WHERE {named})"),
            3 => format!("t.{column} {op} ALL (SELECT u.{column} FROM u WHERE u.id > 2)"),
            4 => format!("(t.i, t.{column}) IN (SELECT u.i, u.{column} FROM u)"),
            5 => format!("(t.i, t.o) NOT IN (SELECT u.i, u.o FROM u WHERE {named})"),
            _ => format!("EXISTS (SELECT 1 FROM u WHERE {named} AND u.{column} {op} t.{column})"),
        }
    }

    fn condition(&mut self, named: &str) -> Query {
        let (a, b) = (self.asking(named), self.asking("u.y = t.y"));
        let sql = match self.draw(0..6) {
            0 => format!("SELECT t.id FROM t WHERE {a}"),
            1 => format!("SELECT t.id FROM t WHERE {a} OR NOT {b}"),
            2 => format!("SELECT t.id FROM t WHERE NOT ({a}) AND ({b}) IS NOT TRUE"),
            3 => format!("SELECT count(*) FILTER (WHERE {a}) AS f, count(*) AS c FROM t"),
            _ => format!("SELECT t.id, {a} AS p, CASE WHEN {b} THEN 1 ELSE 0 END AS q FROM t"),
        };
        self.made("subquery as a condition", sql)
    }

    fn in_on(&mut self, named: &str) -> Query {
        let kind = self.one(&["JOIN", "LEFT JOIN", "RIGHT JOIN"]);
        let condition = self.one(&[
            "EXISTS (SELECT 1 FROM u AS w WHERE w.i = t.i AND w.id < u.id)",
            "t.i IN (SELECT w.i FROM u AS w)",
            "u.x = ANY (SELECT w.y FROM t AS w)",
            "t.n > (SELECT avg(w.n) FROM u AS w WHERE w.o = u.o)",
        ]);
        let sql = format!("SELECT t.id AS tid, u.id AS uid FROM t {kind} u ON {named} AND {condition}");
        self.made("subquery in ON", sql)
    }
}
