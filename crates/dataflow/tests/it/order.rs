//! Rows in order: the first of each partition, and window functions, against answers that are computed naively.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::Int64Array;
use arrow::datatypes::*;
use millpond_dataflow::*;
use millpond_types::Delta;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::harness::Harness;
use crate::model::{Cell, Multiset, Row, add, batch};
use crate::sorted;

const TIME: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Utf8, true),
        Field::new("v", DataType::Int32, true),
        Field::new("d", DataType::Decimal128(10, 2), true),
        Field::new("ts", TIME, true),
        Field::new("flag", DataType::Boolean, true),
    ]))
}

fn int(rng: &mut SmallRng, range: std::ops::Range<i64>) -> Cell {
    if rng.random_ratio(1, 6) { Cell::Null } else { Cell::Int(rng.random_range(range).into()) }
}

fn random_row(rng: &mut SmallRng) -> Row {
    let key = match rng.random_range(0..4) {
        0 => Cell::Null,
        n => Cell::Text(["", "a", "a longer key of a partition"][n - 1].to_owned()),
    };
    vec![key, int(rng, -3..4), int(rng, -500..500), int(rng, 0..20), int(rng, 0..2)]
}

fn delta(schema: &SchemaRef, changes: &[(Row, i64)]) -> Delta {
    let rows: Vec<&Row> = changes.iter().map(|(row, _)| row).collect();
    let weights = changes.iter().any(|(_, w)| *w != 1);
    let weights = weights.then(|| Int64Array::from_iter_values(changes.iter().map(|(_, w)| *w)));
    Delta::new(batch(schema, &rows), weights)
}

/// Feeds random epochs and compares with `naive` after each; shards, restarts and the order inside an epoch are drawn too.
fn check(
    seed: u64,
    append_only: bool,
    draw: &dyn Fn(&mut SmallRng) -> Row,
    build: &dyn Fn(&mut Graph) -> (InputId, OutputId),
    naive: &dyn Fn(&Multiset) -> Multiset,
) {
    let rng = &mut SmallRng::seed_from_u64(seed ^ 0x5eed);
    let schema = schema();
    let shards = |rng: &mut SmallRng| [1, 2, 4][rng.random_range(0..3)];
    let mut harness = Harness::new(shards(rng), build);
    let mut present = Multiset::new();
    for epoch in 0..rng.random_range(1..12) {
        let mut changes = Vec::new();
        for _ in 0..rng.random_range(0..16) {
            let retract = !append_only && !present.is_empty() && rng.random_ratio(2, 5);
            let (row, weight) = if retract {
                let (row, weight) = present.iter().nth(rng.random_range(0..present.len())).expect("within");
                (row.clone(), -rng.random_range(1..=*weight))
            } else {
                (draw(rng), if rng.random_ratio(1, 5) { 2 } else { 1 })
            };
            add(&mut present, row.clone(), weight);
            changes.push((row, weight));
        }
        // A retraction may come before its insertion.
        changes.sort_by_key(|_| rng.random::<u32>());
        let deltas = changes.chunks(rng.random_range(1..8)).map(|some| delta(&schema, some)).collect();
        harness.step(deltas, None);
        assert_eq!(harness.view, naive(&present), "seed {seed}, epoch {epoch}");
        match rng.random_range(0..6) {
            0 => harness.restart(shards(rng)),
            1 => drop(harness.freeze()),
            _ => {}
        }
    }
}

fn seeds(n: u64, mut run: impl FnMut(u64, &mut SmallRng)) {
    let chosen = std::env::var("MILLPOND_SEEDS").ok();
    let chosen = chosen.as_deref().and_then(|range| range.split_once(".."));
    let (from, to) = chosen.map_or((0, n), |(from, to)| (from.parse().unwrap(), to.parse().unwrap()));
    (from..to).for_each(|seed| run(seed, &mut SmallRng::seed_from_u64(seed)));
}

fn random_order(rng: &mut SmallRng, most: usize) -> Vec<OrderColumn> {
    let mut columns = vec![1, 2, 3];
    (0..rng.random_range(0..=most))
        .map(|_| OrderColumn {
            column: columns.swap_remove(rng.random_range(0..columns.len())),
            descending: rng.random(),
            nulls_first: rng.random(),
        })
        .collect()
}

fn compare(order: &[OrderColumn], a: &Row, b: &Row) -> Ordering {
    let by = |o: &OrderColumn| match (a[o.column].is_null(), b[o.column].is_null()) {
        (true, true) => Ordering::Equal,
        (x, y) if x != y => {
            if x == o.nulls_first {
                Ordering::Less
            } else {
                Ordering::Greater
            }
        }
        _ if o.descending => b[o.column].cmp(&a[o.column]),
        _ => a[o.column].cmp(&b[o.column]),
    };
    order.iter().map(by).find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
}

/// The rows of each partition in order, each as often as it is there, and which are peers of which.
fn partitions(input: &Multiset, by: &[usize], order: &[OrderColumn]) -> Vec<Vec<Row>> {
    let mut groups: std::collections::BTreeMap<Row, Vec<Row>> = std::collections::BTreeMap::new();
    for (row, weight) in input {
        let key = by.iter().map(|k| row[*k].clone()).collect();
        let group = groups.entry(key).or_default();
        group.extend(std::iter::repeat_n(row.clone(), *weight as usize));
    }
    let mut total = order.to_vec();
    total.extend((0..5).map(|column| OrderColumn { column, descending: false, nulls_first: false }));
    for group in groups.values_mut() {
        group.sort_by(|a, b| compare(&total, a, b));
    }
    groups.into_values().collect()
}

#[test]
fn a_top_n_equals_the_naive_answer_after_each_epoch() {
    seeds(80, |seed, rng| {
        let append_only = rng.random_ratio(1, 3);
        let partition = if rng.random() { vec![0] } else { Vec::new() };
        let order = random_order(rng, 2);
        let ranking = [Ranking::RowNumber, Ranking::Rank, Ranking::DenseRank][rng.random_range(0..3)];
        let skip = if rng.random() { 0 } else { rng.random_range(0..3) };
        let end = skip + rng.random_range(0..4);
        let number: bool = rng.random();
        let mut fields: Vec<_> = schema().fields().iter().cloned().collect();
        if number {
            fields.push(Arc::new(Field::new("n", DataType::Int64, false)));
        }
        let spec = TopNSpec {
            partition: partition.clone(),
            order: order.clone(),
            ranking,
            skip,
            end,
            number,
            append_only,
            schema: Arc::new(Schema::new(fields)),
        };
        let build = |graph: &mut Graph| {
            let input = graph.add_input(schema());
            let top = graph.add_top_n(input, spec.clone()).expect("a top-N");
            (input, graph.add_output(top).expect("an output"))
        };
        let naive = |input: &Multiset| {
            let mut result = Multiset::new();
            for rows in partitions(input, &partition, &order) {
                let (mut rank, mut dense) = (0, 0);
                for (at, row) in rows.iter().enumerate() {
                    if at == 0 || compare(&order, &rows[at - 1], row).is_ne() {
                        (rank, dense) = (at as u64 + 1, dense + 1);
                    }
                    let n = match ranking {
                        Ranking::RowNumber => at as u64 + 1,
                        Ranking::Rank => rank,
                        Ranking::DenseRank => dense,
                    };
                    if n > skip && n <= end {
                        let mut row = row.clone();
                        row.extend(number.then(|| Cell::Int(n.into())));
                        add(&mut result, row, 1);
                    }
                }
            }
            result
        };
        check(seed, append_only, &random_row, &build, &naive);
    });
}

fn random_bound(rng: &mut SmallRng, scale: i128) -> FrameBound {
    let n = i128::from(rng.random_range(0..4)) * scale;
    match rng.random_range(0..5) {
        0 => FrameBound::UnboundedPreceding,
        1 => FrameBound::Preceding(n),
        2 => FrameBound::CurrentRow,
        3 => FrameBound::Following(n),
        _ => FrameBound::UnboundedFollowing,
    }
}

fn random_frame(rng: &mut SmallRng, order: &[OrderColumn]) -> Frame {
    let units = [FrameUnits::Rows, FrameUnits::Rows, FrameUnits::Range, FrameUnits::Groups];
    let units = units[rng.random_range(0..4)];
    let scale = if units == FrameUnits::Range && order.len() == 1 && order[0].column == 2 { 100 } else { 1 };
    let (mut start, mut end) = (random_bound(rng, scale), random_bound(rng, scale));
    if start == FrameBound::UnboundedFollowing {
        start = FrameBound::CurrentRow;
    }
    if end == FrameBound::UnboundedPreceding {
        end = FrameBound::CurrentRow;
    }
    let has_offset = |b| matches!(b, FrameBound::Preceding(_) | FrameBound::Following(_));
    if units == FrameUnits::Range && order.len() != 1 && (has_offset(start) || has_offset(end)) {
        return Frame::WHOLE;
    }
    Frame { units, start, end }
}

fn random_over_call(rng: &mut SmallRng, order: &[OrderColumn]) -> OverCall {
    use AggregateFunction::*;
    let decimal = DataType::Decimal128(38, 2);
    let (function, argument, result) = match rng.random_range(0..18) {
        16 => (OverFunction::OfFrame, Some(4), DataType::Boolean),
        17 => (OverFunction::OfFrame, Some(1), DataType::Int32),
        0 => (OverFunction::RowNumber, None, DataType::Int64),
        1 => (OverFunction::Rank, None, DataType::Int64),
        2 => (OverFunction::DenseRank, None, DataType::Int64),
        3 => (OverFunction::Ntile(rng.random_range(1..5)), None, DataType::Int32),
        4 | 5 => (OverFunction::Lag(rng.random_range(-3..4)), Some(1), DataType::Int32),
        6 => (OverFunction::FirstValue, Some(3), TIME),
        7 => (OverFunction::LastValue, Some(0), DataType::Utf8),
        8 => (OverFunction::NthValue(rng.random_range(1..4)), Some(1), DataType::Int32),
        9 => (OverFunction::Aggregate(CountStar), None, DataType::Int64),
        10 => (OverFunction::Aggregate(Count), Some(1), DataType::Int64),
        11 => (OverFunction::Aggregate(Sum), Some(1), DataType::Int64),
        12 => (OverFunction::Aggregate(Sum), Some(2), decimal),
        13 => (OverFunction::Aggregate(Min), Some(0), DataType::Utf8),
        14 => (OverFunction::Aggregate(Max), Some(2), DataType::Decimal128(10, 2)),
        _ => (OverFunction::Aggregate(Min), Some(3), TIME),
    };
    let aggregate = matches!(function, OverFunction::Aggregate(_) | OverFunction::OfFrame);
    // One may be asked again when its frame has grown, the other not.
    let of_frame = (function == OverFunction::OfFrame).then(|| {
        let column = |at| SortedArgument::Column(at);
        let call = match argument {
            Some(4) => sorted::call(&schema(), "bool_or", vec![column(4)], Vec::new()),
            _ => sorted::call(&schema(), "first_value", vec![column(1)], Vec::new()),
        };
        FrameAggregate { function: call.function, arguments: call.arguments }
    });
    let default = matches!(function, OverFunction::Lag(_)) && rng.random();
    OverCall {
        function,
        of_frame,
        argument,
        default: default.then_some(1),
        filter: (aggregate && rng.random_ratio(1, 4)).then_some(4),
        frame: random_frame(rng, order),
        result,
    }
}

/// Whether row `other` is in the frame of row `at`, by the definition of the standard.
fn in_frame(rows: &[Row], order: &[OrderColumn], frame: Frame, at: usize, other: usize) -> bool {
    let groups: Vec<i128> = rows
        .iter()
        .enumerate()
        .scan(0, |group, (n, row)| {
            *group += i128::from(n > 0 && compare(order, &rows[n - 1], row).is_ne());
            Some(*group)
        })
        .collect();
    // The distance from the current row; `None` where a NULL has none: then what lies on the bound's side counts.
    let distance = match frame.units {
        FrameUnits::Rows => Some(other as i128 - at as i128),
        FrameUnits::Groups => Some(groups[other] - groups[at]),
        FrameUnits::Range => order.first().filter(|_| order.len() == 1).and_then(|o| {
            let (a, b) = (rows[at][o.column].int()?, rows[other][o.column].int()?);
            Some(if o.descending { a - b } else { b - a })
        }),
    };
    let peers = groups[other] - groups[at];
    let here = if frame.units == FrameUnits::Rows { other as i128 - at as i128 } else { peers };
    let after_start = match frame.start {
        FrameBound::UnboundedPreceding => true,
        FrameBound::Preceding(n) => distance.map_or(here >= 0, |d| d >= -n),
        FrameBound::CurrentRow => here >= 0,
        FrameBound::Following(n) => distance.map_or(here >= 0, |d| d >= n),
        FrameBound::UnboundedFollowing => false,
    };
    let before_end = match frame.end {
        FrameBound::UnboundedPreceding => false,
        FrameBound::Preceding(n) => distance.map_or(here <= 0, |d| d <= -n),
        FrameBound::CurrentRow => here <= 0,
        FrameBound::Following(n) => distance.map_or(here <= 0, |d| d <= n),
        FrameBound::UnboundedFollowing => true,
    };
    after_start && before_end
}

fn naive_call(rows: &[Row], order: &[OrderColumn], call: &OverCall, at: usize) -> Cell {
    let whole = |n: usize| Cell::Int(n as i128);
    let peer = |a: usize, b: usize| compare(order, &rows[a], &rows[b]).is_eq();
    let first_peer = (0..rows.len()).find(|n| peer(*n, at)).expect("itself");
    let frame: Vec<usize> =
        (0..rows.len()).filter(|other| in_frame(rows, order, call.frame, at, *other)).collect();
    let value = |n: Option<usize>| match (n, call.argument) {
        (Some(n), Some(argument)) => rows[n][argument].clone(),
        _ => Cell::Null,
    };
    match call.function {
        OverFunction::RowNumber => whole(at + 1),
        OverFunction::Rank => whole(first_peer + 1),
        OverFunction::DenseRank => whole((0..=at).filter(|n| *n == 0 || !peer(n - 1, *n)).count()),
        OverFunction::Ntile(n) => {
            let sizes =
                (0..n as usize).map(|b| rows.len() / n as usize + usize::from(b < rows.len() % n as usize));
            let ends = sizes.scan(0, |end, size| {
                *end += size;
                Some(*end)
            });
            whole(ends.into_iter().position(|end| at < end).expect("a bucket") + 1)
        }
        OverFunction::Lag(n) => match usize::try_from(at as i64 - n).ok().filter(|n| *n < rows.len()) {
            None => call.default.map_or(Cell::Null, |default| rows[at][default].clone()),
            found => value(found),
        },
        OverFunction::FirstValue => value(frame.first().copied()),
        OverFunction::LastValue => value(frame.last().copied()),
        OverFunction::NthValue(n) => value(frame.get(n as usize - 1).copied()),
        OverFunction::PercentRank
        | OverFunction::CumeDist
        | OverFunction::SessionStart(_)
        | OverFunction::SessionEnd(_) => panic!("not drawn"),
        OverFunction::OfFrame => {
            let kept = frame.iter().filter(|n| call.filter.is_none_or(|f| rows[**n][f] == Cell::Int(1)));
            let mut cells = kept.map(|n| value(Some(*n))).filter(|cell| !cell.is_null());
            match call.argument {
                Some(4) => cells.max().unwrap_or(Cell::Null),
                _ => cells.next().unwrap_or(Cell::Null),
            }
        }
        OverFunction::Aggregate(function) => {
            let kept = frame.iter().filter(|n| call.filter.is_none_or(|f| rows[**n][f] == Cell::Int(1)));
            let cells: Vec<Cell> = match call.argument {
                None => return whole(kept.count()),
                Some(_) => kept.map(|n| value(Some(*n))).filter(|cell| !cell.is_null()).collect(),
            };
            match function {
                AggregateFunction::Count | AggregateFunction::CountStar => whole(cells.len()),
                _ if cells.is_empty() => Cell::Null,
                AggregateFunction::Min => cells.into_iter().min().expect("some"),
                AggregateFunction::Max => cells.into_iter().max().expect("some"),
                _ => Cell::Int(cells.iter().map(|cell| cell.int().expect("a number")).sum()),
            }
        }
    }
}

#[test]
fn window_functions_equal_the_naive_answer_after_each_epoch() {
    seeds(100, |seed, rng| {
        let append_only = rng.random_ratio(1, 3);
        let partition = if rng.random_ratio(2, 3) { vec![0] } else { Vec::new() };
        let order = random_order(rng, 2);
        let calls: Vec<OverCall> =
            (0..rng.random_range(1..4)).map(|_| random_over_call(rng, &order)).collect();
        let mut fields: Vec<_> = schema().fields().iter().cloned().collect();
        let results = calls.iter().enumerate();
        fields.extend(
            results.map(|(n, call)| Arc::new(Field::new(format!("w{n}"), call.result.clone(), true))),
        );
        let schema_out = Arc::new(Schema::new(fields));
        let spec = OverSpec {
            partition: partition.clone(),
            order: order.clone(),
            calls: calls.clone(),
            append_only,
            schema: schema_out,
        };
        let build = |graph: &mut Graph| {
            let input = graph.add_input(schema());
            let over = graph.add_over(input, spec.clone()).expect("window functions");
            (input, graph.add_output(over).expect("an output"))
        };
        let naive = |input: &Multiset| {
            let mut result = Multiset::new();
            for rows in partitions(input, &partition, &order) {
                for at in 0..rows.len() {
                    let mut row = rows[at].clone();
                    row.extend(calls.iter().map(|call| naive_call(&rows, &order, call, at)));
                    add(&mut result, row, 1);
                }
            }
            result
        };
        check(seed, append_only, &random_row, &build, &naive);
    });
}

#[test]
fn sessions_merge_and_split_as_rows_come_and_go() {
    seeds(150, |seed, rng| {
        let append_only = rng.random_ratio(1, 4);
        let partition = if rng.random_ratio(2, 3) { vec![0] } else { Vec::new() };
        // Rows lie densely, so that a retraction is often a bridge between two others; a gap of 30 joins nearly all.
        let gap = [1, 2, 4, 30][rng.random_range(0..4)];
        let span = rng.random_range(20..200);
        let timed = |rng: &mut SmallRng| {
            let mut row = random_row(rng);
            row[3] = Cell::Int(rng.random_range(0..span));
            row
        };
        let mut fields: Vec<_> = schema().fields().iter().cloned().collect();
        fields.extend(["window_start", "window_end"].map(|name| Arc::new(Field::new(name, TIME, false))));
        let call = |function| OverCall {
            function,
            of_frame: None,
            argument: None,
            default: None,
            filter: None,
            frame: Frame::WHOLE,
            result: TIME,
        };
        let spec = OverSpec {
            partition: partition.clone(),
            order: vec![OrderColumn { column: 3, descending: false, nulls_first: false }],
            calls: vec![call(OverFunction::SessionStart(gap)), call(OverFunction::SessionEnd(gap))],
            append_only,
            schema: Arc::new(Schema::new(fields)),
        };
        let build = |graph: &mut Graph| {
            let input = graph.add_input(schema());
            let over = graph.add_over(input, spec.clone()).expect("sessions");
            (input, graph.add_output(over).expect("an output"))
        };
        let naive = |input: &Multiset| {
            let mut result = Multiset::new();
            for rows in partitions(input, &partition, &spec.order) {
                let time = |row: &Row| row[3].int().expect("a time");
                let mut sessions: Vec<Vec<Row>> = Vec::new();
                for row in rows {
                    match sessions.last_mut().filter(|s| time(&row) - time(&s[s.len() - 1]) <= gap.into()) {
                        Some(session) => session.push(row),
                        None => sessions.push(vec![row]),
                    }
                }
                for session in sessions {
                    let bounds = [time(&session[0]), time(&session[session.len() - 1]) + i128::from(gap)];
                    for row in &session {
                        add(&mut result, [row.clone(), bounds.map(Cell::Int).to_vec()].concat(), 1);
                    }
                }
            }
            result
        };
        check(seed, append_only, &timed, &build, &naive);
    });
}
