//! How many rows a second one core joins: `cargo run --release --workspace --example join_speed [part of a name]`.
//!
//! Nexmark's mix of 3 auctions and 46 bids, joined by the auction's id: each bid meets one auction, each auction the bids that
//! came before it. "Recent" bids are for one of the last 2,000 auctions, "uniform" ones for any. Rows are made before the clock
//! starts; rates are input rows per second, best of three: of the stepping thread's CPU time, which other load does not blur
//! (Linux only), and of wall time. With more than one shard only wall time means anything.
#![allow(clippy::disallowed_methods)] // measures itself; the crate has no clock

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::*;
use millpond_dataflow::*;
use millpond_types::Delta;
use millpond_types::hash::mix;

const ROWS: usize = 2_000_000;
const TIME: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

fn schema(id: &str) -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new(id, DataType::Int64, true),
        Field::new("name", DataType::Utf8, true),
        Field::new("price", DataType::Int64, true),
        Field::new("ts", TIME, true),
    ]))
}

fn batch(ids: Vec<i64>, id: &str, first: u64) -> RecordBatch {
    let rows = first..first + ids.len() as u64;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(ids.iter().map(|k| format!("channel-{}", k % 1000)))),
        Arc::new(Int64Array::from_iter_values(rows.clone().map(|r| (mix(r ^ 77) % 10_000) as i64))),
        Arc::new(TimestampMicrosecondArray::from_iter_values(rows.map(|r| r as i64 * 100))),
    ];
    let columns = std::iter::once(Arc::new(Int64Array::from(ids)) as ArrayRef).chain(columns).collect();
    RecordBatch::try_new(schema(id), columns).expect("columns fit the schema")
}

/// Auctions and bids of each epoch.
fn epochs(size: usize, recent: bool) -> Vec<[RecordBatch; 2]> {
    let auctions_in_all = (ROWS * 3 / 49) as u64;
    let mut auctions = 0u64;
    (0..ROWS)
        .step_by(size)
        .map(|from| {
            let new = ((size * 3).div_ceil(49)) as u64;
            let ids = (auctions..auctions + new).map(|id| id as i64).collect();
            let first = auctions;
            auctions += new;
            let bids = (size as u64).saturating_sub(new);
            let bid = |row: u64| match recent {
                true => auctions.saturating_sub(1 + mix(row) % 2000) as i64,
                false => (mix(row) % auctions_in_all) as i64,
            };
            let bids = (from as u64..from as u64 + bids).map(bid).collect();
            [batch(ids, "id", first), batch(bids, "auction", from as u64)]
        })
        .collect()
}

struct Test {
    name: &'static str,
    kind: JoinKind,
    recent: bool,
    /// Each second epoch takes back the bids of the one before.
    retracting: bool,
    append_only: bool,
    epoch: usize,
    shards: usize,
}

/// Seconds that this thread has been on a CPU.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split(' ').next().and_then(|nanos| nanos.parse::<f64>().ok()).map_or(f64::NAN, |nanos| nanos / 1e9)
}

fn graph(test: &Test, pool: &Arc<rayon::ThreadPool>) -> (Graph, [InputId; 2]) {
    let mut graph = Graph::new(test.shards, Arc::clone(pool));
    let inputs = [graph.add_input(schema("id")), graph.add_input(schema("auction"))];
    let pairs = matches!(test.kind, JoinKind::Inner | JoinKind::Left);
    let output: Vec<usize> = if pairs { vec![0, 1, 3, 6, 7] } else { vec![0, 1, 3] };
    let columns = [schema("id"), schema("auction")];
    let all: Vec<_> = columns.iter().flat_map(|schema| schema.fields().iter().cloned()).collect();
    let fields: Vec<_> = output.iter().map(|c| Arc::clone(&all[*c])).collect();
    let spec = JoinSpec {
        kind: test.kind,
        keys: vec![(0, 0)],
        nulls_equal: false,
        residual: None,
        close: None,
        append_only: [test.append_only; 2],
        output,
        schema: Arc::new(Schema::new(fields)),
    };
    let node = graph.add_join(inputs[0], inputs[1], &spec).expect("a good spec");
    graph.add_output(node).expect("just added");
    (graph, inputs)
}

fn measure(test: &Test) {
    if std::env::args().nth(1).is_some_and(|wanted| !test.name.contains(&wanted)) {
        return;
    }
    let epochs = epochs(test.epoch, test.recent);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(test.shards).build().expect("threads");
    let pool = Arc::new(pool);
    let (mut best, mut best_cpu) = (f64::INFINITY, f64::INFINITY);
    let (mut rows_in, mut rows_out, mut state, mut bytes) = (0, 0, 0, 0);
    for _ in 0..3 {
        let (mut graph, inputs) = graph(test, &pool);
        let (start, cpu) = (Instant::now(), cpu_seconds());
        (rows_in, rows_out) = (0, 0);
        for (n, [auctions, bids]) in epochs.iter().enumerate() {
            let mut right = vec![Delta::insert(bids.clone())];
            if test.retracting && n % 2 == 1 {
                right.push(Delta::retract(epochs[n - 1][1].clone()));
            }
            let deltas = vec![(inputs[0], vec![Delta::insert(auctions.clone())]), (inputs[1], right)];
            let out = graph.step(EpochInput { deltas, watermarks: vec![] }).expect("a good graph");
            rows_in += out.stats.rows_in;
            rows_out += out.stats.rows_out;
        }
        best = best.min(start.elapsed().as_secs_f64());
        best_cpu = best_cpu.min(cpu_seconds() - cpu);
        let stats = graph.node_stats();
        state = stats.iter().map(|node| node.state_rows).sum::<u64>();
        bytes = stats.iter().map(|node| node.memory_bytes).sum::<u64>() / state.max(1);
    }
    let rate = |seconds: f64| rows_in as f64 / seconds / 1e6;
    let (cpu, wall, out) = (rate(best_cpu), rate(best), rows_out as f64 / 1e6);
    let (name, epoch, shards) = (test.name, test.epoch, test.shards);
    println!("{name:34} {epoch:>8} {shards:>6} {cpu:>9.1} {wall:>9.1} {out:>9.1} {state:>10} {bytes:>9}");
}

fn main() {
    let columns = ["epoch", "shards", "M/s CPU", "M/s wall", "M out", "state rows", "B/row"];
    let [epoch, shards, cpu, wall, out, state, bytes] = columns;
    println!("{:34} {epoch:>8} {shards:>6} {cpu:>9} {wall:>9} {out:>9} {state:>10} {bytes:>9}", "test");
    let plain = Test {
        name: "inner, recent",
        kind: JoinKind::Inner,
        recent: true,
        retracting: false,
        append_only: true,
        epoch: 10_000,
        shards: 1,
    };
    for epoch in [100, 1000, 10_000, 100_000] {
        measure(&Test { epoch, ..plain });
        measure(&Test { name: "inner, uniform", recent: false, epoch, ..plain });
    }
    measure(&Test { name: "inner, recent, may retract", append_only: false, ..plain });
    measure(&Test { name: "inner, recent, retracts", append_only: false, retracting: true, ..plain });
    measure(&Test { name: "left, uniform", kind: JoinKind::Left, recent: false, ..plain });
    measure(&Test { name: "semi, uniform", kind: JoinKind::LeftSemi, recent: false, ..plain });
    measure(&Test { name: "inner, uniform", recent: false, shards: 2, epoch: 100_000, ..plain });
}
