//! The outside world behind small traits: clock, disk, object store, randomness.
//!
//! An [`Env`] bundles them and is cheap to clone. [`os`] is the real machine; [`sim`] is a seeded imitation that loses what
//! was not synced, tears the last write, and fails, delays or holds the n-th call, so that every crash can be a test. No
//! other crate touches the operating system's clock, files or randomness (`clippy.toml` enforces it).
//!
//! The seam for objects is [`object_store::ObjectStore`] itself. Not here: what is stored, and sockets, which a simulation
//! has no use for. Begin at [`Disk`]; its contract is what `log` relies on to keep I1.

mod clock;
mod disk;
mod random;

pub mod os;
pub mod sim;

use std::fmt;
use std::sync::Arc;

pub use clock::Clock;
pub use disk::{Disk, DiskFile, DiskLock, Open, is_full};
pub use object_store::ObjectStore;
pub use random::Random;

/// All that is outside of the process, as one value to hand down.
#[derive(Clone)]
pub struct Env {
    pub clock: Arc<dyn Clock>,
    pub disk: Arc<dyn Disk>,
    pub random: Arc<dyn Random>,
    /// Where checkpoints and cold segments go; `None` until the configuration has named a store.
    pub objects: Option<Arc<dyn ObjectStore>>,
}

impl Env {
    /// The real machine, without an object store.
    pub fn os() -> Self {
        Self {
            clock: Arc::new(os::Clock::new()),
            disk: Arc::new(os::Disk),
            random: Arc::new(os::Random),
            objects: None,
        }
    }

    /// The same world with this object store.
    pub fn with_objects(mut self, objects: Arc<dyn ObjectStore>) -> Self {
        self.objects = Some(objects);
        self
    }
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Env").field("disk", &self.disk).field("clock", &self.clock).finish_non_exhaustive()
    }
}
