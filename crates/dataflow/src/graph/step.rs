//! One epoch: deltas in, changes out.
//!
//! Deltas pass depth first through operators without state, in pieces that fit the cache, until they rest in operators with
//! state or leave through outputs: one after the other on the calling thread, or all together where there are enough rows to
//! wake the workers for. Then the operators with state are drained in order of ids, which is an order of
//! dependence: when it is a node's turn, all that its sources give in this epoch has arrived, their watermarks included.
//!
//! What is still to be done stands on a stack of the epoch, not of the thread: between two pieces of work a graph can be laid
//! aside and resumed by another thread, so that an epoch with a huge output keeps nobody waiting.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow::array::Int64Array;
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Schema};
use arrow::error::ArrowError;
use millpond_types::{Delta, EventTime};
use rayon::prelude::*;

use super::node::{Keyed, Kind, User};
use super::{EpochInput, EpochOutput, EpochStats, Graph, InputId, Late, NodeId, OutputId, Rejected};
use crate::Fault;
use crate::fault::Cause;
use crate::operator::{Operator, Output, Piece, Progress, Router};

/// Large deltas are cut into pieces of this many rows, small ones are joined up to it.
const PIECE_ROWS: usize = 8192;
/// Below this the calling thread does the work: to wake others twice, to route and to push, costs some 100 microseconds.
const PARALLEL_ROWS: usize = 8192;

/// Where the results of an epoch go, as they come.
pub trait Sink {
    fn output(&mut self, output: OutputId, delta: Delta);
    fn reject(&mut self, row: Rejected);
    fn late(&mut self, rows: Late);
}

#[derive(Default)]
struct Gather {
    outputs: BTreeMap<OutputId, Vec<Delta>>,
    rejected: Vec<Rejected>,
    late: Vec<Late>,
}

impl Sink for Gather {
    fn output(&mut self, output: OutputId, delta: Delta) {
        self.outputs.entry(output).or_default().push(delta);
    }
    fn reject(&mut self, row: Rejected) {
        self.rejected.push(row);
    }
    fn late(&mut self, rows: Late) {
        self.late.push(rows);
    }
}

/// An epoch that is on its way.
pub(super) struct Step {
    /// Deltas from outside that have not entered yet.
    inputs: VecDeque<(InputId, Vec<Delta>)>,
    /// What is to be pushed, the next on top: depth first.
    stack: Vec<Push>,
    marks: BTreeMap<NodeId, EventTime>,
    ids: Vec<NodeId>,
    /// The node whose turn it is to be drained.
    at: usize,
    stage: Stage,
    stats: EpochStats,
}

#[derive(Clone, Copy)]
enum Stage {
    Drain,
    Advance,
    /// Drained again, after its watermark has moved.
    Close,
}

/// Deltas on their way to a node.
struct Push {
    user: User,
    deltas: Vec<Delta>,
    parallel: bool,
}

impl Graph {
    /// Passes one epoch through the graph and gathers its results.
    ///
    /// # Errors
    /// A [`Fault`] leaves the graph useless: rebuild it from a checkpoint.
    pub fn step(&mut self, input: EpochInput) -> Result<EpochOutput, Fault> {
        let mut gather = Gather::default();
        let stats = self.step_into(input, &mut gather)?;
        let Gather { outputs, rejected, late } = gather;
        Ok(EpochOutput { outputs: outputs.into_iter().collect(), rejected, late, stats })
    }

    /// As [`Graph::step`], for results that should not pile up: each bounded batch is handed on as it comes.
    ///
    /// # Errors
    /// As [`Graph::step`].
    pub fn step_into(&mut self, input: EpochInput, sink: &mut dyn Sink) -> Result<EpochStats, Fault> {
        self.begin(input);
        let stats = self.resume(sink, &mut || true)?;
        Ok(stats.expect("nothing has interrupted it"))
    }

    /// Takes in an epoch, for [`Graph::resume`] to pass it through. The one before must have passed.
    pub fn begin(&mut self, input: EpochInput) {
        assert!(self.on_its_way.is_none(), "an epoch is drained before the next begins (I4)");
        self.on_its_way = Some(Box::new(Step {
            inputs: input.deltas.into(),
            stack: Vec::new(),
            marks: input.watermarks.into_iter().map(|(id, mark)| (id.0, mark)).collect(),
            ids: self.nodes.keys().copied().collect(),
            at: 0,
            stage: Stage::Drain,
            stats: EpochStats::default(),
        }));
    }

    /// Goes on with an epoch until it has passed, or until `more`, which is asked between bounded pieces of work, says no:
    /// `None`, and the graph can be moved to another thread and resumed there. Results do not depend on it.
    ///
    /// # Errors
    /// As [`Graph::step`].
    ///
    /// # Panics
    /// Without an epoch that has begun.
    pub fn resume(
        &mut self,
        sink: &mut dyn Sink,
        more: &mut dyn FnMut() -> bool,
    ) -> Result<Option<EpochStats>, Fault> {
        let mut step = self.on_its_way.take().expect("an epoch has begun");
        while self.work(&mut step, sink)? {
            if !more() {
                self.on_its_way = Some(step);
                return Ok(None);
            }
        }
        Ok(Some(step.stats))
    }

    /// A bounded piece of work; false if there is none left.
    fn work(&mut self, step: &mut Step, sink: &mut dyn Sink) -> Result<bool, Fault> {
        if let Some(push) = step.stack.pop() {
            self.push(push, sink, step)?;
            return Ok(true);
        }
        if let Some((id, deltas)) = step.inputs.pop_front() {
            step.stats.rows_in += rows(&deltas) as u64;
            self.accept(id.0, deltas, step)?;
            return Ok(true);
        }
        let Some(&id) = step.ids.get(step.at) else { return Ok(false) };
        let passed = match step.stage {
            Stage::Drain => {
                if matches!(self.nodes[&id].kind, Kind::Keyed(Keyed { follows_clock: true, .. })) {
                    // Nothing older than the tick comes: it is the time of all rows of the epoch.
                    self.advance(id, None)?;
                }
                if self.poll(id, sink, step)? {
                    step.stage = Stage::Advance;
                }
                false
            }
            Stage::Advance => {
                let closes = self.advance(id, step.marks.get(&id).copied())?;
                if closes {
                    step.stage = Stage::Close;
                }
                !closes
            }
            Stage::Close => self.poll(id, sink, step)?,
        };
        if passed {
            (step.at, step.stage) = (step.at + 1, Stage::Drain);
        }
        Ok(true)
    }

    /// Deltas from outside.
    fn accept(&mut self, id: NodeId, deltas: Vec<Delta>, step: &mut Step) -> Result<(), Fault> {
        let node = self.nodes.get_mut(&id).filter(|node| matches!(node.kind, Kind::Input));
        let Some(node) = node else { return Err(Cause::NoSuchNode.at(id, "input")) };
        for delta in &deltas {
            if !types(&node.schema).eq(types(delta.batch.schema_ref())) {
                let names = |schema: &Schema| format!("{:?}", types(schema).collect::<Vec<_>>());
                let (expected, found) = (names(&node.schema), names(delta.batch.schema_ref()));
                return Err(Cause::Schema { expected, found }.at(id, "input"));
            }
        }
        node.rows_in += rows(&deltas) as u64;
        let deltas = compact(deltas).map_err(|e| Cause::Arrow(e).at(id, "input"))?;
        self.deliver(id, deltas, step);
        Ok(())
    }

    /// Hands what left `from` to all who use it.
    fn deliver(&mut self, from: NodeId, deltas: Vec<Delta>, step: &mut Step) {
        let rows = rows(&deltas);
        if rows == 0 {
            return;
        }
        let parallel = self.shards > 1 && rows >= PARALLEL_ROWS;
        let node = self.nodes.get_mut(&from).expect("nodes stay during an epoch");
        node.rows_out += rows as u64;
        // The first user's first delta ends up on top.
        for user in node.users.iter().rev() {
            if parallel {
                step.stack.push(Push { user: *user, deltas: deltas.clone(), parallel });
            } else {
                let single = |delta: &Delta| Push { user: *user, deltas: vec![delta.clone()], parallel };
                step.stack.extend(deltas.iter().rev().map(single));
            }
        }
    }

    fn push(&mut self, push: Push, sink: &mut dyn Sink, step: &mut Step) -> Result<(), Fault> {
        let Push { user: User { node: id, port }, deltas, parallel } = push;
        let (workers, clock) = (if parallel { self.shards } else { 1 }, self.clock.clone());
        let node = self.nodes.get_mut(&id).expect("users are nodes of the same graph");
        let (name, rows) = (node.name(), rows(&deltas));
        node.rows_in += rows as u64;
        let before = clock.as_ref().map(|clock| clock());
        let result = match &mut node.kind {
            Kind::Input => Err(Cause::NoSuchNode),
            Kind::Output => {
                node.rows_out += rows as u64;
                step.stats.rows_out += rows as u64;
                deltas.into_iter().for_each(|delta| sink.output(OutputId(id), delta));
                return Ok(());
            }
            Kind::Union => {
                self.deliver(id, deltas, step);
                return Ok(());
            }
            Kind::Linear(operator) => {
                let operator = Arc::clone(operator);
                let each = |piece: &Delta| {
                    let mut out = Output::default();
                    operator.apply(piece, &mut out).map(|()| out)
                };
                let pieces = pieces(&deltas, workers);
                let outputs: Result<Vec<Output>, Cause> = match parallel {
                    true => self.pool.install(|| pieces.par_iter().map(each).collect()),
                    false => pieces.iter().map(each).collect(),
                };
                outputs.map(join)
            }
            Kind::Keyed(keyed) => {
                keyed.pending += rows;
                let mut out = Output::default();
                let (router, operators) = (&keyed.routers[port], &mut keyed.shards);
                let pushed = match parallel {
                    true => self.pool.install(|| exchange(router, operators, &deltas, &mut out)),
                    false => feed(router, operators, &deltas, &mut out),
                };
                pushed.map(|()| out)
            }
        };
        if let (Some(clock), Some(before)) = (&clock, before) {
            let node = self.nodes.get_mut(&id).expect("it was there above");
            node.busy_nanos += clock().saturating_sub(before);
        }
        let out = result.map_err(|cause| cause.at(id, name))?;
        self.emit(id, out, sink, step)
    }

    /// Passes on what an operator has given.
    fn emit(&mut self, id: NodeId, out: Output, sink: &mut dyn Sink, step: &mut Step) -> Result<(), Fault> {
        let operator = self.nodes[&id].name();
        for row in out.rejected {
            sink.reject(Rejected { node: id, operator, error: row.error, row: row.row, weight: row.weight });
        }
        for late in out.late {
            let (window_ends, watermarks) = (late.window_ends, late.watermarks);
            sink.late(Late { node: id, operator, rows: late.rows, window_ends, watermarks });
        }
        let deltas = compact(out.deltas).map_err(|e| Cause::Arrow(e).at(id, operator))?;
        self.deliver(id, deltas, step);
        Ok(())
    }

    /// Asks an operator with state for its next bounded batch; true if that was the last one.
    fn poll(&mut self, id: NodeId, sink: &mut dyn Sink, step: &mut Step) -> Result<bool, Fault> {
        let clock = self.clock.clone();
        let node = self.nodes.get_mut(&id).expect("nodes stay during an epoch");
        let Kind::Keyed(keyed) = &mut node.kind else { return Ok(true) };
        let before = clock.as_ref().map(|clock| clock());
        let parallel = keyed.shards.len() > 1 && keyed.pending >= PARALLEL_ROWS;
        let poll = |operator: &mut Box<dyn Operator>| {
            let mut out = Output::default();
            operator.poll(&mut out).map(|progress| (progress, out))
        };
        let polled: Result<Vec<(Progress, Output)>, Cause> = match parallel {
            true => self.pool.install(|| keyed.shards.par_iter_mut().map(poll).collect()),
            false => keyed.shards.iter_mut().map(poll).collect(),
        };
        let done = polled
            .as_ref()
            .is_ok_and(|polled| polled.iter().all(|(progress, _)| *progress == Progress::Done));
        if done {
            keyed.pending = 0;
        }
        if let (Some(clock), Some(before)) = (&clock, before) {
            node.busy_nanos += clock().saturating_sub(before);
        }
        let name = node.name();
        let polled = polled.map_err(|cause| cause.at(id, name))?;
        self.emit(id, join(polled.into_iter().map(|(_, out)| out).collect()), sink, step)?;
        Ok(done)
    }

    /// Moves a node's watermark after its sources'. True if an operator with state has something to do about it.
    pub(super) fn advance(&mut self, id: NodeId, given: Option<EventTime>) -> Result<bool, Fault> {
        let node = &self.nodes[&id];
        let arrived = match &node.kind {
            Kind::Input => given.unwrap_or(node.watermark),
            Kind::Keyed(Keyed { follows_clock: true, .. }) => {
                node.sources.last().map_or(EventTime::MIN, |clock| self.nodes[clock].watermark)
            }
            _ => node.sources.iter().map(|s| self.nodes[s].watermark).min().unwrap_or(EventTime::MIN),
        };
        let node = self.nodes.get_mut(&id).expect("it was there above");
        let name = node.name();
        let (mark, closes) = match &mut node.kind {
            Kind::Keyed(keyed) => match keyed.lateness_micros {
                Some(lateness) if arrived > keyed.mark => {
                    keyed.mark = arrived;
                    keyed.shards.iter_mut().for_each(|operator| operator.watermark(arrived));
                    let mark = match arrived {
                        _ if keyed.ends_watermark => node.watermark,
                        EventTime::MAX => EventTime::MAX,
                        EventTime(mark) => EventTime(mark.saturating_sub(lateness)),
                    };
                    (mark, true)
                }
                _ => (node.watermark, false),
            },
            _ => (arrived, false),
        };
        if mark < node.watermark {
            return Err(Cause::WatermarkWentBack.at(id, name));
        }
        node.watermark = mark;
        Ok(closes)
    }
}

fn types(schema: &Schema) -> impl Iterator<Item = &DataType> {
    schema.fields().iter().map(|field| field.data_type())
}

fn rows(deltas: &[Delta]) -> usize {
    deltas.iter().map(Delta::rows).sum()
}

/// Cuts large deltas: no piece larger than [`PIECE_ROWS`], and at least one for each worker.
fn pieces(deltas: &[Delta], workers: usize) -> Vec<Delta> {
    let size = rows(deltas).div_ceil(workers).clamp(1, PIECE_ROWS);
    let cut = |delta: &Delta| -> Vec<Delta> {
        let rows = delta.rows();
        if size >= rows {
            return vec![delta.clone()];
        }
        (0..rows).step_by(size).map(|from| delta.slice(from, size.min(rows - from))).collect()
    };
    deltas.iter().flat_map(cut).collect()
}

/// Routes and pushes on the calling thread.
fn feed(
    router: &Arc<dyn Router>,
    operators: &mut [Box<dyn Operator>],
    deltas: &[Delta],
    out: &mut Output,
) -> Result<(), Cause> {
    for delta in pieces(deltas, 1) {
        let routed = router.route(&delta, out)?.by_shard(operators.len())?;
        for (operator, piece) in operators.iter_mut().zip(routed) {
            piece.map_or(Ok(()), |piece| operator.push(piece))?;
        }
    }
    Ok(())
}

/// What a router refused, and the rows of each shard.
type Routed = (Output, Vec<Option<Piece>>);

/// Routes pieces on all workers, then pushes to all shards, each of which takes the pieces in the order of the rows.
fn exchange(
    router: &Arc<dyn Router>,
    operators: &mut [Box<dyn Operator>],
    deltas: &[Delta],
    out: &mut Output,
) -> Result<(), Cause> {
    let shards = operators.len();
    let routed: Result<Vec<Routed>, Cause> = pieces(deltas, shards)
        .par_iter()
        .map(|delta| {
            let mut out = Output::default();
            let piece = router.route(delta, &mut out)?;
            Ok((out, piece.by_shard(shards)?))
        })
        .collect();
    let mut columns: Vec<Vec<Piece>> = (0..shards).map(|_| Vec::new()).collect();
    for (refused, routed) in routed? {
        out.append(refused);
        columns.iter_mut().zip(routed).for_each(|(column, piece)| column.extend(piece));
    }
    operators
        .par_iter_mut()
        .zip(columns)
        .try_for_each(|(operator, pieces)| pieces.into_iter().try_for_each(|piece| operator.push(piece)))
}

fn join(outputs: Vec<Output>) -> Output {
    outputs.into_iter().fold(Output::default(), |mut all, out| {
        all.append(out);
        all
    })
}

/// Joins small neighbours, so that what follows does not pay per batch for a few rows each.
fn compact(deltas: Vec<Delta>) -> Result<Vec<Delta>, ArrowError> {
    let mut compacted = Vec::with_capacity(deltas.len());
    let mut small: Vec<Delta> = Vec::new();
    let mut rows = 0;
    for delta in deltas {
        let fits =
            rows + delta.rows() <= PIECE_ROWS && (rows < PIECE_ROWS / 4 || delta.rows() < PIECE_ROWS / 8);
        if !fits && !small.is_empty() {
            compacted.push(concat(std::mem::take(&mut small))?);
            rows = 0;
        }
        rows += delta.rows();
        small.push(delta);
    }
    if !small.is_empty() {
        compacted.push(concat(small)?);
    }
    Ok(compacted)
}

fn concat(mut deltas: Vec<Delta>) -> Result<Delta, ArrowError> {
    if deltas.len() == 1 {
        return Ok(deltas.remove(0));
    }
    let batch = concat_batches(&deltas[0].batch.schema(), deltas.iter().map(|delta| &delta.batch))?;
    let weights = deltas.iter().any(|delta| delta.weights.is_some()).then(|| {
        Int64Array::from_iter_values(
            deltas.iter().flat_map(|delta| (0..delta.rows()).map(|row| delta.weight(row))),
        )
    });
    Ok(Delta::new(batch, weights))
}
