//! Sources and sinks: how rows come in from outside, and how results go out.
//!
//! A [`SourceSpec`] is what CREATE SOURCE says about a connector; [`validate_source`] checks it once and answers with the
//! columns; [`open_source`] gives a [`Source`], from the beginning or from a position. A source hands out rows together with
//! the position after them; whoever drives it commits both in one transaction of the log, and opens it again at the newest
//! committed position. **Reopening at a position gives exactly the rows that would have followed it**, so a crash neither
//! loses nor repeats a row. A [`SinkSpec`] and a [`Sink`] are the same for CREATE SINK; what a sink promises is its
//! [`Guarantee`].
//!
//! | connector | source | sink |
//! |---|---|---|
//! | [`nexmark`] | auctions, bids and persons of the Nexmark benchmark, any number of them | |
//! | [`datagen`] | rows made by a rule per column | |
//! | [`file`] | CSV, JSON lines and Parquet of any object store | the same formats, exactly once |
//! | [`blackhole`] | | counts and forgets |
//!
//! Not here: threads, queues, retries, the log. The engine drives connectors; they hold no task of their own and read the
//! clock only to keep to a rate. A new connector is a module, a line in `open_source` or `open_sink`, and its list of
//! options, which is also what an error message shows. Begin at [`source`].

pub mod blackhole;
pub mod datagen;
mod error;
pub mod file;
pub mod nexmark;
pub mod options;
mod rate;
mod sample;
pub mod sink;
pub mod source;

pub use error::ConnectError;
pub use sink::{Guarantee, ResolvedSink, Sink, SinkSpec, open_sink, prepare_sink, validate_sink};
pub use source::{
    DefaultWatermark, Encoding, RejectedRow, ResolvedSource, Source, SourceRows, SourceSpec, SourceStep,
    open_source, validate_source,
};
