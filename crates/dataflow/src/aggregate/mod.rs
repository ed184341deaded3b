//! Groups and their accumulators.
//!
//! [`group_by`] and [`hop`] are the operators; both keep [`windows::Windows`], a table per window (or one for all).
//! A [`table::Table`] is slots behind a hash index; [`layout`] says what its words mean, [`key`] and [`accumulator`] how
//! they are read and changed, [`call`] how results are made of them, [`freeze`] how they leave for a checkpoint and return.

mod accumulator;
mod call;
mod freeze;
pub(crate) mod group_by;
pub(crate) mod hop;
pub(crate) mod index;
pub(crate) mod key;
mod late;
mod layout;
mod multiset;
mod order;
pub(crate) mod slots;
mod table;
mod windows;

pub(crate) use freeze::Changes;
pub use freeze::{Frozen, STATE_GROUPS, STATE_VALUES};
pub(crate) use late::refuse as refuse_late;
pub(crate) use windows::is_over;
