//! INSERT, UPDATE, DELETE as logical pieces that the engine runs.

mod change;
mod insert;

use datafusion::logical_expr::{Expr, LogicalPlan};
use millpond_types::{RelationId, SqlType};

/// The rows to write, complete.
#[derive(Clone, Debug)]
pub struct InsertPlan {
    pub relation: RelationId,
    /// One output column per declared column of the relation, in order, under its name and in its Arrow type: given values,
    /// defaults, NULL. Generated columns are NULL here; the engine computes them, and verifies NOT NULL and CHECK.
    pub rows: LogicalPlan,
    /// The column list names `_partition`: its value, or NULL, is the last output of `rows`.
    pub partition: bool,
    pub on_conflict: OnConflict,
    pub returning: Option<Returning>,
    pub parameters: Vec<SqlType>,
    /// Relations that `rows` reads, each once.
    pub relations: Vec<RelationId>,
    /// See [`crate::QueryPlan::session_dependent`].
    pub session_dependent: bool,
}

/// What happens to a row whose key is there already.
#[derive(Clone, Debug)]
pub enum OnConflict {
    /// 23505.
    Error,
    /// ON CONFLICT DO NOTHING.
    Nothing,
    /// ON CONFLICT (key) DO UPDATE. Expressions are over the declared columns of the row that is there, under their names,
    /// followed by those of the row that was to be inserted under the names `excluded.<column>`.
    Update {
        /// One expression per declared column: the complete new row.
        assignments: Vec<Expr>,
        /// WHERE: the row stays as it is where this is not true.
        filter: Option<Expr>,
    },
}

/// The prefix under which ON CONFLICT DO UPDATE names the columns of the row that was to be inserted.
pub const EXCLUDED: &str = "excluded.";

/// RETURNING: expressions over the complete (new; for DELETE the old) row's declared columns.
#[derive(Clone, Debug)]
pub struct Returning {
    pub expressions: Vec<Expr>,
    /// Names (may repeat) and types.
    pub columns: Vec<(String, SqlType)>,
}

/// Rows to change. Expressions name the relation's declared columns without a qualifier; parameters in them are bound with
/// [`crate::bind_expression`].
#[derive(Clone, Debug)]
pub struct UpdatePlan {
    pub relation: RelationId,
    /// WHERE over the old row; NULL is not true. `None`: every row.
    pub filter: Option<Expr>,
    /// `WHERE key = constant` for every column of the primary key, in the key's order: expressions without columns, of the
    /// key columns' types. The engine may look the row up; `filter` still holds the whole condition.
    pub point: Option<Vec<Expr>>,
    /// One expression per declared column over the old row: the complete new row. Generated columns keep their old value
    /// here; the engine computes them.
    pub assignments: Vec<Expr>,
    pub returning: Option<Returning>,
    pub parameters: Vec<SqlType>,
    pub session_dependent: bool,
}

/// Rows to remove.
#[derive(Clone, Debug)]
pub struct DeletePlan {
    pub relation: RelationId,
    pub filter: Option<Expr>,
    /// As [`UpdatePlan::point`].
    pub point: Option<Vec<Expr>>,
    pub returning: Option<Returning>,
    pub parameters: Vec<SqlType>,
    pub session_dependent: bool,
}
