//! Joins of several sources at once against nested loops: NULL keys, duplicates, retractions before their insertions, sources
//! that are one, any path, any cut into epochs, any number of shards, restarts from checkpoints with other shards.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::*;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{BinaryExpr, Column};
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
    sources: usize,
    /// Source and column.
    equal: Vec<Vec<(usize, usize)>>,
    paths: Vec<Vec<usize>>,
    /// The first source's v <= the last one's.
    residual: bool,
    append_only: bool,
    /// The last source is the first.
    twice: bool,
}

impl Case {
    fn draw(rng: &mut SmallRng) -> Self {
        let sources = rng.random_range(3..6);
        let mut equal: Vec<Vec<(usize, usize)>> = Vec::new();
        for source in 1..sources {
            for _ in 0..rng.random_range(1..3) {
                let pairs = [(0, 0), (0, 2), (2, 0), (2, 2), (1, 1), (3, 3)];
                let (own, column) = pairs[rng.random_range(0..pairs.len())];
                let other = (rng.random_range(0..source), column);
                if equal.iter().flatten().any(|at| *at == (source, own)) {
                    continue;
                }
                match equal.iter_mut().find(|class| class.contains(&other)) {
                    Some(class) if class.iter().all(|at| at.0 != source) => class.push((source, own)),
                    Some(_) => {}
                    None => equal.push(vec![other, (source, own)]),
                }
            }
            if !equal.iter().flatten().any(|at| at.0 == source) {
                match equal.iter_mut().find(|class| class.contains(&(0, 0))) {
                    Some(class) => class.push((source, 0)),
                    None => equal.push(vec![(0, 0), (source, 0)]),
                }
            }
        }
        let mut case = Self {
            sources,
            equal,
            paths: Vec::new(),
            residual: rng.random_bool(0.4),
            append_only: rng.random_bool(0.3),
            twice: rng.random_bool(0.3),
        };
        case.paths = (0..sources).map(|from| case.path(from, rng)).collect();
        case
    }

    fn path(&self, from: usize, rng: &mut SmallRng) -> Vec<usize> {
        let mut known = vec![from];
        while known.len() < self.sources {
            let open: Vec<usize> = (0..self.sources)
                .filter(|source| !known.contains(source) && !self.lookup(&known, *source).is_empty())
                .collect();
            known.push(open[rng.random_range(0..open.len())]);
        }
        known.split_off(1)
    }

    fn lookup(&self, known: &[usize], source: usize) -> Vec<(usize, (usize, usize))> {
        let mut by: Vec<_> = self
            .equal
            .iter()
            .filter_map(|class| {
                let own = class.iter().find(|at| at.0 == source)?;
                Some((own.1, *class.iter().find(|at| known.contains(&at.0))?))
            })
            .collect();
        by.sort_unstable();
        by
    }

    fn spec(&self) -> MultiJoinSpec {
        let mut indexes: Vec<Vec<Vec<usize>>> = vec![Vec::new(); self.sources];
        let mut paths = Vec::new();
        for (from, path) in self.paths.iter().enumerate() {
            let mut known = vec![from];
            let mut lookups = Vec::new();
            for &source in path {
                let (columns, by): (Vec<usize>, Vec<_>) = self.lookup(&known, source).into_iter().unzip();
                let index = indexes[source].iter().position(|i| *i == columns).unwrap_or_else(|| {
                    indexes[source].push(columns);
                    indexes[source].len() - 1
                });
                lookups.push(Lookup { source, index, by });
                known.push(source);
            }
            paths.push(lookups);
        }
        let everywhere = self.equal.iter().find(|class| class.len() == self.sources).map(|class| {
            let mut class = class.clone();
            class.sort_unstable();
            class.into_iter().map(|at| at.1).collect()
        });
        let width = self.sources * WIDTH;
        let output: Vec<usize> = (0..width).rev().collect();
        let fields: Vec<Field> = output.iter().map(|c| schema().field(c % WIDTH).clone()).collect();
        let v = |name, at| Arc::new(Column::new(name, at));
        let residual = self.residual.then(|| Residual {
            columns: vec![2, width - WIDTH + 2],
            expression: Arc::new(BinaryExpr::new(v("v", 0), Operator::LtEq, v("v", 1))),
        });
        MultiJoinSpec {
            append_only: vec![self.append_only; self.sources],
            indexes,
            paths,
            shard_by: everywhere,
            residual,
            output,
            schema: Arc::new(Schema::new(fields)),
        }
    }

    fn answer(&self, contents: &[Multiset]) -> Multiset {
        let mut found: Vec<(Vec<&Row>, i64)> = vec![(Vec::new(), 1)];
        for (source, content) in contents.iter().enumerate() {
            let mut next = Vec::new();
            for (rows, weight) in &found {
                for (row, more) in content {
                    let fits = self
                        .lookup(&(0..source).collect::<Vec<_>>(), source)
                        .into_iter()
                        .all(|(own, (other, column))| !row[own].is_null() && row[own] == rows[other][column]);
                    if fits {
                        next.push((rows.iter().copied().chain([row]).collect(), weight * more));
                    }
                }
            }
            found = next;
        }
        let mut result = Multiset::new();
        for (rows, weight) in found {
            let (first, last) = (&rows[0][2], &rows[rows.len() - 1][2]);
            let passes = !self.residual || (!first.is_null() && !last.is_null() && first.int() <= last.int());
            if passes {
                let row: Row = rows.into_iter().flatten().cloned().collect();
                add(&mut result, row.into_iter().rev().collect(), weight);
            }
        }
        result
    }
}

struct Life {
    case: Case,
    graph: Graph,
    inputs: Vec<InputId>,
    join: NodeId,
    view: Multiset,
    contents: Vec<Multiset>,
    saved: BTreeMap<&'static str, Vec<KeyedRun>>,
}

fn build(case: &Case, shards: usize) -> (Graph, Vec<InputId>, NodeId) {
    let mut graph = Graph::new(shards, pool());
    let mut inputs: Vec<InputId> = (0..case.sources).map(|_| graph.add_input(schema())).collect();
    if case.twice {
        inputs[case.sources - 1] = inputs[0];
    }
    let nodes: Vec<NodeId> = inputs.iter().map(|input| (*input).into()).collect();
    let join = graph.add_multi_join(&nodes, &case.spec()).expect("a join");
    graph.add_output(join).expect("an output");
    (graph, inputs, join)
}

impl Life {
    fn new(case: Case, shards: usize) -> Self {
        let (graph, inputs, join) = build(&case, shards);
        let contents = vec![Multiset::new(); case.sources];
        Self { case, graph, inputs, join, view: Multiset::new(), contents, saved: BTreeMap::new() }
    }

    fn step(&mut self, changes: &[(usize, Row, i64)], pieces: usize) {
        let mut deltas: Vec<(InputId, Vec<Delta>)> = Vec::new();
        for source in 0..self.case.sources - usize::from(self.case.twice) {
            let of_source: Vec<_> = changes.iter().filter(|change| change.0 == source).collect();
            let size = of_source.len().div_ceil(pieces).max(1);
            let cut = of_source.chunks(size).map(|chunk| {
                let cells: Vec<&Row> = chunk.iter().map(|change| &change.1).collect();
                let weights: Vec<i64> = chunk.iter().map(|change| change.2).collect();
                let plain = weights.iter().all(|w| *w == 1);
                Delta::new(batch(&schema(), &cells), (!plain).then(|| weights.into()))
            });
            deltas.push((self.inputs[source], cut.collect()));
        }
        for (source, row, weight) in changes {
            add(&mut self.contents[*source], row.clone(), *weight);
            if self.case.twice && *source == 0 {
                add(&mut self.contents[self.case.sources - 1], row.clone(), *weight);
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

    fn freeze(&mut self) -> usize {
        let mut rows = 0;
        for frozen in self.graph.freeze() {
            rows += frozen.rows();
            let state = frozen.state;
            let bytes = frozen.into_run().expect("a run").encode().expect("encodes").bytes;
            self.saved.entry(state).or_default().push(KeyedRun::decode(&bytes).expect("decodes"));
        }
        rows
    }

    fn restart(&mut self, shards: usize) {
        self.freeze();
        (self.graph, self.inputs, self.join) = build(&self.case, shards);
        for (state, runs) in &mut self.saved {
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
    let int = |rng: &mut SmallRng, below: i128| match rng.random_bool(0.1) {
        true => Cell::Null,
        false => Cell::Int(rng.random_range(0..below)),
    };
    let name = match rng.random_range(0..4) {
        0 => Cell::Null,
        1 => Cell::Text("a name that is too long to stand in a key itself".to_owned()),
        _ => Cell::Text("short".to_owned()),
    };
    let f = [Cell::Float(0.0), Cell::Float(-0.0), Cell::Float(f64::NAN), Cell::Float(1.5), Cell::Null];
    vec![int(rng, 4), name, int(rng, 3), f[rng.random_range(0..f.len())].clone()]
}

fn live(seed: u64) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let case = Case::draw(&mut rng);
    let mut life = Life::new(case.clone(), [1, 2, 4][rng.random_range(0..3)]);
    let own = case.sources - usize::from(case.twice);
    let mut alive: Vec<Vec<Row>> = vec![Vec::new(); own];
    for _ in 0..rng.random_range(1..10) {
        let mut changes = Vec::new();
        for _ in 0..rng.random_range(0..20) {
            let source = rng.random_range(0..own);
            if !case.append_only && !alive[source].is_empty() && rng.random_bool(0.4) {
                let at = rng.random_range(0..alive[source].len());
                changes.push((source, alive[source].swap_remove(at), -1));
                continue;
            }
            let row = row(&mut rng);
            let weight = rng.random_range(1..3);
            (0..weight).for_each(|_| alive[source].push(row.clone()));
            changes.push((source, row, weight));
        }
        changes.shuffle(&mut rng);
        life.step(&changes, rng.random_range(1..4));
        assert_eq!(life.view, case.answer(&life.contents), "seed {seed}: {case:?}");
        match rng.random_range(0..5) {
            0 => life.restart([1, 2, 3, 4][rng.random_range(0..4)]),
            1 => {
                life.freeze();
            }
            _ => {}
        }
    }
    if !case.append_only {
        let gone = alive.iter_mut().enumerate();
        let gone = gone.flat_map(|(source, rows)| rows.drain(..).map(move |row| (source, row, -1)));
        life.step(&gone.collect::<Vec<_>>(), 1);
        assert!(life.view.is_empty(), "seed {seed}: {:?}", life.view);
        assert_eq!(life.state_rows(), 0, "seed {seed}: state of rows that are gone");
        life.restart(2);
        assert_eq!(life.state_rows(), 0, "seed {seed}: a checkpoint of rows that are gone");
    }
}

#[test]
fn every_join_of_several_sources_equals_nested_loops() {
    (0..300).for_each(live);
}

fn star() -> Case {
    let equal = vec![vec![(0, 0), (1, 0)], vec![(1, 2), (2, 0)]];
    let paths = vec![vec![1, 2], vec![0, 2], vec![1, 0]];
    Case { sources: 3, equal, paths, residual: false, append_only: false, twice: false }
}

fn simple(k: i128, v: i128, f: f64) -> Row {
    vec![Cell::Int(k), Cell::Null, Cell::Int(v), Cell::Float(f)]
}

#[test]
fn a_change_with_a_huge_output_leaves_in_bounded_batches() {
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
    let mut life = Life::new(star(), 2);
    let mut changes: Vec<_> = (0..300).map(|n| (1, simple(7, 7, n as f64), 1)).collect();
    changes.extend((0..300).map(|n| (2, simple(7, n, 0.5), 1)));
    life.step(&changes, 3);
    assert!(life.view.is_empty());
    let delta = Delta::insert(batch(&schema(), &[&simple(7, -1, 0.5)]));
    let mut largest = Largest(0, 0);
    let deltas = vec![(life.inputs[0], vec![delta])];
    let input = EpochInput { deltas, watermarks: vec![] };
    life.graph.begin(input);
    let mut interruptions = 0;
    while life.graph.resume(&mut largest, &mut || false).expect("a piece of an epoch").is_none() {
        interruptions += 1;
    }
    assert_eq!(largest.1, 90_000);
    assert!(largest.0 <= 20_000 && interruptions > 3, "batches of {} rows, {interruptions}", largest.0);
}

#[test]
fn each_source_is_kept_once_and_nothing_between() {
    let mut life = Life::new(star(), 1);
    let mut changes: Vec<_> = (0..100).map(|n| (1, simple(n, n, 0.5), 1)).collect();
    changes.extend((0..100).map(|n| (0, simple(n, n, 0.5), 1)));
    changes.push((0, vec![Cell::Null; WIDTH], 1));
    life.step(&changes, 1);
    // A tree would hold the 100 pairs as well; the row without a key is nowhere.
    assert_eq!(life.state_rows(), 200);
    assert_eq!(life.freeze(), 200);
    assert_eq!(life.freeze(), 0);
    life.step(&[(1, simple(3, 3, 0.5), -1), (1, simple(3, 4, 0.5), 1), (2, simple(4, 9, 0.5), 1)], 1);
    assert_eq!(life.view.values().sum::<i64>(), 2);
    assert_eq!(life.freeze(), 3);
}

#[test]
fn more_retractions_than_insertions_are_a_fault() {
    let mut life = Life::new(star(), 1);
    let deltas = vec![(life.inputs[1], vec![Delta::retract(batch(&schema(), &[&simple(1, 1, 0.5)]))])];
    assert!(life.graph.step(EpochInput { deltas, watermarks: vec![] }).is_err());
}
