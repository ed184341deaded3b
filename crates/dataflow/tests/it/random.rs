//! I2 for each operator: any changes, cut into any epochs, over any number of shards, with restarts anywhere.

use std::sync::Arc;

use arrow::array::Int64Array;
use arrow::datatypes::*;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::PhysicalExpr;
use millpond_dataflow::*;
use millpond_functions::window::{Hop, Tumble};
use millpond_types::Delta;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use crate::harness::Harness;
use crate::model::{Cell, Multiset, Row, add, batch, group_by};
use crate::sorted::add_aggregate;

const TIME: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);
const TS: usize = 9;
const WATERMARK: usize = 10;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k1", DataType::Int64, true),
        Field::new("k2", DataType::Utf8, true),
        Field::new("k3", DataType::Int32, false),
        Field::new("vi", DataType::Int32, true),
        Field::new("vb", DataType::Int64, true),
        Field::new("vd", DataType::Decimal128(12, 2), true),
        Field::new("vf", DataType::Float64, true),
        Field::new("vs", DataType::Utf8, true),
        Field::new("flag", DataType::Boolean, true),
        Field::new("ts", TIME, true),
        Field::new("_watermark", TIME, true),
        Field::new("vw", DataType::Decimal128(30, 3), true),
    ]))
}

fn text(rng: &mut SmallRng) -> Cell {
    match rng.random_range(0..8) {
        0 => Cell::Null,
        1 => Cell::Text(String::new()),
        n if n < 6 => Cell::Text(format!("s{}", rng.random_range(0..4))),
        _ => Cell::Text(format!("a string that is longer than twelve {}", rng.random_range(0..4))),
    }
}

fn int(rng: &mut SmallRng, range: std::ops::Range<i64>) -> Cell {
    if rng.random_ratio(1, 6) { Cell::Null } else { Cell::Int(rng.random_range(range).into()) }
}

fn random_row(rng: &mut SmallRng) -> Row {
    let float = match rng.random_range(0..30) {
        0 => Cell::Float(f64::NAN),
        1 => Cell::Float(f64::INFINITY),
        2 => Cell::Float(f64::NEG_INFINITY),
        3..6 => Cell::Null,
        // Sums of these are exact, so that their order does not matter.
        _ => Cell::Float(f64::from(rng.random_range(-20..20)) * 0.5),
    };
    let big = if rng.random_ratio(1, 5) { i64::MIN..i64::MAX } else { -5..5 };
    vec![
        int(rng, 0..5),
        text(rng),
        Cell::Int(rng.random_range(-1..2)),
        int(rng, -10..10),
        int(rng, big),
        int(rng, -100..100),
        float,
        text(rng),
        int(rng, 0..2),
        int(rng, -50..150),
        Cell::Null,
        int(rng, -10_000_000_000..10_000_000_000),
    ]
}

const VARIANCE: millpond_dataflow::Spread = millpond_dataflow::Spread { sample: true, deviation: false };
const DEVIATION: millpond_dataflow::Spread = millpond_dataflow::Spread { sample: false, deviation: true };

fn random_calls(rng: &mut SmallRng) -> Vec<AggregateCall> {
    use AggregateFunction::*;
    let decimal = |scale| DataType::Decimal128(38, scale);
    let all: Vec<(AggregateFunction, Option<usize>, DataType)> = vec![
        (CountStar, None, DataType::Int64),
        (Count, Some(3), DataType::Int64),
        (Count, Some(7), DataType::Int64),
        (Sum, Some(3), DataType::Int64),
        (Avg, Some(3), decimal(16)),
        (Sum, Some(4), decimal(0)),
        (Avg, Some(4), decimal(16)),
        (Sum, Some(5), decimal(2)),
        (Avg, Some(5), decimal(16)),
        (Sum, Some(6), DataType::Float64),
        (Avg, Some(6), DataType::Float64),
        (Sum, Some(11), decimal(3)),
        (Min, Some(3), DataType::Int32),
        (Max, Some(4), DataType::Int64),
        (Min, Some(5), DataType::Decimal128(12, 2)),
        (Max, Some(5), DataType::Decimal128(12, 2)),
        (Min, Some(6), DataType::Float64),
        (Max, Some(6), DataType::Float64),
        (Min, Some(7), DataType::Utf8),
        (Max, Some(7), DataType::Utf8),
        (Max, Some(TS), TIME),
        (Min, Some(8), DataType::Boolean),
        (Spread(VARIANCE), Some(3), DataType::Decimal256(76, 16)),
        (Spread(VARIANCE), Some(4), DataType::Decimal256(76, 16)),
        (Spread(DEVIATION), Some(5), decimal(16)),
        (Spread(DEVIATION), Some(6), DataType::Float64),
        (CountDistinct, Some(3), DataType::Int64),
        (CountDistinct, Some(5), DataType::Int64),
        (CountDistinct, Some(6), DataType::Int64),
        (CountDistinct, Some(7), DataType::Int64),
    ];
    (0..rng.random_range(1..6))
        .map(|_| {
            let (function, argument, result) = all[rng.random_range(0..all.len())].clone();
            let filter = rng.random_ratio(1, 4).then_some(8);
            AggregateCall { function, argument, filter, result }
        })
        .collect()
}

fn output_schema(input: &Schema, keys: &[usize], calls: &[AggregateCall]) -> SchemaRef {
    let keys = keys
        .iter()
        .enumerate()
        .map(|(n, k)| Field::new(format!("key{n}"), input.field(*k).data_type().clone(), true));
    let calls = calls.iter().enumerate().map(|(n, c)| Field::new(format!("call{n}"), c.result.clone(), true));
    Arc::new(Schema::new(keys.chain(calls).collect::<Vec<_>>()))
}

/// One change: a row, its weight, and the watermark before its frame.
type Change = (Row, i64);

/// Epochs of changes; a retraction comes before its insertion only inside an epoch.
fn random_epochs(rng: &mut SmallRng, append_only: bool) -> Vec<Vec<Change>> {
    let mut present = Multiset::new();
    let mut epochs = Vec::new();
    for _ in 0..rng.random_range(1..12) {
        let mut epoch = Vec::new();
        for _ in 0..rng.random_range(0..20) {
            let retract = !append_only && !present.is_empty() && rng.random_ratio(2, 5);
            let (row, weight) = if retract {
                let at = rng.random_range(0..present.len());
                let (row, weight) = present.iter().nth(at).expect("within");
                (row.clone(), -rng.random_range(1..=*weight))
            } else {
                (random_row(rng), if rng.random_ratio(1, 5) { 2 } else { 1 })
            };
            add(&mut present, row.clone(), weight);
            epoch.push((row, weight));
        }
        epochs.push(epoch);
    }
    epochs
}

fn delta(schema: &SchemaRef, changes: &[Change]) -> Delta {
    let rows: Vec<&Row> = changes.iter().map(|(row, _)| row).collect();
    let weights = changes.iter().any(|(_, w)| *w != 1);
    let weights = weights.then(|| Int64Array::from_iter_values(changes.iter().map(|(_, w)| *w)));
    Delta::new(batch(schema, &rows), weights)
}

/// The changes of an epoch as several deltas.
fn deltas(rng: &mut SmallRng, schema: &SchemaRef, mut changes: &[Change]) -> Vec<Delta> {
    let mut deltas = Vec::new();
    while !changes.is_empty() {
        let (some, rest) = changes.split_at(rng.random_range(1..=changes.len()));
        deltas.push(delta(schema, some));
        changes = rest;
    }
    deltas
}

/// Runs `check` for `n` seeds; `MILLPOND_SEEDS=from..to` chooses others.
fn seeds(n: u64, mut check: impl FnMut(&mut SmallRng)) {
    let chosen = std::env::var("MILLPOND_SEEDS").ok();
    let chosen = chosen.as_deref().and_then(|range| range.split_once(".."));
    let (from, to) = chosen.map_or((0, n), |(from, to)| (from.parse().unwrap(), to.parse().unwrap()));
    for seed in from..to {
        let run = std::panic::AssertUnwindSafe(|| check(&mut SmallRng::seed_from_u64(seed)));
        if let Err(panic) = std::panic::catch_unwind(run) {
            eprintln!("seed {seed} fails");
            std::panic::resume_unwind(panic);
        }
    }
}

fn random_shards(rng: &mut SmallRng) -> usize {
    [1, 2, 4][rng.random_range(0..3)]
}

fn maybe_restart(rng: &mut SmallRng, harness: &mut Harness) {
    match rng.random_range(0..8) {
        0 => harness.restart(random_shards(rng)),
        1 | 2 => drop(harness.freeze()),
        _ => {}
    }
}

#[test]
fn group_by_equals_the_naive_answer_after_each_epoch() {
    seeds(150, |rng| check_groups(rng, false));
}

#[test]
fn group_by_over_sorted_rows_equals_the_naive_answer_after_each_epoch() {
    seeds(150, |rng| check_groups(rng, true));
}

fn check_groups(rng: &mut SmallRng, over_rows: bool) {
    let schema = schema();
    {
        let append_only = rng.random_ratio(1, 3);
        let mut keys = vec![0, 1, 2, 5, 8, 9];
        keys.shuffle(rng);
        keys.truncate(rng.random_range(0..4));
        let global = keys.is_empty();
        let calls = random_calls(rng);
        let out_schema = output_schema(&schema, &keys, &calls);
        let build = |graph: &mut Graph| {
            let input = graph.add_input(Arc::clone(&schema));
            let spec = AggregateSpec {
                keys: keys.clone(),
                calls: calls.clone(),
                append_only,
                close: None,
                global,
                schema: Arc::clone(&out_schema),
            };
            let aggregate = add_aggregate(graph, input, spec, &schema, over_rows);
            (input, graph.add_output(aggregate).unwrap())
        };
        let mut harness = Harness::new(random_shards(rng), &build);
        let mut present = Multiset::new();
        for mut epoch in random_epochs(rng, append_only) {
            epoch.shuffle(rng);
            for (row, weight) in &epoch {
                add(&mut present, row.clone(), *weight);
            }
            let deltas = deltas(rng, &schema, &epoch);
            harness.step(deltas, None);
            assert_eq!(harness.view, group_by(&present, &schema, &keys, &calls, global));
            maybe_restart(rng, &mut harness);
        }
    }
}

/// What is refused and what is accepted, by the rule of the log alone.
struct Lateness {
    lateness: i64,
    close: bool,
    emit_on_close: bool,
}

/// Epochs of changes whose times drift upwards so that windows close, each with the watermark before its frame; and the
/// watermark after each epoch. A retraction has the watermark of its own frame, so it may be late where its row was not;
/// the reverse cannot be, because watermarks never go back.
fn epochs_with_watermarks(rng: &mut SmallRng, append_only: bool) -> Vec<(Vec<Change>, Option<i64>)> {
    let (mut present, mut mark, mut frame_end) = (Multiset::new(), None, None);
    let delay = rng.random_range(0..40);
    let mut drift = 0;
    let mut epochs = Vec::new();
    for _ in 0..rng.random_range(1..12) {
        let mut epoch = Vec::new();
        for _ in 0..rng.random_range(0..20) {
            if rng.random_ratio(1, 3) {
                mark = frame_end;
            }
            let retract = !append_only && !present.is_empty() && rng.random_ratio(2, 5);
            let (mut row, weight) = if retract {
                let (row, weight) = present.iter().nth(rng.random_range(0..present.len())).expect("within");
                (row.clone(), -rng.random_range(1..=*weight))
            } else {
                let mut row = random_row(rng);
                drift += 2;
                row[TS] = row[TS].int().map_or(Cell::Null, |time| Cell::Int(time / 2 + drift));
                (row, if rng.random_ratio(1, 5) { 2 } else { 1 })
            };
            add(&mut present, row.clone(), weight);
            if let Some(time) = row[TS].int() {
                frame_end = frame_end.max(Some(time as i64 - delay));
            }
            row[WATERMARK] = mark.map_or(Cell::Null, |mark| Cell::Int(mark.into()));
            epoch.push((row, weight));
        }
        mark = frame_end;
        epochs.push((epoch, mark));
    }
    epochs
}

/// One row per window, windows behind the columns of the row. Late ones apart.
fn expand(
    changes: &[Change],
    (slide, size, offset, cumulative): (i64, i64, i64, bool),
    rule: &Lateness,
    accepted: &mut Multiset,
    late: &mut Multiset,
) {
    for (row, weight) in changes {
        let Some(time) = row[TS].int() else { continue };
        let time = time as i64;
        let floor = |of: i64| (time - offset).div_euclid(of) * of + offset;
        let windows: Vec<(i64, i64)> = match cumulative {
            true => (1..=size / slide).map(|n| (floor(size), floor(size) + n * slide)).collect(),
            false => (0..=size / slide)
                .map(|n| floor(slide) - n * slide)
                .map(|start| (start, start + size))
                .collect(),
        };
        for (start, end) in windows.into_iter().filter(|window| window.1 > time) {
            let mut row = row.clone();
            let over =
                row[WATERMARK].int().filter(|mark| rule.close && i128::from(end + rule.lateness) <= *mark);
            match over {
                Some(mark) => {
                    row.extend([Cell::Int(end.into()), Cell::Int(mark)]);
                    add(late, row, *weight);
                }
                None => {
                    row[WATERMARK] = Cell::Null;
                    row.extend([Cell::Int(start.into()), Cell::Int(end.into())]);
                    add(accepted, row, *weight);
                }
            }
        }
    }
}

/// The window's columns behind those of the source.
const START: usize = 12;
const END: usize = 13;

fn all_columns(schema: &Schema) -> MapSpec {
    let fields = schema.fields().iter().enumerate();
    let column = |(at, field): (usize, &FieldRef)| -> (Arc<dyn PhysicalExpr>, FieldRef) {
        (Arc::new(Column::new(field.name(), at)), Arc::clone(field))
    };
    MapSpec { filter: None, projection: fields.map(column).collect() }
}

fn check_windows(rng: &mut SmallRng, per_slice: bool, over_rows: bool) {
    let schema = schema();
    let append_only = rng.random_ratio(1, 2);
    let close = rng.random_ratio(3, 4);
    let rule =
        Lateness { lateness: rng.random_range(0..20), close, emit_on_close: rng.random_ratio(1, 3) && close };
    let slide = rng.random_range(1..30);
    let cumulative = per_slice && rng.random_ratio(1, 3);
    let size = match per_slice {
        _ if cumulative => slide * rng.random_range(1..6),
        true => slide + rng.random_range(0..60),
        false => slide,
    };
    let offset = rng.random_range(-20..20);
    let mut keys =
        [vec![START], vec![END], vec![START, END], vec![END, START]][rng.random_range(0..4)].clone();
    if cumulative && !keys.contains(&END) {
        keys.push(END);
    }
    for key in [0, 1, 2] {
        if rng.random_ratio(1, 3) {
            keys.insert(rng.random_range(0..=keys.len()), key);
        }
    }
    let calls = random_calls(rng);
    let mut fields = schema.fields().to_vec();
    fields.push(Arc::new(Field::new("window_start", TIME, false)));
    fields.push(Arc::new(Field::new("window_end", TIME, false)));
    let expanded = Arc::new(Schema::new(fields));
    let out_schema = output_schema(&expanded, &keys, &calls);
    // Behind a map the start of the window is a key like any other.
    let knows_start = rng.random_ratio(1, 2);
    let micros = |n: i64| IntervalMonthDayNano::new(0, 0, n * 1000);
    let build_slices = |graph: &mut Graph| {
        let input = graph.add_input(Arc::clone(&schema));
        let column = |key: &usize| match *key {
            START => GroupColumn::WindowStart,
            END => GroupColumn::WindowEnd,
            column => GroupColumn::Input(column),
        };
        let (lateness_micros, emit_on_close) = (rule.lateness, rule.emit_on_close);
        let spec = HopSpec {
            time: TS,
            slide_micros: slide,
            size_micros: size,
            offset_micros: offset,
            cumulative,
            keys: keys.iter().map(column).collect(),
            calls: calls.clone(),
            append_only,
            close: close.then_some(HopClose { watermark: WATERMARK, lateness_micros, emit_on_close }),
            schema: Arc::clone(&out_schema),
        };
        let hop = graph.add_hop_aggregate(input, spec).unwrap();
        (input, graph.add_output(hop).unwrap())
    };
    let build_rows = |graph: &mut Graph| {
        let input = graph.add_input(Arc::clone(&schema));
        let kind = WindowKind::Tumble(Tumble::new(micros(size), Some(micros(offset))).unwrap());
        let mut windows = graph.add_window(input, WindowSpec { time: TS, kind }).unwrap();
        if !knows_start {
            windows = graph.add_map(windows, all_columns(&expanded)).unwrap();
        }
        let close = CloseSpec {
            window_end: END,
            window_start: None,
            watermark: WATERMARK,
            lateness_micros: rule.lateness,
            emit_on_close: rule.emit_on_close,
        };
        let spec = AggregateSpec {
            keys: keys.clone(),
            calls: calls.clone(),
            append_only,
            close: rule.close.then_some(close),
            global: false,
            schema: Arc::clone(&out_schema),
        };
        let aggregate = add_aggregate(graph, windows, spec, &expanded, over_rows);
        (input, graph.add_output(aggregate).unwrap())
    };
    let mut harness = match per_slice {
        true => Harness::new(random_shards(rng), &build_slices),
        false => Harness::new(random_shards(rng), &build_rows),
    };
    let (mut accepted, mut late) = (Multiset::new(), Multiset::new());
    for (epoch, mark) in epochs_with_watermarks(rng, append_only) {
        expand(&epoch, (slide, size, offset, cumulative), &rule, &mut accepted, &mut late);
        let deltas = deltas(rng, &schema, &epoch);
        harness.step(deltas, mark);
        let mut shown = accepted.clone();
        if rule.emit_on_close {
            shown.retain(|row, _| mark.is_some_and(|mark| row[END] <= Cell::Int(mark.into())));
        }
        assert_eq!(harness.view, group_by(&shown, &expanded, &keys, &calls, false));
        let harness_late: Multiset = harness
            .late
            .iter()
            .map(|(row, w)| {
                // The windows that the operator was given stand between the row and what made it late.
                let mut row = row.clone();
                if !per_slice {
                    row.drain(START..=END);
                }
                (row, *w)
            })
            .collect();
        assert_eq!(harness_late, late);
        maybe_restart(rng, &mut harness);
    }
}

#[test]
fn tumbling_windows_equal_the_naive_answer_and_refuse_the_same_rows() {
    seeds(150, |rng| check_windows(rng, false, false));
}

#[test]
fn windows_over_sorted_rows_equal_the_naive_answer_and_refuse_the_same_rows() {
    seeds(150, |rng| check_windows(rng, false, true));
}

#[test]
fn hops_by_slice_equal_the_naive_answer_and_refuse_the_same_rows() {
    seeds(150, |rng| check_windows(rng, true, false));
}

/// count per k1, then how many keys have each count: the second aggregate lives on retractions.
#[test]
fn views_over_views_equal_the_naive_answer() {
    let schema = schema();
    seeds(60, |rng| {
        let count = |column: Option<usize>| AggregateCall {
            function: if column.is_some() { AggregateFunction::Max } else { AggregateFunction::CountStar },
            argument: column,
            filter: None,
            result: DataType::Int64,
        };
        let first_calls = vec![count(None)];
        let first_schema = output_schema(&schema, &[0, 2], &first_calls);
        let second_calls = vec![count(None), count(Some(0))];
        let second_schema = output_schema(&first_schema, &[2], &second_calls);
        let build = |graph: &mut Graph| {
            let input = graph.add_input(Arc::clone(&schema));
            let spec =
                |keys: Vec<usize>, calls: &[AggregateCall], append_only, schema: &SchemaRef| AggregateSpec {
                    keys,
                    calls: calls.to_vec(),
                    append_only,
                    close: None,
                    global: false,
                    schema: Arc::clone(schema),
                };
            let first =
                graph.add_aggregate(input, spec(vec![0, 2], &first_calls, false, &first_schema)).unwrap();
            let second =
                graph.add_aggregate(first, spec(vec![2], &second_calls, false, &second_schema)).unwrap();
            (input, graph.add_output(second).unwrap())
        };
        let mut harness = Harness::new(random_shards(rng), &build);
        let mut present = Multiset::new();
        for epoch in random_epochs(rng, false) {
            for (row, weight) in &epoch {
                add(&mut present, row.clone(), *weight);
            }
            let deltas = deltas(rng, &schema, &epoch);
            harness.step(deltas, None);
            let first = group_by(&present, &schema, &[0, 2], &first_calls, false);
            assert_eq!(harness.view, group_by(&first, &first_schema, &[2], &second_calls, false));
            maybe_restart(rng, &mut harness);
        }
    });
}

/// Enough rows that workers, the exchange and several batches of output are used.
#[test]
fn large_epochs_over_many_shards_equal_the_naive_answer() {
    let schema = schema();
    for shards in [1, 2, 4] {
        let rng = &mut SmallRng::seed_from_u64(shards as u64);
        let calls = random_calls(rng);
        let keys = vec![4, 1];
        let out_schema = output_schema(&schema, &keys, &calls);
        let build = |graph: &mut Graph| {
            let input = graph.add_input(Arc::clone(&schema));
            let spec = AggregateSpec {
                keys: keys.clone(),
                calls: calls.clone(),
                append_only: false,
                close: None,
                global: false,
                schema: Arc::clone(&out_schema),
            };
            let aggregate = graph.add_aggregate(input, spec).unwrap();
            (input, graph.add_output(aggregate).unwrap())
        };
        let mut harness = Harness::new(shards, &build);
        let mut present = Multiset::new();
        for epoch in 0..3 {
            let mut changes: Vec<Change> = (0..12_000).map(|_| (random_row(rng), 1)).collect();
            for (row, _) in &mut changes {
                row[4] = Cell::Int(rng.random_range(0..3000));
            }
            if epoch > 0 {
                let gone = present.iter().step_by(3).map(|(row, weight)| (row.clone(), -weight));
                changes.extend(gone);
            }
            for (row, weight) in &changes {
                add(&mut present, row.clone(), *weight);
            }
            // Enough rows to be shared out, in deltas that none of them would be alone.
            let deltas: Vec<_> = changes.chunks(5_000).map(|changes| delta(&schema, changes)).collect();
            assert!(deltas.len() > 2);
            harness.step(deltas, None);
            assert_eq!(harness.view, group_by(&present, &schema, &keys, &calls, false));
        }
        harness.restart(3);
        harness.step(vec![delta(&schema, &[])], None);
        assert_eq!(harness.view, group_by(&present, &schema, &keys, &calls, false));
    }
}

#[test]
fn hop_expansion_of_rows_agrees_with_its_definition() {
    let schema = schema();
    let micros = |n: i64| IntervalMonthDayNano::new(0, 0, n * 1000);
    let kind = WindowKind::Hop(Hop::new(micros(10), micros(25), Some(micros(3))).unwrap());
    let build = |graph: &mut Graph| {
        let input = graph.add_input(Arc::clone(&schema));
        let windows = graph.add_window(input, WindowSpec { time: TS, kind }).unwrap();
        (input, graph.add_output(windows).unwrap())
    };
    seeds(20, |rng| {
        let mut harness = Harness::new(2, &build);
        let (mut accepted, mut late) = (Multiset::new(), Multiset::new());
        let rule = Lateness { lateness: 0, close: false, emit_on_close: false };
        for epoch in random_epochs(rng, false) {
            expand(&epoch, (10, 25, 3, false), &rule, &mut accepted, &mut late);
            let deltas = deltas(rng, &schema, &epoch);
            // A row may be inserted and retracted in one epoch: the expansion is linear and publishes both.
            let mut net = Multiset::new();
            for (row, weight) in epoch {
                add(&mut net, row, weight);
            }
            let net: Vec<Change> = net.into_iter().collect();
            let deltas = if deltas.is_empty() { deltas } else { vec![delta(&schema, &net)] };
            harness.step(deltas, None);
            assert_eq!(harness.view, accepted);
        }
    });
}
