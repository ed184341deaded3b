//! Set-returning functions.

use rand::Rng;

use super::grammar::{Grammar, Kind, Query};

/// What FROM may call over the columns of `t`: rules, calls, and the value of a row.
const CALLS: &[(&str, &str, &str)] = &[
    ("unnest", "unnest({a}) AS u", "u"),
    ("unnest WITH ORDINALITY", "unnest({a}) WITH ORDINALITY AS q(u, n)", "u, n"),
    ("unnest of several", "unnest({a}, {a}) AS q(v, w)", "v, w"),
    ("generate_series", "generate_series(1, {i} % 5) AS g", "g"),
    ("generate_series with a step", "generate_series({i} % 7, 3, -2) AS g", "g"),
    ("generate_series of bigint", "generate_series({b} % 3, {i} % 4) AS g", "g, pg_typeof(g)::text"),
    ("generate_series of times", "generate_series({s}, {s} + interval '2 days', '13 hours') AS g", "g"),
    ("generate_subscripts", "generate_subscripts({a}, 1) AS s", "s"),
    ("string_to_table", "string_to_table({t}, 'a') AS p", "p"),
    ("string_to_table with NULL", "string_to_table({t}, NULL, 'a') WITH ORDINALITY AS p", "p.p, ordinality"),
    ("regexp_split_to_table", "regexp_split_to_table({t}, '[ab]') AS p", "p"),
    ("regexp_matches", "regexp_matches({t}, '([a-c])(.)?', 'g') AS m", "m"),
    ("jsonb_array_elements", "jsonb_array_elements(jsonb_build_array({i}, {t})) AS e", "e.value"),
    ("jsonb_array_elements_text", "jsonb_array_elements_text(jsonb_build_array({t}, {o})) AS e", "e"),
    ("jsonb_each", "jsonb_each(jsonb_build_object('bb', {i}, 'a', {t}))", "key, value"),
    ("jsonb_each_text", "jsonb_each_text(jsonb_build_object('k', {t})) AS m", "m.key, m.value"),
    ("jsonb_object_keys", "jsonb_object_keys(jsonb_build_object('z', {i}, 'y', 1)) AS k", "k"),
];

impl Grammar {
    /// In FROM, with the value of a row, or in the select list.
    pub(super) fn sets(&mut self) -> Query {
        let viewable = self.rng.random_bool(0.6);
        let sql = match self.rng.random_range(0..6) {
            0 => {
                self.drew("sets in step");
                let (a, i) = (self.expression(Kind::Ints, 1), self.expression(Kind::Int, 1));
                format!("SELECT id, unnest({a}) AS u, generate_series(1, {i} % 4) AS g FROM t")
            }
            1 => {
                self.drew("GROUP BY a set");
                let a = self.expression(Kind::Ints, 1);
                format!("SELECT unnest({a}) AS u, count(*) AS c, min(id) AS m FROM t GROUP BY 1")
            }
            2 => {
                self.drew("a set of a group");
                "SELECT o, unnest(array_agg(id ORDER BY id)) AS u FROM t GROUP BY o".to_owned()
            }
            _ => {
                let (rule, call, values) = CALLS[self.rng.random_range(0..CALLS.len())];
                self.drew(rule);
                let call = self.fill(call);
                let filter = self.filter();
                match self.rng.random_range(0..3) {
                    0 => format!("SELECT id, {values} FROM t LEFT JOIN {call} ON true{filter}"),
                    1 => format!("SELECT t.id, {values} FROM t CROSS JOIN LATERAL {call}{filter}"),
                    _ => format!("SELECT id, {values} FROM t, {call}{filter}"),
                }
            }
        };
        Query { sql, ordered_by: 0, viewable }
    }
}
