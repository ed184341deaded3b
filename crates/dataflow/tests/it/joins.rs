//! Joins against nested loops over the accumulated inputs: all kinds, NULL keys, duplicates, retractions before their
//! insertions, self-joins, any cut into epochs, any number of shards, restarts from checkpoints with other shards.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::*;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{BinaryExpr, Column};
use datafusion::physical_plan::PhysicalExpr;
use millpond_dataflow::*;
use millpond_state::KeyedRun;
use millpond_types::Delta;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use crate::harness::pool;
use crate::model::{Cell, Multiset, Row, add, batch, rows};

const WIDTH: usize = 4;

/// k, name, v, f
fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("name", DataType::Utf8, true),
        Field::new("v", DataType::Int64, true),
        Field::new("f", DataType::Float64, true),
    ]))
}

#[derive(Clone, Debug)]
struct Case {
    kind: JoinKind,
    keys: Vec<(usize, usize)>,
    nulls_equal: bool,
    /// l.v <= r.v
    residual: bool,
    append_only: [bool; 2],
    self_join: bool,
}

impl Case {
    fn pairs(&self) -> bool {
        !matches!(self.kind, JoinKind::LeftSemi | JoinKind::LeftAnti | JoinKind::LeftMark)
    }

    fn spec(&self) -> JoinSpec {
        let residual = self.residual.then(|| {
            let (left, right) = (Arc::new(Column::new("v", 0)), Arc::new(Column::new("v", 1)));
            let expression: Arc<dyn PhysicalExpr> = Arc::new(BinaryExpr::new(left, Operator::LtEq, right));
            Residual { columns: vec![2, WIDTH + 2], expression }
        });
        let output: Vec<usize> =
            if self.pairs() { (0..2 * WIDTH).rev().collect() } else { (0..WIDTH).rev().collect() };
        let mut fields: Vec<Field> = output.iter().map(|c| schema().field(c % WIDTH).clone()).collect();
        if self.kind == JoinKind::LeftMark {
            fields.push(Field::new("mark", DataType::Boolean, false));
        }
        JoinSpec {
            kind: self.kind,
            keys: self.keys.clone(),
            nulls_equal: self.nulls_equal,
            residual,
            close: None,
            append_only: self.append_only,
            output,
            schema: Arc::new(Schema::new(fields)),
        }
    }

    fn matches(&self, left: &Row, right: &Row) -> bool {
        let key = |&(l, r): &(usize, usize)| (self.nulls_equal || !left[l].is_null()) && left[l] == right[r];
        let residual =
            !self.residual || (!left[2].is_null() && !right[2].is_null() && left[2].int() <= right[2].int());
        self.keys.iter().all(key) && residual
    }

    fn answer(&self, left: &Multiset, right: &Multiset) -> Multiset {
        let nulls = vec![Cell::Null; WIDTH];
        let mut result = Multiset::new();
        let give = |result: &mut Multiset, left: &Row, right: &Row, weight: i64| {
            let row = left.iter().chain(right).rev().cloned().collect();
            add(result, row, weight);
        };
        let mut lonely = right.clone();
        for (l, lw) in left {
            let mut matched = false;
            for (r, rw) in right.iter().filter(|(r, _)| self.matches(l, r)) {
                matched = true;
                lonely.remove(r);
                if self.pairs() {
                    give(&mut result, l, r, lw * rw);
                }
            }
            match self.kind {
                JoinKind::Left | JoinKind::Full if !matched => give(&mut result, l, &nulls, *lw),
                JoinKind::LeftSemi if matched => give(&mut result, l, &Vec::new(), *lw),
                JoinKind::LeftAnti if !matched => give(&mut result, l, &Vec::new(), *lw),
                _ => {}
            }
            if self.kind == JoinKind::LeftMark {
                let mut row: Row = l.iter().rev().cloned().collect();
                row.push(Cell::Int(matched.into()));
                add(&mut result, row, *lw);
            }
        }
        if matches!(self.kind, JoinKind::Right | JoinKind::Full) {
            lonely.iter().for_each(|(r, rw)| {
                let row = nulls.iter().chain(r).rev().cloned().collect();
                add(&mut result, row, *rw);
            });
        }
        result
    }
}

struct Life {
    case: Case,
    graph: Graph,
    inputs: [InputId; 2],
    join: NodeId,
    view: Multiset,
    contents: [Multiset; 2],
    saved: BTreeMap<&'static str, Vec<KeyedRun>>,
}

fn build(case: &Case, shards: usize) -> (Graph, [InputId; 2], NodeId) {
    let mut graph = Graph::new(shards, pool());
    let left = graph.add_input(schema());
    let right = if case.self_join { left } else { graph.add_input(schema()) };
    let join = graph.add_join(left, right, &case.spec()).expect("a join");
    graph.add_output(join).expect("an output");
    (graph, [left, right], join)
}

impl Life {
    fn new(case: Case, shards: usize) -> Self {
        let (graph, inputs, join) = build(&case, shards);
        let (view, contents, saved) = (Multiset::new(), Default::default(), BTreeMap::new());
        Self { case, graph, inputs, join, view, contents, saved }
    }

    fn step(&mut self, changes: &[(usize, Row, i64)], pieces: usize) {
        let mut deltas: Vec<(InputId, Vec<Delta>)> = Vec::new();
        for side in 0..2 {
            let of_side: Vec<_> = changes.iter().filter(|change| change.0 == side).collect();
            let size = of_side.len().div_ceil(pieces).max(1);
            let cut = of_side.chunks(size).map(|chunk| {
                let cells: Vec<&Row> = chunk.iter().map(|change| &change.1).collect();
                let weights: Vec<i64> = chunk.iter().map(|change| change.2).collect();
                let plain = weights.iter().all(|w| *w == 1);
                Delta::new(batch(&schema(), &cells), (!plain).then(|| weights.into()))
            });
            deltas.push((self.inputs[side], cut.collect()));
        }
        for (side, row, weight) in changes {
            add(&mut self.contents[*side], row.clone(), *weight);
            if self.case.self_join {
                add(&mut self.contents[1], row.clone(), *weight);
            }
        }
        let out = self.graph.step(EpochInput { deltas, watermarks: vec![] }).expect("an epoch");
        for delta in out.outputs.iter().flat_map(|(_, deltas)| deltas) {
            for (at, row) in rows(&delta.batch).into_iter().enumerate() {
                assert_ne!(delta.weight(at), 0);
                add(&mut self.view, row, delta.weight(at));
            }
        }
    }

    fn check(&self, seed: u64) {
        let expected = self.case.answer(&self.contents[0], &self.contents[1]);
        assert_eq!(self.view, expected, "seed {seed}: {:?}", self.case);
    }

    fn freeze(&mut self) -> usize {
        let mut frozen_rows = 0;
        for frozen in self.graph.freeze() {
            assert_eq!(frozen.node, self.join);
            frozen_rows += frozen.rows();
            let state = frozen.state;
            let bytes = frozen.into_run().expect("a run").encode().expect("encodes").bytes;
            self.saved.entry(state).or_default().push(KeyedRun::decode(&bytes).expect("decodes"));
        }
        frozen_rows
    }

    fn restart(&mut self, shards: usize) {
        self.freeze();
        (self.graph, self.inputs, self.join) = build(&self.case, shards);
        for state in [STATE_LEFT, STATE_RIGHT] {
            let Some(runs) = self.saved.get_mut(state) else { continue };
            let merged = KeyedRun::merge(std::mem::take(runs), true).expect("merge");
            self.graph.restore(self.join, state, &merged).expect("restores");
            runs.push(merged);
        }
    }

    fn state_rows(&self) -> u64 {
        self.graph.node_stats().iter().map(|stats| stats.state_rows).sum()
    }
}

fn row(rng: &mut SmallRng) -> Row {
    let int = |rng: &mut SmallRng, below: i128| match rng.random_bool(0.15) {
        true => Cell::Null,
        false => Cell::Int(rng.random_range(0..below)),
    };
    let name = match rng.random_range(0..4) {
        0 => Cell::Null,
        1 => Cell::Text("a name that is too long to stand in a key itself".to_owned()),
        _ => Cell::Text("short".to_owned()),
    };
    // 0.0 and -0.0 are told apart by nobody here, but they are two values of one hash.
    let f = [Cell::Float(0.0), Cell::Float(-0.0), Cell::Float(f64::NAN), Cell::Float(1.5), Cell::Null];
    vec![int(rng, 5), name, int(rng, 3), f[rng.random_range(0..f.len())].clone()]
}

fn case(rng: &mut SmallRng) -> Case {
    use JoinKind::*;
    let keys: [&[(usize, usize)]; 5] = [&[], &[(0, 0)], &[(0, 2)], &[(0, 0), (1, 1)], &[(1, 1), (3, 3)]];
    let self_join = rng.random_bool(0.2);
    let append_only = match self_join {
        true => [rng.random_bool(0.3); 2],
        false => [rng.random_bool(0.3), rng.random_bool(0.3)],
    };
    Case {
        kind: [Inner, Left, Right, Full, LeftSemi, LeftAnti, LeftMark][rng.random_range(0..7)],
        keys: keys[rng.random_range(0..keys.len())].to_vec(),
        nulls_equal: rng.random_bool(0.3),
        residual: rng.random_bool(0.4),
        append_only,
        self_join,
    }
}

fn live(seed: u64) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let case = case(&mut rng);
    let mut life = Life::new(case.clone(), [1, 2, 4][rng.random_range(0..3)]);
    // What will be there at the end of the epoch.
    let mut alive: [Vec<Row>; 2] = Default::default();
    for _ in 0..rng.random_range(1..12) {
        let mut changes = Vec::new();
        for _ in 0..rng.random_range(0..25) {
            let side = if case.self_join { 0 } else { rng.random_range(0..2) };
            if !case.append_only[side] && !alive[side].is_empty() && rng.random_bool(0.4) {
                let at = rng.random_range(0..alive[side].len());
                changes.push((side, alive[side].swap_remove(at), -1));
                continue;
            }
            let row = row(&mut rng);
            let weight = rng.random_range(1..3);
            (0..weight).for_each(|_| alive[side].push(row.clone()));
            changes.push((side, row, weight));
        }
        changes.shuffle(&mut rng);
        life.step(&changes, rng.random_range(1..4));
        life.check(seed);
        match rng.random_range(0..6) {
            0 => life.restart([1, 2, 3, 4][rng.random_range(0..4)]),
            1 => {
                life.freeze();
            }
            _ => {}
        }
    }
    if case.append_only == [false; 2] {
        let all: Vec<_> = (0..2)
            .flat_map(|side| alive[side].drain(..).map(move |row| (side, row, -1)).collect::<Vec<_>>())
            .collect();
        life.step(&all, 1);
        assert!(life.view.is_empty(), "seed {seed}: {:?}", life.view);
        assert_eq!(life.state_rows(), 0, "seed {seed}: state of rows that are gone");
        life.restart(2);
        assert_eq!(life.state_rows(), 0, "seed {seed}: a checkpoint of rows that are gone");
    }
}

#[test]
fn every_join_equals_nested_loops() {
    (0..300).for_each(live);
}

fn plain(kind: JoinKind, append_only: bool) -> Case {
    let (keys, append_only) = (vec![(0, 0)], [append_only; 2]);
    Case { kind, keys, nulls_equal: false, residual: false, append_only, self_join: false }
}

fn simple(k: i128, v: i128) -> Row {
    vec![Cell::Int(k), Cell::Null, Cell::Int(v), Cell::Float(0.0)]
}

#[test]
fn a_change_of_one_row_leaves_in_bounded_batches() {
    struct Largest(usize, usize);
    impl Sink for Largest {
        fn output(&mut self, _: OutputId, delta: Delta) {
            self.0 = self.0.max(delta.rows());
            self.1 += delta.rows();
        }
        fn reject(&mut self, row: Rejected) {
            panic!("{row:?}");
        }
        fn late(&mut self, rows: Late) {
            panic!("{rows:?}");
        }
    }
    for kind in [JoinKind::Inner, JoinKind::Full, JoinKind::LeftSemi] {
        let mut life = Life::new(plain(kind, false), 2);
        let many = if kind == JoinKind::LeftSemi { 0 } else { 1 };
        let changes: Vec<_> = (0..50_000).map(|v| (many, simple(7, v), 1)).collect();
        life.step(&changes, 3);
        let delta = Delta::insert(batch(&schema(), &[&simple(7, -1)]));
        let mut largest = Largest(0, 0);
        let deltas = vec![(life.inputs[1 - many], vec![delta])];
        life.graph.step_into(EpochInput { deltas, watermarks: vec![] }, &mut largest).expect("an epoch");
        assert!(largest.0 <= 20_000, "{kind:?}: a batch of {} rows", largest.0);
        assert!(largest.1 >= 50_000, "{kind:?}: {} rows", largest.1);
    }
}

/// Adds up what comes, and notices if it comes after an interruption only.
#[derive(Default)]
struct Sum(Multiset, usize);

impl Sink for Sum {
    fn output(&mut self, _: OutputId, delta: Delta) {
        for (at, row) in rows(&delta.batch).into_iter().enumerate() {
            add(&mut self.0, row, delta.weight(at));
        }
        self.1 += 1;
    }
    fn reject(&mut self, row: Rejected) {
        panic!("{row:?}");
    }
    fn late(&mut self, rows: Late) {
        panic!("{rows:?}");
    }
}

#[test]
fn an_epoch_can_be_laid_aside_and_resumed_by_other_threads() {
    for kind in [JoinKind::Inner, JoinKind::Full, JoinKind::LeftAnti] {
        let mut lives = [Life::new(plain(kind, false), 2), Life::new(plain(kind, false), 2)];
        let many: Vec<_> = (0..12_000).map(|v| (usize::from(v % 3 == 0), simple(v % 3, v), 1)).collect();
        lives.iter_mut().for_each(|life| life.step(&many, 3));
        let input = |life: &Life| {
            let new: Vec<_> = (0..3).map(|k| simple(k, -1)).collect();
            let delta = |weight| {
                let rows: Vec<&Row> = new.iter().collect();
                vec![Delta::new(batch(&schema(), &rows), Some(vec![weight; 3].into()))]
            };
            EpochInput {
                deltas: vec![(life.inputs[0], delta(1)), (life.inputs[1], delta(2))],
                watermarks: vec![],
            }
        };
        let [whole, pieces] = lives;
        let (input, same) = (input(&whole), input(&pieces));
        let (mut whole, mut pieces) = (whole.graph, pieces.graph);
        let mut expected = Sum::default();
        let stats = whole.step_into(input, &mut expected).expect("an epoch");
        let mut found = Sum::default();
        pieces.begin(same);
        let mut interruptions = 0;
        let found_stats = loop {
            let (mut graph, mut sum) = (pieces, found);
            let went = std::thread::spawn(move || {
                let passed = graph.resume(&mut sum, &mut || false).expect("a piece of an epoch");
                (graph, sum, passed)
            });
            let passed;
            (pieces, found, passed) = went.join().expect("no panic");
            match passed {
                Some(stats) => break stats,
                None => interruptions += 1,
            }
        };
        assert_eq!((found.0, found_stats), (expected.0, stats), "{kind:?}");
        assert!(interruptions > 3 && found.1 == expected.1, "{kind:?}: {interruptions}");
        assert_eq!(whole.freeze().len(), pieces.freeze().len());
    }
}

#[test]
fn an_update_beside_the_key_toggles_nothing() {
    for kind in [JoinKind::LeftSemi, JoinKind::LeftAnti, JoinKind::LeftMark] {
        let mut life = Life::new(plain(kind, false), 1);
        life.step(&[(0, simple(1, 1), 1), (1, simple(1, 1), 1)], 1);
        let delta = Delta::new(batch(&schema(), &[&simple(1, 1), &simple(1, 2)]), Some(vec![-1, 1].into()));
        let deltas = vec![(life.inputs[1], vec![delta])];
        let out = life.graph.step(EpochInput { deltas, watermarks: vec![] }).expect("an epoch");
        assert_eq!(out.stats.rows_out, 0, "{kind:?}");
    }
}

#[test]
fn a_checkpoint_holds_what_has_changed_since_the_last() {
    let mut life = Life::new(plain(JoinKind::Left, false), 2);
    let changes: Vec<_> = (0..1000).map(|v| (v as usize % 2, simple(v / 10, v), 1)).collect();
    life.step(&changes, 1);
    assert_eq!(life.freeze(), 1000);
    assert_eq!(life.freeze(), 0);
    life.step(&[(0, simple(0, 0), -1), (0, simple(0, 100), 1), (1, simple(99, 991), 1)], 1);
    // The row that went, the one that came, and the one whose weight is 2 now.
    assert_eq!(life.freeze(), 3);
    life.restart(3);
    life.step(&[(1, simple(0, 5), 1), (1, simple(99, 991), -2)], 1);
    life.check(0);
}

#[test]
fn more_retractions_than_insertions_are_a_fault() {
    for append_only in [false, true] {
        let mut life = Life::new(plain(JoinKind::Inner, append_only), 1);
        let delta = Delta::retract(batch(&schema(), &[&simple(1, 1)]));
        let deltas = vec![(life.inputs[0], vec![delta])];
        let fault = life.graph.step(EpochInput { deltas, watermarks: vec![] }).expect_err("nothing is there");
        let expected = if append_only { "append-only" } else { "more rows are retracted" };
        assert!(fault.to_string().contains(expected), "{fault}");
    }
}
