//! Benchmarks and campaigns: programs, never timed tests.
//!
//! [`oracle`] lives through random databases and compares every view with the batch answer. [`append`], [`catch_up`] and
//! [`latency`] measure, each beside its own limit in the same run: the device's fdatasync, DataFusion's batch.

pub mod append;
pub mod catch_up;
pub mod latency;
mod no_catalog;
pub mod oracle;
pub mod report;
