//! Filters on now(): rows that come and go as time passes.
//!
//! A condition is brought into spans: it is true while one of them is, and a span is true while all of its conditions on
//! the row are, and all of its comparisons of a time with the clock. NOT moves down to the comparisons, where NULL stays
//! NULL; what compares two moments with an interval becomes a comparison of one with the other.

use std::fmt;

use arrow::datatypes::{DataType, Field, IntervalMonthDayNano, Schema};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::expr::{BinaryExpr, Case, ScalarFunction};
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{Between, Expr, ExprSchemable, Operator as Comparing, lit};
use millpond_functions::error::from_datafusion;
use millpond_functions::rewrite::{cast_expr, utc_cast_target};
use millpond_types::{SqlError, SqlType};

use super::grouping::Slots;
use super::lower::{Facts, Lowering, Names, column, place};
use super::text::shown;
use super::{NodeId, Operator};
use crate::clock::{asks, refused};
use crate::rules::without_alias;

/// More spans than any condition by hand has.
const SPANS_MAX: usize = 64;

const DAY_US: i64 = 86_400_000_000;

/// What is done to now() before it is compared; none of it ever makes a later time an earlier one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClockStep {
    /// So many microseconds later.
    Shift(i64),
    /// date_trunc in UTC, by a unit of at most a year.
    Truncate(TimeUnit),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Quarter,
    Year,
}

impl TimeUnit {
    const ALL: [Self; 8] = [
        Self::Second,
        Self::Minute,
        Self::Hour,
        Self::Day,
        Self::Week,
        Self::Month,
        Self::Quarter,
        Self::Year,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Quarter => "quarter",
            Self::Year => "year",
        }
    }

    /// Its length, and where it begins after 1970-01-01.
    pub fn size_and_offset(self) -> (IntervalMonthDayNano, IntervalMonthDayNano) {
        let (months, days, seconds) = match self {
            Self::Second => (0, 0, 1),
            Self::Minute => (0, 0, 60),
            Self::Hour => (0, 0, 3_600),
            Self::Day => (0, 1, 0),
            Self::Week => (0, 7, 0),
            Self::Month => (1, 0, 0),
            Self::Quarter => (3, 0, 0),
            Self::Year => (12, 0, 0),
        };
        // Weeks begin on Mondays, as 1970-01-05 was one.
        let offset = if self == Self::Week { 4 } else { 0 };
        let size = IntervalMonthDayNano::new(months, days, seconds * 1_000_000_000);
        (size, IntervalMonthDayNano::new(0, offset, 0))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Comparison {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    fn negated(self) -> Self {
        match self {
            Self::Less => Self::GreaterOrEqual,
            Self::LessOrEqual => Self::Greater,
            Self::Greater => Self::LessOrEqual,
            Self::GreaterOrEqual => Self::Less,
        }
    }

    fn turned(self) -> Self {
        match self {
            Self::Less => Self::Greater,
            Self::LessOrEqual => Self::GreaterOrEqual,
            Self::Greater => Self::Less,
            Self::GreaterOrEqual => Self::LessOrEqual,
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        })
    }
}

/// An input column of timestamps compared with the clock; NULL is not true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClockBound {
    pub time: usize,
    /// The column is less (…) than the clock.
    pub comparison: Comparison,
    /// In the order in which they are done.
    pub clock: Vec<ClockStep>,
}

/// All of these are true: boolean input columns, and comparisons with the clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeSpan {
    pub conditions: Vec<usize>,
    pub bounds: Vec<ClockBound>,
}

/// Rows while one of the spans is true of them, by the ticks of the log. Rows that will come or go wait in order of that time.
#[derive(Clone, Debug, PartialEq)]
pub struct Temporal {
    pub spans: Vec<TimeSpan>,
    /// Input columns.
    pub output: Vec<usize>,
}

impl Temporal {
    /// Some row goes, sooner or later.
    pub fn expires(&self) -> bool {
        let ends = |b: &ClockBound| matches!(b.comparison, Comparison::Greater | Comparison::GreaterOrEqual);
        self.spans.iter().any(|span| span.bounds.iter().any(ends))
    }
}

impl ClockBound {
    /// `now() - 1 hour`
    pub(super) fn clock_text(&self) -> String {
        self.clock.iter().fold("now()".to_owned(), |text, step| match step {
            ClockStep::Shift(us) if *us < 0 => {
                format!("{text} - {}", crate::window::duration(us.saturating_neg()))
            }
            ClockStep::Shift(us) => format!("{text} + {}", crate::window::duration(*us)),
            ClockStep::Truncate(unit) => format!("date_trunc('{}', {text})", unit.name()),
        })
    }
}

/// A condition as it is brought into spans.
enum Formula {
    Row(Expr),
    Bound(Bound),
    And(Vec<Formula>),
    Or(Vec<Formula>),
}

#[derive(Clone)]
struct Bound {
    time: Expr,
    comparison: Comparison,
    clock: Vec<ClockStep>,
}

/// One span, over expressions of the row.
#[derive(Clone, Default)]
struct Terms {
    conditions: Vec<Expr>,
    bounds: Vec<Bound>,
}

impl Lowering {
    /// A node with `columns` of the rows of `input` while `filter`, which asks for the time, is true of them.
    pub(super) fn temporal(
        &mut self,
        input: NodeId,
        filter: &Expr,
        columns: Vec<(String, Expr)>,
    ) -> Result<NodeId, SqlError> {
        let schema =
            DFSchema::try_from(std::sync::Arc::clone(&self.nodes[input].schema)).map_err(from_datafusion)?;
        let parts = Parts::of(filter, &schema)?;
        let mut slots = Slots::default();
        // What is computed from rows is computed of those that are valid alone, as a batch does.
        let below = std::sync::Arc::clone(&self.nodes[input].schema);
        for expr in columns.iter().map(|(_, expr)| expr).chain(&parts.above) {
            super::lower::refuse_in_expression(expr)?;
            for used in expr.column_refs() {
                slots.place(&used.name, &column(&used.name));
            }
        }
        if slots.is_empty() {
            // A batch without columns forgets its rows too easily.
            slots.place("present", &lit(true));
        }
        let kept = slots.expressions.len();
        let spans = parts.spans.iter().map(|terms| TimeSpan {
            conditions: terms.conditions.iter().map(|expr| slots.place(&shown(expr), expr)).collect(),
            bounds: terms
                .bounds
                .iter()
                .map(|Bound { time, comparison, clock }| ClockBound {
                    time: slots.place(&shown(time), time),
                    comparison: *comparison,
                    clock: clock.clone(),
                })
                .collect(),
        });
        let spans: Vec<TimeSpan> = spans.collect();
        let slots = slots.finish();
        let same = parts.below.is_none()
            && slots.len() == below.fields().len()
            && slots.iter().enumerate().all(|(at, (_, e))| place(e, &below) == Some(at));
        let node = if same { input } else { self.map(input, parts.below, slots)? };
        let schema = std::sync::Arc::clone(&self.nodes[node].schema);
        // Plain columns leave under the names that they shall have; anything else is computed above.
        let named = |e: &Expr| {
            let Expr::Column(c) = e else { return None };
            (0..kept).find(|at| *schema.field(*at).name() == c.name)
        };
        let plain: Option<Vec<usize>> = match parts.above {
            None if !columns.is_empty() => columns.iter().map(|(_, expr)| named(expr)).collect(),
            _ => None,
        };
        let mut unique = Names::default();
        let (output, fields): (Vec<usize>, Vec<Field>) = match &plain {
            Some(output) => {
                let fields = output.iter().zip(&columns);
                let field = |(at, (name, _)): (&usize, &(String, Expr))| {
                    schema.field(*at).clone().with_name(unique.next(name))
                };
                (output.clone(), fields.map(field).collect())
            }
            None => ((0..kept).collect(), (0..kept).map(|at| schema.field(at).clone()).collect()),
        };
        let operator = Temporal { spans, output };
        let below = &self.nodes[node];
        let moved = |at: &usize| operator.output.iter().position(|c| c == at);
        let facts = Facts {
            append_only: below.append_only && !operator.expires(),
            key: below.key.as_ref().and_then(|key| key.iter().map(moved).collect()),
            event_time: None,
        };
        let node = self.push(Operator::Temporal(operator), vec![node], fields, facts);
        match plain {
            Some(_) => Ok(node),
            None => self.map(node, parts.above, columns),
        }
    }
}

/// A filter, taken apart.
struct Parts {
    /// What is asked of a row whatever the time is.
    below: Option<Expr>,
    spans: Vec<Terms>,
    /// What may fail, and is asked only of rows that are valid.
    above: Option<Expr>,
}

impl Parts {
    fn of(filter: &Expr, schema: &DFSchema) -> Result<Self, SqlError> {
        let (mut below, mut above, mut timed) = (Vec::new(), Vec::new(), Vec::new());
        for conjunct in split_conjunction(filter) {
            if !asks(conjunct) {
                below.push(conjunct.clone());
                continue;
            }
            match guarded(conjunct) {
                Some((_, false, right)) if !asks(right) => above.push(right.clone()),
                _ => timed.push(Reader { schema }.formula(conjunct, false, None)?),
            }
        }
        let spans = spans(Formula::And(timed))?;
        Ok(Self { below: conjunction(below), spans, above: conjunction(above) })
    }
}

/// `CASE c WHEN known THEN known ELSE right END`: AND and OR have it as their right side where that may fail
/// (`functions::rewrite`). Gives c, known and right.
fn guarded(expr: &Expr) -> Option<(&Expr, bool, &Expr)> {
    let Expr::Case(Case { expr: Some(condition), when_then_expr, else_expr: Some(right) }) = expr else {
        return None;
    };
    let known = |e: &Expr| match e {
        Expr::Literal(ScalarValue::Boolean(Some(known)), _) => Some(*known),
        _ => None,
    };
    let [(when, then)] = &when_then_expr[..] else { return None };
    let known = known(when).filter(|when| known(then) == Some(*when))?;
    Some((condition, known, right))
}

/// The disjunctive normal form.
fn spans(formula: Formula) -> Result<Vec<Terms>, SqlError> {
    let spans = match formula {
        Formula::Row(expr) => vec![Terms { conditions: vec![expr], bounds: Vec::new() }],
        Formula::Bound(bound) => vec![Terms { conditions: Vec::new(), bounds: vec![bound] }],
        Formula::Or(parts) => {
            let parts: Vec<Vec<Terms>> = parts.into_iter().map(spans).collect::<Result<_, _>>()?;
            parts.into_iter().flatten().collect()
        }
        Formula::And(parts) => {
            let mut all = vec![Terms::default()];
            for part in parts {
                let part = spans(part)?;
                if all.len() * part.len() > SPANS_MAX {
                    return Err(refused("in a condition of so many alternatives"));
                }
                all = all.iter().flat_map(|terms| part.iter().map(|more| terms.and(more))).collect();
            }
            all
        }
    };
    if spans.len() > SPANS_MAX {
        return Err(refused("in a condition of so many alternatives"));
    }
    Ok(spans)
}

impl Terms {
    fn and(&self, more: &Self) -> Self {
        let mut both = self.clone();
        both.conditions.extend(more.conditions.iter().cloned());
        both.bounds.extend(more.bounds.iter().cloned());
        both
    }
}

/// A guard of expressions that may fail: where it has this value, they do not matter.
#[derive(Clone)]
struct Guard(Expr, bool);

struct Reader<'a> {
    schema: &'a DFSchema,
}

impl Reader<'_> {
    fn formula(&self, expr: &Expr, negated: bool, guard: Option<&Guard>) -> Result<Formula, SqlError> {
        if !asks(expr) {
            let expr = if negated { Expr::Not(Box::new(expr.clone())) } else { expr.clone() };
            return Ok(Formula::Row(self.under(guard, expr)?));
        }
        match expr {
            Expr::Alias(alias) => self.formula(&alias.expr, negated, guard),
            Expr::Not(inner) => self.formula(inner, !negated, guard),
            Expr::IsTrue(inner) if !negated => self.formula(inner, false, guard),
            Expr::BinaryExpr(BinaryExpr { left, op: op @ (Comparing::And | Comparing::Or), right }) => {
                let both = vec![self.formula(left, negated, guard)?, self.formula(right, negated, guard)?];
                Ok(if (*op == Comparing::And) == negated { Formula::Or(both) } else { Formula::And(both) })
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                let compare = |comparison: Comparison| {
                    let comparison = if negated { comparison.negated() } else { comparison };
                    self.bound(left, comparison, right, guard).map(Formula::Bound)
                };
                let two = |a, b| Ok::<_, SqlError>(vec![compare(a)?, compare(b)?]);
                match op {
                    Comparing::Lt => compare(Comparison::Less),
                    Comparing::LtEq => compare(Comparison::LessOrEqual),
                    Comparing::Gt => compare(Comparison::Greater),
                    Comparing::GtEq => compare(Comparison::GreaterOrEqual),
                    Comparing::Eq => {
                        let both = two(Comparison::LessOrEqual, Comparison::GreaterOrEqual)?;
                        Ok(if negated { Formula::Or(both) } else { Formula::And(both) })
                    }
                    Comparing::NotEq => {
                        let both = two(Comparison::Less, Comparison::Greater)?;
                        Ok(if negated { Formula::And(both) } else { Formula::Or(both) })
                    }
                    _ => Err(refused("in this condition")),
                }
            }
            Expr::Between(Between { expr, negated: outside, low, high }) => {
                let negated = negated != *outside;
                let compare = |comparison: Comparison, other: &Expr| {
                    let comparison = if negated { comparison.negated() } else { comparison };
                    match asks(expr) || asks(other) {
                        true => self.bound(expr, comparison, other, guard).map(Formula::Bound),
                        false => {
                            let op = match comparison {
                                Comparison::Less => Comparing::Lt,
                                Comparison::LessOrEqual => Comparing::LtEq,
                                Comparison::Greater => Comparing::Gt,
                                Comparison::GreaterOrEqual => Comparing::GtEq,
                            };
                            let row = datafusion::logical_expr::binary_expr(
                                expr.as_ref().clone(),
                                op,
                                other.clone(),
                            );
                            self.under(guard, row).map(Formula::Row)
                        }
                    }
                };
                let both =
                    vec![compare(Comparison::GreaterOrEqual, low)?, compare(Comparison::LessOrEqual, high)?];
                Ok(if negated { Formula::Or(both) } else { Formula::And(both) })
            }
            _ => match guarded(expr) {
                Some((condition, known, right)) if asks(right) => {
                    let free = split_conjunction(condition).into_iter().filter(|e| !asks(e)).cloned();
                    let guard = match known {
                        false => conjunction(free),
                        true => Some(condition.clone()).filter(|condition| !asks(condition)),
                    };
                    self.formula(right, negated, guard.map(|guard| Guard(guard, known)).as_ref())
                }
                Some(_) => Err(refused("beside a condition that may fail, in OR,")),
                None => Err(refused("in this condition")),
            },
        }
    }

    /// What may fail is not asked of rows of which the answer is known.
    fn under(&self, guard: Option<&Guard>, expr: Expr) -> Result<Expr, SqlError> {
        let Some(Guard(condition, known)) = guard else { return Ok(expr) };
        let ty = expr.get_type(self.schema).map_err(from_datafusion)?;
        let nothing = ScalarValue::try_from(&ty).map_err(from_datafusion)?;
        let when = vec![(Box::new(lit(*known)), Box::new(Expr::Literal(nothing, None)))];
        Ok(Expr::Case(Case::new(Some(Box::new(condition.clone())), when, Some(Box::new(expr)))))
    }

    fn bound(
        &self,
        left: &Expr,
        comparison: Comparison,
        right: &Expr,
        guard: Option<&Guard>,
    ) -> Result<Bound, SqlError> {
        let (time, comparison, clock) = match (asks(left), asks(right)) {
            (false, true) => (left, comparison, right),
            (true, false) => (right, comparison.turned(), left),
            _ => return Err(refused("on both sides of a comparison")),
        };
        // `now() - ts < i` is `now() - i < ts`, and `ts - now() < i` is `ts < now() + i`.
        let (time, comparison, mut clock, by) = match (difference(clock), span(time)) {
            (Some((clock, time, true)), Some(span)) => (time, comparison, clock, -span),
            (Some((clock, time, false)), Some(span)) => (time, comparison.turned(), clock, span),
            _ => (time, comparison, steps(clock)?, 0),
        };
        if by != 0 {
            clock.push(ClockStep::Shift(by));
        }
        let time = without_alias(time.clone());
        let time = match time.get_type(self.schema).map_err(from_datafusion)? {
            DataType::Timestamp(..) => time,
            DataType::Date32 => cast_expr(time, &SqlType::Timestamp, self.schema).map_err(from_datafusion)?,
            _ => return Err(refused("compared with what is no time")),
        };
        Ok(Bound { time: self.under(guard, time)?, comparison, clock })
    }
}

/// A constant interval in microseconds, as intervals compare: a month has 30 days.
fn span(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Alias(alias) => span(&alias.expr),
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(span)), _) => {
            let days = i64::from(span.months).checked_mul(30)?.checked_add(span.days.into())?;
            (span.nanoseconds % 1_000 == 0)
                .then(|| days.checked_mul(DAY_US)?.checked_add(span.nanoseconds / 1_000))?
        }
        // What `interval_length` is compared with.
        Expr::Literal(ScalarValue::Decimal128(Some(us), _, 0), _) => i64::try_from(*us).ok(),
        _ => None,
    }
}

/// The clock less a time of the row (true), or that time less the clock.
fn difference(expr: &Expr) -> Option<(Vec<ClockStep>, &Expr, bool)> {
    // Intervals compare by their lengths.
    let expr = match call(expr)? {
        ("interval_length", [interval]) => interval,
        _ => expr,
    };
    let (name, [left, right]) = call(expr)? else { return None };
    if name != "checked_subtract" {
        return None;
    }
    match (asks(left), asks(right)) {
        (true, false) if right.any_column_refs() => Some((steps(left).ok()?, right, true)),
        (false, true) if left.any_column_refs() => Some((steps(right).ok()?, left, false)),
        _ => None,
    }
}

fn call(expr: &Expr) -> Option<(&str, &[Expr])> {
    match expr {
        Expr::Alias(alias) => call(&alias.expr),
        Expr::ScalarFunction(ScalarFunction { func, args }) => Some((func.name(), args)),
        _ => None,
    }
}

/// What an expression of now() alone does to it.
fn steps(expr: &Expr) -> Result<Vec<ClockStep>, SqlError> {
    let moved = |clock: &Expr, by: &Expr, sign: i64| {
        let Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(by)), _) = by else {
            return Err(refused("moved by anything but a constant interval"));
        };
        if by.months != 0 {
            return Err(refused("moved by months").hint(
                "Months differ in length, so that time would go back at their ends. Write days, such as INTERVAL '30 days'.",
            ));
        }
        let us = i64::from(by.days).checked_mul(DAY_US).and_then(|us| us.checked_add(by.nanoseconds / 1_000));
        let us = us.filter(|us| us.unsigned_abs() < 1 << 60).ok_or_else(|| refused("moved so far"))?;
        let mut steps = steps(clock)?;
        steps.push(ClockStep::Shift(us * sign));
        Ok(steps)
    };
    let day = |clock: &Expr| {
        let mut steps = steps(clock)?;
        steps.push(ClockStep::Truncate(TimeUnit::Day));
        Ok(steps)
    };
    let to = |clock: &Expr, ty: &DataType| match ty {
        DataType::Timestamp(..) => steps(clock),
        DataType::Date32 => day(clock),
        _ => Err(refused("cast to another type")),
    };
    match expr {
        Expr::Placeholder(_) => Ok(Vec::new()),
        Expr::Alias(alias) => steps(&alias.expr),
        Expr::Cast(cast) => to(&cast.expr, cast.field.data_type()),
        Expr::ScalarFunction(ScalarFunction { func, args }) => match (func.name(), &args[..]) {
            ("checked_add", [clock, by]) if asks(clock) => moved(clock, by, 1),
            ("checked_add", [by, clock]) => moved(clock, by, 1),
            ("checked_subtract", [clock, by]) if asks(clock) => moved(clock, by, -1),
            ("date_trunc", [Expr::Literal(ScalarValue::Utf8(Some(unit)), _), clock]) => {
                let unit = unit.to_lowercase();
                let unit = TimeUnit::ALL.into_iter().find(|known| known.name() == unit);
                let unit = unit.ok_or_else(|| refused("truncated to such a unit"))?;
                let mut steps = steps(clock)?;
                steps.push(ClockStep::Truncate(unit));
                Ok(steps)
            }
            ("date_trunc" | "timestamptz_add" | "timestamptz_subtract" | "timezone", _) => Err(zoned()),
            (_, [clock]) => match utc_cast_target(func) {
                Some(Some(ty)) => to(clock, &ty.arrow()),
                Some(None) => Err(zoned()),
                None => Err(refused("in this expression")),
            },
            _ => Err(refused("in this expression")),
        },
        _ => Err(refused("in this expression")),
    }
}

/// Local time goes back once a year.
fn zoned() -> SqlError {
    refused("by the local time of a zone").hint(
        "Local time may go back. Write intervals in hours, or SET TimeZone = 'UTC' before the view is created.",
    )
}

impl Temporal {
    /// `ts > now() - 1 hour`
    pub(super) fn text(&self, schema: &Schema) -> String {
        let span = |span: &TimeSpan| {
            let conditions = span.conditions.iter().map(|c| schema.field(*c).name().clone());
            let bounds = span.bounds.iter().map(|bound| {
                format!("{} {} {}", schema.field(bound.time).name(), bound.comparison, bound.clock_text())
            });
            conditions.chain(bounds).collect::<Vec<_>>().join(" AND ")
        };
        self.spans.iter().map(span).collect::<Vec<_>>().join(" OR ")
    }
}
