//! Operators over rows in order: the first rows of a partition, window functions, and aggregates that need all rows of a
//! group ([`sorted`]).
//!
//! [`store::Store`] keeps all rows of a shard in one ordered map whose keys are the rows themselves ([`codec`]). An epoch's
//! changes are summed up when they have all come, so retractions may stand before their insertions, and each partition
//! that they touch is looked at once: [`top_n`] at its first rows, [`over`] at the neighbourhood of the changes or at all
//! of it ([`frame`], [`evaluate`], [`session`]). [`temporal`] orders rows by the time at which a filter on now() turns ([`span`]), [`asof`]
//! looks from the rows of one side to those of another.

pub(crate) mod asof;
mod codec;
mod evaluate;
mod frame;
pub mod frame_aggregate;
pub(crate) mod over;
mod session;
pub(crate) mod sorted;
pub(crate) mod span;
pub(crate) mod spec;
mod store;
pub(crate) mod temporal;
pub(crate) mod top_n;

pub use asof::STATE_RIGHT_ROWS;
pub(crate) use store::FrozenRows;
pub use store::STATE_ROWS;
