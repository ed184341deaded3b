//! EXPLAIN text: the result first, inputs indented below what uses them.

use std::cell::Cell;
use std::fmt::{self, Write};

use datafusion::logical_expr::Expr;
use millpond_types::SqlType;

use super::text::shown;

use super::{
    AggregateCall, AggregateFunction, Argument, Frame, FrameBound, FrameUnits, HopColumn, Input, InputColumn,
    Join, JoinClose, JoinKind, MultiJoin, Node, NodeId, Operator, OrderColumn, OverCall, OverFunction, Plan,
    Ranking, SortedCall, TopN, WindowClose,
};

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Printer::new(self, false, &[]).node(f, self.nodes.len() - 1, 0)
    }
}

/// A plan with the types of all columns, or with notes on its nodes.
pub struct Detailed<'a> {
    plan: &'a Plan,
    verbose: bool,
    notes: &'a [String],
}

impl Plan {
    /// EXPLAIN (VERBOSE).
    pub fn verbose(&self) -> Detailed<'_> {
        self.with_notes(true, &[])
    }

    /// With a line below each node that says what stands at its place in `notes`.
    pub fn with_notes<'a>(&'a self, verbose: bool, notes: &'a [String]) -> Detailed<'a> {
        Detailed { plan: self, verbose, notes }
    }

    /// A node as EXPLAIN names it, without its properties.
    pub fn describe(&self, id: NodeId) -> String {
        Description(self, id).to_string()
    }

    /// Operators whose state nothing bounds, for a NOTICE: what it is, and what would bound it.
    pub fn unbounded(&self) -> Vec<(String, String)> {
        let hint = "Group by window_start of TUMBLE or HOP over a source with a WATERMARK, or keep the number of groups small.";
        let joins = self.nodes.iter().filter_map(|node| match &node.operator {
            Operator::Join(join) if join.close.is_none() => {
                let what =
                    format!("the state of {} grows with the rows of both sides", self.join_name(node, join));
                let hint = "Filter or aggregate the sides first, or keep the number of rows small.";
                Some((what, hint.to_owned()))
            }
            Operator::MultiJoin(join) => Some((
                format!(
                    "the state of the join on {} grows with the rows of all inputs",
                    self.equalities(node, join)
                ),
                "Filter or aggregate the inputs first, or keep the number of rows small.".to_owned(),
            )),
            _ => None,
        });
        let open = self.nodes.iter().filter(|node| match &node.operator {
            Operator::Aggregate(a) => a.close.is_none() && !a.global,
            Operator::HopAggregate(a) => a.close.is_none(),
            Operator::SortedAggregate(a) => a.close.is_none() && !a.global,
            _ => false,
        });
        let aggregates = open.map(|node| {
            let by = group_names(node).join(", ");
            (format!("the state of the aggregate by {by} grows with the number of groups"), hint.to_owned())
        });
        let ordered = self.nodes.iter().filter_map(|node| match &node.operator {
            Operator::TopN(_) if !self.nodes[node.inputs[0]].append_only => Some((
                "the state of the top-N grows with the number of rows".to_owned(),
                "Over an append-only input it holds only the rows that it shows.".to_owned(),
            )),
            Operator::TopN(top) if !top.partition.is_empty() => Some((
                "the state of the top-N grows with the number of groups".to_owned(),
                "Keep the number of groups small.".to_owned(),
            )),
            Operator::Asof(_) => Some((
                "the state of the ASOF join grows with the rows of both sides".to_owned(),
                "A filter on now() on both sides lets old rows go.".to_owned(),
            )),
            Operator::Over(_) => Some((
                "the state of the window functions grows with the number of rows".to_owned(),
                "Filter the rows that are asked for, or number them and keep the first few.".to_owned(),
            )),
            _ => None,
        });
        aggregates.chain(ordered).chain(joins).collect()
    }

    /// `the join on k = id`
    fn join_name(&self, node: &Node, join: &Join) -> String {
        match self.join_keys(node, join) {
            keys if keys.is_empty() => "the join without an equality".to_owned(),
            keys => format!("the join on {keys}"),
        }
    }

    /// `a = b = c AND d = e`
    fn equalities(&self, node: &Node, join: &MultiJoin) -> String {
        let name = |(input, column): &(usize, usize)| {
            self.nodes[node.inputs[*input]].schema.field(*column).name().as_str()
        };
        let classes = join.equal.iter().map(|class| class.iter().map(name).collect::<Vec<_>>().join(" = "));
        classes.collect::<Vec<_>>().join(" AND ")
    }

    fn join_keys(&self, node: &Node, join: &Join) -> String {
        let [left, right] = [0, 1].map(|n| &self.nodes[node.inputs[n]].schema);
        let equals = if join.nulls_equal { "IS NOT DISTINCT FROM" } else { "=" };
        let keys = join
            .keys
            .iter()
            .map(|(l, r)| format!("{} {equals} {}", left.field(*l).name(), right.field(*r).name()));
        keys.collect::<Vec<_>>().join(" AND ")
    }
}

struct Description<'a>(&'a Plan, NodeId);

impl fmt::Display for Description<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Printer::new(self.0, false, &[]).operator(f, &self.0.nodes[self.1])
    }
}

impl fmt::Display for Detailed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Printer::new(self.plan, self.verbose, self.notes).node(f, self.plan.nodes.len() - 1, 0)
    }
}

struct Printer<'a> {
    plan: &'a Plan,
    verbose: bool,
    notes: &'a [String],
    /// Nodes with several users. Each is printed with a number at the first of them, and its number alone at the others.
    shared: Vec<bool>,
    numbers: Vec<Cell<Option<usize>>>,
    numbered: Cell<usize>,
}

impl<'a> Printer<'a> {
    fn new(plan: &'a Plan, verbose: bool, notes: &'a [String]) -> Self {
        let mut users = vec![0; plan.nodes.len()];
        plan.nodes.iter().flat_map(|node| &node.inputs).for_each(|input| users[*input] += 1);
        let shared = users.iter().map(|users| *users > 1).collect();
        let numbers = vec![Cell::new(None); users.len()];
        Self { plan, verbose, notes, shared, numbers, numbered: Cell::new(0) }
    }

    fn node(&self, f: &mut fmt::Formatter<'_>, id: NodeId, depth: usize) -> fmt::Result {
        let node = &self.plan.nodes[id];
        if depth > 0 {
            f.write_char('\n')?;
        }
        write!(f, "{:1$}", "", depth * 2)?;
        if let Some(number) = self.numbers[id].get() {
            return write!(f, "#{number}");
        }
        if self.shared[id] {
            self.numbered.update(|last| last + 1);
            self.numbers[id].set(Some(self.numbered.get()));
            write!(f, "#{}: ", self.numbered.get())?;
        }
        self.operator(f, node)?;
        let mut facts = Vec::new();
        if let Some(key) = &node.key {
            facts.push(if key.is_empty() {
                "one row".to_owned()
            } else {
                format!("key ({})", list(node, key))
            });
        }
        facts.push(if node.append_only { "append-only" } else { "retracting" }.to_owned());
        facts.extend(self.state(node));
        write!(f, " [{}]", facts.join("; "))?;
        if self.verbose {
            let columns: Vec<_> = node
                .schema
                .fields()
                .iter()
                .map(|field| {
                    let ty = SqlType::of(field)
                        .map_or_else(|_| field.data_type().to_string(), |ty| ty.to_string());
                    format!("{} {ty}", field.name())
                })
                .collect();
            write!(f, "\n{:1$}  -> {2}", "", depth * 2, columns.join(", "))?;
        }
        if let Some(note) = self.notes.get(id) {
            write!(f, "\n{:1$}  {note}", "", depth * 2)?;
        }
        node.inputs.iter().try_for_each(|input| self.node(f, *input, depth + 1))
    }

    fn operator(&self, f: &mut fmt::Formatter<'_>, node: &Node) -> fmt::Result {
        match &node.operator {
            Operator::Input(Input { relation, name, columns }) => {
                let shown: Vec<_> = node.schema.fields().iter().map(|field| field.name().as_str()).collect();
                write!(f, "Input {name}({})", shown.join(", "))?;
                if self.verbose {
                    let places = columns.iter().map(|column| match column {
                        InputColumn::Stored(i) => i.to_string(),
                        InputColumn::Metadata(m) => m.name().to_owned(),
                    });
                    write!(f, " of relation {relation} columns {}", places.collect::<Vec<_>>().join(","))?;
                }
                Ok(())
            }
            Operator::Map(map) => {
                let outputs: Vec<_> = map
                    .projection
                    .iter()
                    .zip(node.schema.fields())
                    .map(|(expr, field)| {
                        let text = self.expression(expr);
                        if text == *field.name() { text } else { format!("{text} AS {}", field.name()) }
                    })
                    .collect();
                write!(f, "Map {}", outputs.join(", "))?;
                match &map.filter {
                    Some(filter) => write!(f, " WHERE {}", self.expression(filter)),
                    None => Ok(()),
                }
            }
            Operator::Aggregate(a) => {
                let group: Vec<_> = a.group.iter().map(|c| self.input_name(node, *c)).collect();
                f.write_str(if a.calls.is_empty() { "Distinct" } else { "Aggregate" })?;
                if !a.global {
                    write!(f, " by {}", group.join(", "))?;
                }
                self.calls(f, node, &a.calls)
            }
            Operator::HopAggregate(a) => {
                let group: Vec<_> = a
                    .group
                    .iter()
                    .map(|c| match c {
                        HopColumn::Input(c) => self.input_name(node, *c),
                        HopColumn::WindowStart => crate::window::WINDOW_START.to_owned(),
                        HopColumn::WindowEnd => crate::window::WINDOW_END.to_owned(),
                    })
                    .collect();
                write!(
                    f,
                    "HopAggregate {} on {} by {}",
                    a.window,
                    self.input_name(node, a.time),
                    group.join(", ")
                )?;
                self.calls(f, node, &a.calls)
            }
            Operator::SortedAggregate(a) => {
                f.write_str("SortedAggregate")?;
                if !a.global {
                    let group: Vec<_> = a.group.iter().map(|c| self.input_name(node, *c)).collect();
                    write!(f, " by {}", group.join(", "))?;
                }
                let calls: Vec<_> = a.calls.iter().map(|call| self.sorted_call(node, call)).collect();
                write!(f, ": {}", calls.join(", "))
            }
            Operator::Window(w) => write!(f, "Window {} on {}", w.window, self.input_name(node, w.time)),
            Operator::Join(join) => {
                let keys = self.plan.join_keys(node, join);
                let cross = keys.is_empty() && join.residual.is_none();
                let kind = if cross && join.kind == JoinKind::Inner { "cross" } else { join.kind.name() };
                write!(f, "Join {kind}")?;
                if !keys.is_empty() {
                    write!(f, " on {keys}")?;
                }
                if let Some(residual) = &join.residual {
                    write!(f, " WHERE {}", self.expression(residual))?;
                }
                if self.verbose {
                    let shown: Vec<_> =
                        join.output.iter().map(|c| join.pair.field(*c).name().as_str()).collect();
                    write!(f, ": {}", shown.join(", "))?;
                }
                Ok(())
            }
            Operator::MultiJoin(join) => {
                write!(f, "DeltaJoin on {}", self.plan.equalities(node, join))?;
                if let Some(residual) = &join.residual {
                    write!(f, " WHERE {}", self.expression(residual))?;
                }
                let path = |(from, path): (usize, &Vec<usize>)| {
                    let inputs = std::iter::once(&from).chain(path).map(|input| (input + 1).to_string());
                    inputs.collect::<Vec<_>>().join("-")
                };
                let paths: Vec<_> = join.paths.iter().enumerate().map(path).collect();
                write!(f, "; paths {}", paths.join(", "))?;
                if self.verbose {
                    let shown: Vec<_> =
                        join.output.iter().map(|c| join.pair.field(*c).name().as_str()).collect();
                    write!(f, ": {}", shown.join(", "))?;
                }
                Ok(())
            }
            Operator::OneRow => f.write_str("OneRow"),
            Operator::Union => f.write_str("Union"),
            Operator::TopN(top) => {
                f.write_str("TopN ")?;
                self.bounds(f, top)?;
                self.ordering(f, node, &top.partition, &top.order)
            }
            Operator::Over(over) => {
                f.write_str("Over")?;
                self.ordering(f, node, &over.partition, &over.order)?;
                let calls = over.calls.iter().map(|call| self.over_call(node, call));
                write!(f, ": {}", calls.collect::<Vec<_>>().join(", "))
            }
            Operator::Asof(asof) => {
                let right = &self.plan.nodes[node.inputs[1]].schema;
                let kind = if asof.outer { "left " } else { "" };
                write!(f, "Asof {kind}join on ")?;
                for (left, key) in &asof.keys {
                    write!(f, "{} = {} AND ", self.input_name(node, *left), right.field(*key).name())?;
                }
                let (left, time) = asof.times;
                write!(
                    f,
                    "{} {} {}",
                    self.input_name(node, left),
                    asof.comparison,
                    right.field(time).name()
                )?;
                if self.verbose {
                    write!(f, ": {:?}", asof.output)?;
                }
                Ok(())
            }
            Operator::Temporal(temporal) => {
                let input = &self.plan.nodes[node.inputs[0]].schema;
                write!(f, "Temporal WHERE {}", temporal.text(input))?;
                if self.verbose {
                    let shown: Vec<_> =
                        temporal.output.iter().map(|c| input.field(*c).name().as_str()).collect();
                    write!(f, ": {}", shown.join(", "))?;
                }
                Ok(())
            }
            Operator::FlatMap(sets) => {
                let named: Vec<_> = sets.sets.iter().map(|c| self.input_name(node, *c)).collect();
                write!(f, "FlatMap {}", named.join(", "))?;
                f.write_str(if sets.ordinality { " WITH ORDINALITY" } else { "" })?;
                f.write_str(if sets.outer { " or once without" } else { "" })
            }
            Operator::Repeat(repeat) => write!(f, "Repeat {} times", self.input_name(node, repeat.times)),
        }
    }

    /// The fingerprint wants the types of literals, a reader does not.
    fn expression(&self, expr: &Expr) -> String {
        if self.verbose { expr.to_string() } else { shown(expr) }
    }

    fn input_name(&self, node: &Node, column: usize) -> String {
        self.plan.nodes[node.inputs[0]].schema.field(column).name().clone()
    }

    fn calls(&self, f: &mut fmt::Formatter<'_>, node: &Node, calls: &[AggregateCall]) -> fmt::Result {
        let texts = calls.iter().map(|call| {
            let argument = call.argument.map_or("*".to_owned(), |c| self.input_name(node, c));
            let distinct = if call.function == AggregateFunction::CountDistinct { "DISTINCT " } else { "" };
            let mut text = format!("{}({distinct}{argument})", call.function.name());
            if let Some(filter) = call.filter {
                let _ = write!(text, " FILTER ({})", self.input_name(node, filter));
            }
            if self.verbose {
                let _ = write!(text, " {}", call.result);
            }
            text
        });
        let texts: Vec<_> = texts.collect();
        if texts.is_empty() { Ok(()) } else { write!(f, ": {}", texts.join(", ")) }
    }

    fn sorted_call(&self, node: &Node, call: &SortedCall) -> String {
        let within = call.function.supports_within_group_clause();
        let arguments = match within {
            true => &call.arguments[call.order.len().min(1)..call.arguments.len() - call.order.len()],
            false => &call.arguments[..],
        };
        let arguments = arguments.iter().map(|argument| match argument {
            Argument::Column(c) => self.input_name(node, *c),
            Argument::Constant(value) => self.expression(&Expr::Literal(value.clone(), None)),
        });
        let order = call.order.iter().map(|o| {
            let nulls = match (o.descending, o.nulls_first) {
                (false, true) => " NULLS FIRST",
                (true, false) => " NULLS LAST",
                _ => "",
            };
            format!("{}{}{nulls}", self.input_name(node, o.column), if o.descending { " DESC" } else { "" })
        });
        let order = order.collect::<Vec<_>>().join(", ");
        let mut text = format!("{}(", call.function.name());
        text.push_str(if call.distinct { "DISTINCT " } else { "" });
        text.push_str(&arguments.collect::<Vec<_>>().join(", "));
        let _ = match (within, order.is_empty()) {
            (_, true) => write!(text, ")"),
            (true, false) => write!(text, ") WITHIN GROUP (ORDER BY {order})"),
            (false, false) => write!(text, " ORDER BY {order})"),
        };
        if let Some(filter) = call.filter {
            let _ = write!(text, " FILTER ({})", self.input_name(node, filter));
        }
        if self.verbose {
            let _ = write!(text, " {}", call.result);
        }
        text
    }

    fn bounds(&self, f: &mut fmt::Formatter<'_>, top: &TopN) -> fmt::Result {
        match top.ranking {
            Ranking::RowNumber => write!(f, "{} rows", top.end.saturating_sub(top.skip))?,
            ranking => write!(f, "{} <= {}", ranking.name(), top.end)?,
        }
        if top.skip > 0 {
            write!(f, " after {}", top.skip)?;
        }
        if top.number { f.write_str(" with their number") } else { Ok(()) }
    }

    fn ordering(
        &self,
        f: &mut fmt::Formatter<'_>,
        node: &Node,
        partition: &[usize],
        order: &[OrderColumn],
    ) -> fmt::Result {
        if !partition.is_empty() {
            let by: Vec<_> = partition.iter().map(|c| self.input_name(node, *c)).collect();
            write!(f, " by {}", by.join(", "))?;
        }
        let order: Vec<_> = order
            .iter()
            .map(|o| {
                let direction = if o.descending { " DESC" } else { "" };
                // As PostgreSQL has it: NULLs are larger than anything else.
                let nulls = match (o.descending, o.nulls_first) {
                    (false, true) => " NULLS FIRST",
                    (true, false) => " NULLS LAST",
                    _ => "",
                };
                format!("{}{direction}{nulls}", self.input_name(node, o.column))
            })
            .collect();
        if order.is_empty() { Ok(()) } else { write!(f, " order by {}", order.join(", ")) }
    }

    fn over_call(&self, node: &Node, call: &OverCall) -> String {
        let argument = call.argument.map(|c| self.input_name(node, c));
        let of = |name: &str| format!("{name}({})", argument.clone().unwrap_or_default());
        let mut text = match call.function {
            OverFunction::RowNumber => of("row_number"),
            OverFunction::Rank => of("rank"),
            OverFunction::DenseRank => of("dense_rank"),
            OverFunction::PercentRank => of("percent_rank"),
            OverFunction::CumeDist => of("cume_dist"),
            OverFunction::Ntile(n) => format!("ntile({n})"),
            OverFunction::Lag(rows) => {
                let name = if rows < 0 { "lead" } else { "lag" };
                format!("{name}({}, {})", argument.unwrap_or_default(), rows.unsigned_abs())
            }
            OverFunction::FirstValue => of("first_value"),
            OverFunction::LastValue => of("last_value"),
            OverFunction::NthValue(n) => format!("nth_value({}, {n})", argument.unwrap_or_default()),
            OverFunction::Aggregate(function) => {
                format!("{}({})", function.name(), argument.unwrap_or_else(|| "*".to_owned()))
            }
            OverFunction::OfFrame => {
                let Some(call) = &call.of_frame else { return "?".to_owned() };
                let arguments = call.arguments.iter().map(|argument| match argument {
                    Argument::Column(column) => self.input_name(node, *column),
                    Argument::Constant(value) => shown(&Expr::Literal(value.clone(), None)),
                });
                format!("{}({})", call.function.name(), arguments.collect::<Vec<_>>().join(", "))
            }
            OverFunction::SessionStart(gap) => format!("session_start({})", crate::window::duration(gap)),
            OverFunction::SessionEnd(gap) => format!("session_end({})", crate::window::duration(gap)),
        };
        if let Some(default) = call.default {
            let _ = write!(text, " DEFAULT {}", self.input_name(node, default));
        }
        if let Some(filter) = call.filter {
            let _ = write!(text, " FILTER ({})", self.input_name(node, filter));
        }
        let framed = matches!(
            call.function,
            OverFunction::FirstValue
                | OverFunction::LastValue
                | OverFunction::NthValue(_)
                | OverFunction::Aggregate(_)
                | OverFunction::OfFrame
        );
        if framed {
            let _ = write!(text, " {}", call.frame);
        }
        if self.verbose {
            let _ = write!(text, " {}", call.result);
        }
        text
    }

    /// What bounds the state of an operator that has some.
    fn state(&self, node: &Node) -> Vec<String> {
        let close = match &node.operator {
            Operator::Aggregate(a) if a.global => return vec!["state: one group".to_owned()],
            Operator::Aggregate(a) => &a.close,
            Operator::HopAggregate(a) => &a.close,
            Operator::SortedAggregate(a) => match &a.close {
                None => return vec!["state: every row, never freed".to_owned()],
                close => close,
            },
            Operator::Join(join) => {
                return vec![match &join.close {
                    None => "state: every row of both sides, never freed".to_owned(),
                    Some(close) => self.join_closing(node, close),
                }];
            }
            Operator::MultiJoin(_) => {
                return vec!["state: every row of each input once, never freed".to_owned()];
            }
            Operator::TopN(top) => {
                let kept = match (self.plan.nodes[node.inputs[0]].append_only, top.partition.is_empty()) {
                    (true, true) => "state: the rows that are shown and those before them",
                    (true, false) => {
                        "state: the rows of every group that are shown and those before them, never freed"
                    }
                    (false, _) => "state: every row, never freed",
                };
                return vec![kept.to_owned()];
            }
            Operator::Over(_) => return vec!["state: every row, never freed".to_owned()],
            Operator::Asof(_) => return vec!["state: every row of both sides, never freed".to_owned()],
            Operator::Temporal(_) => {
                return vec!["state: rows that will come or go, freed when they have".to_owned()];
            }
            _ => return Vec::new(),
        };
        match close {
            None => vec!["state: every group, never freed".to_owned()],
            Some(close) => self.closing(close),
        }
    }

    fn join_closing(&self, node: &Node, close: &JoinClose) -> String {
        let sides = close.sides.iter().zip(&node.inputs).map(|(side, input)| {
            let time = self.plan.nodes[*input].schema.field(side.time).name();
            match side.free_us.saturating_sub(side.late_us).saturating_add(close.lateness_us) {
                0 => time.clone(),
                us if us < 0 => format!("{time} - {}", crate::window::duration(-us)),
                us => format!("{time} + {}", crate::window::duration(us)),
            }
        });
        let sides: Vec<_> = sides.collect();
        format!("state: rows until both watermarks pass {} (left) and {} (right)", sides[0], sides[1])
    }

    fn closing(&self, close: &WindowClose) -> Vec<String> {
        let source = self.plan.nodes.iter().find_map(|node| match &node.operator {
            Operator::Input(input) if input.relation == close.source => Some(input.name.as_str()),
            _ => None,
        });
        let lateness = match close.lateness_us {
            0 => String::new(),
            us => format!(" + {}", crate::window::duration(us)),
        };
        let mut facts = vec![format!(
            "state: open windows, freed when the watermark of {} passes window_end{lateness}",
            source.unwrap_or("?")
        )];
        if close.emit_on_close {
            facts.push("emits on window close".to_owned());
        }
        facts
    }
}

impl JoinKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Inner => "inner",
            Self::Left => "left",
            Self::Right => "right",
            Self::Full => "full",
            Self::LeftSemi => "semi",
            Self::LeftAnti => "anti",
            Self::LeftMark => "mark",
        }
    }
}

fn list(node: &Node, columns: &[usize]) -> String {
    columns.iter().map(|c| node.schema.field(*c).name().as_str()).collect::<Vec<_>>().join(", ")
}

fn group_names(node: &Node) -> Vec<String> {
    let groups = node.key.iter().flatten();
    groups.map(|c| node.schema.field(*c).name().clone()).collect()
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = match self.units {
            FrameUnits::Rows => "ROWS",
            FrameUnits::Range => "RANGE",
            FrameUnits::Groups => "GROUPS",
        };
        write!(f, "{units} {} TO {}", self.start, self.end)
    }
}

impl fmt::Display for FrameBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnboundedPreceding => f.write_str("UNBOUNDED PRECEDING"),
            Self::Preceding(n) => write!(f, "{n} PRECEDING"),
            Self::CurrentRow => f.write_str("CURRENT ROW"),
            Self::Following(n) => write!(f, "{n} FOLLOWING"),
            Self::UnboundedFollowing => f.write_str("UNBOUNDED FOLLOWING"),
        }
    }
}
