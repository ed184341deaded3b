//! What is computed twice becomes one node: a CTE that is named twice, both sides of a self-join, grouping sets over one input.
//!
//! Nodes are looked at from the inputs up, so two of them are equal if they do the same with the same nodes. Late and failed
//! rows of a shared node are told once.

use super::{Node, NodeId};

/// The nodes that the last one stands on, equal ones once; the last one stays the last.
pub(super) fn share(nodes: Vec<Node>) -> Vec<Node> {
    let used = used(&nodes);
    let mut kept: Vec<Node> = Vec::with_capacity(nodes.len());
    let mut places: Vec<NodeId> = Vec::with_capacity(nodes.len());
    for (mut node, used) in nodes.into_iter().zip(used) {
        if !used {
            places.push(NodeId::MAX);
            continue;
        }
        node.inputs.iter_mut().for_each(|input| *input = places[*input]);
        let same = |other: &Node| {
            other.inputs == node.inputs && other.schema == node.schema && other.operator == node.operator
        };
        let place = kept.iter().position(same).unwrap_or_else(|| {
            kept.push(node);
            kept.len() - 1
        });
        places.push(place);
    }
    kept
}

/// Whether the last node needs a node.
fn used(nodes: &[Node]) -> Vec<bool> {
    let mut used = vec![false; nodes.len()];
    if let Some(root) = used.last_mut() {
        *root = true;
    }
    for (at, node) in nodes.iter().enumerate().rev() {
        if used[at] {
            node.inputs.iter().for_each(|input| used[*input] = true);
        }
    }
    used
}
