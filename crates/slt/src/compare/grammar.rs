//! Random tables and queries that PostgreSQL and Millpond both run.
//!
//! Expressions over columns cannot fail, because which rows a plan computes them for is nobody's promise; those over
//! literals may, and then with the same SQLSTATE.

use std::collections::BTreeMap;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Int,
    Big,
    Numeric,
    Float,
    Text,
    Bool,
    Date,
    Time,
    Zoned,
    Span,
    Json,
    Ints,
    Texts,
}

use Kind::{Big, Bool, Date, Float, Int, Ints, Json, Numeric, Span, Text, Texts, Time, Zoned};

const KINDS: [Kind; 13] = [Int, Big, Numeric, Float, Text, Bool, Date, Time, Zoned, Span, Json, Ints, Texts];

/// Columns of both tables.
const COLUMNS: [(&str, Kind); 14] = [
    ("id", Int),
    ("i", Int),
    ("b", Big),
    ("n", Numeric),
    ("f", Float),
    ("x", Text),
    ("y", Text),
    ("o", Bool),
    ("d", Date),
    ("ts", Time),
    ("tz", Zoned),
    ("v", Span),
    ("j", Json),
    ("a", Ints),
];

/// What an expression of a kind may be made of: `{i}` is one of kind [`Kind::Int`] and so on. None of them fails.
const SAFE: &[(Kind, &str)] = &[
    (Int, "coalesce({i}, 7)"),
    (Int, "length({t})"),
    (Int, "octet_length({t})"),
    (Int, "strpos({t}, 'a')"),
    (Int, "position('b' in {t})"),
    (Int, "ascii({t})"),
    (Int, "{i} % 10"),
    (Int, "abs({i} % 1000)"),
    (Int, "sign({i})::int"),
    (Int, "({i} / 3)"),
    (Int, "({i} & 255)"),
    (Int, "({i} | 8)"),
    (Int, "({i} # 5)"),
    (Int, "(~ {i})"),
    (Int, "CASE WHEN {o} THEN {i} ELSE 3 END"),
    (Int, "nullif({i}, 2)"),
    (Int, "greatest({i}, 5, NULL)"),
    (Int, "least({i}, {i})"),
    (Int, "{d} - date '2024-01-15'"),
    (Int, "array_length({a}, 1)"),
    (Int, "cardinality({a})"),
    (Int, "({a})[1]"),
    (Int, "array_position({a}, 3)"),
    (Int, "jsonb_array_length('[1, 2]'::jsonb)"),
    (Int, "{o}::int"),
    (Big, "{i}::bigint * 1000"),
    (Big, "({b} % 1000) * 3"),
    (Big, "({i}::bigint << 3)"),
    (Numeric, "{n} + 1.25"),
    (Numeric, "{n} * {n}"),
    (Numeric, "round({n}, 1)"),
    (Numeric, "round({n})"),
    (Numeric, "trunc({n}, 1)"),
    (Numeric, "ceil({n})"),
    (Numeric, "floor({n})"),
    (Numeric, "abs({n})"),
    (Numeric, "- {n}"),
    (Numeric, "{n} / 7"),
    (Numeric, "{n} % 3"),
    (Numeric, "{i}::numeric(20, 3)"),
    (Numeric, "mod({n}, 4)"),
    (Numeric, "extract(epoch from {s})"),
    (Numeric, "extract(year from {d})"),
    (Numeric, "extract(dow from {s})"),
    (Numeric, "extract(week from {d})"),
    (Numeric, "extract(hour from {z})"),
    (Numeric, "extract(second from {s})"),
    (Numeric, "extract(quarter from {s})"),
    (Numeric, "extract(doy from {d})"),
    (Numeric, "extract(isodow from {d})"),
    (Numeric, "extract(day from {v})"),
    (Float, "{f} * 2"),
    (Float, "{f} + 0.5::float8"),
    (Float, "sqrt(abs({f}))"),
    (Float, "round({f})"),
    (Float, "floor({f})"),
    (Float, "ceil({f})"),
    (Float, "{i}::float8 / 4"),
    (Float, "power({f}, 2)"),
    (Float, "sin({f})"),
    (Float, "atan2({f}, 2)"),
    (Float, "degrees({f})"),
    (Float, "date_part('month', {s})"),
    (Float, "cbrt({f})"),
    (Text, "upper({t})"),
    (Text, "lower({t})"),
    (Text, "initcap({t})"),
    (Text, "{t} || '-' || {t}"),
    (Text, "concat({t}, {i}, {o})"),
    (Text, "concat_ws('/', {t}, {t}, {i})"),
    (Text, "substr({t}, 2)"),
    (Text, "substring({t} from 2 for 2)"),
    (Text, "left({t}, 2)"),
    (Text, "left({t}, -1)"),
    (Text, "right({t}, 2)"),
    (Text, "lpad({t}, 5, '*')"),
    (Text, "rpad({t}, 6, 'ab')"),
    (Text, "ltrim({t}, 'a ')"),
    (Text, "rtrim({t})"),
    (Text, "btrim({t}, 'ab')"),
    (Text, "trim(both 'a' from {t})"),
    (Text, "replace({t}, 'a', 'xy')"),
    (Text, "translate({t}, 'abc', 'xy')"),
    (Text, "reverse({t})"),
    (Text, "repeat({t}, 2)"),
    (Text, "split_part({t}, 'b', 1)"),
    (Text, "split_part({t}, 'b', -1)"),
    (Text, "regexp_replace({t}, '[ab]+', '<\\&>', 'g')"),
    (Text, "regexp_replace({t}, '(a)(b?)', '\\2\\1')"),
    (Text, "md5({t})"),
    (Text, "quote_literal({t})"),
    (Text, "quote_ident({t})"),
    (Text, "overlay({t} placing 'ZZ' from 2)"),
    (Text, "chr(65 + abs({i} % 20))"),
    (Text, "to_hex({i})"),
    (Text, "encode({t}::bytea, 'hex')"),
    (Text, "encode({t}::bytea, 'base64')"),
    (Text, "{i}::text"),
    (Text, "{n}::text"),
    (Text, "{f}::text"),
    (Text, "{o}::text"),
    (Text, "{d}::text"),
    (Text, "{s}::text"),
    (Text, "{z}::text"),
    (Text, "{v}::text"),
    (Text, "{a}::text"),
    (Text, "{j}::text"),
    (Text, "to_char({s}, 'YYYY-MM-DD HH24:MI:SS.MS')"),
    (Text, "to_char({d}, 'Day, DD Mon YYYY')"),
    (Text, "to_char({s}, 'HH12:MI AM, Q, DDD, WW, IW')"),
    (Text, "to_char({i}, '999G999')"),
    (Text, "to_char({n}, 'FM9990.00')"),
    (Text, "{j} ->> 'k'"),
    (Text, "{j} #>> '{a,0}'"),
    (Text, "jsonb_typeof({j})"),
    (Text, "array_to_string({a}, ',', '-')"),
    (Text, "coalesce({t}, 'none')"),
    (Text, "nullif({t}, 'a')"),
    (Text, "CASE {i} % 3 WHEN 0 THEN 'zero' WHEN 1 THEN {t} END"),
    (Text, "format('%s-%I', {t}, {t})"),
    (Text, "starts_with({t}, 'a')::text"),
    (Bool, "{i} > {i}"),
    (Bool, "{n} <= {n}"),
    (Bool, "{f} = {f}"),
    (Bool, "{t} < {t}"),
    (Bool, "{t} LIKE 'a%'"),
    (Bool, "{t} ILIKE '%B%'"),
    (Bool, "{t} NOT LIKE '_b%'"),
    (Bool, "{t} ~ '^a'"),
    (Bool, "{t} ~* 'B$'"),
    (Bool, "{t} !~ '[0-9]'"),
    (Bool, "{t} SIMILAR TO '(a|b)%'"),
    (Bool, "{d} >= date '2024-01-31'"),
    (Bool, "{s} < {s}"),
    (Bool, "{z} <> {z}"),
    (Bool, "{v} > interval '1 day'"),
    (Bool, "{i} IN (1, 2, NULL)"),
    (Bool, "{i} NOT IN (1, 5)"),
    (Bool, "{i} BETWEEN -5 AND 5"),
    (Bool, "{t} IS NULL"),
    (Bool, "{i} IS DISTINCT FROM {i}"),
    (Bool, "{o} IS NOT TRUE"),
    (Bool, "NOT {o}"),
    (Bool, "({o} AND {o})"),
    (Bool, "({o} OR {o})"),
    (Bool, "{i} = ANY ({a})"),
    (Bool, "{i} <> ALL (ARRAY[1, 2])"),
    (Bool, "{a} @> ARRAY[1]"),
    (Bool, "{a} && ARRAY[1, 2]"),
    (Bool, "{j} @> '{\"k\": 1}'"),
    (Bool, "{j} ? 'k'"),
    (Bool, "({s}, interval '1 day') OVERLAPS ({s}, interval '2 days')"),
    (Date, "{d} + 3"),
    (Date, "{s}::date"),
    (Date, "{z}::date"),
    (Date, "make_date(2024, 1 + abs({i} % 12), 5)"),
    (Time, "{s} + {v}"),
    (Time, "{s} - interval '1 month'"),
    (Time, "date_trunc('hour', {s})"),
    (Time, "date_trunc('week', {s})"),
    (Time, "date_trunc('month', {d}::timestamp)"),
    (Time, "{d} + interval '90 minutes'"),
    (Time, "{z} AT TIME ZONE 'America/New_York'"),
    (Time, "date_bin('15 minutes', {s}, timestamp '2001-01-01')"),
    (Zoned, "{z} + interval '1 day'"),
    (Zoned, "{s} AT TIME ZONE 'Europe/Berlin'"),
    (Zoned, "date_trunc('day', {z})"),
    (Zoned, "to_timestamp({i})"),
    (Span, "{s} - {s}"),
    (Span, "{v} * 2"),
    (Span, "- {v}"),
    (Span, "age({s}, {s})"),
    (Span, "justify_hours({v})"),
    (Span, "make_interval(days => {i} % 100)"),
    (Span, "{v} + interval '25 hours'"),
    (Json, "{j} -> 'k'"),
    (Json, "to_jsonb({i})"),
    (Json, "to_jsonb({t})"),
    (Json, "jsonb_build_object('a', {i}, 'b', {t})"),
    (Json, "jsonb_build_array({i}, {t}, {o})"),
    (Json, "{j} || '{\"z\": null}'"),
    (Json, "{j} - 'k'"),
    (Json, "to_jsonb({a})"),
    (Ints, "array_append({a}, {i})"),
    (Ints, "array_prepend({i}, {a})"),
    (Ints, "{a} || {a}"),
    (Ints, "array_remove({a}, 1)"),
    (Ints, "ARRAY[{i}, 2, NULL]"),
    (Ints, "({a})[1:2]"),
    (Texts, "string_to_array({t}, 'b')"),
    (Texts, "ARRAY[{t}, 'q']"),
    (Texts, "regexp_split_to_array({t}, 'b')"),
    (Texts, "regexp_match({t}, '(a)(.)')"),
];

/// Over literals. These may fail.
const UNSAFE: &[&str] = &[
    "{I} + {I}",
    "{I} - {I}",
    "{I} * {I}",
    "{I} / {I}",
    "{I} % {I}",
    "{N} / {N}",
    "{N} * {N}",
    "{F} / {F}",
    "{F} * {F}",
    "- ({I})",
    "abs({I})",
    "{I}::smallint",
    "{N}::int",
    "{F}::int",
    "{F}::bigint",
    "{T}::int",
    "{T}::bigint",
    "{T}::numeric",
    "{T}::float8",
    "{T}::boolean",
    "{T}::date",
    "{T}::timestamp",
    "{T}::timestamptz",
    "{T}::interval",
    "{T}::jsonb",
    "{T}::int[]",
    "{T}::uuid",
    "{N}::numeric(4, 2)",
    "sqrt({F})",
    "ln({F})",
    "log({F})",
    "exp({F})",
    "power({F}, {F})",
    "factorial(abs({I} % 25))",
    "chr({I})",
    "substring({T} from {I} for {I})",
    "repeat({T}, {I} % 5)",
    "lpad({T}, {I} % 9, {T})",
    "split_part({T}, ' ', {I} % 4)",
    "date {D} + {I} % 100000",
    "timestamp {D} + interval {V}",
    "interval {V} * ({I} % 100)",
    "interval {V} / ({I} % 3)",
    "extract(epoch from interval {V})",
    "to_date({T}, 'YYYY-MM-DD')",
    "to_timestamp({T}, 'YYYY-MM-DD HH24:MI')",
    "make_date({I} % 3000, {I} % 14, {I} % 33)",
    "make_time({I} % 26, {I} % 62, {F})",
    "width_bucket({F}, 0, 10, {I} % 5)",
    "{T} LIKE {T}",
    "{T} ~ {T}",
    "decode({T}, 'hex')",
    "decode({T}, 'base64')",
    "array_fill({I} % 3, ARRAY[2])",
    "min_scale({N})",
    "scale({N})",
    "gcd({I}, 12)",
    "lcm({I} % 100, 12)",
    "to_char({I}, 'S0999')",
    "to_char({N}, '99.9EEEE')",
    "to_char({F}, 'FM999.99')",
    "to_char(interval {V}, 'HH24:MI:SS')",
    "regexp_replace({T}, {T}, 'x')",
    "{T}::varchar(3)",
    "{T}::char(4)",
    "age(timestamp {D}, timestamp '2024-02-29')",
    "date_part('century', date {D})",
    "bit_length({T})",
    "string_to_array({T}, NULL)",
    "num_nulls({T}, NULL, 1)",
    "jsonb_pretty('{\"a\": [1, {}]}')",
    "('{\"a\": {\"b\": 2}}'::jsonb) #> '{a,b}'",
    "jsonb_set('{\"a\": 1}', '{b}', '2')",
];

const INTS: &[&str] =
    &["0", "1", "-1", "2", "7", "-13", "2147483647", "(-2147483648)", "46341", "100", "NULL::int"];
const NUMERICS: &[&str] =
    &["0.0", "1.5", "-2.25", "0.001", "12345678901234567890.5", "99.995", "-0.5", "3", "NULL::numeric(10,2)"];
const FLOATS: &[&str] = &[
    "0::float8",
    "'-0'::float8",
    "1.5::float8",
    "-2.5::float8",
    "1e308::float8",
    "1e-300::float8",
    "'NaN'::float8",
    "'Infinity'::float8",
    "'-Infinity'::float8",
    "0.1::float8",
    "2::float8",
];
const TEXTS: &[&str] = &[
    "''",
    "'a'",
    "'abc'",
    "' 12 '",
    "'12x'",
    "'2024-02-29'",
    "'2024-02-30'",
    "'2024-01-01 24:00:00'",
    "'true'",
    "'off'",
    "'1e5'",
    "'-7'",
    "'99999999999'",
    "'{1,2,NULL}'",
    "'{\"a\": [1, 2.50, \"x\"]}'",
    "'[1,'",
    "'1 day 2 hours'",
    "'P1Y2M'",
    "'ä€𝄞'",
    "'a%b_c'",
    "'(['",
    "'0A1b'",
    "'NaN'",
    "'infinity'",
    "'1,234.5'",
    "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
    "'-1 mon +2:03:04.5'",
    "'12:30'",
    "'2024-03-10 02:30:00 America/New_York'",
];
const DATES: &[&str] = &["'2024-02-29'", "'1999-12-31'", "'0001-01-01'", "'2024-12-31'", "'1970-01-01'"];
const SPANS: &[&str] =
    &["'1 day'", "'1 mon'", "'-1 day 3 hours'", "'1.5 years'", "'00:00:00.000001'", "'40 days 100:00:00'"];

pub(super) struct Query {
    pub sql: String,
    /// How many columns ORDER BY names, from the first on.
    pub ordered_by: usize,
    /// A view may be made of it.
    pub viewable: bool,
}

pub(super) struct Grammar {
    pub(super) rng: SmallRng,
    drawn: BTreeMap<&'static str, usize>,
    /// The alias in front of columns, where there are several tables.
    alias: Option<&'static str>,
}

impl Grammar {
    pub fn new(seed: u64) -> Self {
        Self { rng: SmallRng::seed_from_u64(seed), drawn: BTreeMap::new(), alias: None }
    }

    pub fn drawn(&self) -> impl Iterator<Item = (&'static str, usize)> {
        self.drawn.iter().map(|(rule, times)| (*rule, *times))
    }

    pub(super) fn draw(&mut self, from: std::ops::Range<usize>) -> usize {
        self.rng.random_range(from)
    }

    pub(super) fn note(&mut self, rule: &'static str) {
        *self.drawn.entry(rule).or_default() += 1;
    }

    pub(super) fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.rng.random_range(0..of.len())]
    }

    /// Two tables with some rows.
    pub fn tables(&mut self) -> Vec<String> {
        let mut statements = Vec::new();
        for table in ["t", "u"] {
            statements.push(format!(
                "CREATE TABLE {table} (id int PRIMARY KEY, i int, b bigint, n numeric(12,3), f double precision, x text, y varchar(20), \
                 o boolean, d date, ts timestamp, tz timestamptz, v interval, j jsonb, a int[])"
            ));
            let rows: Vec<String> = (0..self.rng.random_range(3..14)).map(|id| self.row(id)).collect();
            statements.push(format!("INSERT INTO {table} VALUES {}", rows.join(", ")));
        }
        statements
    }

    fn row(&mut self, id: i32) -> String {
        let mut values = vec![id.to_string()];
        for (_, kind) in &COLUMNS[1..] {
            let null = self.rng.random_bool(0.15);
            values.push(if null { "NULL".to_owned() } else { self.value(*kind) });
        }
        format!("({})", values.join(", "))
    }

    fn value(&mut self, kind: Kind) -> String {
        let rng = &mut self.rng;
        match kind {
            Int => rng.random_range(-9..9).to_string(),
            Big => [0, 5, -77, 1 << 40, i64::MAX, i64::MIN + 1][rng.random_range(0..6)].to_string(),
            Numeric => format!("{:.2}", f64::from(rng.random_range(-5000..5000)) / 100.0),
            Float => ["0", "1.5", "-2.75", "1e10", "0.1", "3"][rng.random_range(0..6)].to_owned(),
            Text => ["'a'", "'b'", "'ab'", "'Abc'", "''", "'bab'", "'x y'", "'äb'", "'a''q'"]
                [rng.random_range(0..9)]
            .to_owned(),
            Bool => ["true", "false"][rng.random_range(0..2)].to_owned(),
            Date => format!("'2024-{:02}-{:02}'", rng.random_range(1..13), rng.random_range(1..29)),
            Time => format!(
                "'2024-{:02}-{:02} {:02}:{:02}:{:02}.{:03}'",
                rng.random_range(1..13),
                rng.random_range(1..29),
                rng.random_range(0..24),
                rng.random_range(0..60),
                rng.random_range(0..60),
                rng.random_range(0..1000)
            ),
            Zoned => format!(
                "'2024-{:02}-{:02} {:02}:30:00+02'",
                rng.random_range(1..13),
                rng.random_range(1..29),
                rng.random_range(0..24)
            ),
            Span => ["'1 day'", "'2 mons 3 days'", "'-04:05:06.7'", "'1 year'", "'30 days'"]
                [rng.random_range(0..5)]
            .to_owned(),
            Json => [
                r#"'{"k": 1, "a": [true, "s"]}'"#,
                "'[1, 2]'",
                "'\"s\"'",
                "'null'",
                r#"'{"k": null}'"#,
                "'3.50'",
            ][rng.random_range(0..6)]
            .to_owned(),
            Ints => ["'{1,2,3}'", "'{}'", "'{3}'", "'{NULL,1}'"][rng.random_range(0..4)].to_owned(),
            Texts => "ARRAY['a', 'b']".to_owned(),
        }
    }

    fn column(&mut self, kind: Kind) -> String {
        let of_kind: Vec<&str> = COLUMNS.iter().filter(|c| c.1 == kind).map(|c| c.0).collect();
        if of_kind.is_empty() {
            return "ARRAY[x, y]".to_owned();
        }
        let name = self.one(&of_kind);
        match self.alias {
            Some(alias) => format!("{alias}.{name}"),
            None => name.to_owned(),
        }
    }

    /// An expression of a kind that cannot fail.
    pub(super) fn expression(&mut self, kind: Kind, depth: usize) -> String {
        if depth == 0 || self.rng.random_bool(0.3) {
            return self.column(kind);
        }
        let rules: Vec<&'static str> = SAFE.iter().filter(|rule| rule.0 == kind).map(|rule| rule.1).collect();
        let rule = self.one(&rules);
        *self.drawn.entry(rule).or_default() += 1;
        self.fill_to(rule, depth)
    }

    /// A rule with expressions in its places.
    pub(super) fn fill(&mut self, rule: &str) -> String {
        self.fill_to(rule, 2)
    }

    pub(super) fn drew(&mut self, rule: &'static str) {
        *self.drawn.entry(rule).or_default() += 1;
    }

    fn fill_to(&mut self, rule: &str, depth: usize) -> String {
        let mut text = String::new();
        let mut rest = rule;
        while let Some(at) = rest.find('{') {
            let letter = rest[at + 1..].chars().next().unwrap_or('}');
            let kind = match letter {
                'i' => Int,
                'b' => Big,
                'n' => Numeric,
                'f' => Float,
                't' => Text,
                'o' => Bool,
                'd' => Date,
                's' => Time,
                'z' => Zoned,
                'v' => Span,
                'j' => Json,
                _ => Ints,
            };
            // `{a,0}` and `{"k"` are text.
            let place = rest[at + 2..].starts_with('}');
            text.push_str(&rest[..at]);
            if place {
                let inner = self.expression(kind, depth - 1);
                text.push_str(&if inner.contains([' ', '-']) { format!("({inner})") } else { inner });
                rest = &rest[at + 3..];
            } else {
                text.push('{');
                rest = &rest[at + 1..];
            }
        }
        text.push_str(rest);
        text
    }

    fn any(&mut self, depth: usize) -> String {
        let kind = self.one(&KINDS);
        self.expression(kind, depth)
    }

    /// A kind whose values have an order in both systems.
    fn sortable(&mut self) -> Kind {
        self.one(&[Int, Big, Numeric, Float, Text, Bool, Date, Time, Zoned])
    }

    pub(super) fn filter(&mut self) -> String {
        if self.rng.random_bool(0.5) { String::new() } else { format!(" WHERE {}", self.expression(Bool, 2)) }
    }

    pub fn query(&mut self) -> Query {
        self.alias = None;
        match self.rng.random_range(0..11) {
            10 => self.sets(),
            0 | 1 => self.literals(),
            2 | 3 => self.rows(),
            4 | 5 => self.groups(),
            6 => self.join(),
            7 => self.window(),
            8 => self.set(),
            _ => self.subquery(),
        }
    }

    fn literals(&mut self) -> Query {
        let rule = self.one(UNSAFE);
        *self.drawn.entry(rule).or_default() += 1;
        let mut text = rule.to_owned();
        for (place, of) in [
            ("{I}", INTS),
            ("{N}", NUMERICS),
            ("{F}", FLOATS),
            ("{T}", TEXTS),
            ("{D}", DATES),
            ("{V}", SPANS),
        ] {
            while text.contains(place) {
                let value = self.one(of);
                text = text.replacen(place, value, 1);
            }
        }
        Query { sql: format!("SELECT {text}"), ordered_by: 0, viewable: false }
    }

    fn rows(&mut self) -> Query {
        *self.drawn.entry("SELECT").or_default() += 1;
        let kind = self.sortable();
        let first = self.expression(kind, 2);
        let others: Vec<String> = (0..self.rng.random_range(0..3)).map(|_| self.any(2)).collect();
        let list = std::iter::once(&first).chain(&others).cloned().collect::<Vec<_>>().join(", ");
        let filter = self.filter();
        let viewable = self.rng.random_bool(0.3);
        let order = match self.rng.random_range(0..4) {
            _ if viewable => "",
            0 => " ORDER BY 1",
            1 => " ORDER BY 1 DESC",
            2 => " ORDER BY 1 NULLS FIRST",
            _ => "",
        };
        let distinct = if order.is_empty() && self.rng.random_bool(0.1) { "DISTINCT " } else { "" };
        Query {
            sql: format!("SELECT {distinct}{list} FROM t{filter}{order}"),
            ordered_by: usize::from(!order.is_empty()),
            viewable,
        }
    }

    fn aggregate(&mut self) -> String {
        let kind = self.sortable();
        let (value, number) = (self.expression(kind, 1), self.one(&[Int, Numeric, Float]));
        let (number, text) = (self.expression(number, 1), self.expression(Text, 1));
        let (integer, truth) = (self.expression(Int, 1), self.expression(Bool, 1));
        let calls = [
            "count(*)".to_owned(),
            format!("count({value})"),
            format!("count(DISTINCT {value})"),
            format!("sum({number})"),
            format!("avg({number})"),
            format!("sum(DISTINCT {integer})"),
            // PostgreSQL has no extremes of booleans.
            format!("min({text})"),
            format!("max({number})"),
            format!("bool_and({truth})"),
            format!("every({truth})"),
            format!("bool_or({truth})"),
            format!("stddev({number})"),
            format!("var_pop({number})"),
            format!("string_agg({text}, ',' ORDER BY id)"),
            format!("array_agg({integer} ORDER BY id DESC)"),
            format!("jsonb_agg({text} ORDER BY id)"),
            format!("jsonb_object_agg(id, {integer})"),
            format!("bit_or({integer})"),
            format!("percentile_cont(0.5) WITHIN GROUP (ORDER BY {number})"),
            format!("percentile_disc(0.25) WITHIN GROUP (ORDER BY {value})"),
            format!("mode() WITHIN GROUP (ORDER BY {value})"),
            format!("regr_count({number}, {integer})"),
        ];
        let rules = [
            "count(*)",
            "count",
            "count distinct",
            "sum",
            "avg",
            "sum distinct",
            "min",
            "max",
            "bool_and",
            "every",
            "bool_or",
            "stddev",
            "var_pop",
            "string_agg",
            "array_agg",
            "jsonb_agg",
            "jsonb_object_agg",
            "bit_or",
            "percentile_cont",
            "percentile_disc",
            "mode",
            "regr_count",
        ];
        let at = self.rng.random_range(0..calls.len());
        *self.drawn.entry(rules[at]).or_default() += 1;
        let filter =
            if self.rng.random_bool(0.15) { format!(" FILTER (WHERE {truth})") } else { String::new() };
        format!("{}{filter}", calls[at])
    }

    fn groups(&mut self) -> Query {
        let calls = [self.aggregate(), self.aggregate()].join(", ");
        let filter = self.filter();
        let kind = self.sortable();
        let key = self.expression(kind, 1);
        let viewable = self.rng.random_bool(0.5);
        let sql = match self.rng.random_range(0..4) {
            0 => format!("SELECT {calls} FROM t{filter}"),
            1 => {
                *self.drawn.entry("GROUPING SETS").or_default() += 1;
                format!(
                    "SELECT o, i % 2 AS m, grouping(o) AS g, {calls} FROM t{filter} GROUP BY ROLLUP (o, i % 2)"
                )
            }
            2 => {
                *self.drawn.entry("HAVING").or_default() += 1;
                format!("SELECT {key} AS k, {calls} FROM t{filter} GROUP BY 1 HAVING count(*) > 1")
            }
            _ => {
                *self.drawn.entry("GROUP BY").or_default() += 1;
                format!("SELECT {key} AS k, {calls} FROM t{filter} GROUP BY {key}")
            }
        };
        Query { sql, ordered_by: 0, viewable }
    }

    fn join(&mut self) -> Query {
        *self.drawn.entry("JOIN").or_default() += 1;
        let kind = self.one(&["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]);
        let key = self.one(&[
            "t.i = u.i",
            "t.x = u.x",
            "t.id = u.id",
            "t.d = u.d AND t.o = u.o",
            "t.i = u.i AND t.n < u.n",
            "t.x = u.y",
        ]);
        self.alias = Some("t");
        let a = self.any(1);
        self.alias = Some("u");
        let b = self.any(1);
        let c = self.expression(Bool, 1);
        self.alias = None;
        let filter = if self.rng.random_bool(0.4) { format!(" WHERE {c}") } else { String::new() };
        let sql =
            format!("SELECT {a} AS p, {b} AS q, t.id AS tid, u.id AS uid FROM t {kind} u ON {key}{filter}");
        // PostgreSQL has FULL JOIN for conditions that it can merge or hash by.
        let sql = if kind == "FULL JOIN" { sql.replace(" AND t.n < u.n", "") } else { sql };
        Query {
            sql: sql.replace("ARRAY[x, y]", "ARRAY['x']"),
            ordered_by: 0,
            viewable: self.rng.random_bool(0.5),
        }
    }

    fn window(&mut self) -> Query {
        *self.drawn.entry("OVER").or_default() += 1;
        let call = self.one(&[
            "row_number()",
            "rank()",
            "dense_rank()",
            "lag(x)",
            "lead(i, 2, -1)",
            "first_value(n)",
            "last_value(n)",
            "nth_value(x, 2)",
            "ntile(3)",
            "percent_rank()",
            "cume_dist()",
            "sum(i)",
            "avg(n)",
            "count(*)",
            "min(x)",
            "max(f)",
            "stddev(i)",
            "bool_or(o)",
            "array_agg(i)",
            "string_agg(x, ',')",
            "jsonb_agg(i)",
            "bit_or(i)",
            "every(i > 2) FILTER (WHERE o)",
        ]);
        let order = self.one(&[
            "ORDER BY id",
            "ORDER BY i, id",
            "ORDER BY x DESC, id DESC",
            "ORDER BY n NULLS FIRST, id",
        ]);
        let framed = !call.starts_with(['l', 'r', 'd', 'p', 'c'])
            || call.starts_with("last")
            || call.starts_with("count");
        let frame = match self.rng.random_range(0..4) {
            _ if !framed || call.starts_with("ntile") => "",
            0 => " ROWS BETWEEN 2 PRECEDING AND CURRENT ROW",
            1 => " ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING",
            2 => " ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING",
            _ => "",
        };
        let partition = self.one(&["", "PARTITION BY o ", "PARTITION BY i % 2, o "]);
        Query {
            sql: format!("SELECT id, {call} OVER ({partition}{order}{frame}) AS w FROM t"),
            ordered_by: 0,
            viewable: self.rng.random_bool(0.5),
        }
    }

    fn set(&mut self) -> Query {
        *self.drawn.entry("set operation").or_default() += 1;
        let operator =
            self.one(&["UNION", "UNION ALL", "INTERSECT", "EXCEPT", "INTERSECT ALL", "EXCEPT ALL"]);
        let kind = self.sortable();
        let (a, b) = (self.expression(kind, 1), self.expression(kind, 1));
        Query {
            sql: format!("SELECT {a} AS c, o FROM t {operator} SELECT {b}, o FROM u"),
            ordered_by: 0,
            viewable: self.rng.random_bool(0.5),
        }
    }

    fn subquery(&mut self) -> Query {
        if self.rng.random_bool(0.7) {
            return self.correlated();
        }
        *self.drawn.entry("subquery").or_default() += 1;
        let condition = self.one(&[
            "i IN (SELECT i FROM u)",
            "i NOT IN (SELECT i FROM u WHERE i IS NOT NULL)",
            "EXISTS (SELECT 1 FROM u WHERE u.x = t.x)",
            "NOT EXISTS (SELECT 1 FROM u WHERE u.i = t.i AND u.n > t.n)",
            "n > (SELECT avg(n) FROM u)",
            "i = (SELECT max(i) FROM u WHERE u.o = t.o)",
            "x = (SELECT min(x) FROM u)",
        ]);
        let value = self.any(1);
        Query {
            sql: format!("SELECT id, {value} AS c FROM t WHERE {condition}"),
            ordered_by: 0,
            viewable: self.rng.random_bool(0.5),
        }
    }
}
