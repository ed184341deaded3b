//! How many rows a second one core aggregates: `cargo run --release -p millpond-dataflow --example aggregate_speed`.
//!
//! Rows are made before the clock starts; every epoch publishes its retractions and insertions. Rates are rows per second,
//! best of three: of the stepping thread's CPU time, which other load does not blur (Linux only), and of wall time. With more
//! than one shard only wall time means anything.
#![allow(clippy::disallowed_methods)] // measures itself; the crate has no clock

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::*;
use millpond_dataflow::*;
use millpond_functions::window::Tumble;
use millpond_types::hash::mix;
use millpond_types::{Delta, EventTime};

const ROWS: usize = 4_000_000;
const TIME: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);
const SECOND: i64 = 1_000_000;

fn schema(nullable: bool) -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("key", DataType::Int64, nullable),
        Field::new("name", DataType::Utf8, true),
        Field::new("price", DataType::Int64, true),
        Field::new("ts", TIME, true),
        Field::new("_watermark", TIME, true),
    ]))
}

/// Rows in order of time, 10,000 a second.
fn batches(groups: u64, epoch: usize, nullable: bool) -> Vec<RecordBatch> {
    let schema = schema(nullable);
    let starts = (0..ROWS).step_by(epoch);
    starts
        .map(|from| {
            let rows = from as u64..(from + epoch).min(ROWS) as u64;
            let keys: Vec<i64> = rows.clone().map(|r| (mix(r) % groups) as i64).collect();
            let names = StringArray::from_iter_values(keys.iter().map(|k| format!("channel-{k}")));
            let prices = Int64Array::from_iter_values(rows.clone().map(|r| (mix(r ^ 77) % 10_000) as i64));
            let times = TimestampMicrosecondArray::from_iter_values(rows.map(|r| r as i64 * 100));
            let mark = from as i64 * 100 - 4 * SECOND;
            let marks = TimestampMicrosecondArray::from_value(mark, keys.len());
            let columns: Vec<ArrayRef> = vec![
                Arc::new(Int64Array::from(keys)),
                Arc::new(names),
                Arc::new(prices),
                Arc::new(times),
                Arc::new(marks),
            ];
            RecordBatch::try_new(Arc::clone(&schema), columns).expect("columns fit the schema")
        })
        .collect()
}

fn calls() -> Vec<AggregateCall> {
    let call = |function, argument, result| AggregateCall { function, argument, filter: None, result };
    vec![
        call(AggregateFunction::CountStar, None, DataType::Int64),
        call(AggregateFunction::Sum, Some(2), DataType::Decimal128(38, 0)),
        call(AggregateFunction::Max, Some(2), DataType::Int64),
    ]
}

fn output(keys: &[(&str, DataType)]) -> SchemaRef {
    let mut fields: Vec<Field> = keys.iter().map(|(name, t)| Field::new(*name, t.clone(), true)).collect();
    fields.push(Field::new("count", DataType::Int64, false));
    fields.push(Field::new("sum", DataType::Decimal128(38, 0), true));
    fields.push(Field::new("max", DataType::Int64, true));
    Arc::new(Schema::new(fields))
}

fn group_by(graph: &mut Graph, input: InputId, key: usize, append_only: bool) {
    let field = graph.schema(input).expect("just added").field(key).clone();
    let spec = AggregateSpec {
        keys: vec![key],
        calls: calls(),
        append_only,
        close: None,
        global: false,
        schema: output(&[("key", field.data_type().clone())]),
    };
    let node = graph.add_aggregate(input, spec).expect("a good spec");
    graph.add_output(node).expect("just added");
}

fn tumble(graph: &mut Graph, input: InputId) {
    let kind = WindowKind::Tumble(
        Tumble::new(IntervalMonthDayNano::new(0, 0, 10_000_000_000), None).expect("10 seconds"),
    );
    let node = graph.add_window(input, WindowSpec { time: 3, kind }).expect("a time column");
    let close = CloseSpec {
        window_end: 6,
        window_start: Some(5),
        watermark: 4,
        lateness_micros: 0,
        emit_on_close: false,
    };
    let spec = AggregateSpec {
        keys: vec![5, 0],
        calls: calls(),
        append_only: true,
        close: Some(close),
        global: false,
        schema: output(&[("window_start", TIME), ("key", DataType::Int64)]),
    };
    let node = graph.add_aggregate(node, spec).expect("a good spec");
    graph.add_output(node).expect("just added");
}

fn hop(graph: &mut Graph, input: InputId) {
    let spec = HopSpec {
        time: 3,
        slide_micros: 2 * SECOND,
        size_micros: 10 * SECOND,
        offset_micros: 0,
        cumulative: false,
        keys: vec![GroupColumn::WindowStart, GroupColumn::Input(0)],
        calls: calls(),
        append_only: true,
        close: Some(HopClose { watermark: 4, lateness_micros: 0, emit_on_close: false }),
        schema: output(&[("window_start", TIME), ("key", DataType::Int64)]),
    };
    let node = graph.add_hop_aggregate(input, spec).expect("a good spec");
    graph.add_output(node).expect("just added");
}

/// Seconds that this thread has been on a CPU.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split(' ').next().and_then(|nanos| nanos.parse::<f64>().ok()).map_or(f64::NAN, |nanos| nanos / 1e9)
}

/// With an argument, only the tests whose name contains it.
fn measure(name: &str, groups: u64, epoch: usize, shards: usize, build: &dyn Fn(&mut Graph, InputId)) {
    if std::env::args().nth(1).is_some_and(|wanted| !name.contains(&wanted)) {
        return;
    }
    let batches = batches(groups, epoch, name.contains("nullable"));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(shards).build().expect("threads");
    let pool = Arc::new(pool);
    let (mut best, mut best_cpu) = (f64::INFINITY, f64::INFINITY);
    let mut rows_out = 0;
    for _ in 0..3 {
        let mut graph = Graph::new(shards, Arc::clone(&pool));
        let input = graph.add_input(schema(name.contains("nullable")));
        build(&mut graph, input);
        let (start, cpu) = (Instant::now(), cpu_seconds());
        rows_out = 0;
        for (n, batch) in batches.iter().enumerate() {
            let mark = EventTime(((n + 1) * epoch) as i64 * 100 - 4 * SECOND);
            let deltas = vec![(input, vec![Delta::insert(batch.clone())])];
            let out =
                graph.step(EpochInput { deltas, watermarks: vec![(input, mark)] }).expect("a good graph");
            rows_out += out.stats.rows_out;
        }
        best = best.min(start.elapsed().as_secs_f64());
        best_cpu = best_cpu.min(cpu_seconds() - cpu);
    }
    let rate = |seconds: f64| ROWS as f64 / seconds / 1e6;
    let (cpu, wall, out) = (rate(best_cpu), rate(best), rows_out as f64 / 1e6);
    println!("{name:42} {groups:>8} {epoch:>8} {shards:>6} {cpu:>9.1} {wall:>9.1} {out:>9.1}");
}

fn main() {
    let columns = ["groups", "epoch", "shards", "M/s CPU", "M/s wall", "M out"];
    let [groups, epoch, shards, cpu, wall, out] = columns;
    println!("{:42} {groups:>8} {epoch:>8} {shards:>6} {cpu:>9} {wall:>9} {out:>9}", "test");
    for epoch in [1000, 10_000, 64_000] {
        measure("count/sum/max by bigint", 100_000, epoch, 1, &|g, i| group_by(g, i, 0, true));
    }
    measure("count/sum/max by nullable bigint", 100_000, 64_000, 1, &|g, i| group_by(g, i, 0, true));
    measure("count/sum/max by bigint", 1_000_000, 64_000, 1, &|g, i| group_by(g, i, 0, true));
    measure("count/sum/max by bigint", 1000, 64_000, 1, &|g, i| group_by(g, i, 0, true));
    measure("count/sum/max by text", 100_000, 64_000, 1, &|g, i| group_by(g, i, 1, true));
    measure("the same by bigint, may retract", 100_000, 64_000, 1, &|g, i| group_by(g, i, 0, false));
    measure("count/sum/max by bigint", 100_000, 64_000, 2, &|g, i| group_by(g, i, 0, true));
    for groups in [1000, 10_000, 100_000] {
        measure("tumble 10 s by bigint", groups, 64_000, 1, &tumble);
        measure("hop 2 s/10 s by bigint", groups, 64_000, 1, &hop);
    }
}
