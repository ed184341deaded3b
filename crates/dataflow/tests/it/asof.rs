//! ASOF joins against the nearest row, looked for among all after each epoch.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::Int64Array;
use arrow::datatypes::*;
use millpond_dataflow::*;
use millpond_state::KeyedRun;
use millpond_types::Delta;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::harness::pool;
use crate::model::{Cell, Multiset, Row, add, batch, rows};

/// Key, time, value.
fn schema(right: bool) -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Microsecond, None);
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Utf8, !right),
        Field::new("ts", time, !right),
        Field::new("v", DataType::Int32, true),
    ]))
}

fn delta(schema: &SchemaRef, changes: &[(Row, i64)]) -> Delta {
    let rows: Vec<&Row> = changes.iter().map(|(row, _)| row).collect();
    Delta::new(batch(schema, &rows), Some(Int64Array::from_iter_values(changes.iter().map(|(_, w)| *w))))
}

struct Plan {
    comparison: Comparison,
    outer: bool,
    keyed: bool,
}

struct Running {
    graph: Graph,
    inputs: [InputId; 2],
    saved: BTreeMap<&'static str, Vec<KeyedRun>>,
}

fn build(plan: &Plan, shards: usize) -> Running {
    let mut graph = Graph::new(shards, pool());
    let inputs = [graph.add_input(schema(false)), graph.add_input(schema(true))];
    let mut fields: Vec<Field> = schema(false).fields().iter().map(|f| f.as_ref().clone()).collect();
    fields.push(Field::new("rts", schema(true).field(1).data_type().clone(), true));
    fields.push(Field::new("rv", DataType::Int32, true));
    let spec = AsofSpec {
        keys: if plan.keyed { vec![(0, 0)] } else { Vec::new() },
        times: (1, 1),
        comparison: plan.comparison,
        outer: plan.outer,
        append_only: [false, false],
        output: vec![0, 1, 2, 4, 5],
        schema: Arc::new(Schema::new(fields)),
    };
    let node = graph.add_asof(inputs[0], inputs[1], &spec).unwrap();
    graph.add_output(node).unwrap();
    Running { graph, inputs, saved: BTreeMap::new() }
}

impl Running {
    fn save(&mut self) {
        for frozen in self.graph.freeze() {
            let state = frozen.state;
            let bytes = frozen.into_run().unwrap().encode().unwrap().bytes;
            self.saved.entry(state).or_default().push(KeyedRun::decode(&bytes).unwrap());
        }
    }

    fn restart(&mut self, plan: &Plan, shards: usize) {
        self.save();
        let saved = std::mem::take(&mut self.saved);
        *self = build(plan, shards);
        let node = self.graph.node_stats().iter().find(|n| !n.states.is_empty()).unwrap().node;
        for (state, runs) in saved {
            let merged = KeyedRun::merge(runs, true).unwrap();
            self.graph.restore(node, state, &merged).unwrap();
            self.saved.insert(state, vec![merged]);
        }
    }
}

/// NULL last, as rows are ordered by the columns that no one names.
fn later(a: &Cell, b: &Cell) -> Ordering {
    a.is_null().cmp(&b.is_null()).then_with(|| a.cmp(b))
}

fn naive(sides: &[Multiset; 2], plan: &Plan) -> Multiset {
    let mut joined = Multiset::new();
    for (left, weight) in &sides[0] {
        let fits = |right: &&Row| {
            let keys = !plan.keyed || (!left[0].is_null() && left[0] == right[0]);
            let order = match (&left[1], &right[1]) {
                (Cell::Int(l), Cell::Int(r)) => l.cmp(r),
                _ => return false,
            };
            keys && match plan.comparison {
                Comparison::Less => order.is_lt(),
                Comparison::LessOrEqual => order.is_le(),
                Comparison::Greater => order.is_gt(),
                Comparison::GreaterOrEqual => order.is_ge(),
            }
        };
        let by = |a: &&Row, b: &&Row| {
            a[1].cmp(&b[1]).then_with(|| later(&a[0], &b[0])).then_with(|| later(&a[2], &b[2]))
        };
        let candidates = sides[1].keys().filter(fits);
        let found = match plan.comparison {
            Comparison::Greater | Comparison::GreaterOrEqual => candidates.max_by(by),
            Comparison::Less | Comparison::LessOrEqual => candidates.min_by(by),
        };
        let mut row = left.clone();
        match found {
            Some(right) => row.extend(right[1..].iter().cloned()),
            None if plan.outer => row.extend([Cell::Null, Cell::Null]),
            None => continue,
        }
        add(&mut joined, row, *weight);
    }
    joined
}

fn random_row(rng: &mut SmallRng, right: bool) -> Row {
    let null = |rng: &mut SmallRng| !right && rng.random_ratio(1, 8);
    let key = if null(rng) { Cell::Null } else { Cell::Text(["", "a", "ab"][rng.random_range(0..3)].into()) };
    let time = if null(rng) { Cell::Null } else { Cell::Int(rng.random_range(-6..12)) };
    let value = if rng.random_ratio(1, 6) { Cell::Null } else { Cell::Int(rng.random_range(-2..3)) };
    vec![key, time, value]
}

#[test]
fn asof_joins_equal_the_nearest_row() {
    let comparisons =
        [Comparison::Less, Comparison::LessOrEqual, Comparison::Greater, Comparison::GreaterOrEqual];
    for seed in 0..200u64 {
        let rng = &mut SmallRng::seed_from_u64(seed);
        let plan = Plan {
            comparison: comparisons[rng.random_range(0..4)],
            outer: rng.random(),
            keyed: rng.random_ratio(3, 4),
        };
        let shards = |rng: &mut SmallRng| [1, 2, 4][rng.random_range(0..3)];
        let mut running = build(&plan, shards(rng));
        let (mut sides, mut view) = ([Multiset::new(), Multiset::new()], Multiset::new());
        for epoch in 0..rng.random_range(1..12) {
            let mut deltas = Vec::new();
            for (side, present) in sides.iter_mut().enumerate() {
                let mut changes = Vec::new();
                for _ in 0..rng.random_range(0..10) {
                    let (row, weight) = if !present.is_empty() && rng.random_ratio(2, 5) {
                        let (row, weight) =
                            present.iter().nth(rng.random_range(0..present.len())).expect("within");
                        (row.clone(), -rng.random_range(1..=*weight))
                    } else {
                        (random_row(rng, side == 1), if rng.random_ratio(1, 5) { 2 } else { 1 })
                    };
                    add(present, row.clone(), weight);
                    changes.push((row, weight));
                }
                changes.sort_by_key(|_| rng.random::<u32>());
                deltas.push((running.inputs[side], vec![delta(&schema(side == 1), &changes)]));
            }
            let out = running.graph.step(EpochInput { deltas, watermarks: Vec::new() }).unwrap();
            for delta in out.outputs.iter().flat_map(|(_, deltas)| deltas) {
                for (at, row) in rows(&delta.batch).into_iter().enumerate() {
                    add(&mut view, row, delta.weight(at));
                }
            }
            assert_eq!(view, naive(&sides, &plan), "seed {seed}, epoch {epoch}");
            match rng.random_range(0..6) {
                0 => running.restart(&plan, shards(rng)),
                1 => running.save(),
                _ => {}
            }
        }
    }
}
