//! Joins of streams whose rows meet only within some time: late rows are refused, and what only they could meet is freed.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::*;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, lit};
use datafusion::physical_plan::PhysicalExpr;
use millpond_dataflow::*;
use millpond_state::KeyedRun;
use millpond_types::{Delta, EventTime};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::harness::pool;
use crate::model::{Cell, Multiset, Row, add, batch, rows};

const SECOND: i64 = 1_000_000;

/// Rows meet if their keys are equal and r.ts is in l.ts - `back` ..= l.ts + `ahead`.
#[derive(Clone, Copy, Debug)]
struct Case {
    kind: JoinKind,
    back: i64,
    ahead: i64,
    lateness: i64,
}

fn time() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, None)
}

/// k, ts, _watermark
fn schema() -> SchemaRef {
    let field = |name: &str, data_type| Field::new(name, data_type, true);
    Arc::new(Schema::new(vec![field("k", DataType::Int64), field("ts", time()), field("_watermark", time())]))
}

impl Case {
    fn pairs(self) -> bool {
        !matches!(self.kind, JoinKind::LeftSemi | JoinKind::LeftAnti | JoinKind::LeftMark)
    }

    fn spec(self) -> JoinSpec {
        use JoinKind::*;
        let after = |micros: i64| -> Arc<dyn PhysicalExpr> {
            let interval = IntervalMonthDayNano::new(0, 0, micros * 1_000);
            let shift = lit(ScalarValue::IntervalMonthDayNano(Some(interval)));
            Arc::new(BinaryExpr::new(Arc::new(Column::new("ts", 0)), Operator::Plus, shift))
        };
        let right = || Arc::new(Column::new("ts", 1));
        let from = Arc::new(BinaryExpr::new(right(), Operator::GtEq, after(-self.back)));
        let until = Arc::new(BinaryExpr::new(right(), Operator::LtEq, after(self.ahead)));
        let expression = Arc::new(BinaryExpr::new(from, Operator::And, until));
        // As the planner has it: a side outlives what it met where the other counts matches.
        let (left_free, right_free) = (self.ahead + 1, self.back + 1);
        let both = left_free + right_free - 1;
        let right_outlives = matches!(self.kind, Left | Full | LeftSemi | LeftAnti | LeftMark);
        let left_outlives = matches!(self.kind, Right | Full);
        let side = |free_micros| SideClose { time: 1, watermark: 2, late_micros: 1, free_micros };
        let sides = [
            side(if left_outlives { both.max(left_free) } else { left_free }),
            side(if right_outlives { both.max(right_free) } else { right_free }),
        ];
        let output = if self.pairs() { vec![0, 1, 3, 4] } else { vec![0, 1] };
        let names = ["k", "ts", "", "rk", "rts"];
        let mut fields: Vec<Field> =
            output.iter().map(|c| schema().field(c % 3).clone().with_name(names[*c])).collect();
        if self.kind == LeftMark {
            fields.push(Field::new("mark", DataType::Boolean, false));
        }
        JoinSpec {
            kind: self.kind,
            keys: vec![(0, 0)],
            nulls_equal: false,
            residual: Some(Residual { columns: vec![1, 4], expression }),
            close: Some(JoinClose { sides, lateness_micros: self.lateness }),
            append_only: [true; 2],
            output,
            schema: Arc::new(Schema::new(fields)),
        }
    }

    fn build(self, shards: usize) -> (Graph, [InputId; 2], NodeId) {
        let mut graph = Graph::new(shards, pool());
        let inputs = [graph.add_input(schema()), graph.add_input(schema())];
        let join = graph.add_join(inputs[0], inputs[1], &self.spec()).expect("a join");
        graph.add_output(join).expect("an output");
        (graph, inputs, join)
    }

    /// The batch answer over the rows (key, time) that were in time.
    fn answer(self, sides: &[Vec<[Cell; 2]>; 2]) -> Multiset {
        use JoinKind::*;
        let met = |l: &[Cell; 2], r: &[Cell; 2]| match (l[1].int(), r[1].int()) {
            (Some(lt), Some(rt)) if !l[0].is_null() && l[0] == r[0] => {
                (-i128::from(self.back)..=i128::from(self.ahead)).contains(&(rt - lt))
            }
            _ => false,
        };
        let nulls = [Cell::Null, Cell::Null];
        let mut result = Multiset::new();
        let mut give = |l: &[Cell; 2], r: &[Cell]| add(&mut result, l.iter().chain(r).cloned().collect(), 1);
        for l in &sides[0] {
            let matches: Vec<_> = sides[1].iter().filter(|r| met(l, r)).collect();
            match self.kind {
                LeftSemi if !matches.is_empty() => give(l, &[]),
                LeftAnti if matches.is_empty() => give(l, &[]),
                LeftMark => give(l, &[Cell::Int((!matches.is_empty()).into())]),
                Left | Full if matches.is_empty() => give(l, &nulls),
                Inner | Left | Right | Full => matches.iter().for_each(|r| give(l, *r)),
                LeftSemi | LeftAnti => {}
            }
        }
        if matches!(self.kind, Right | Full) {
            let lonely = sides[1].iter().filter(|r| !sides[0].iter().any(|l| met(l, r)));
            lonely.for_each(|r| give(&nulls, r));
        }
        result
    }
}

fn live(seed: u64) {
    use JoinKind::*;
    let mut rng = SmallRng::seed_from_u64(seed);
    let case = Case {
        kind: [Inner, Left, Right, Full, LeftSemi, LeftAnti, LeftMark][rng.random_range(0..7)],
        // The interval may lie before or behind the left row altogether.
        back: rng.random_range(-1..4) * SECOND,
        ahead: rng.random_range(1..4) * SECOND,
        lateness: [0, 0, 2 * SECOND][rng.random_range(0..3)],
    };
    let told = format!("seed {seed}: {case:?}");
    let (mut graph, mut inputs, _) = case.build([1, 2, 4][rng.random_range(0..3)]);
    let (mut marks, mut sides) = ([i64::MIN; 2], [Vec::new(), Vec::new()]);
    let (mut view, mut late, mut refused, mut most) = (Multiset::new(), 0, 0, 0);
    let mut saved: BTreeMap<&'static str, Vec<KeyedRun>> = BTreeMap::new();
    let rows_in_epoch = rng.random_range(1..8);
    for epoch in 0..60i64 {
        let mut deltas = Vec::new();
        for side in 0..2 {
            let mut rows: Vec<Row> = Vec::new();
            for _ in 0..rng.random_range(0..rows_in_epoch) {
                let ts = epoch * SECOND + rng.random_range(-6..1) * SECOND + rng.random_range(0..2);
                let mark = if marks[side] == i64::MIN { Cell::Null } else { Cell::Int(marks[side].into()) };
                let k = if rng.random_bool(0.1) { Cell::Null } else { Cell::Int(rng.random_range(0..3)) };
                let timeless = rng.random_bool(0.05);
                let time = if timeless { Cell::Null } else { Cell::Int(ts.into()) };
                rows.push(vec![k.clone(), time.clone(), mark]);
                match !timeless && marks[side] != i64::MIN && ts + case.lateness < marks[side] {
                    true => refused += 1,
                    false => sides[side].push([k, time]),
                }
            }
            let rows: Vec<&Row> = rows.iter().collect();
            deltas.push((inputs[side], vec![Delta::insert(batch(&schema(), &rows))]));
        }
        // One of them stands still for some time.
        for (side, behind) in [3, 5].into_iter().enumerate() {
            if rng.random_bool(0.7) {
                marks[side] = marks[side].max((epoch - behind) * SECOND);
            }
        }
        let watermarks: Vec<_> = (0..2)
            .filter(|side| marks[*side] != i64::MIN)
            .map(|side| (inputs[side], EventTime(marks[side])))
            .collect();
        let out = graph.step(EpochInput { deltas, watermarks: watermarks.clone() }).expect("an epoch");
        for delta in out.outputs.iter().flat_map(|(_, deltas)| deltas) {
            for (at, row) in rows(&delta.batch).into_iter().enumerate() {
                add(&mut view, row, delta.weight(at));
            }
        }
        late += out.late.iter().map(|late| late.rows.rows()).sum::<usize>();
        most = most.max(graph.node_stats().iter().map(|stats| stats.state_rows).sum::<u64>());
        assert_eq!(view, case.answer(&sides), "{told}, epoch {epoch}");
        if rng.random_bool(0.15) {
            for frozen in graph.freeze() {
                let state = frozen.state;
                let bytes = frozen.into_run().expect("a run").encode().expect("encodes").bytes;
                saved.entry(state).or_default().push(KeyedRun::decode(&bytes).expect("decodes"));
            }
            if rng.random_bool(0.7) {
                let join;
                (graph, inputs, join) = case.build([1, 2, 4][rng.random_range(0..3)]);
                for state in [STATE_LEFT, STATE_RIGHT] {
                    let Some(runs) = saved.get_mut(state) else { continue };
                    let merged = KeyedRun::merge(std::mem::take(runs), true).expect("merge");
                    graph.restore(join, state, &merged).expect("restores");
                    runs.push(merged);
                }
                let watermarks = inputs.into_iter().zip(watermarks.iter().map(|(_, mark)| *mark));
                if watermarks.len() == 2 {
                    let watermarks = watermarks.collect();
                    graph.step(EpochInput { deltas: vec![], watermarks }).expect("an epoch");
                }
            }
        }
    }
    assert_eq!(late, refused, "{told}");
    // Some ten epochs of rows, however many came.
    assert!(most < 2 * 20 * rows_in_epoch, "{told}: {most} rows were held");
    // No row comes any more, and yet everything goes, from the checkpoints too.
    let watermarks = inputs.map(|input| (input, EventTime::MAX)).to_vec();
    graph.step(EpochInput { deltas: vec![], watermarks }).expect("an epoch");
    assert_eq!(graph.node_stats().iter().map(|stats| stats.state_rows).sum::<u64>(), 0, "{told}");
    for frozen in graph.freeze() {
        let state = frozen.state;
        saved.entry(state).or_default().push(frozen.into_run().expect("a run"));
    }
    for (state, runs) in saved {
        let left = KeyedRun::merge(runs, true).expect("merge");
        let rows: usize = left.parts().iter().map(|part| part.batch.num_rows()).sum();
        assert_eq!(rows, 0, "{told}: {state}");
    }
}

#[test]
fn what_only_late_rows_could_meet_is_freed_and_late_ones_are_refused() {
    (0..100).for_each(live);
}
