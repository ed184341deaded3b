//! Benchmarks and campaigns: programs, never timed tests.
//!
//! [`oracle`] lives through random databases and compares every view with the batch answer. [`append`], [`catch_up`],
//! [`checkpoint`], [`latency`] and [`recovery`] measure, where there is a limit beside it in the same run: the device's fdatasync, DataFusion's
//! batch.

pub mod append;
pub mod catch_up;
pub mod checkpoint;
pub mod latency;
pub mod no_catalog;
pub mod oracle;
pub mod recovery;
pub mod report;
pub mod storage;
