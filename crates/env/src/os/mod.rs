//! The real machine.
#![allow(
    clippy::disallowed_methods,
    reason = "this module is the one place where the operating system is reached"
)]

mod disk;
mod folder;
mod store;
mod thread;
mod time;

pub use disk::Disk;
pub use store::{StoreError, object_store};
pub use thread::lower_priority;
pub use time::{Clock, Random};
