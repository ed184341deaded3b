//! Set-returning functions over anything.

use rand::Rng;

use super::{Kind, World};

impl World {
    /// Rows made of rows. The event time of a row stays that of its rows.
    pub(super) fn expanded(
        &mut self,
        name: &str,
        columns: &[(&'static str, Kind)],
        filter: &str,
        windowed: bool,
    ) -> (String, Vec<(&'static str, Kind)>, bool) {
        use Kind::{Number, Text, Time};
        let number = self.column(columns, Number);
        let any = self.any(columns);
        let text = format!("CAST({} AS text)", any.0);
        let most = self.rng.random_range(2..5);
        let join = ["CROSS JOIN", "LEFT JOIN"][self.rng.random_range(0..2)];
        let on = if join == "LEFT JOIN" { " ON true" } else { "" };
        let key = self.any(columns);
        match self.rng.random_range(0..8) {
            0 => {
                self.drew("generate_series of rows");
                let query = format!(
                    "SELECT {} AS k, elem AS v FROM {name}, generate_series(1, {number} % {most}) AS elem{filter}",
                    key.0
                );
                (query, vec![("k", key.1), ("v", Number)], false)
            }
            1 => {
                self.drew("unnest with ordinality");
                let query = format!(
                    "SELECT {} AS k, elem AS n, place AS v FROM {name} {join} unnest(array_remove(ARRAY[{number}, 3, {number} % 5], 3)) WITH ORDINALITY AS f(elem, place){on}{filter}",
                    key.0
                );
                (query, vec![("k", key.1), ("n", Number), ("v", Number)], false)
            }
            2 => {
                self.drew("string_to_table");
                let query = format!(
                    "SELECT {} AS k, elem AS x FROM {name} {join} string_to_table({text}, '1') AS elem{on}{filter}",
                    key.0
                );
                (query, vec![("k", key.1), ("x", Text)], false)
            }
            3 => {
                self.drew("sets in step");
                let query = format!(
                    "SELECT {} AS k, generate_series(1, {number} % 3) AS n, unnest(string_to_array({text}, '0')) AS x FROM {name}{filter}",
                    key.0
                );
                (query, vec![("k", key.1), ("n", Number), ("x", Text)], false)
            }
            4 => {
                self.drew("group by a set");
                let aggregates = self.aggregates(columns);
                let query = format!(
                    "SELECT generate_series({number} % 2, {most}) AS k, {aggregates} FROM {name}{filter} GROUP BY 1"
                );
                (query, vec![("k", Number), ("n", Number), ("v", Number)], false)
            }
            5 => {
                self.drew("json elements");
                let query = format!(
                    "SELECT {} AS k, elem AS x FROM {name} {join} jsonb_array_elements_text(jsonb_build_array({number}, {text})) AS elem{on}{filter}",
                    key.0
                );
                (query, vec![("k", key.1), ("x", Text)], false)
            }
            6 if columns.iter().any(|c| c.1 == Time) => {
                self.drew("generate_series of times");
                let time = self.column(columns, Time);
                let query = format!(
                    "SELECT {number} AS k, elem AS ts FROM {name}, generate_series({time}, {time} + INTERVAL '3 seconds', INTERVAL '{most} seconds') AS elem{filter}"
                );
                (query, vec![("k", Number), ("ts", Time)], false)
            }
            // What fails is listed, and VERIFY leaves it out.
            _ => {
                self.drew("rows beside sets");
                let alias = if name.ends_with(" AS q") { "q" } else { name };
                let query = format!(
                    "SELECT {alias}.* FROM {name}, generate_series(0, 2, 1 + {most} % 3) AS elem{filter}"
                );
                (query, columns.to_vec(), windowed)
            }
        }
    }
}
