//! Splitting deltas by hash.
