//! From a logical plan to operators.
//!
//! Projections and filters are carried along as expressions over the last operator ([`Pending`]) and become one [`Map`] when
//! an operator needs its input; an aggregate whose columns are there already reads them in place.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema};
use datafusion::logical_expr::{self as logical, Expr, ExprSchemable, LogicalPlan, Volatility};
use millpond_functions::error::from_datafusion;
use millpond_types::{RelationId, SqlError, SqlType};

use super::grouping::{BoundCall, Grouping, Slots};
use super::lower_join::SingleRows;
use super::lower_order::Numbered;
use super::share::share;
use super::text::shown;
use super::{
    Aggregate, AggregateCall, HopAggregate, HopColumn, Input, InputColumn, Map, Node, NodeId, Operator, Plan,
    SortedAggregate, Window, WindowClose,
};
use crate::asof::AsofJoin;
use crate::flat_map::FlatMap;
use crate::rules::without_alias;
use crate::set_operation::SetOperation;
use crate::trace;
use crate::window::{WindowKind, WindowTvf};
use crate::{Metadata, RelationSource, clock, names};

/// Options of the view that lowering heeds.
#[derive(Clone, Debug, Default)]
pub struct LowerOptions {
    /// `WITH (allowed_lateness = …)`.
    pub allowed_lateness_us: i64,
    /// EMIT ON WINDOW CLOSE.
    pub emit_on_close: bool,
    /// How many rows relations had when the view was made: paths of joins are chosen by it.
    pub rows: BTreeMap<RelationId, u64>,
}

/// The incremental plan of a view's query ([`crate::QueryPlan::logical`] of [`crate::Planner::plan_view`]).
///
/// # Errors
/// 0A000, naming the construct, where the dataflow has no operator for it yet, or where EMIT ON WINDOW CLOSE cannot be kept.
pub fn lower(plan: &LogicalPlan, options: LowerOptions) -> Result<Plan, SqlError> {
    let mut lowering = Lowering { nodes: Vec::new(), options, closing: 0, numbered: None };
    let pending = lowering.lower(plan, false)?;
    let root = lowering.materialize(pending)?;
    if lowering.options.emit_on_close && lowering.closing == 0 {
        return Err(SqlError::unsupported(
            "EMIT ON WINDOW CLOSE needs an aggregate over windows of a source with a watermark",
        )
        .hint("Group by window_start of TUMBLE or HOP over a source, or leave EMIT out."));
    }
    debug_assert_eq!(root + 1, lowering.nodes.len());
    let corrects = |node: &Node| {
        matches!(node.operator, Operator::Join(_) | Operator::MultiJoin(_)) && !node.append_only
    };
    if lowering.options.emit_on_close && lowering.nodes.iter().any(corrects) {
        return Err(SqlError::unsupported("EMIT ON WINDOW CLOSE: a join gives rows that later ones correct")
            .hint("Use an inner join of streams and windows without allowed_lateness, or leave EMIT out."));
    }
    let columns =
        plan.schema().fields().iter().map(|f| Ok((names::shown(f.name()).to_owned(), SqlType::of(f)?)));
    Ok(Plan { columns: columns.collect::<Result<_, SqlError>>()?, nodes: share(lowering.nodes) })
}

pub(super) struct Lowering {
    pub(super) nodes: Vec<Node>,
    pub(super) options: LowerOptions,
    /// Aggregates that close by time.
    closing: usize,
    /// What a filter above says about numbers that are yet to be given.
    pub(super) numbered: Option<Numbered>,
}

/// What has been said about the rows of a node and is not an operator yet. Expressions name the node's columns.
pub(super) struct Pending {
    pub(super) node: NodeId,
    pub(super) filter: Option<Expr>,
    /// The columns of the logical plan, with the names they are shown by.
    pub(super) columns: Vec<(String, Expr)>,
    /// Asked for by an aggregate above that closes by time.
    pub(super) watermark: Option<Expr>,
    pub(super) window_end: Option<Expr>,
}

impl Lowering {
    /// With `threaded`, the rows' watermark and the end of their window come along.
    pub(super) fn lower(&mut self, plan: &LogicalPlan, threaded: bool) -> Result<Pending, SqlError> {
        match plan {
            LogicalPlan::TableScan(scan) => self.scan(scan, threaded),
            LogicalPlan::SubqueryAlias(alias) => self.lower(&alias.input, threaded),
            LogicalPlan::Projection(projection) => {
                let numbered = match projection.input.as_ref() {
                    LogicalPlan::Filter(filter) => self.numbered(filter, Some(&projection.expr))?,
                    _ => None,
                };
                let input = match numbered {
                    Some(input) => input,
                    None => self.lower(&projection.input, threaded)?,
                };
                let (input, single) = self.with_scalar_subqueries(input, &projection.expr)?;
                self.project(projection, input, &single)
            }
            LogicalPlan::Filter(filter) => {
                if let Some(numbered) = self.numbered(filter, None)? {
                    return Ok(numbered);
                }
                let input = self.lower(&filter.input, threaded)?;
                let (mut input, single) =
                    self.with_scalar_subqueries(input, std::slice::from_ref(&filter.predicate))?;
                let predicate = over(&filter.predicate, filter.input.schema(), &input.columns)?;
                let predicate = single.replace(predicate)?;
                input.filter = Some(match input.filter.take() {
                    Some(before) => logical::and(before, predicate),
                    None => predicate,
                });
                Ok(input)
            }
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate),
            LogicalPlan::Distinct(logical::Distinct::All(input)) => {
                let group = input.schema().columns().into_iter().map(Expr::Column).collect();
                let distinct = logical::Aggregate::try_new(Arc::clone(input), group, Vec::new());
                self.aggregate(&distinct.map_err(from_datafusion)?)
            }
            LogicalPlan::Union(union) => self.union(union),
            LogicalPlan::EmptyRelation(empty) => self.empty_relation(empty),
            LogicalPlan::Values(values) => self.values(values),
            LogicalPlan::Limit(limit) => self.limit(limit),
            LogicalPlan::Sort(sort) => self.sort(sort),
            LogicalPlan::Window(window) => self.over(window),
            LogicalPlan::Join(join) => self.join(join),
            other if FlatMap::of(other).is_some() => {
                self.flat_map(FlatMap::of(other).expect("just seen"), threaded)
            }
            other if AsofJoin::of_plan(other).is_some() => {
                self.asof(AsofJoin::of_plan(other).expect("just seen"))
            }
            other => match (WindowTvf::of(other), SetOperation::of_plan(other)) {
                (Some(window), _) => self.window(window, threaded),
                (None, Some(set)) => self.set_operation(set),
                (None, None) => Err(refusal(other)),
            },
        }
    }

    pub(super) fn push(
        &mut self,
        operator: Operator,
        inputs: Vec<NodeId>,
        columns: Vec<Field>,
        facts: Facts,
    ) -> NodeId {
        let schema = Arc::new(Schema::new(columns));
        let Facts { append_only, key, event_time } = facts;
        self.nodes.push(Node { operator, inputs, schema, append_only, key, event_time });
        self.nodes.len() - 1
    }

    fn scan(&mut self, scan: &logical::TableScan, threaded: bool) -> Result<Pending, SqlError> {
        let Some(source) = RelationSource::of(&scan.source) else {
            let text = format!("\"{}\" cannot be read by a materialized view", scan.table_name.table());
            return Err(SqlError::unsupported(text).hint("Views read sources, tables and other views."));
        };
        let facts = source.facts();
        let stored = facts.columns.len();
        let all: Vec<usize> = (0..stored + source.metadata().len()).collect();
        let scanned = scan.projection.as_ref().unwrap_or(&all);
        let mut columns: Vec<InputColumn> = scanned
            .iter()
            .map(|i| match i.checked_sub(stored) {
                None => InputColumn::Stored(*i),
                Some(m) => InputColumn::Metadata(source.metadata()[m]),
            })
            .collect();
        let visible = columns.len();
        let mark = InputColumn::Metadata(Metadata::Watermark);
        if threaded && !columns.contains(&mark) {
            columns.push(mark);
        }
        if columns.is_empty() && stored > 0 {
            // `count(*)` reads no column, but a batch without columns forgets its rows too easily.
            columns.push(InputColumn::Stored(0));
        }
        let time = facts.watermark.map(|w| facts.columns[w].1.clone());
        let fields: Vec<Field> = columns
            .iter()
            .map(|column| match column {
                InputColumn::Stored(i) => {
                    facts.columns[*i].1.field(&facts.columns[*i].0, !facts.columns[*i].2)
                }
                InputColumn::Metadata(m) => m.field(time.as_ref()),
            })
            .collect();
        let place = |stored: usize| columns.iter().position(|c| *c == InputColumn::Stored(stored));
        let key = facts.key.as_ref().and_then(|key| key.iter().map(|k| place(*k)).collect());
        let event_time = facts.watermark.and_then(place);
        let named = |i: usize| (fields[i].name().clone(), column(fields[i].name()));
        let outputs: Vec<_> = (0..visible).map(named).collect();
        let watermark = threaded.then(|| column(Metadata::Watermark.name()));
        let operator = Operator::Input(Input {
            relation: facts.id,
            name: display_name(facts),
            columns: columns.clone(),
        });
        let facts = Facts { append_only: facts.append_only, key, event_time };
        let node = self.push(operator, Vec::new(), fields, facts);
        let mut filter = None;
        for predicate in &scan.filters {
            let predicate = over(predicate, &scan.projected_schema, &outputs)?;
            filter = Some(filter.map_or(predicate.clone(), |before| logical::and(before, predicate)));
        }
        Ok(Pending { node, filter, columns: outputs, watermark, window_end: None })
    }

    fn project(
        &mut self,
        projection: &logical::Projection,
        input: Pending,
        single: &SingleRows,
    ) -> Result<Pending, SqlError> {
        let schema = projection.input.schema();
        let input =
            if repeats(&projection.expr, schema, &input.columns) { self.settle(input)? } else { input };
        let mut columns = Vec::with_capacity(projection.expr.len());
        for (expr, field) in projection.expr.iter().zip(projection.schema.fields()) {
            let expr = single.replace(over(expr, schema, &input.columns)?)?;
            columns.push((names::shown(field.name()).to_owned(), expr));
        }
        Ok(Pending { columns, ..input })
    }

    /// Makes pending expressions an operator, so that others can name their results.
    pub(super) fn settle(&mut self, pending: Pending) -> Result<Pending, SqlError> {
        let mut expressions = pending.columns;
        let shown = expressions.len();
        let mut extra = |name: &str, expr: Option<Expr>| {
            expr.map(|expr| {
                expressions.push((name.to_owned(), expr));
                expressions.len() - 1
            })
        };
        let watermark = extra(Metadata::Watermark.name(), pending.watermark);
        let window_end = extra(crate::window::WINDOW_END, pending.window_end);
        let node = self.map(pending.node, pending.filter, expressions)?;
        let schema = Arc::clone(&self.nodes[node].schema);
        let named = |i: usize| column(schema.field(i).name());
        Ok(Pending {
            node,
            filter: None,
            columns: (0..shown).map(|i| (schema.field(i).name().clone(), named(i))).collect(),
            watermark: watermark.map(named),
            window_end: window_end.map(named),
        })
    }

    /// The node whose columns are exactly the pending ones.
    pub(super) fn materialize(&mut self, pending: Pending) -> Result<NodeId, SqlError> {
        let schema = &self.nodes[pending.node].schema;
        let same = pending.filter.is_none()
            && pending.columns.len() == schema.fields().len()
            && pending.columns.iter().enumerate().all(|(i, (_, e))| place(e, schema) == Some(i));
        if same { Ok(pending.node) } else { self.map(pending.node, pending.filter, pending.columns) }
    }

    pub(super) fn map(
        &mut self,
        input: NodeId,
        filter: Option<Expr>,
        columns: Vec<(String, Expr)>,
    ) -> Result<NodeId, SqlError> {
        if let Some(filter) = filter.as_ref().filter(|filter| clock::asks(filter)) {
            return self.temporal(input, filter, columns);
        }
        let below = &self.nodes[input];
        let schema = DFSchema::try_from(Arc::clone(&below.schema)).map_err(from_datafusion)?;
        let mut unique = Names::default();
        let mut fields = Vec::with_capacity(columns.len());
        for (name, expr) in &columns {
            refuse_in_expression(expr)?;
            let (_, field) = expr.to_field(&schema).map_err(from_datafusion)?;
            fields.push(field.as_ref().clone().with_name(unique.next(name)));
        }
        if let Some(filter) = &filter {
            refuse_in_expression(filter)?;
        }
        let projection: Vec<Expr> = columns.into_iter().map(|(_, expr)| expr).collect();
        let moved = |at: usize| projection.iter().position(|e| place(e, &below.schema) == Some(at));
        let facts = Facts {
            append_only: below.append_only,
            key: below.key.as_ref().and_then(|key| key.iter().map(|k| moved(*k)).collect()),
            event_time: below.event_time.and_then(moved),
        };
        Ok(self.push(Operator::Map(Map { filter, projection }), vec![input], fields, facts))
    }

    fn window(&mut self, window: &WindowTvf, threaded: bool) -> Result<Pending, SqlError> {
        if let WindowKind::Session { gap_us } = window.kind() {
            return self.session(window, gap_us);
        }
        let input = self.lower(window.input(), threaded)?;
        let time = window.time();
        let input = self.with_plain_columns(input)?;
        let below = &self.nodes[input.node];
        let at = place(&input.columns[time].1, &below.schema).expect("the columns are plain");
        let mut fields: Vec<Field> = below.schema.fields().iter().map(|f| f.as_ref().clone()).collect();
        let mut unique = Names::of(&below.schema);
        let bounds = [crate::window::WINDOW_START, crate::window::WINDOW_END].map(|name| unique.next(name));
        for name in &bounds {
            fields.push(Field::new(name, below.schema.field(at).data_type().clone(), false));
        }
        let start = fields.len() - 2;
        let key = below.key.clone().map(|mut key| {
            match window.kind() {
                WindowKind::Hop { .. } => key.push(start),
                WindowKind::Cumulate { .. } => key.push(start + 1),
                WindowKind::Tumble { .. } | WindowKind::Session { .. } => {}
            }
            key
        });
        let facts = Facts { append_only: below.append_only, key, event_time: below.event_time };
        let operator = Operator::Window(Window { window: window.kind(), time: at });
        let node = self.push(operator, vec![input.node], fields, facts);
        let mut columns = input.columns;
        columns.extend(bounds.iter().map(|name| (name.clone(), column(name))));
        let window_end = threaded.then(|| column(&bounds[1]));
        Ok(Pending { node, filter: None, columns, watermark: input.watermark, window_end })
    }

    /// Pending columns that are all columns of their node, and no filter.
    fn with_plain_columns(&mut self, pending: Pending) -> Result<Pending, SqlError> {
        let schema = &self.nodes[pending.node].schema;
        let plain =
            pending.filter.is_none() && pending.columns.iter().all(|(_, e)| place(e, schema).is_some());
        if plain { Ok(pending) } else { self.settle(pending) }
    }

    fn union(&mut self, union: &logical::Union) -> Result<Pending, SqlError> {
        let mut inputs = Vec::with_capacity(union.inputs.len());
        for input in &union.inputs {
            let pending = self.lower(input, false)?;
            let pending = self.settle(pending)?;
            inputs.push(pending.node);
        }
        let mut unique = Names::default();
        let fields: Vec<Field> = union
            .schema
            .fields()
            .iter()
            .map(|f| f.as_ref().clone().with_name(unique.next(names::shown(f.name()))))
            .collect();
        let append_only = inputs.iter().all(|i| self.nodes[*i].append_only);
        let columns = fields.iter().map(|f| (f.name().clone(), column(f.name()))).collect();
        let node = self.push(Operator::Union, inputs, fields, Facts { append_only, ..Facts::default() });
        Ok(Pending { node, filter: None, columns, watermark: None, window_end: None })
    }

    fn aggregate(&mut self, aggregate: &logical::Aggregate) -> Result<Pending, SqlError> {
        if let [Expr::GroupingSet(_)] = &aggregate.group_expr[..] {
            return Err(SqlError::internal("grouping sets are one aggregate each by now"));
        }
        let closing = trace::closing_window(aggregate);
        let input = self.lower(&aggregate.input, closing.is_some())?;
        let schema = aggregate.input.schema();
        let group = aggregate
            .group_expr
            .iter()
            .map(|e| over(e, schema, &input.columns))
            .collect::<Result<Vec<_>, _>>()?;
        let mut calls = Vec::with_capacity(aggregate.aggr_expr.len());
        for (i, expr) in aggregate.aggr_expr.iter().enumerate() {
            let result = SqlType::of(aggregate.schema.field(group.len() + i))?;
            calls.push(BoundCall::new(expr, result, schema, &input.columns)?);
        }
        let group_names = aggregate.group_expr.iter().map(|e| match without_alias(e.clone()) {
            Expr::Column(column) => names::shown(&column.name).to_owned(),
            other => shown(&other),
        });
        let grouping = Grouping {
            names: group_names.collect(),
            group,
            calls,
            source: closing.map(|(_, source)| source),
            fields: aggregate.schema.fields().iter().cloned().collect(),
        };
        if grouping.source.is_some() {
            self.closing += 1;
        } else if self.options.emit_on_close {
            return Err(not_closing(&grouping, &aggregate.input));
        }
        if grouping.calls.iter().any(|call| call.function.is_none()) {
            return self.sorted_aggregate(grouping, input);
        }
        match self.hop_input(&grouping, &input) {
            Some(window) => self.hop_aggregate(grouping, input, &window),
            None => self.plain_aggregate(grouping, input),
        }
    }

    fn plain_aggregate(&mut self, grouping: Grouping, input: Pending) -> Result<Pending, SqlError> {
        let mut slots = Slots::default();
        let group: Vec<usize> =
            grouping.group.iter().zip(&grouping.names).map(|(e, name)| slots.place(name, e)).collect();
        let calls = grouping.calls.iter().filter_map(|call| call.place(&mut slots)).collect();
        let close = grouping.source.and_then(|source| {
            let end = slots.place(crate::window::WINDOW_END, input.window_end.as_ref()?);
            let watermark = slots.place(Metadata::Watermark.name(), input.watermark.as_ref()?);
            Some(self.close(source, Some(end), watermark))
        });
        let below = self.slotted(input.node, input.filter, slots.finish())?;
        let mut operator = Aggregate { group, calls, global: grouping.group.is_empty(), close };
        if let Slotted { renumber: Some(renumber), .. } = &below {
            operator.renumber(renumber);
        }
        let facts = self.aggregate_facts(&grouping, below.node, close.is_some());
        let fields = grouping.output_fields();
        let columns = fields.iter().map(|f| (f.name().clone(), column(f.name()))).collect();
        let node = self.push(Operator::Aggregate(operator), vec![below.node], fields, facts);
        Ok(Pending { node, filter: None, columns, watermark: None, window_end: None })
    }

    /// All rows of a group are kept, so what can be accumulated is computed from them, too.
    fn sorted_aggregate(&mut self, grouping: Grouping, input: Pending) -> Result<Pending, SqlError> {
        let mut slots = Slots::default();
        let group: Vec<usize> =
            grouping.group.iter().zip(&grouping.names).map(|(e, name)| slots.place(name, e)).collect();
        let calls = grouping.calls.iter().map(|call| call.place_sorted(&mut slots)).collect();
        let close = grouping.source.and_then(|source| {
            let end = slots.place(crate::window::WINDOW_END, input.window_end.as_ref()?);
            let watermark = slots.place(Metadata::Watermark.name(), input.watermark.as_ref()?);
            Some(self.close(source, Some(end), watermark))
        });
        if slots.is_empty() {
            // A batch without columns forgets its rows too easily.
            slots.place("row", &logical::lit(true));
        }
        let below = self.slotted(input.node, input.filter, slots.finish())?;
        let mut operator = SortedAggregate { group, calls, global: grouping.group.is_empty(), close };
        if let Slotted { renumber: Some(renumber), .. } = &below {
            operator.renumber(renumber);
        }
        let facts = self.aggregate_facts(&grouping, below.node, close.is_some());
        let fields = grouping.output_fields();
        let columns = fields.iter().map(|f| (f.name().clone(), column(f.name()))).collect();
        let node = self.push(Operator::SortedAggregate(operator), vec![below.node], fields, facts);
        Ok(Pending { node, filter: None, columns, watermark: None, window_end: None })
    }

    fn close(&self, source: RelationId, end: Option<usize>, watermark: usize) -> WindowClose {
        WindowClose {
            source,
            end,
            watermark,
            lateness_us: self.options.allowed_lateness_us,
            emit_on_close: self.options.emit_on_close,
        }
    }

    fn aggregate_facts(&self, grouping: &Grouping, input: NodeId, closes: bool) -> Facts {
        // Groups without aggregates never change; a window that is over is never corrected without lateness.
        let distinct =
            grouping.calls.is_empty() && !grouping.group.is_empty() && self.nodes[input].append_only;
        let once = closes && self.options.emit_on_close && self.options.allowed_lateness_us == 0;
        Facts {
            append_only: distinct || once,
            key: Some((0..grouping.group.len()).collect()),
            event_time: None,
        }
    }

    /// The HOP or CUMULATE that `input` stands on, if the aggregate can be computed per slice: fixed sizes, and the window's bounds are
    /// used as group columns and nowhere else.
    fn hop_input(&self, grouping: &Grouping, input: &Pending) -> Option<Window> {
        let node = &self.nodes[input.node];
        let Operator::Window(window) = &node.operator else { return None };
        let (step, size, by_end) = match &window.window {
            WindowKind::Hop { slide, size, .. } => (slide, size, false),
            // Its windows begin together, so the start does not tell them apart.
            WindowKind::Cumulate { step, size, .. } => (step, size, true),
            _ => return None,
        };
        if step.months != 0 || size.months != 0 {
            return None;
        }
        let bounds = bounds(&node.schema);
        let is_end = |e: &Expr| matches!(e, Expr::Column(c) if c.name == bounds[1]);
        if by_end && !grouping.group.iter().any(is_end) {
            return None;
        }
        let uses = |e: &Expr| e.column_refs().into_iter().any(|c| bounds.contains(&c.name));
        let plain = |e: &Expr| matches!(e, Expr::Column(_));
        let grouped = grouping.group.iter().any(uses);
        let inside = input.filter.as_ref().is_some_and(uses)
            || grouping.group.iter().any(|e| uses(e) && !plain(e))
            || grouping.calls.iter().any(|call| call.uses(uses));
        (grouped && !inside).then(|| window.clone())
    }

    fn hop_aggregate(
        &mut self,
        grouping: Grouping,
        input: Pending,
        window: &Window,
    ) -> Result<Pending, SqlError> {
        let hop = self.nodes.pop().expect("the input is the last node");
        let [start, end] = bounds(&hop.schema);
        let below = hop.inputs[0];
        let schema = Arc::clone(&self.nodes[below].schema);
        let mut slots = Slots::default();
        let time = slots.place(schema.field(window.time).name(), &column(schema.field(window.time).name()));
        let group: Vec<HopColumn> = grouping
            .group
            .iter()
            .zip(&grouping.names)
            .map(|(e, name)| match e {
                Expr::Column(c) if c.name == start => HopColumn::WindowStart,
                Expr::Column(c) if c.name == end => HopColumn::WindowEnd,
                other => HopColumn::Input(slots.place(name, other)),
            })
            .collect();
        let calls = grouping.calls.iter().filter_map(|call| call.place(&mut slots)).collect();
        let close = grouping.source.and_then(|source| {
            let watermark = slots.place(Metadata::Watermark.name(), input.watermark.as_ref()?);
            Some(self.close(source, None, watermark))
        });
        let slotted = self.slotted(below, input.filter, slots.finish())?;
        let mut operator = HopAggregate { window: window.window, time, group, calls, close };
        if let Some(renumber) = &slotted.renumber {
            operator.renumber(renumber);
        }
        let facts = self.aggregate_facts(&grouping, slotted.node, close.is_some());
        let fields = grouping.output_fields();
        let columns = fields.iter().map(|f| (f.name().clone(), column(f.name()))).collect();
        let node = self.push(Operator::HopAggregate(operator), vec![slotted.node], fields, facts);
        Ok(Pending { node, filter: None, columns, watermark: None, window_end: None })
    }

    /// The node that has the slots as columns: `input` itself where they are plain columns of it.
    fn slotted(
        &mut self,
        input: NodeId,
        filter: Option<Expr>,
        slots: Vec<(String, Expr)>,
    ) -> Result<Slotted, SqlError> {
        let schema = &self.nodes[input].schema;
        let places: Option<Vec<usize>> = slots.iter().map(|(_, e)| place(e, schema)).collect();
        match (filter, places) {
            (None, Some(places)) => Ok(Slotted { node: input, renumber: Some(places) }),
            (filter, _) => Ok(Slotted { node: self.map(input, filter, slots)?, renumber: None }),
        }
    }
}

#[derive(Default)]
pub(super) struct Facts {
    pub(super) append_only: bool,
    pub(super) key: Option<Vec<usize>>,
    pub(super) event_time: Option<usize>,
}

struct Slotted {
    node: NodeId,
    /// Slot number to column of `node`, where they differ.
    renumber: Option<Vec<usize>>,
}

impl Aggregate {
    fn renumber(&mut self, to: &[usize]) {
        self.group.iter_mut().for_each(|c| *c = to[*c]);
        renumber_calls(&mut self.calls, &mut self.close, to);
    }
}

impl HopAggregate {
    fn renumber(&mut self, to: &[usize]) {
        self.time = to[self.time];
        for column in &mut self.group {
            if let HopColumn::Input(c) = column {
                *c = to[*c];
            }
        }
        renumber_calls(&mut self.calls, &mut self.close, to);
    }
}

impl SortedAggregate {
    fn renumber(&mut self, to: &[usize]) {
        self.group.iter_mut().for_each(|c| *c = to[*c]);
        self.calls.iter_mut().for_each(|call| call.renumber(to));
        renumber_close(&mut self.close, to);
    }
}

fn renumber_calls(calls: &mut [AggregateCall], close: &mut Option<WindowClose>, to: &[usize]) {
    let columns = calls.iter_mut().flat_map(|c| [&mut c.argument, &mut c.filter]).flatten();
    columns.for_each(|c| *c = to[*c]);
    renumber_close(close, to);
}

fn renumber_close(close: &mut Option<WindowClose>, to: &[usize]) {
    if let Some(close) = close {
        close.watermark = to[close.watermark];
        close.end = close.end.map(|end| to[end]);
    }
}

/// Names that differ within one node.
#[derive(Default)]
pub(super) struct Names(HashSet<String>);

impl Names {
    pub(super) fn of(schema: &Schema) -> Self {
        Self(schema.fields().iter().map(|f| f.name().clone()).collect())
    }

    /// `name`, or `name_2` and so on if there is one already.
    pub(super) fn next(&mut self, name: &str) -> String {
        let mut unique = name.to_owned();
        let mut n = 1;
        while !self.0.insert(unique.clone()) {
            n += 1;
            unique = format!("{name}_{n}");
        }
        unique
    }
}

pub(super) fn column(name: &str) -> Expr {
    Expr::Column(Column::new_unqualified(name))
}

/// The index of a plain column.
pub(super) fn place(expr: &Expr, schema: &Schema) -> Option<usize> {
    match expr {
        Expr::Column(column) => schema.index_of(&column.name).ok(),
        _ => None,
    }
}

/// Names of the window's start and end in a Window node: its last columns.
fn bounds(schema: &Schema) -> [String; 2] {
    let width = schema.fields().len();
    [schema.field(width - 2).name().clone(), schema.field(width - 1).name().clone()]
}

fn display_name(facts: &crate::RelationFacts) -> String {
    let name = millpond_sql::quote_identifier(&facts.name);
    match facts.schema.as_str() {
        "public" => name,
        schema => format!("{}.{name}", millpond_sql::quote_identifier(schema)),
    }
}

/// `expr` over a logical schema, as an expression over the node that `columns` are about.
pub(super) fn over(expr: &Expr, schema: &DFSchema, columns: &[(String, Expr)]) -> Result<Expr, SqlError> {
    // An alias may stand inside, as in CAST(count(x) AS count AS numeric).
    let substituted = without_alias(expr.clone()).transform_down(|e| match without_alias(e) {
        Expr::Column(c) => {
            let at = schema.index_of_column(&c)?;
            Ok(Transformed::new(columns[at].1.clone(), true, TreeNodeRecursion::Jump))
        }
        other => Ok(Transformed::yes(other)),
    });
    substituted.map(|t| t.data).map_err(from_datafusion)
}

/// Whether an expression that costs something would be computed more than once if `expressions` took it in.
fn repeats(expressions: &[Expr], schema: &DFSchema, columns: &[(String, Expr)]) -> bool {
    let mut uses = vec![0usize; columns.len()];
    for expr in expressions {
        for (c, n) in expr.column_refs_counts() {
            if let Ok(at) = schema.index_of_column(c) {
                uses[at] += n;
            }
        }
    }
    uses.iter().zip(columns).any(|(n, (_, e))| *n > 1 && !matches!(e, Expr::Column(_) | Expr::Literal(..)))
}

pub(super) fn unsupported(what: &str, hint: &str) -> SqlError {
    SqlError::unsupported(format!("{what} in a materialized view is not supported")).hint(hint)
}

fn not_closing(grouping: &Grouping, input: &LogicalPlan) -> SqlError {
    let by = if grouping.names.is_empty() {
        "without GROUP BY".to_owned()
    } else {
        format!("by {}", grouping.names.join(", "))
    };
    if super::lower_join::stands_on_join(input) {
        return SqlError::unsupported(format!(
            "EMIT ON WINDOW CLOSE: no watermark passes the join below the aggregate {by}"
        ))
        .hint("Aggregate each side over windows first and join the results, or leave EMIT out.");
    }
    SqlError::unsupported(format!(
        "EMIT ON WINDOW CLOSE: the aggregate {by} is not over windows that a watermark closes"
    ))
    .hint("Group by window_start of TUMBLE or HOP over a source's WATERMARK column, or leave EMIT out.")
}

const SUBQUERY_HINT: &str =
    "Use IN or EXISTS in WHERE, a subquery whose rows an equality chooses, or a join with a view of its own.";

fn refusal(plan: &LogicalPlan) -> SqlError {
    let (what, hint) = match plan {
        LogicalPlan::Distinct(_) => ("DISTINCT ON", "Use GROUP BY with min or max."),
        LogicalPlan::RecursiveQuery(_) => ("WITH RECURSIVE", "Use it in the SELECT that reads the view."),
        LogicalPlan::Subquery(_) => ("a subquery of this form", SUBQUERY_HINT),
        _ => (
            "this construct",
            "Use projections, filters, joins, aggregates, windows in time, window functions, LIMIT and set operations.",
        ),
    };
    unsupported(what, hint)
}

pub(super) fn refuse_in_expression(expr: &Expr) -> Result<(), SqlError> {
    let mut error = None;
    let walk = expr.apply(|e| {
        error = match e {
            Expr::ScalarSubquery(_)
            | Expr::InSubquery(_)
            | Expr::Exists(_)
            | Expr::SetComparison(_)
            | Expr::OuterReferenceColumn(..) => Some(unsupported("a subquery of this form", SUBQUERY_HINT)),
            // The only parameter that a view has.
            Expr::Placeholder(_) => Some(clock::refused("outside of a filter")),
            Expr::ScalarFunction(f) if f.func.signature().volatility == Volatility::Volatile => {
                let what = format!("the volatile function {}", f.func.name());
                Some(unsupported(&what, "Compute it when rows are inserted, with a DEFAULT."))
            }
            _ => None,
        };
        Ok(if error.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    debug_assert!(walk.is_ok(), "walking an expression cannot fail");
    error.map_or(Ok(()), Err)
}
