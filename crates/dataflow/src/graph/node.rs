//! A node.
pub(super) struct Node;
