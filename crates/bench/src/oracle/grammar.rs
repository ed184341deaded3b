//! The grammar: random queries over what is there, each with its columns.

use rand::Rng;

use super::{Kind, World};

/// One side of a join.
pub(super) struct Side {
    pub(super) relation: String,
    pub(super) alias: &'static str,
    pub(super) columns: Vec<(&'static str, Kind)>,
}

impl World {
    /// A relation to read: name, columns, whether TUMBLE may stand on it.
    fn relation(&mut self) -> (String, Vec<(&'static str, Kind)>, bool) {
        use Kind::{Number, Text, Time};
        if self.nested < 2 && self.rng.random_bool(0.15) {
            self.drew("subquery in FROM");
            self.nested += 1;
            let (query, columns, _) = self.query();
            self.nested -= 1;
            return (format!("({query}) AS q"), columns, false);
        }
        let choice = self.rng.random_range(0..3 + self.views.len());
        let added = |table: usize| self.added[table].iter().map(|(name, _)| (*name, Number));
        match choice {
            0 => {
                let columns = [("k", Number), ("v", Number), ("p", Number), ("x", Text), ("ts", Time)];
                ("s".into(), columns.into_iter().chain(added(0)).collect(), true)
            }
            1 => {
                let columns = [("id", Number), ("k", Number), ("v", Number), ("x", Text)];
                ("t".into(), columns.into_iter().chain(added(1)).collect(), false)
            }
            2 => ("u".into(), vec![("k", Number), ("v", Number)], false),
            n => {
                self.drew("view on a view");
                let view = self.views[n - 3].clone();
                (view.name, view.columns, view.windowed)
            }
        }
    }

    pub(super) fn query(&mut self) -> (String, Vec<(&'static str, Kind)>, bool) {
        use Kind::Number;
        if self.rng.random_bool(0.45) {
            let (query, columns) = self.join_query();
            return (query, columns, false);
        }
        let (name, columns, windowed) = self.relation();
        let filter = self.filter(&columns);
        // Few relations have a time, and many rules are about it.
        let timed = columns.iter().any(|c| c.1 == Kind::Time) && self.rng.random_bool(0.4);
        if timed && self.rng.random_bool(0.25) {
            return (self.recent(&name, &columns), columns, false);
        }
        if self.rng.random_bool(0.12) {
            return self.expanded(&name, &columns, &filter, windowed);
        }
        let rule = if timed { [4, 4, 9][self.rng.random_range(0..3)] } else { self.rng.random_range(0..10) };
        match rule {
            9 if columns.iter().any(|c| c.1 == Kind::Time) => self.session(&name, &columns, &filter),
            6 => self.top_n(&name, &columns, &filter),
            7 => self.over(&name, &columns, &filter),
            8 => self.set_operation(&name, &columns, &filter),
            0 => {
                self.drew("filter");
                (format!("SELECT * FROM {name}{filter}"), columns, windowed)
            }
            1 => {
                self.drew("projection");
                let number = self.column(&columns, Number);
                let query = format!(
                    "SELECT {number} + 1 AS k, {number} * 2 - 3 AS v, CASE WHEN {number} > 10 THEN 'a' ELSE 'b' END AS x FROM {name}{filter}"
                );
                (query, vec![("k", Number), ("v", Number), ("x", Kind::Text)], false)
            }
            2 => {
                self.drew("distinct");
                let column = self.any(&columns);
                (
                    format!("SELECT DISTINCT {} AS k FROM {name}{filter}", column.0),
                    vec![("k", column.1)],
                    false,
                )
            }
            3 => {
                self.drew("global aggregate");
                let aggregates = self.aggregates(&columns);
                (
                    format!("SELECT {aggregates} FROM {name}{filter}"),
                    vec![("n", Number), ("v", Number)],
                    false,
                )
            }
            4 if windowed && columns.iter().any(|c| c.1 == Kind::Time) => {
                let time = self.column(&columns, Kind::Time);
                let (tvf, rule) = match self.rng.random_range(0..4) {
                    3 => (
                        format!("CUMULATE({name}, {time}, INTERVAL '2 seconds', INTERVAL '8 seconds')"),
                        "cumulate",
                    ),
                    0 => (format!("HOP({name}, {time}, INTERVAL '2 seconds', INTERVAL '6 seconds')"), "hop"),
                    1 => (
                        format!("HOP({name}, {time}, INTERVAL '4 seconds', INTERVAL '10 seconds')"),
                        "hop across slices",
                    ),
                    _ => (format!("TUMBLE({name}, {time}, INTERVAL '7 seconds')"), "tumble"),
                };
                self.drew(rule);
                let number = self.column(&columns, Number);
                let aggregates = self.aggregates(&columns);
                let query = if self.rng.random_bool(0.5) {
                    format!(
                        "SELECT window_start AS ts, {number} AS k, {aggregates} FROM {tvf}{filter} GROUP BY window_start, {number}"
                    )
                } else {
                    format!(
                        "SELECT window_end AS ts, 1 AS k, {aggregates} FROM {tvf}{filter} GROUP BY window_end"
                    )
                };
                (query, vec![("ts", Kind::Time), ("k", Number), ("n", Number), ("v", Number)], false)
            }
            5 if self.rng.random_bool(0.3) => {
                self.drew("grouping sets");
                let (a, b) = (self.any(&columns), self.any(&columns));
                let aggregates = self.aggregates(&columns);
                let sets = [
                    format!("ROLLUP ({}, {})", a.0, b.0),
                    format!("CUBE ({}, {})", a.0, b.0),
                    format!("GROUPING SETS (({}), (), ({}, {}))", a.0, b.0, a.0),
                ];
                // DataFusion's planner knows no set with a column twice.
                let sets = match a.0 == b.0 {
                    true => &format!("GROUPING SETS ((), ({}), ())", a.0),
                    false => &sets[self.rng.random_range(0..3)],
                };
                let query = format!(
                    "SELECT {} AS k, grouping({}) AS g, {aggregates} FROM {name}{filter} GROUP BY {sets}",
                    a.0, b.0
                );
                (query, vec![("k", a.1), ("g", Number), ("n", Number), ("v", Number)], false)
            }
            _ => {
                self.drew("group by");
                let key = self.any(&columns);
                let aggregates = self.aggregates(&columns);
                let having = if self.rng.random_bool(0.3) { " HAVING count(*) > 1" } else { "" };
                let mut results = vec![("k", key.1), ("n", Number), ("v", Number)];
                let mut text = String::new();
                if self.rng.random_bool(0.3) {
                    self.drew("string_agg");
                    let (of, by) = (self.any(&columns), self.any(&columns));
                    let distinct = self.rng.random_bool(0.3);
                    text = match distinct {
                        true => format!(", string_agg(DISTINCT CAST({} AS text), ',') AS x", of.0),
                        false => {
                            format!(", string_agg(CAST({} AS text), ',' ORDER BY {} DESC) AS x", of.0, by.0)
                        }
                    };
                    results.push(("x", Kind::Text));
                }
                let query = format!(
                    "SELECT {} AS k, {aggregates}{text} FROM {name}{filter} GROUP BY {}{having}",
                    key.0, key.0
                );
                (query, results, false)
            }
        }
    }

    /// A relation of few rows under an alias, as joins multiply them.
    pub(super) fn side(&mut self, alias: &'static str) -> Side {
        let (name, columns, _) = self.relation();
        let relation = if name == "t" || name == "u" {
            format!("{name} AS {alias}")
        } else {
            let number = self.column(&columns, Kind::Number);
            let below = self.rng.random_range(2..8);
            let nulls =
                if self.rng.random_bool(0.5) { format!(" OR {number} IS NULL") } else { String::new() };
            format!("(SELECT * FROM {name} WHERE {number} < {below}{nulls}) AS {alias}")
        };
        Side { relation, alias, columns }
    }

    fn join_query(&mut self) -> (String, Vec<(&'static str, Kind)>) {
        use Kind::Number;
        if self.rng.random_bool(0.15) {
            return self.bounded_join();
        }
        if self.rng.random_bool(0.1) {
            return self.join_as_of();
        }
        let (a, b) = (self.side("a"), self.side("b"));
        let key = format!("{} = {}", self.of(&a, Number), self.of(&b, Number));
        let inner_key = if self.rng.random_bool(0.15) {
            self.drew("join on values that are not distinct");
            format!("({})", key.replace(" = ", " IS NOT DISTINCT FROM "))
        } else {
            key.clone()
        };
        let rest = match self.rng.random_range(0..4) {
            0 => {
                self.drew("residual condition");
                format!(" AND {} <= {}", self.of(&a, Number), self.of(&b, Number))
            }
            1 => format!(" AND {} > 1", self.of(&b, Number)),
            _ => String::new(),
        };
        let pick = |world: &mut Self| {
            let (x, y) = (world.of_any(&a), world.of_any(&b));
            let n = world.of(&b, Number);
            (format!("{} AS k, {} AS x, {n} AS n", x.0, y.0), vec![("k", x.1), ("x", y.1), ("n", Number)])
        };
        match self.rng.random_range(0..18) {
            13.. => self.correlated(&a, &b),
            12 => self.delta_join([a, b]),
            0..4 => {
                let kind = ["", "LEFT ", "RIGHT ", "FULL "][self.rng.random_range(0..4)];
                self.drew(match kind {
                    "" => "inner join",
                    "LEFT " => "left join",
                    "RIGHT " => "right join",
                    _ => "full join",
                });
                let (outputs, columns) = pick(self);
                let (a, b) = (a.relation, b.relation);
                (format!("SELECT {outputs} FROM {a} {kind}JOIN {b} ON {inner_key}{rest}"), columns)
            }
            4 => {
                self.drew("join without an equality");
                let (outputs, columns) = pick(self);
                let bound = self.rng.random_range(0..3);
                let on = format!(
                    "{} < {} AND {} = {bound}",
                    self.of(&a, Number),
                    self.of(&b, Number),
                    self.of(&b, Number)
                );
                let kind = ["", "LEFT "][self.rng.random_range(0..2)];
                (format!("SELECT {outputs} FROM {} {kind}JOIN {} ON {on}", a.relation, b.relation), columns)
            }
            5 => {
                let not = if self.rng.random_bool(0.5) { "NOT " } else { "" };
                self.drew(if not.is_empty() { "exists" } else { "not exists" });
                let (of, key) = (a.relation, inner_key);
                let condition = format!("{not}EXISTS (SELECT 1 FROM {} WHERE {key}{rest})", b.relation);
                (format!("SELECT a.* FROM {of} WHERE {condition}"), a.columns)
            }
            6 => {
                let not = if self.rng.random_bool(0.5) { "NOT " } else { "" };
                self.drew(if not.is_empty() { "in" } else { "not in" });
                let (x, y) = key.split_once(" = ").expect("two numbers");
                let filter =
                    if self.rng.random_bool(0.5) { format!(" WHERE {y} > 2") } else { String::new() };
                let condition = format!("{x} {not}IN (SELECT {y} FROM {}{filter})", b.relation);
                (format!("SELECT a.* FROM {} WHERE {condition}", a.relation), a.columns)
            }
            7 => {
                self.drew("exists or");
                let number = self.of(&a, Number);
                let condition =
                    format!("{number} = 3 OR EXISTS (SELECT 1 FROM {} WHERE {key}{rest})", b.relation);
                (format!("SELECT a.* FROM {} WHERE {condition}", a.relation), a.columns)
            }
            8 => {
                self.drew("scalar subquery");
                let (x, y) = (self.of(&a, Number), self.of(&b, Number));
                let function = ["avg", "min", "count"][self.rng.random_range(0..3)];
                let query = format!(
                    "SELECT a.* FROM {} WHERE {x} > (SELECT {function}({y}) FROM {})",
                    a.relation, b.relation
                );
                (query, a.columns)
            }
            9 => {
                self.drew("correlated scalar subquery");
                let (x, y) = (self.of(&a, Number), self.of(&b, Number));
                let function = ["max", "sum", "count"][self.rng.random_range(0..3)];
                let query = format!(
                    "SELECT {x} AS k, (SELECT cast({function}({y}) AS bigint) FROM {} WHERE {key}) AS n FROM {}",
                    b.relation, a.relation
                );
                (query, vec![("k", Number), ("n", Number)])
            }
            10 => {
                self.drew("three-way join");
                let c = self.side("c");
                let kind = ["JOIN", "LEFT JOIN", "FULL JOIN"][self.rng.random_range(0..3)];
                let second = format!("{} = {}", self.of(&a, Number), self.of(&c, Number));
                let last = self.of_any(&c);
                let query = format!(
                    "SELECT {} AS k, {} AS n, {} AS x FROM {} JOIN {} ON {key}{rest} {kind} {} ON {second}",
                    self.of(&a, Number),
                    self.of(&b, Number),
                    last.0,
                    a.relation,
                    b.relation,
                    c.relation
                );
                (query, vec![("k", Number), ("n", Number), ("x", last.1)])
            }
            _ => {
                self.drew("aggregate over a join");
                let (group, number) = (self.of_any(&a), self.of(&b, Number));
                let kind = ["", "LEFT "][self.rng.random_range(0..2)];
                let query = format!(
                    "SELECT {} AS k, count(*) AS n, cast(sum({number}) AS bigint) AS v FROM {} {kind}JOIN {} ON {key}{rest} GROUP BY {}",
                    group.0, a.relation, b.relation, group.0
                );
                (query, vec![("k", group.1), ("n", Number), ("v", Number)])
            }
        }
    }

    /// Inner joins of three or four relations, tied together by equalities: a chain, a star, or one value in all of them.
    fn delta_join(&mut self, [a, b]: [Side; 2]) -> (String, Vec<(&'static str, Kind)>) {
        use Kind::Number;
        self.drew("delta join");
        let mut sides = vec![a, b, self.side("c")];
        if self.rng.random_bool(0.3) {
            sides.push(self.side("d"));
        }
        let shape = self.rng.random_range(0..3);
        let shared: Vec<String> = (0..sides.len()).map(|at| self.of(&sides[at], Number)).collect();
        let mut conditions = Vec::new();
        for at in 1..sides.len() {
            let to = if shape == 0 { at - 1 } else { 0 };
            conditions.push(match shape {
                2 => format!("{} = {}", shared[0], shared[at]),
                _ => format!("{} = {}", self.of(&sides[to], Number), self.of(&sides[at], Number)),
            });
        }
        if self.rng.random_bool(0.4) {
            conditions.push(format!("{} <= {}", self.of(&sides[0], Number), self.of(&sides[2], Number)));
        }
        if self.rng.random_bool(0.2) {
            conditions.push(format!("{} + {} < 9", self.of(&sides[1], Number), self.of(&sides[2], Number)));
        }
        let (x, n) = (self.of_any(&sides[2]), self.of(&sides[1], Number));
        let k = self.of(&sides[0], Number);
        let from: Vec<&str> = sides.iter().map(|side| side.relation.as_str()).collect();
        let query = format!(
            "SELECT {k} AS k, {n} AS n, {} AS x FROM {} WHERE {}",
            x.0,
            from.join(", "),
            conditions.join(" AND ")
        );
        (query, vec![("k", Number), ("n", Number), ("x", x.1)])
    }

    /// Rows of the source that meet within some time: late ones are refused, old ones freed.
    fn bounded_join(&mut self) -> (String, Vec<(&'static str, Kind)>) {
        let columns = vec![("k", Kind::Number), ("n", Kind::Number), ("ts", Kind::Time)];
        let kind = ["", "LEFT ", "FULL "][self.rng.random_range(0..3)];
        let below = self.rng.random_range(10..50);
        if self.rng.random_bool(0.4) {
            self.drew("window join");
            let window = "TUMBLE(s, ts, INTERVAL '5 seconds')";
            let bound = ["window_start", "window_end"][self.rng.random_range(0..2)];
            let query = format!(
                "SELECT a.k, b.v AS n, b.ts FROM {window} AS a {kind}JOIN (SELECT * FROM {window} WHERE v < {below}) AS b ON a.k = b.k AND a.{bound} = b.{bound}"
            );
            return (query, columns);
        }
        self.drew("interval join");
        let (back, ahead) = (self.rng.random_range(-1..6), self.rng.random_range(1..6));
        let near =
            format!("b.ts BETWEEN a.ts - INTERVAL '{back} seconds' AND a.ts + INTERVAL '{ahead} seconds'");
        let sides = format!("(SELECT * FROM s WHERE v < {below}) AS b");
        let query = match self.rng.random_range(0..3) {
            0 => format!(
                "SELECT a.k, a.v AS n, a.ts FROM s AS a WHERE NOT EXISTS (SELECT 1 FROM {sides} WHERE a.k = b.k AND {near})"
            ),
            _ => format!("SELECT a.k, b.v AS n, b.ts FROM s AS a {kind}JOIN {sides} ON a.k = b.k AND {near}"),
        };
        (query, columns)
    }

    /// Each row with the newest one of its key that is not newer, or the like.
    fn join_as_of(&mut self) -> (String, Vec<(&'static str, Kind)>) {
        let columns = vec![("k", Kind::Number), ("n", Kind::Number), ("ts", Kind::Time)];
        let below = self.rng.random_range(10..90);
        let left = ["", "LEFT "][self.rng.random_range(0..2)];
        if self.rng.random_bool(0.3) {
            self.drew("temporal join");
            let query = format!(
                "SELECT a.k, b.v AS n, a.ts FROM (SELECT * FROM s WHERE v < {below}) AS a {left}JOIN s FOR SYSTEM_TIME AS OF a.ts AS b ON a.k = b.k"
            );
            return (query, columns);
        }
        self.drew("asof join");
        let order = [">=", ">", "<=", "<"][self.rng.random_range(0..4)];
        // Views with a time change; the source does not.
        let timed = self.views.iter().filter(|view| {
            view.columns.contains(&("ts", Kind::Time)) && view.columns.contains(&("k", Kind::Number))
        });
        let timed: Vec<String> = timed.filter(|view| view.windowed).map(|view| view.name.clone()).collect();
        let right = match timed.is_empty() || self.rng.random_bool(0.5) {
            true => "s".to_owned(),
            false => timed[self.rng.random_range(0..timed.len())].clone(),
        };
        let query = format!(
            "SELECT a.k, b.k AS n, b.ts FROM (SELECT * FROM s WHERE v < {below}) AS a ASOF {left}JOIN {right} AS b ON a.k = b.k AND a.ts {order} b.ts"
        );
        (query, columns)
    }

    /// Rows that come and go as time passes.
    fn recent(&mut self, name: &str, columns: &[(&'static str, Kind)]) -> String {
        self.drew("filter on now()");
        let (time, number) = (self.column(columns, Kind::Time), self.column(columns, Kind::Number));
        let span = self.rng.random_range(1..30);
        let condition = match self.rng.random_range(0..6) {
            0 => format!("{time} > now() - INTERVAL '{span} seconds'"),
            1 => format!("{time} <= now()"),
            2 => format!("{time} BETWEEN now() - INTERVAL '{span} seconds' AND now() + INTERVAL '5 seconds'"),
            3 => format!("{time} >= now() OR {number} < {span}"),
            4 => format!("{number} > {span} AND NOT {time} < now() - INTERVAL '{span} seconds'"),
            _ => format!("{time} + INTERVAL '{span} seconds' < now() AND {number} IS NOT NULL"),
        };
        format!("SELECT * FROM {name} WHERE {condition}")
    }

    /// Sessions over anything that has a time, counted or row by row.
    fn session(
        &mut self,
        name: &str,
        columns: &[(&'static str, Kind)],
        filter: &str,
    ) -> (String, Vec<(&'static str, Kind)>, bool) {
        let (time, number) = (self.column(columns, Kind::Time), self.column(columns, Kind::Number));
        let input = if name.starts_with('(') { format!("(SELECT * FROM {name})") } else { name.to_owned() };
        let gap = ["100 milliseconds", "1 second", "20 seconds"][self.rng.random_range(0..3)];
        let (by, key) = (self.any(columns), self.any(columns));
        let partition =
            if self.rng.random_bool(0.6) { format!(" PARTITION BY {}", by.0) } else { String::new() };
        self.drew(if partition.is_empty() { "session" } else { "session of a partition" });
        let from = format!("SESSION({input}{partition}, {time}, INTERVAL '{gap}')");
        if self.rng.random_bool(0.3) {
            let query = format!("SELECT window_end AS ts, {} AS k, {number} AS n FROM {from}{filter}", key.0);
            return (query, vec![("ts", Kind::Time), ("k", key.1), ("n", Kind::Number)], false);
        }
        let aggregates = self.aggregates(columns);
        let query = format!(
            "SELECT window_start AS ts, {0} AS k, {aggregates} FROM {from}{filter} GROUP BY window_start, window_end, {0}",
            key.0
        );
        (query, vec![("ts", Kind::Time), ("k", key.1), ("n", Kind::Number), ("v", Kind::Number)], false)
    }

    /// ORDER BY over a column of any kind.
    fn order(&mut self, columns: &[(&'static str, Kind)]) -> String {
        let column = self.any(columns).0;
        let direction = ["", " DESC", " NULLS FIRST", " DESC NULLS LAST"][self.rng.random_range(0..4)];
        format!("{column}{direction}")
    }

    fn top_n(
        &mut self,
        name: &str,
        columns: &[(&'static str, Kind)],
        filter: &str,
    ) -> (String, Vec<(&'static str, Kind)>, bool) {
        let order = self.order(columns);
        let (n, key) = (self.rng.random_range(1..6), self.any(columns));
        match self.rng.random_range(0..4) {
            0 => {
                self.drew("order by limit");
                let offset = ["", " OFFSET 2"][self.rng.random_range(0..2)];
                let query = format!("SELECT * FROM {name}{filter} ORDER BY {order} LIMIT {n}{offset}");
                (query, columns.to_vec(), false)
            }
            1 => {
                self.drew("distinct on");
                let query =
                    format!("SELECT DISTINCT ON ({0}) * FROM {name}{filter} ORDER BY {0}, {order}", key.0);
                (query, columns.to_vec(), false)
            }
            _ => {
                let rank = ["row_number", "rank", "dense_rank"][self.rng.random_range(0..3)];
                self.drew(rank);
                let number = if self.rng.random_bool(0.5) { ", nr AS rn" } else { "" };
                let query = format!(
                    "SELECT {0} AS k{number} FROM (SELECT *, {rank}() OVER (PARTITION BY {0} ORDER BY {order}) AS nr FROM {name}{filter}) AS q WHERE nr <= {n}",
                    key.0
                );
                let mut columns = vec![("k", key.1)];
                columns.extend((!number.is_empty()).then_some(("rn", Kind::Number)));
                (query, columns, false)
            }
        }
    }

    fn over(
        &mut self,
        name: &str,
        columns: &[(&'static str, Kind)],
        filter: &str,
    ) -> (String, Vec<(&'static str, Kind)>, bool) {
        let (key, order) = (self.any(columns), self.order(columns));
        let number = self.column(columns, Kind::Number);
        let by = if self.rng.random_bool(0.7) { format!("PARTITION BY {} ", key.0) } else { String::new() };
        let n = self.rng.random_range(1..4);
        let (rule, call) = match self.rng.random_range(0..13) {
            10 => (
                "array_agg over rows",
                format!(
                    "length(CAST(array_agg({number}) OVER ({by}ORDER BY {order} ROWS {n} PRECEDING) AS text))"
                ),
            ),
            11 => (
                "bool_or of peers",
                format!("CAST(bool_or({number} > {n}) OVER ({by}ORDER BY {order}) AS int)"),
            ),
            12 => (
                "variance over rows",
                format!(
                    "var_pop({number}) OVER ({by}ORDER BY {order} ROWS BETWEEN {n} PRECEDING AND {n} FOLLOWING) * 1000"
                ),
            ),
            0 => ("lag", format!("lag({number}, {n}) OVER ({by}ORDER BY {order})")),
            1 => ("lead", format!("lead({number}, {n}, 0) OVER ({by}ORDER BY {order})")),
            2 => ("first_value", format!("first_value({number}) OVER ({by}ORDER BY {order})")),
            3 => ("ntile", format!("ntile({n}) OVER ({by}ORDER BY {order})")),
            4 => ("rank of all", format!("rank() OVER ({by}ORDER BY {order})")),
            5 => ("running sum", format!("sum({number}) OVER ({by}ORDER BY {order})")),
            6 => (
                "sum over rows",
                format!(
                    "sum({number}) OVER ({by}ORDER BY {order} ROWS BETWEEN {n} PRECEDING AND 1 FOLLOWING)"
                ),
            ),
            7 => ("max over rows", format!("max({number}) OVER ({by}ORDER BY {order} ROWS {n} PRECEDING)")),
            8 => ("count of groups", format!("count(*) OVER ({by}ORDER BY {order} GROUPS {n} PRECEDING)")),
            _ => (
                "count in range",
                format!("count(*) OVER ({by}ORDER BY {number} RANGE BETWEEN {n} PRECEDING AND 1 FOLLOWING)"),
            ),
        };
        self.drew(rule);
        let query = format!("SELECT {} AS k, cast({call} AS bigint) AS v FROM {name}{filter}", key.0);
        (query, vec![("k", key.1), ("v", Kind::Number)], false)
    }

    fn set_operation(
        &mut self,
        name: &str,
        columns: &[(&'static str, Kind)],
        filter: &str,
    ) -> (String, Vec<(&'static str, Kind)>, bool) {
        let left = self.column(columns, Kind::Number);
        let (other, others, _) = self.relation();
        let right = self.column(&others, Kind::Number);
        let operations = ["UNION", "UNION ALL", "INTERSECT", "INTERSECT ALL", "EXCEPT", "EXCEPT ALL"];
        let operation = operations[self.rng.random_range(0..operations.len())];
        self.drew(operation);
        let query = format!(
            "SELECT cast({left} AS bigint) AS k FROM {name}{filter} {operation} SELECT cast({right} AS bigint) FROM {other}"
        );
        (query, vec![("k", Kind::Number)], false)
    }

    /// A number of one side, qualified.
    pub(super) fn of(&mut self, side: &Side, kind: Kind) -> String {
        match self.column(&side.columns, kind) {
            "1" => format!("length({}.{}::text)", side.alias, side.columns[0].0),
            column => format!("{}.{column}", side.alias),
        }
    }

    pub(super) fn of_any(&mut self, side: &Side) -> (String, Kind) {
        let (column, kind) = self.any(&side.columns);
        (format!("{}.{column}", side.alias), kind)
    }

    pub(super) fn aggregates(&mut self, columns: &[(&'static str, Kind)]) -> String {
        let any = self.any(columns);
        let number = self.column(columns, Kind::Number);
        let first = match self.rng.random_range(0..4) {
            0 => "count(*)".to_owned(),
            1 => format!("count({})", any.0),
            2 => {
                self.drew("count distinct");
                format!("count(DISTINCT {})", any.0)
            }
            _ => format!("count(*) FILTER (WHERE {number} > 5)"),
        };
        if self.rng.random_bool(0.35) {
            let second = self.rare_aggregate(number, any.0);
            return format!("{first} AS n, {second} AS v");
        }
        let function = ["sum", "min", "max", "avg"][self.rng.random_range(0..4)];
        self.drew(function);
        // Views on views would sum sums of averages: integers keep every step exact.
        let second = match function {
            "avg" => format!("cast(avg({number}) * 100 AS bigint)"),
            "sum" => format!("cast(sum({number}) AS bigint)"),
            _ => format!("cast({function}({number}) AS bigint)"),
        };
        format!("{first} AS n, {second} AS v")
    }

    /// Aggregates that few ask for, as a bigint.
    fn rare_aggregate(&mut self, number: &str, any: &str) -> String {
        let (rule, call) = match self.rng.random_range(0..12) {
            0 => ("stddev", format!("stddev({number}) * 1000")),
            1 => ("variance", format!("var_pop({number}) * 1000")),
            2 => ("stddev of floats", format!("stddev_pop(CAST({number} AS double precision))")),
            3 => ("sum distinct", format!("sum(DISTINCT {number})")),
            4 => ("avg distinct", format!("avg(DISTINCT {number}) FILTER (WHERE {number} > 3) * 100")),
            5 => ("first_value", format!("first_value({number} ORDER BY {any} DESC, {number})")),
            6 => ("last_value", format!("last_value({number} ORDER BY {any} NULLS FIRST)")),
            7 => ("percentile_cont", format!("percentile_cont(0.3) WITHIN GROUP (ORDER BY {number} DESC)")),
            8 => ("percentile_disc", format!("percentile_disc(0.6) WITHIN GROUP (ORDER BY {number})")),
            9 => ("mode", format!("mode() WITHIN GROUP (ORDER BY {number})")),
            10 => ("array_agg", format!("array_length(array_agg(DISTINCT {any}), 1)")),
            _ => ("jsonb_agg", format!("length(CAST(jsonb_agg({any} ORDER BY {number}) AS text))")),
        };
        self.drew(rule);
        format!("cast({call} AS bigint)")
    }

    fn filter(&mut self, columns: &[(&'static str, Kind)]) -> String {
        if self.rng.random_bool(0.5) {
            return String::new();
        }
        let number = self.column(columns, Kind::Number);
        let bound = self.rng.random_range(0..50);
        match self.rng.random_range(0..4) {
            0 => format!(" WHERE {number} > {bound}"),
            1 => format!(" WHERE {number} IS NOT NULL AND {number} % 2 = 0"),
            2 => format!(" WHERE {number} IS NULL OR {number} <= {bound}"),
            _ => format!(" WHERE {number} IN (1, 2, 3, {bound})"),
        }
    }

    pub(super) fn any(&mut self, columns: &[(&'static str, Kind)]) -> (&'static str, Kind) {
        columns[self.rng.random_range(0..columns.len())]
    }

    pub(super) fn column(&mut self, columns: &[(&'static str, Kind)], kind: Kind) -> &'static str {
        let of_kind: Vec<&'static str> = columns.iter().filter(|c| c.1 == kind).map(|c| c.0).collect();
        match of_kind.len() {
            // Every relation of the grammar has a number or is a distinct text or time: count its length instead.
            0 => "1",
            n => of_kind[self.rng.random_range(0..n)],
        }
    }
}
