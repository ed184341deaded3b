//! INSERT, UPDATE, DELETE as logical pieces that the engine runs.

use datafusion::logical_expr::{Expr, LogicalPlan};
use millpond_types::{RelationId, SqlType};

/// The rows to write, complete.
#[derive(Clone, Debug)]
pub struct InsertPlan {
    pub relation: RelationId,
    /// One output column per declared column of the relation, in order, with its canonical type: given values, defaults,
    /// NULL. Generated columns are NULL here; `generated` computes them. NOT NULL and CHECK are the engine's to verify.
    pub rows: LogicalPlan,
    pub on_conflict: OnConflict,
    pub returning: Option<Returning>,
    pub parameters: Vec<SqlType>,
    pub relations: Vec<RelationId>,
}

/// What happens to a row whose key is there already.
#[derive(Clone, Debug)]
pub enum OnConflict {
    /// 23505.
    Error,
    /// ON CONFLICT DO NOTHING; `target` is the columns named, empty if none.
    Nothing { target: Vec<usize> },
    /// ON CONFLICT … DO UPDATE. Expressions are over [`OnConflict::schema`]: the declared columns of the row that is there,
    /// then those of the row that was to be inserted under the names `excluded.<column>`.
    Update { target: Vec<usize>, assignments: Vec<Expr>, filter: Option<Expr> },
}

/// RETURNING: expressions over the complete (new, for DELETE old) row's declared columns.
#[derive(Clone, Debug)]
pub struct Returning {
    pub expressions: Vec<Expr>,
    pub columns: Vec<(String, SqlType)>,
}

/// Rows to change.
#[derive(Clone, Debug)]
pub struct UpdatePlan {
    pub relation: RelationId,
    /// WHERE over the declared columns; NULL is not true. `None`: every row.
    pub filter: Option<Expr>,
    /// `WHERE key = constant` for every column of the primary key: one expression per key column, without columns (a literal
    /// or parameter), typed as the key. The engine may look the row up; `filter` still holds the whole condition.
    pub point: Option<Vec<Expr>>,
    /// One expression per declared column over the old row: the complete new row.
    pub assignments: Vec<Expr>,
    pub returning: Option<Returning>,
    pub parameters: Vec<SqlType>,
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
}
