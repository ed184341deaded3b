//! Worked traces of single behaviours.

use std::sync::Arc;

use arrow::datatypes::*;
use millpond_dataflow::*;
use millpond_types::{Delta, EventTime, SqlState};

use crate::harness::{Harness, pool};
use crate::model::{Cell, Multiset, Row, batch};

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("v", DataType::Int32, true),
        Field::new("_watermark", DataType::Int64, true),
    ]))
}

fn ints(values: &[i128]) -> Row {
    values.iter().map(|v| Cell::Int(*v)).collect()
}

fn delta(rows: &[([i128; 3], i64)]) -> Delta {
    let cells: Vec<Row> = rows.iter().map(|(row, _)| ints(row)).collect();
    let batch = batch(&schema(), &cells.iter().collect::<Vec<_>>());
    Delta::new(batch, Some(rows.iter().map(|(_, w)| *w).collect::<Vec<_>>().into()))
}

fn call(function: AggregateFunction, argument: Option<usize>, result: DataType) -> AggregateCall {
    AggregateCall { function, argument, filter: None, result }
}

fn count_and_sum(keys: Vec<usize>, global: bool) -> AggregateSpec {
    let calls = vec![
        call(AggregateFunction::CountStar, None, DataType::Int64),
        call(AggregateFunction::Sum, Some(1), DataType::Int64),
    ];
    let fields = keys.iter().map(|_| Field::new("k", DataType::Int64, true));
    let fields =
        fields.chain([Field::new("count", DataType::Int64, true), Field::new("sum", DataType::Int64, true)]);
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    AggregateSpec { keys, calls, append_only: false, close: None, global, schema }
}

fn build(spec: AggregateSpec) -> impl Fn(&mut Graph) -> (InputId, OutputId) {
    move |graph| {
        let input = graph.add_input(schema());
        let aggregate = graph.add_aggregate(input, spec.clone()).unwrap();
        (input, graph.add_output(aggregate).unwrap())
    }
}

fn changes(out: &EpochOutput) -> Multiset {
    let mut changes = Multiset::new();
    for delta in out.outputs.iter().flat_map(|(_, deltas)| deltas) {
        for (at, row) in crate::model::rows(&delta.batch).into_iter().enumerate() {
            crate::model::add(&mut changes, row, delta.weight(at));
        }
    }
    changes
}

fn expect<const N: usize>(rows: &[([i128; N], i64)]) -> Multiset {
    rows.iter().map(|(row, weight)| (ints(row), *weight)).collect()
}

#[test]
fn a_changed_group_is_retracted_and_inserted_and_an_empty_one_goes() {
    let build = build(count_and_sum(vec![0], false));
    let mut h = Harness::new(2, &build);
    let out = h.step(vec![delta(&[([7, 1, 0], 1), ([7, 2, 0], 1)])], None);
    assert_eq!(changes(&out), expect(&[([7, 2, 3], 1)]));
    let out = h.step(vec![delta(&[([7, 5, 0], -1), ([7, 5, 0], 1)])], None);
    assert_eq!(changes(&out), expect::<3>(&[]));
    let out = h.step(vec![delta(&[([7, 2, 0], -1), ([8, 7, 0], 1)])], None);
    assert_eq!(changes(&out), expect(&[([7, 2, 3], -1), ([7, 1, 1], 1), ([8, 1, 7], 1)]));
    let out = h.step(vec![delta(&[([7, 1, 0], -1)])], None);
    assert_eq!(changes(&out), expect(&[([7, 1, 1], -1)]));
    assert_eq!(h.graph.node_stats()[1].state_rows, 1);
}

#[test]
fn a_global_aggregate_has_a_row_from_the_first_epoch_on() {
    let build = build(count_and_sum(vec![], true));
    let mut h = Harness::new(4, &build);
    let out = h.step(vec![], None);
    assert_eq!(changes(&out), Multiset::from([(vec![Cell::Int(0), Cell::Null], 1)]));
    assert_eq!(changes(&h.step(vec![], None)), Multiset::new());
    h.step(vec![delta(&[([7, 5, 0], 2)])], None);
    assert_eq!(h.view, expect(&[([2, 10], 1)]));
    h.restart(1);
    h.step(vec![delta(&[([7, 5, 0], -2)])], None);
    assert_eq!(h.view, Multiset::from([(vec![Cell::Int(0), Cell::Null], 1)]));
}

#[test]
fn a_sum_out_of_range_withholds_its_group_until_it_fits_again() {
    let build = build(count_and_sum(vec![0], false));
    let mut h = Harness::new(1, &build);
    let huge = 1i64 << 33;
    h.step(vec![delta(&[([7, 1, 0], 1), ([8, 1, 0], 1)])], None);
    let out = h.step(vec![delta(&[([7, i32::MAX.into(), 0], huge)])], None);
    assert_eq!(changes(&out), expect(&[([7, 1, 1], -1)]));
    let rejected = &out.rejected[0];
    assert_eq!((rejected.error.state(), rejected.weight), (SqlState::NUMERIC_VALUE_OUT_OF_RANGE, 1));
    assert_eq!(rejected.error.message(), "bigint out of range");
    assert_eq!(crate::model::rows(&rejected.row), [ints(&[7])]);
    // Still out of range: nothing new to say, also after a restart.
    h.restart(2);
    assert!(h.step(vec![delta(&[([7, 1, 0], 1)])], None).rejected.is_empty());
    let out = h.step(vec![delta(&[([7, i32::MAX.into(), 0], -huge)])], None);
    assert_eq!(out.rejected[0].weight, -1);
    assert_eq!(changes(&out), expect(&[([7, 2, 2], 1)]));
}

#[test]
fn more_retractions_than_insertions_are_a_fault_that_names_the_operator() {
    for (epoch, message) in [
        (vec![([7, 1, 0], -1)], "has the weight -1"),
        (vec![([7, 1, 0], 2), ([7, 2, 0], -3)], "has the weight -1"),
    ] {
        let mut graph = Graph::new(2, pool());
        let (input, _) = build(count_and_sum(vec![0], false))(&mut graph);
        let step = EpochInput { deltas: vec![(input, vec![delta(&epoch)])], watermarks: vec![] };
        let fault = graph.step(step).unwrap_err();
        assert!(fault.to_string().contains("aggregate") && fault.to_string().contains(message), "{fault}");
    }
    let mut graph = Graph::new(1, pool());
    let spec = AggregateSpec { append_only: true, ..count_and_sum(vec![0], false) };
    let (input, _) = build(spec)(&mut graph);
    let deltas = vec![(input, vec![delta(&[([7, 1, 0], 1), ([7, 1, 0], -1)])])];
    assert!(
        graph
            .step(EpochInput { deltas, watermarks: vec![] })
            .unwrap_err()
            .to_string()
            .contains("append-only")
    );
}

/// Rows are (window end, key, W).
fn closing(emit_on_close: bool, lateness_micros: i64) -> AggregateSpec {
    let close = CloseSpec { window_end: 0, window_start: None, watermark: 2, lateness_micros, emit_on_close };
    let mut spec = count_and_sum(vec![0], false);
    spec.close = Some(close);
    spec
}

fn closing_rows(rows: &[(i128, Option<i128>)]) -> Delta {
    let cells: Vec<Row> = rows
        .iter()
        .map(|(end, mark)| vec![Cell::Int(*end), Cell::Int(1), mark.map_or(Cell::Null, Cell::Int)])
        .collect();
    Delta::insert(batch(&schema(), &cells.iter().collect::<Vec<_>>()))
}

#[test]
fn a_closed_window_is_freed_and_refuses_rows() {
    let build = build(closing(false, 0));
    let mut h = Harness::new(1, &build);
    h.step(vec![closing_rows(&[(10, None), (10, None)])], Some(8));
    let out = h.step(vec![closing_rows(&[(10, Some(8)), (20, Some(8))])], Some(12));
    assert_eq!(changes(&out), expect(&[([10, 2, 2], -1), ([10, 3, 3], 1), ([20, 1, 1], 1)]));
    assert_eq!(h.graph.node_stats()[1].state_rows, 1);
    let out = h.step(vec![closing_rows(&[(10, Some(12))])], Some(12));
    assert!(out.outputs.is_empty());
    assert_eq!((&out.late[0].window_ends[..], &out.late[0].watermarks[..]), (&[10][..], &[12][..]));
    assert_eq!(h.graph.watermark(NodeId(2)), Some(EventTime(12)));
}

#[test]
fn the_end_of_a_closed_window_is_written_to_the_next_checkpoint() {
    let build = build(closing(false, 0));
    let mut h = Harness::new(2, &build);
    h.step(vec![closing_rows(&[(10, None), (20, None)])], Some(8));
    assert_eq!(h.freeze(), 2);
    h.step(vec![], Some(12));
    assert_eq!(h.freeze(), 1);
    assert_eq!(h.freeze(), 0);
    h.restart(4);
    assert_eq!(h.graph.node_stats()[1].state_rows, 1);
    // A window that no checkpoint knows leaves nothing to write.
    h.step(vec![closing_rows(&[(15, Some(12))])], Some(16));
    assert_eq!(h.freeze(), 0);
}

#[test]
fn a_row_in_time_is_counted_wherever_the_epoch_is_cut() {
    // The watermark passes 10 between the two rows; both carry the W before their frame.
    let (early, on_time) = ((10, Some(5)), (10, Some(9)));
    let build = build(closing(false, 0));
    let mut one = Harness::new(1, &build);
    one.step(vec![closing_rows(&[early, on_time])], Some(15));
    let mut two = Harness::new(1, &build);
    two.step(vec![closing_rows(&[early])], Some(9));
    two.step(vec![closing_rows(&[on_time])], Some(15));
    assert_eq!(one.view, two.view);
    assert_eq!(one.view, expect(&[([10, 2, 2], 1)]));
}

#[test]
fn emit_on_close_shows_a_window_once_and_corrects_it_within_the_lateness() {
    let build = build(closing(true, 5));
    let mut h = Harness::new(2, &build);
    assert!(h.step(vec![closing_rows(&[(10, None)])], Some(8)).outputs.is_empty());
    h.restart(1);
    assert_eq!(changes(&h.step(vec![], Some(10))), expect(&[([10, 1, 1], 1)]));
    h.restart(2);
    let out = h.step(vec![closing_rows(&[(10, Some(10))])], Some(14));
    assert_eq!(changes(&out), expect(&[([10, 1, 1], -1), ([10, 2, 2], 1)]));
    assert_eq!(h.step(vec![closing_rows(&[(10, Some(15))])], Some(15)).late.len(), 1);
    assert_eq!(h.graph.node_stats()[1].state_rows, 0);
}

#[test]
fn a_checkpoint_holds_changed_groups_only() {
    let build = build(count_and_sum(vec![0], false));
    let mut h = Harness::new(2, &build);
    let many: Vec<_> = (0..1000).map(|k| ([k, 1, 0], 1)).collect();
    h.step(vec![delta(&many)], None);
    assert_eq!(h.freeze(), 1000);
    assert_eq!(h.freeze(), 0);
    h.step(vec![delta(&[([3, 1, 0], 1)])], None);
    h.step(vec![delta(&[([3, 1, 0], 1), ([4, 1, 0], -1), ([5000, 1, 0], 1)])], None);
    h.step(vec![delta(&[([5000, 1, 0], -1)])], None);
    assert_eq!(h.freeze(), 2, "3 changed, 4 is gone, 5000 was never saved");
    assert_eq!(h.graph.node_stats()[1].state_rows, 999);
}

#[test]
fn nodes_live_as_long_as_they_are_used_and_move_between_graphs() {
    let mut graph = Graph::new(1, pool());
    let input = graph.add_input(schema());
    let shared = graph.add_aggregate(input, count_and_sum(vec![0], false)).unwrap();
    let a = graph.add_output(shared).unwrap();
    let b = graph.add_output(shared).unwrap();

    let mut other = graph.sibling();
    let (other_input, other_output) = build(count_and_sum(vec![], true))(&mut other);
    other
        .step(EpochInput { deltas: vec![(other_input, vec![delta(&[([1, 1, 0], 1)])])], watermarks: vec![] })
        .unwrap();
    graph.absorb(other);
    let late = graph.add_output(shared).unwrap();
    assert!(late.0 > other_output.0);

    let rows = vec![delta(&[([1, 2, 0], 1)])];
    let input_of = |deltas| EpochInput { deltas, watermarks: vec![] };
    let out = graph.step(input_of(vec![(input, rows.clone()), (other_input, rows)])).unwrap();
    let outputs: Vec<OutputId> = out.outputs.iter().map(|(id, _)| *id).collect();
    assert_eq!(outputs, [a, b, other_output, late]);
    assert_eq!(out.stats, EpochStats { rows_in: 2, rows_out: 5 });

    graph.remove([a.0, input.0, late.0]);
    assert!(graph.contains(shared) && graph.contains(input));
    graph.remove([b.0]);
    assert!(!graph.contains(shared) && !graph.contains(input) && graph.contains(other_input));
}

#[test]
fn a_watermark_passes_no_aggregate_that_never_closes() {
    let mut graph = Graph::new(1, pool());
    let left = graph.add_input(schema());
    let right = graph.add_input(schema());
    let union = graph.add_union(&[left.0, right.0]).unwrap();
    let open = graph.add_aggregate(union, count_and_sum(vec![0], false)).unwrap();
    let closed = graph.add_aggregate(union, closing(false, 5)).unwrap();
    let step =
        |graph: &mut Graph, watermarks| graph.step(EpochInput { deltas: vec![], watermarks }).map(drop);
    step(&mut graph, vec![(left, EventTime(20))]).unwrap();
    assert_eq!(graph.watermark(union), None);
    step(&mut graph, vec![(right, EventTime(30))]).unwrap();
    assert_eq!(graph.watermark(union), Some(EventTime(20)));
    assert_eq!(graph.watermark(open), None);
    assert_eq!(graph.watermark(closed), Some(EventTime(15)));
    assert!(step(&mut graph, vec![(right, EventTime(29))]).unwrap_err().to_string().contains("failed"));
}

#[test]
fn a_specification_that_contradicts_its_source_is_refused() {
    let mut graph = Graph::new(1, pool());
    let input = graph.add_input(schema());
    let mut spec = count_and_sum(vec![9], false);
    assert_eq!(graph.add_aggregate(input, spec.clone()).unwrap_err().state(), SqlState::INTERNAL_ERROR);
    spec.keys = vec![0];
    spec.calls[1].result = DataType::Int32;
    assert_eq!(graph.add_aggregate(input, spec).unwrap_err().state(), SqlState::INTERNAL_ERROR);
    let text = graph.add_input(Arc::new(Schema::new(vec![Field::new("t", DataType::Utf8, true)])));
    let spec = AggregateSpec {
        keys: vec![],
        calls: vec![call(AggregateFunction::Sum, Some(0), DataType::Int64)],
        append_only: true,
        close: None,
        global: true,
        schema: Arc::new(Schema::new(vec![Field::new("sum", DataType::Int64, true)])),
    };
    let error = graph.add_aggregate(text, spec).unwrap_err();
    assert_eq!(error.state(), SqlState::FEATURE_NOT_SUPPORTED);
    assert_eq!(error.message(), "sum of values of type Utf8 is not supported in a materialized view");
}

#[test]
fn busy_time_is_measured_with_the_clock_that_is_lent() {
    let ticks = std::sync::atomic::AtomicU64::new(0);
    let mut graph = Graph::new(1, pool());
    graph.set_clock(Arc::new(move || ticks.fetch_add(10, std::sync::atomic::Ordering::Relaxed)));
    let (input, _) = build(count_and_sum(vec![0], false))(&mut graph);
    let deltas = vec![(input, vec![delta(&[([1, 2, 0], 1)])])];
    graph.step(EpochInput { deltas, watermarks: vec![] }).unwrap();
    let stats = graph.node_stats();
    assert!(stats[1].busy_nanos > 0 && stats[1].memory_bytes > 0);
    assert_eq!((stats[1].rows_in, stats[1].rows_out), (1, 1));
}
