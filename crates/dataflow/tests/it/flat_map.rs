//! Set-returning functions: what a row gives it takes back, and a row that gives much gives it piece by piece.

use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::*;
use millpond_dataflow::*;
use millpond_types::{Delta, EventTime};

use crate::harness::pool;
use crate::model::{Cell, Multiset, add, rows};

fn schema() -> SchemaRef {
    let item = Arc::new(Field::new("item", DataType::Int64, true));
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("a", DataType::List(item), true),
    ]))
}

fn graph(shards: usize, outer: bool) -> (Graph, InputId, NodeId) {
    let mut graph = Graph::new(shards, pool());
    let input = graph.add_input(schema());
    let fields = ["id", "x", "n"].map(|name| Field::new(name, DataType::Int64, true));
    let schema = Arc::new(Schema::new(fields.to_vec()));
    let spec = FlatMapSpec { kept: vec![0], sets: vec![1], ordinality: true, outer, schema };
    let node = graph.add_flat_map(input, &spec).unwrap();
    graph.add_output(node).unwrap();
    (graph, input, node)
}

/// A row's id, its elements if it has an array, and its weight.
type Element = (i64, Option<Vec<i64>>, i64);

fn delta(elements: &[Element]) -> Delta {
    let ids: Int64Array = elements.iter().map(|(id, ..)| *id).collect();
    let lists = elements.iter().map(|(_, list, _)| list.clone().map(|list| list.into_iter().map(Some)));
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>(lists);
    let weights: Int64Array = elements.iter().map(|(.., weight)| *weight).collect();
    let batch = RecordBatch::try_new(schema(), vec![Arc::new(ids), Arc::new(lists)]).unwrap();
    Delta::new(batch, Some(weights))
}

fn epoch(input: InputId, elements: &[Element]) -> EpochInput {
    EpochInput { deltas: vec![(input, vec![delta(elements)])], watermarks: vec![] }
}

fn sum(view: &mut Multiset, out: &EpochOutput) {
    for delta in out.outputs.iter().flat_map(|(_, deltas)| deltas) {
        for (at, row) in rows(&delta.batch).into_iter().enumerate() {
            add(view, row, delta.weight(at));
        }
    }
}

fn row(cells: [Option<i64>; 3]) -> Vec<Cell> {
    cells.into_iter().map(|cell| cell.map_or(Cell::Null, |v| Cell::Int(v.into()))).collect()
}

#[test]
fn a_row_takes_back_what_it_gave() {
    for (shards, outer) in [(1, false), (3, true)] {
        let (mut graph, input, _) = graph(shards, outer);
        let mut view = Multiset::new();
        // A retraction may come before its row.
        let first = [(1, Some(vec![7, 7]), 1), (2, Some(vec![]), 2), (3, None, 1), (4, Some(vec![5]), -1)];
        sum(&mut view, &graph.step(epoch(input, &first)).unwrap());
        let second = [(1, Some(vec![7, 7]), -1), (1, Some(vec![8]), 1), (4, Some(vec![5]), 3)];
        sum(&mut view, &graph.step(epoch(input, &second)).unwrap());
        let mut expected = Multiset::new();
        add(&mut expected, row([Some(1), Some(8), Some(1)]), 1);
        add(&mut expected, row([Some(4), Some(5), Some(1)]), 2);
        if outer {
            add(&mut expected, row([Some(2), None, None]), 2);
            add(&mut expected, row([Some(3), None, None]), 1);
        }
        assert_eq!(view, expected);
    }
}

struct Largest(usize, usize);

impl Sink for Largest {
    fn output(&mut self, _output: OutputId, delta: Delta) {
        self.0 = self.0.max(delta.rows());
        self.1 += delta.rows();
    }
    fn reject(&mut self, _row: Rejected) {}
    fn late(&mut self, _rows: Late) {}
}

#[test]
fn a_huge_row_comes_out_in_pieces_that_can_be_interrupted() {
    let (mut graph, input, _) = graph(1, false);
    graph.begin(epoch(input, &[(1, Some((0..100_000).collect()), 1), (2, Some(vec![1]), 1)]));
    let mut sink = Largest(0, 0);
    let mut pieces = 0;
    while graph.resume(&mut sink, &mut || false).unwrap().is_none() {
        pieces += 1;
    }
    assert_eq!(sink.1, 100_001);
    assert!(sink.0 <= 8192, "a batch of {} rows", sink.0);
    assert!(pieces >= 100_000 / 8192, "{pieces} pieces");
}

#[test]
fn a_watermark_passes() {
    let (mut graph, input, node) = graph(2, false);
    let watermarks = vec![(input, EventTime(5))];
    graph.step(EpochInput { deltas: vec![], watermarks }).unwrap();
    assert_eq!(graph.watermark(node), Some(EventTime(5)));
}
