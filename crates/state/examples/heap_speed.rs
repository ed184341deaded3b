//! How fast heaps, relations and runs are: `cargo run --release -p millpond-state --example heap_speed`.
//!
//! One thread, one run each, five columns as the bids of Nexmark have. Compare figures of one run with each other only.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::SchemaRef;
use millpond_env::Clock;
use millpond_state::{Heap, HeapRun, Identity, KeyedRun, Relation, RowId};
use millpond_types::{Delta, hash};

const MILLION: usize = 1_000_000;

fn bids(first: usize, rows: usize) -> RecordBatch {
    let ids = || first..first + rows;
    let numbers = |f: &dyn Fn(usize) -> usize| -> ArrayRef {
        Arc::new(ids().map(|n| f(n) as i64).collect::<Int64Array>())
    };
    let channel = StringArray::from_iter_values(ids().map(|n| format!("channel-{}", n % 1_000)));
    let times = TimestampMicrosecondArray::from_iter_values(ids().map(|n| n as i64 * 100));
    let columns: [(&str, ArrayRef); 5] = [
        ("auction", numbers(&|n| n)),
        ("bidder", numbers(&|n| hash::mix(n as u64) as usize % 10_000)),
        ("price", numbers(&|n| hash::mix(!n as u64) as usize % 1_000_000)),
        ("channel", Arc::new(channel)),
        ("ts", Arc::new(times)),
    ];
    RecordBatch::try_from_iter(columns).expect("columns of one length")
}

/// All of `0..n`, in no order.
fn shuffled(n: usize) -> Vec<RowId> {
    let mut ids: Vec<u64> = (0..n as u64).collect();
    ids.sort_unstable_by_key(|&id| hash::mix(id));
    ids.into_iter().map(RowId).collect()
}

struct Bench(millpond_env::os::Clock);

impl Bench {
    fn time<T>(&self, what: &str, rows: usize, work: impl FnOnce() -> T) -> T {
        let start = self.0.monotonic();
        let result = work();
        let seconds = (self.0.monotonic() - start).as_secs_f64();
        let rate = rows as f64 / seconds / 1e6;
        println!("{what:<58} {:>9.2} ms {rate:>9.1} M rows/s", seconds * 1e3);
        result
    }
}

fn filled(batches: &[RecordBatch]) -> Heap {
    let mut heap = Heap::new(batches[0].schema());
    for batch in batches {
        heap.append(batch).expect("the schema is its own");
    }
    heap
}

fn heaps(bench: &Bench) {
    const ROWS: usize = 4 << 20;
    let of_rows = |rows: usize| (0..ROWS / rows).map(|n| bids(n * rows, rows)).collect::<Vec<_>>();
    let full = of_rows(1 << 16);
    let schema = full[0].schema();
    bench.time("append, batches of 64 Ki rows", ROWS, || filled(&full));
    let large = of_rows(1 << 18);
    bench.time("append, batches of 256 Ki rows (copied)", ROWS, || filled(&large));
    drop(large);
    let thousands = of_rows(1 << 10);
    bench.time("append, batches of 1 Ki rows (merged)", ROWS, || filled(&thousands));
    drop(thousands);
    let single: Vec<_> = (0..50_000).map(|n| bids(n, 1)).collect();
    bench.time("append, batches of 1 row", single.len(), || filled(&single));

    let delete = |what: &str, ids: &[RowId], each: usize| {
        let mut heap = filled(&full);
        bench.time(what, ids.len(), || {
            for ids in ids.chunks(each) {
                heap.delete(ids).expect("each id comes once");
                heap.snapshot();
            }
        });
        heap
    };
    let mixed = shuffled(ROWS);
    let sorted: Vec<RowId> = (0..ROWS as u64).map(RowId).collect();
    delete("delete, sorted, 10 k at a time, a snapshot after each", &sorted[..ROWS / 2], 10_000);
    delete("delete, random, 10 k at a time, a snapshot after each", &mixed[..ROWS / 2], 10_000);
    let mut heap = delete("delete, random, 1 k at a time, a snapshot after each", &mixed[..ROWS / 2], 1_000);
    let snapshot = heap.snapshot();
    let scan = |heap: &mut Heap| {
        heap.snapshot().batches(None).map(|b| b.expect("all columns").num_rows()).sum::<usize>()
    };
    bench.time("scan, half of each chunk deleted", ROWS / 2, || scan(&mut heap));
    bench.time("maintain, all chunks rewritten", ROWS / 2, || while heap.maintain(1 << 16).expect("fits") {});
    bench.time("scan, nothing deleted", ROWS / 2, || scan(&mut heap));
    drop(snapshot);
    bench.time("gather, 5 columns, random, 100 rows at a time", 100_000, || {
        for ids in mixed[ROWS / 2..][..100_000].chunks(100) {
            heap.gather(ids, None).expect("they live");
        }
    });
    bench.time("gather, 5 columns, random, 10 k rows at a time", MILLION, || {
        for ids in mixed[ROWS / 2..][..MILLION].chunks(10_000) {
            heap.gather(ids, None).expect("they live");
        }
    });

    let mut heap = filled(&full);
    let run = bench.time("freeze", ROWS, || heap.freeze().expect("all is new"));
    let encoded = bench.time("encode a heap's run", ROWS, || run.encode().expect("it encodes"));
    println!("    {:.1} bytes per row", encoded.bytes.len() as f64 / ROWS as f64);
    let run = bench.time("decode it", ROWS, || HeapRun::decode(&encoded.bytes).expect("it is whole"));
    bench.time("restore the heap", ROWS, || Heap::restore(schema, vec![run]).expect("it is the first run"));
}

/// Thousands of chunks, of which few are touched.
fn wide(bench: &Bench) {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..40_000));
    let batch = RecordBatch::try_from_iter([("n", column)]).expect("one column");
    let mut heap = filled(&vec![batch; 4_000]);
    let ids = shuffled(160 * MILLION / 100).into_iter().map(|id| RowId(id.0 * 100)).collect::<Vec<_>>();
    bench.time("gather, 1 column, 100 of 160 M rows in 4,000 chunks", 100_000, || {
        for ids in ids[..100_000].chunks(100) {
            heap.gather(ids, None).expect("they live");
        }
    });
    bench.time("delete 10 of 160 M rows, then a snapshot", 20_000, || {
        for ids in ids[..20_000].chunks(10) {
            heap.delete(ids).expect("each id comes once");
            heap.snapshot();
        }
    });
}

fn relations(bench: &Bench, identity: Identity) {
    let name = format!("{identity:?}");
    let start: Vec<_> = (0..16).map(|n| bids(n << 16, 1 << 16)).collect();
    let rows = 1 << 20;
    let mut relation = Relation::new("bids", start[0].schema(), identity.clone());
    bench.time(&format!("{name}: insert a million rows"), rows, || {
        for batch in &start {
            relation.apply(&Delta::insert(batch.clone())).expect("keys are new");
        }
    });
    let updates: Vec<Delta> = (0..50).map(|n| update(&relation, n)).collect();
    let changed = updates.iter().map(Delta::rows).sum();
    bench.time(&format!("{name}: retract and insert, 20 k rows at a time"), changed, || {
        for delta in &updates {
            relation.apply(delta).expect("old rows are there");
            relation.snapshot();
            relation.maintain(1 << 16).expect("fits");
        }
    });
    println!("    {} MB for {} rows", relation.bytes() >> 20, relation.rows());
    let runs: Vec<HeapRun> = relation.freeze().into_iter().collect();
    let schema: SchemaRef = relation.schema().clone();
    bench.time(&format!("{name}: restore"), rows, || {
        Relation::restore("bids", schema, identity, runs).expect("whole")
    });
}

/// 10 k bids get another price; each bid once in all updates.
fn update(relation: &Relation, n: usize) -> Delta {
    let ids: Vec<RowId> = (0..10_000).map(|i| RowId((n as u64 + i * 50) * 2)).collect();
    let old = relation.heap().gather(&ids, None).expect("they live");
    let mut columns = old.columns().to_vec();
    columns[2] = Arc::new(Int64Array::from(vec![-1; old.num_rows()]));
    let new = RecordBatch::try_new(old.schema(), columns).expect("same types");
    let batch = arrow::compute::concat_batches(&old.schema(), [&old, &new]).expect("same schema");
    let weights: Vec<i64> =
        (0..batch.num_rows()).map(|row| if row < old.num_rows() { -1 } else { 1 }).collect();
    Delta::new(batch, Some(weights.into()))
}

fn keyed_runs(bench: &Bench) {
    let groups = |rows: usize, step: usize| {
        let key: ArrayRef = Arc::new((0..rows).map(|n| Some((n * step) as i64)).collect::<Int64Array>());
        let count: ArrayRef = Arc::new((0..rows).map(|n| Some(n as i64 % 7)).collect::<Int64Array>());
        let sum: ArrayRef =
            Arc::new((0..rows).map(|n| Some(hash::mix(n as u64) as i64 >> 40)).collect::<Int64Array>());
        RecordBatch::try_from_iter_with_nullable([("k", key, true), ("c", count, true), ("s", sum, true)])
            .expect("columns of one length")
    };
    let all = groups(MILLION, 1);
    let base =
        bench.time("sort a million groups", MILLION, || KeyedRun::new(1, all, None).expect("keys hash"));
    let encoded = bench.time("encode them", MILLION, || base.encode().expect("it encodes"));
    println!("    {:.1} bytes per group", encoded.bytes.len() as f64 / MILLION as f64);
    let base = bench.time("decode them", MILLION, || KeyedRun::decode(&encoded.bytes).expect("it is whole"));
    let runs: Vec<KeyedRun> = std::iter::once(base)
        .chain((0..7).map(|n| KeyedRun::new(1, groups(10_000, 10 + n), None).expect("keys hash")))
        .collect();
    let rows = runs.iter().map(KeyedRun::rows).sum();
    bench.time("merge them with 7 runs of 10 k", rows, || KeyedRun::merge(runs, true).expect("same columns"));
}

fn main() {
    let bench = Bench(millpond_env::os::Clock::new());
    heaps(&bench);
    wide(&bench);
    relations(&bench, Identity::UniqueKey(vec![0]));
    relations(&bench, Identity::Multiset);
    keyed_runs(&bench);
}
