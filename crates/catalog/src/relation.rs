//! What the catalog knows of one relation.

use std::collections::BTreeMap;

use arrow::datatypes::{Schema, SchemaRef};
use millpond_sql::statement::ObjectKind;
use millpond_types::{Commit, RelationId, SqlType};
use serde::{Deserialize, Serialize};

/// Anything with a name in a schema.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Relation {
    pub id: RelationId,
    pub schema: String,
    pub name: String,
    pub kind: RelationKind,
    /// What a user sees, in order; hidden columns are not here. Empty for an index.
    pub columns: Vec<Column>,
    /// The statement that made it, as the user wrote it.
    pub definition: String,
    /// What it cannot exist without, each once.
    #[serde(default)]
    pub dependencies: Vec<RelationId>,
    pub owner: String,
    /// WITH options as written.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    #[serde(default)]
    pub comment: Option<String>,
    /// The commit of its CREATE: nothing before it can hold its rows.
    pub created_at: Commit,
    /// Counts changes of `columns`; a topic's frames name the version they were written under.
    #[serde(default)]
    pub schema_version: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Column {
    pub name: String,
    pub ty: SqlType,
    pub nullable: bool,
    /// SQL text of an expression.
    #[serde(default)]
    pub default: Option<String>,
    /// SQL text of `GENERATED ALWAYS AS (…) STORED`.
    #[serde(default)]
    pub generated: Option<String>,
    #[serde(default)]
    pub comment: Option<String>,
    /// The commit of the ALTER that added it; 0 for a column of the CREATE. Added columns stand last.
    #[serde(default)]
    pub added_at: Commit,
    /// Of an added column: what rows have that were written without it, as text; `None` is NULL.
    #[serde(default)]
    pub missing: Option<String>,
}

impl Column {
    /// A plain column: no default, nothing generated.
    pub fn new(name: impl Into<String>, ty: SqlType, nullable: bool) -> Self {
        Self {
            name: name.into(),
            ty,
            nullable,
            default: None,
            generated: None,
            comment: None,
            added_at: Commit(0),
            missing: None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum RelationKind {
    Source(Source),
    Table(Table),
    View(View),
    MaterializedView(MaterializedView),
    Sink(Sink),
    Index(Index),
}

/// An append-only stream: a topic of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Source {
    #[serde(default)]
    pub watermark: Option<Watermark>,
    #[serde(default)]
    pub connector: Option<Connector>,
    #[serde(flatten)]
    pub layout: Layout,
}

/// How a topic's rows are spread over partitions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// At least one; only ever more.
    #[serde(default = "one")]
    pub partitions: u32,
    /// Indices of the columns whose hash chooses the partition. Empty: batches go to the partitions in turn.
    #[serde(default)]
    pub partition_by: Vec<usize>,
    /// Microseconds without a row after which a partition no longer holds the watermark back; 0 for never.
    #[serde(default = "five_minutes")]
    pub idle_timeout: i64,
}

fn one() -> u32 {
    1
}

fn five_minutes() -> i64 {
    300_000_000
}

impl Default for Layout {
    fn default() -> Self {
        Self { partitions: one(), partition_by: Vec::new(), idle_timeout: five_minutes() }
    }
}

/// A relation that can be updated: a topic whose records are key and new image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Indices of the key's columns, in the key's order. Empty: a hidden row id is the key.
    pub primary_key: Vec<usize>,
    /// The constraint's name, `t_pkey` unless given.
    #[serde(default)]
    pub primary_key_name: Option<String>,
    /// Rows come and stay, as in a source.
    #[serde(default)]
    pub append_only: bool,
    #[serde(default)]
    pub watermark: Option<Watermark>,
    /// Of one partition where rows change.
    #[serde(flatten)]
    pub layout: Layout,
}

/// `WATERMARK FOR column AS expression`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Watermark {
    /// Index of the event-time column.
    pub column: usize,
    /// SQL text over the relation's columns; its value is the watermark.
    pub expression: String,
}

/// Where a source's rows come from, or a sink's go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Connector {
    /// `nexmark`, `datagen`, `file`, …
    pub name: String,
    /// The connector's options as written, without `connector`.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// `FORMAT plain`
    #[serde(default)]
    pub format: Option<String>,
    /// `ENCODE json`
    #[serde(default)]
    pub encode: Option<String>,
    #[serde(default)]
    pub format_options: BTreeMap<String, String>,
}

/// A query under a name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct View {
    pub query: String,
    pub frozen: Frozen,
}

/// A query whose answer is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MaterializedView {
    pub query: String,
    pub emit: Emit,
    /// Microseconds that a closed window is still corrected.
    #[serde(default)]
    pub allowed_lateness: i64,
    pub frozen: Frozen,
    /// Indices of columns that the plan proved unique together, if any; empty means one row at most.
    #[serde(default)]
    pub unique_key: Option<Vec<usize>>,
    /// Paused by `ALTER … PAUSE`.
    #[serde(default)]
    pub paused: bool,
    /// How many rows the relations that it reads had when it was made: its plan was chosen by that, and stays.
    #[serde(default)]
    pub rows: Vec<(RelationId, u64)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Emit {
    #[default]
    OnUpdate,
    OnWindowClose,
}

impl From<millpond_sql::statement::Emit> for Emit {
    fn from(emit: millpond_sql::statement::Emit) -> Self {
        match emit {
            millpond_sql::statement::Emit::OnUpdate => Self::OnUpdate,
            millpond_sql::statement::Emit::OnWindowClose => Self::OnWindowClose,
        }
    }
}

/// Settings of the session that a query's meaning depends on, as they were at CREATE: a view means the same for every
/// session and after every restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frozen {
    pub time_zone: String,
    pub search_path: Vec<String>,
    pub date_style: String,
}

impl Default for Frozen {
    fn default() -> Self {
        Self { time_zone: "UTC".into(), search_path: vec!["public".into()], date_style: "ISO, MDY".into() }
    }
}

/// Rows of a relation on their way out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sink {
    /// The relation (`FROM v`), or `None` with a query.
    #[serde(default)]
    pub input: Option<RelationId>,
    #[serde(default)]
    pub query: Option<String>,
    pub target: SinkTarget,
    pub frozen: Frozen,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SinkTarget {
    Connector(Connector),
    Table(RelationId),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Index {
    pub relation: RelationId,
    /// Indices of the relation's columns.
    pub columns: Vec<usize>,
    #[serde(default)]
    pub include: Vec<usize>,
    #[serde(default)]
    pub unique: bool,
}

impl RelationKind {
    pub fn object(&self) -> ObjectKind {
        match self {
            Self::Source(_) => ObjectKind::Source,
            Self::Table(_) => ObjectKind::Table,
            Self::View(_) => ObjectKind::View,
            Self::MaterializedView(_) => ObjectKind::MaterializedView,
            Self::Sink(_) => ObjectKind::Sink,
            Self::Index(_) => ObjectKind::Index,
        }
    }
}

impl Relation {
    /// `table t`, as dependants and errors name it: with the schema when it is not `public`.
    pub fn described(&self) -> String {
        format!("{} {}", self.kind.object().as_str(), self.display_name())
    }

    /// Quoted where needed, with the schema when it is not `public`.
    pub fn display_name(&self) -> String {
        let name = millpond_sql::quote_identifier(&self.name);
        if self.schema == "public" {
            name
        } else {
            format!("{}.{name}", millpond_sql::quote_identifier(&self.schema))
        }
    }

    /// The visible columns as an Arrow schema.
    pub fn arrow_schema(&self) -> SchemaRef {
        let fields = self.columns.iter().map(|c| c.ty.field(&c.name, c.nullable));
        Schema::new(fields.collect::<Vec<_>>()).into()
    }

    pub fn column_index(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name == name)
    }

    pub fn watermark(&self) -> Option<&Watermark> {
        match &self.kind {
            RelationKind::Source(source) => source.watermark.as_ref(),
            RelationKind::Table(table) => table.watermark.as_ref(),
            _ => None,
        }
    }

    /// Of a source or table.
    pub fn layout(&self) -> Option<&Layout> {
        match &self.kind {
            RelationKind::Source(source) => Some(&source.layout),
            RelationKind::Table(table) => Some(&table.layout),
            _ => None,
        }
    }

    pub(crate) fn layout_mut(&mut self) -> Option<&mut Layout> {
        match &mut self.kind {
            RelationKind::Source(source) => Some(&mut source.layout),
            RelationKind::Table(table) => Some(&mut table.layout),
            _ => None,
        }
    }

    /// Rows are added and never changed or taken back: a source, or a table that says so.
    pub fn is_append_only(&self) -> bool {
        match &self.kind {
            RelationKind::Source(_) => true,
            RelationKind::Table(table) => table.append_only,
            _ => false,
        }
    }

    /// Has a topic in the log: a source or table.
    pub fn is_topic(&self) -> bool {
        matches!(self.kind, RelationKind::Source(_) | RelationKind::Table(_))
    }

    /// Can stand in FROM.
    pub fn is_readable(&self) -> bool {
        !matches!(self.kind, RelationKind::Sink(_) | RelationKind::Index(_))
    }
}
