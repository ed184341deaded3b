//! A graph with one output, its accumulated view, and checkpoints that may be restored into another graph.

use std::collections::BTreeMap;
use std::sync::Arc;

use millpond_dataflow::{EpochInput, EpochOutput, Graph, InputId, NodeId, OutputId};
use millpond_state::KeyedRun;
use millpond_types::{Delta, EventTime};

use crate::model::{Multiset, add, rows};

pub fn pool() -> Arc<rayon::ThreadPool> {
    static POOL: std::sync::OnceLock<Arc<rayon::ThreadPool>> = std::sync::OnceLock::new();
    let build = || Arc::new(rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("two threads"));
    Arc::clone(POOL.get_or_init(build))
}

pub type Build<'a> = dyn Fn(&mut Graph) -> (InputId, OutputId) + 'a;

pub struct Harness<'a> {
    build: &'a Build<'a>,
    pub graph: Graph,
    pub input: InputId,
    output: OutputId,
    pub view: Multiset,
    pub late: Multiset,
    mark: Option<EventTime>,
    /// What comes and goes within an epoch may be published.
    pub linear: bool,
    /// By number of the node in order of ids, and state.
    saved: BTreeMap<(usize, &'static str), Vec<KeyedRun>>,
}

impl<'a> Harness<'a> {
    pub fn new(shards: usize, build: &'a Build<'a>) -> Self {
        let mut graph = Graph::new(shards, pool());
        let (input, output) = build(&mut graph);
        let (view, late, saved) = (Multiset::new(), Multiset::new(), BTreeMap::new());
        Self { build, graph, input, output, view, late, mark: None, linear: false, saved }
    }

    pub fn step(&mut self, deltas: Vec<Delta>, mark: Option<i64>) -> EpochOutput {
        self.mark = mark.map(EventTime).or(self.mark);
        let watermarks = self.mark.map(|mark| (self.input, mark)).into_iter().collect();
        let input = EpochInput { deltas: vec![(self.input, deltas)], watermarks };
        let out = self.graph.step(input).expect("the graph takes its input");
        let mut change = Multiset::new();
        let mut changed_rows = 0;
        for (output, deltas) in &out.outputs {
            assert_eq!(*output, self.output);
            for delta in deltas {
                for (at, row) in rows(&delta.batch).into_iter().enumerate() {
                    changed_rows += delta.weight(at).abs();
                    add(&mut change, row, delta.weight(at));
                }
            }
        }
        let kept: i64 = change.values().map(|w| w.abs()).sum();
        assert!(self.linear || kept == changed_rows, "a row that does not change is not published");
        for (row, weight) in change {
            add(&mut self.view, row, weight);
        }
        assert!(self.view.values().all(|w| *w > 0), "I6: {:?}", self.view);
        for late in &out.late {
            for (at, mut row) in rows(&late.rows.batch).into_iter().enumerate() {
                row.push(crate::model::Cell::Int(late.window_ends[at].into()));
                row.push(crate::model::Cell::Int(late.watermarks[at].into()));
                add(&mut self.late, row, late.rows.weight(at));
            }
        }
        out
    }

    fn numbers(&self) -> Vec<NodeId> {
        self.graph.node_stats().iter().map(|stats| stats.node).collect()
    }

    pub fn freeze(&mut self) -> usize {
        let numbers = self.numbers();
        let mut frozen_rows = 0;
        for frozen in self.graph.freeze() {
            let number = numbers.iter().position(|n| *n == frozen.node).expect("a node of the graph");
            frozen_rows += frozen.rows();
            let key = (number, frozen.state);
            let run = frozen.into_run().expect("a run");
            let bytes = run.encode().expect("a run is encoded").bytes;
            self.saved.entry(key).or_default().push(KeyedRun::decode(&bytes).expect("and decoded"));
        }
        frozen_rows
    }

    /// Freezes, forgets the graph, and builds another with other shards from what is saved.
    pub fn restart(&mut self, shards: usize) {
        self.freeze();
        self.graph = Graph::new(shards, pool());
        (self.input, self.output) = (self.build)(&mut self.graph);
        // The order of the two must not matter.
        let marks_first = shards == 2;
        if marks_first {
            self.restore_watermarks();
        }
        let numbers = self.numbers();
        for ((number, state), runs) in &mut self.saved {
            let merged = KeyedRun::merge(std::mem::take(runs), true).expect("runs merge");
            self.graph.restore(numbers[*number], state, &merged).expect("a run is restored");
            runs.push(merged);
        }
        if !marks_first {
            self.restore_watermarks();
        }
    }

    fn restore_watermarks(&mut self) {
        let marks: Vec<_> = self.mark.into_iter().map(|mark| (self.input, mark)).collect();
        self.graph.restore_watermarks(&marks).expect("marks fit");
    }
}
