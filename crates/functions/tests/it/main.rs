//! Statements through DataFusion with this crate's registry, operators and rule, against recorded answers of
//! PostgreSQL 15.

mod expressions;
mod page;
mod session;
