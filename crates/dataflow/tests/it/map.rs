//! Filter and projection, and rows that their expressions refuse.

use std::sync::Arc;

use arrow::datatypes::*;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{BinaryExpr, col, lit};
use datafusion::physical_plan::PhysicalExpr;
use millpond_dataflow::*;
use millpond_types::Delta;

use crate::harness::pool;
use crate::model::{Cell, Multiset, Row, add, batch, rows};

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("a", DataType::Int64, true),
        Field::new("b", DataType::Int64, true),
    ]))
}

fn binary(left: Arc<dyn PhysicalExpr>, op: Operator, right: Arc<dyn PhysicalExpr>) -> Arc<dyn PhysicalExpr> {
    Arc::new(BinaryExpr::new(left, op, right))
}

/// `SELECT a, 100 / b WHERE a > 2`
fn divide(graph: &mut Graph) -> (InputId, OutputId) {
    let schema = schema();
    let (a, b) = (col("a", &schema).unwrap(), col("b", &schema).unwrap());
    let input = graph.add_input(Arc::clone(&schema));
    let field = |name| Arc::new(Field::new(name, DataType::Int64, true));
    let spec = MapSpec {
        filter: Some(binary(Arc::clone(&a), Operator::Gt, lit(2i64))),
        projection: vec![(a, field("a")), (binary(lit(100i64), Operator::Divide, b), field("q"))],
    };
    let map = graph.add_map(input, spec).unwrap();
    (input, graph.add_output(map).unwrap())
}

fn step(graph: &mut Graph, input: InputId, rows: &[(Row, i64)]) -> EpochOutput {
    let cells: Vec<&Row> = rows.iter().map(|(row, _)| row).collect();
    let weights: Vec<i64> = rows.iter().map(|(_, w)| *w).collect();
    let delta = Delta::new(batch(&schema(), &cells), Some(weights.into()));
    graph.step(EpochInput { deltas: vec![(input, vec![delta])], watermarks: vec![] }).unwrap()
}

fn view(out: &EpochOutput) -> Multiset {
    let mut view = Multiset::new();
    for delta in out.outputs.iter().flat_map(|(_, deltas)| deltas) {
        for (at, row) in rows(&delta.batch).into_iter().enumerate() {
            add(&mut view, row, delta.weight(at));
        }
    }
    view
}

#[test]
fn bad_rows_are_rejected_with_their_weight_and_the_others_go_on() {
    for shards in [1, 3] {
        let mut graph = Graph::new(shards, pool());
        let (input, _) = divide(&mut graph);
        let mut changes: Vec<(Row, i64)> =
            (0..6000).map(|n| (vec![Cell::Int(n), Cell::Int(n % 1000)], 1)).collect();
        changes.push((vec![Cell::Int(9), Cell::Int(0)], -2));
        changes.push((vec![Cell::Null, Cell::Int(0)], 1));
        changes.push((vec![Cell::Int(9), Cell::Null], 1));
        let out = step(&mut graph, input, &changes);
        let mut expected = Multiset::new();
        let mut refused = Multiset::new();
        for (row, weight) in &changes {
            match (row[0].int(), row[1].int()) {
                (Some(a), _) if a <= 2 => {}
                (None, _) => {}
                (Some(_), Some(0)) => add(&mut refused, row.clone(), *weight),
                (Some(_), b) => {
                    let quotient = b.map_or(Cell::Null, |b| Cell::Int(100 / b));
                    add(&mut expected, vec![row[0].clone(), quotient], *weight);
                }
            }
        }
        let mut rejected = Multiset::new();
        for row in &out.rejected {
            add(&mut rejected, rows(&row.row).remove(0), row.weight);
        }
        assert_eq!(view(&out), expected);
        assert_eq!(rejected, refused);
        assert_eq!(refused.len(), 6);
    }
}

#[test]
fn small_results_are_joined_and_large_ones_stay_bounded() {
    let mut graph = Graph::new(1, pool());
    let (input, _) = divide(&mut graph);
    let changes: Vec<(Row, i64)> =
        (0..50_000).map(|n| (vec![Cell::Int(if n % 1000 == 0 { 3 } else { 1 }), Cell::Int(1)], 1)).collect();
    let out = step(&mut graph, input, &changes);
    assert_eq!(out.outputs[0].1.len(), 1);
    let changes: Vec<(Row, i64)> = (0..50_000).map(|_| (vec![Cell::Int(3), Cell::Int(1)], 1)).collect();
    let out = step(&mut graph, input, &changes);
    assert!(out.outputs[0].1.len() >= 6 && out.outputs[0].1.iter().all(|d| d.rows() <= 8192));
}

#[test]
fn a_batch_of_other_columns_is_a_fault() {
    let mut graph = Graph::new(1, pool());
    let (input, _) = divide(&mut graph);
    let other = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
    let delta = Delta::insert(batch(&other, &[&vec![Cell::Int(1)]]));
    let fault =
        graph.step(EpochInput { deltas: vec![(input, vec![delta])], watermarks: vec![] }).unwrap_err();
    assert_eq!(
        fault.to_string(),
        "operator input (node 1) failed: a batch with the columns [Int64] came where [Int64, Int64] was expected"
    );
}
