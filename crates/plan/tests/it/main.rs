//! SQL text in; plans, errors and answers out.

mod batch;
mod errors;
mod incremental;
mod query;
mod support;
mod window;
mod writes;
