//! A node: who feeds it, who uses it, and what it does.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use millpond_types::EventTime;

use super::NodeId;
use crate::operator::{Linear, Operator, Router};

pub(super) struct Node {
    pub(super) kind: Kind,
    pub(super) sources: Vec<NodeId>,
    /// A node that uses this one twice stands here twice.
    pub(super) users: Arc<[User]>,
    pub(super) schema: SchemaRef,
    /// Held from outside; anything else goes with its last user.
    pub(super) pinned: bool,
    /// [`EventTime::MIN`]: none.
    pub(super) watermark: EventTime,
    pub(super) rows_in: u64,
    pub(super) rows_out: u64,
    pub(super) busy_nanos: u64,
}

/// A node that reads another: as the how manieth of its sources.
#[derive(Clone, Copy, Debug)]
pub(super) struct User {
    pub(super) node: NodeId,
    pub(super) port: usize,
}

pub(super) enum Kind {
    Input,
    Union,
    Output,
    Linear(Arc<dyn Linear>),
    Keyed(Keyed),
}

/// An operator with state.
pub(super) struct Keyed {
    pub(super) name: &'static str,
    /// One per source.
    pub(super) routers: Vec<Arc<dyn Router>>,
    pub(super) shards: Vec<Box<dyn Operator>>,
    /// How far behind its source's watermark the operator's output may still change; `None`: for ever.
    pub(super) lateness_micros: Option<i64>,
    /// No watermark passes, though the shards use it.
    pub(super) ends_watermark: bool,
    /// Its watermark is that of its last source alone: a clock.
    pub(super) follows_clock: bool,
    /// The watermark that the shards know of.
    pub(super) mark: EventTime,
    /// Rows pushed since the last poll.
    pub(super) pending: usize,
    /// The names of its states in a checkpoint.
    pub(super) states: &'static [&'static str],
}

impl Node {
    pub(super) fn name(&self) -> &'static str {
        match &self.kind {
            Kind::Input => "input",
            Kind::Union => "union",
            Kind::Output => "output",
            Kind::Linear(operator) => operator.name(),
            Kind::Keyed(keyed) => keyed.name,
        }
    }

    pub(super) fn add_user(&mut self, user: User) {
        self.users = self.users.iter().copied().chain([user]).collect();
    }

    /// Takes `user` away once.
    pub(super) fn remove_user(&mut self, user: NodeId) {
        let at = self.users.iter().position(|u| u.node == user);
        self.users = self.users.iter().enumerate().filter(|(n, _)| Some(*n) != at).map(|(_, u)| *u).collect();
    }
}
