//! Filters on the clock against the same condition, asked of every row after each epoch.

use std::sync::Arc;

use arrow::array::Int64Array;
use arrow::datatypes::*;
use datafusion::common::ScalarValue;
use datafusion::physical_plan::expressions::lit;
use millpond_dataflow::*;
use millpond_functions::window::Tumble;
use millpond_types::Delta;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::harness::Harness;
use crate::model::{Cell, Multiset, Row, add, batch};

fn schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Microsecond, None);
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int32, true),
        Field::new("a", time.clone(), true),
        Field::new("b", time, true),
        Field::new("flag", DataType::Boolean, true),
    ]))
}

fn delta(changes: &[(Row, i64)]) -> Delta {
    let rows: Vec<&Row> = changes.iter().map(|(row, _)| row).collect();
    let weights = changes.iter().any(|(_, w)| *w != 1);
    let weights = weights.then(|| Int64Array::from_iter_values(changes.iter().map(|(_, w)| *w)));
    Delta::new(batch(&schema(), &rows), weights)
}

fn build(graph: &mut Graph, spans: &[TimeSpan], append_only: bool) -> (InputId, OutputId) {
    let input = graph.add_input(schema());
    let none = MapSpec { filter: Some(lit(ScalarValue::Boolean(Some(false)))), projection: Vec::new() };
    let clock = graph.add_map(input, none).unwrap();
    // The columns that decide do not all leave.
    let output = vec![0, 1];
    let schema = Arc::new(schema().project(&output).unwrap());
    let spec = TemporalSpec { spans: spans.to_vec(), output, append_only, schema };
    let node = graph.add_temporal(input, clock, &spec).unwrap();
    (input, graph.add_output(node).unwrap())
}

fn clock_at(clock: &[ClockStep], now: i64) -> i64 {
    clock.iter().fold(now, |now, step| match step {
        ClockStep::Shift(by) => now + by,
        ClockStep::Truncate(window) => window.start(now).unwrap(),
    })
}

fn holds(span: &TimeSpan, row: &Row, now: i64) -> bool {
    let bound = |bound: &ClockBound| {
        let Cell::Int(time) = row[bound.time] else { return false };
        let clock = i128::from(clock_at(&bound.clock, now));
        match bound.comparison {
            Comparison::Less => time < clock,
            Comparison::LessOrEqual => time <= clock,
            Comparison::Greater => time > clock,
            Comparison::GreaterOrEqual => time >= clock,
        }
    };
    span.conditions.iter().all(|c| row[*c] == Cell::Int(1)) && span.bounds.iter().all(bound)
}

fn naive(present: &Multiset, spans: &[TimeSpan], now: i64) -> Multiset {
    let mut shown = Multiset::new();
    for (row, weight) in present {
        if spans.iter().any(|span| holds(span, row, now)) {
            add(&mut shown, row[..2].to_vec(), *weight);
        }
    }
    shown
}

fn random_span(rng: &mut SmallRng) -> TimeSpan {
    let bound = |rng: &mut SmallRng| {
        let comparison =
            [Comparison::Less, Comparison::LessOrEqual, Comparison::Greater, Comparison::GreaterOrEqual]
                [rng.random_range(0..4)];
        let mut clock = Vec::new();
        for _ in 0..rng.random_range(0..3) {
            clock.push(match rng.random_range(0..3) {
                0 => {
                    let size = IntervalMonthDayNano::new(0, 0, 1000 * rng.random_range(2..9));
                    ClockStep::Truncate(Tumble::new(size, None).unwrap())
                }
                _ => ClockStep::Shift(rng.random_range(-12..13)),
            });
        }
        ClockBound { time: rng.random_range(1..3), comparison, clock }
    };
    let conditions = if rng.random_ratio(1, 3) { vec![3] } else { Vec::new() };
    TimeSpan { conditions, bounds: (0..rng.random_range(0..4)).map(|_| bound(rng)).collect() }
}

fn random_row(rng: &mut SmallRng) -> Row {
    let int = |rng: &mut SmallRng, range: std::ops::Range<i128>| {
        if rng.random_ratio(1, 8) { Cell::Null } else { Cell::Int(rng.random_range(range)) }
    };
    vec![int(rng, 0..3), int(rng, 0..40), int(rng, 0..40), int(rng, 0..2)]
}

#[test]
fn filters_equal_their_condition_at_every_tick() {
    for seed in 0..250u64 {
        let rng = &mut SmallRng::seed_from_u64(seed);
        let spans: Vec<TimeSpan> = (0..rng.random_range(1..4)).map(|_| random_span(rng)).collect();
        let append_only = rng.random_ratio(1, 3);
        let shards = |rng: &mut SmallRng| [1, 2, 4][rng.random_range(0..3)];
        let builder = |graph: &mut Graph| build(graph, &spans, append_only);
        let mut harness = Harness::new(shards(rng), &builder);
        harness.linear = true;
        let (mut present, mut now) = (Multiset::new(), -20);
        harness.step(Vec::new(), Some(now));
        for epoch in 0..rng.random_range(1..14) {
            let mut changes = Vec::new();
            for _ in 0..rng.random_range(0..12) {
                let retract = !append_only && !present.is_empty() && rng.random_ratio(2, 5);
                let (row, weight) = if retract {
                    let (row, weight) =
                        present.iter().nth(rng.random_range(0..present.len())).expect("within");
                    (row.clone(), -rng.random_range(1..=*weight))
                } else {
                    (random_row(rng), if rng.random_ratio(1, 5) { 2 } else { 1 })
                };
                add(&mut present, row.clone(), weight);
                changes.push((row, weight));
            }
            changes.sort_by_key(|_| rng.random::<u32>());
            now += if rng.random_ratio(2, 3) { rng.random_range(0..15) } else { 0 };
            let deltas = changes.chunks(rng.random_range(1..8)).map(delta).collect();
            harness.step(deltas, Some(now));
            assert_eq!(harness.view, naive(&present, &spans, now), "seed {seed}, epoch {epoch}: {spans:?}");
            match rng.random_range(0..6) {
                0 => harness.restart(shards(rng)),
                1 => drop(harness.freeze()),
                _ => {}
            }
        }
        harness.step(Vec::new(), Some(now + 1_000));
        assert_eq!(harness.view, naive(&present, &spans, now + 1_000), "seed {seed}: the end");
        let held: u64 = harness.graph.node_stats().iter().map(|node| node.state_rows).sum();
        assert_eq!(held, 0, "seed {seed}: nothing waits any more");
    }
}

/// The worked trace of the operator's own page, and what it holds.
#[test]
fn rows_leave_when_the_clock_reaches_them() {
    let bound = ClockBound { time: 1, comparison: Comparison::Greater, clock: vec![ClockStep::Shift(-10)] };
    let spans = [TimeSpan { conditions: Vec::new(), bounds: vec![bound] }];
    let builder = |graph: &mut Graph| build(graph, &spans, false);
    let mut harness = Harness::new(1, &builder);
    let row = |time: i128| vec![Cell::Int(0), Cell::Int(time), Cell::Null, Cell::Null];
    let times =
        |harness: &Harness<'_>| -> Vec<Cell> { harness.view.keys().map(|row| row[1].clone()).collect() };
    let held = |harness: &Harness<'_>| harness.graph.node_stats().iter().map(|n| n.state_rows).sum::<u64>();
    harness.step(vec![delta(&[(row(5), 1), (row(12), 1), (row(15), 1)])], Some(20));
    assert_eq!((times(&harness), held(&harness)), (vec![Cell::Int(12), Cell::Int(15)], 2));
    harness.step(Vec::new(), Some(22));
    assert_eq!((times(&harness), held(&harness)), (vec![Cell::Int(15)], 1));
    harness.step(vec![delta(&[(row(12), -1), (row(15), -1)])], None);
    assert_eq!((times(&harness), held(&harness)), (vec![], 0));
}

/// More rows turn at one tick than a batch holds, on every shard.
#[test]
fn a_tick_that_turns_many_rows_streams_them() {
    let bound = ClockBound { time: 1, comparison: Comparison::LessOrEqual, clock: vec![] };
    let spans = [TimeSpan { conditions: Vec::new(), bounds: vec![bound] }];
    let builder = |graph: &mut Graph| build(graph, &spans, true);
    let mut harness = Harness::new(2, &builder);
    let rows: Vec<(Row, i64)> = (0..20_000)
        .map(|n| (vec![Cell::Int(n), Cell::Int(100 + n % 7), Cell::Null, Cell::Null], 1))
        .collect();
    harness.step(vec![delta(&rows)], Some(99));
    assert!(harness.view.is_empty());
    let out = harness.step(Vec::new(), Some(200));
    assert_eq!(harness.view.len(), 20_000);
    assert!(out.outputs[0].1.iter().all(|delta| delta.rows() <= 8192), "in bounded batches");
}
