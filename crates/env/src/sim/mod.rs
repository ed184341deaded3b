//! A seeded imitation of the machine, for tests of crashes and faults.
//!
//! ```
//! use millpond_env::{Disk as _, Open, sim::{Sim, Survivors}};
//! let sim = Sim::new(7);
//! sim.disk.create_dir_all("/d".as_ref())?;
//! let file = sim.disk.open("/d/f".as_ref(), Open::Create)?;
//! file.write_at(b"not synced", 0)?;
//! let after = sim.crash(Survivors::None);
//! assert!(!after.disk.exists("/d/f".as_ref())?, "neither contents nor name were synced");
//! # Ok::<(), std::io::Error>(())
//! ```

mod clock;
mod disk;
mod fault;
mod objects;

use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};

pub use clock::SimClock;
pub use disk::{SimDisk, Survivors};
pub use fault::{Fault, Gate};
pub use objects::SimObjects;

use crate::Env;

/// One simulated machine. Clones share it.
#[derive(Clone, Debug)]
pub struct Sim {
    pub clock: SimClock,
    pub disk: SimDisk,
    pub objects: SimObjects,
    pub random: SimRandom,
}

impl Sim {
    /// An empty machine; equal seeds make equal choices.
    pub fn new(seed: u64) -> Self {
        let random = SimRandom::new(seed);
        Self {
            clock: SimClock::new(),
            disk: SimDisk::new(random.clone()),
            objects: SimObjects::new(),
            random,
        }
    }

    pub fn env(&self) -> Env {
        Env {
            clock: Arc::new(self.clock.clone()),
            disk: Arc::new(self.disk.clone()),
            random: Arc::new(self.random.clone()),
            objects: Some(Arc::new(self.objects.clone())),
        }
    }

    /// The machine as the next process finds it: this disk fails from now on, its locks are free on the new one, faults
    /// that were planned are forgotten. Clock and object store are outside of the crash and stay.
    pub fn crash(&self, survivors: Survivors) -> Self {
        self.objects.heal();
        Self { disk: self.disk.crash(survivors), ..self.clone() }
    }

    /// The machine as a process would find it after a crash now, while this one goes on with a disk of its own.
    pub fn fork(&self, survivors: Survivors) -> Self {
        Self { disk: self.disk.fork(survivors), ..self.clone() }
    }
}

/// A repeatable generator. Clones share it.
#[derive(Clone, Debug)]
pub struct SimRandom(Arc<Mutex<SmallRng>>);

impl SimRandom {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(SmallRng::seed_from_u64(seed))))
    }

    /// A number below `bound`, or 0.
    pub(crate) fn below(&self, bound: usize) -> usize {
        if bound == 0 { 0 } else { (self.0.lock().next_u64() % bound as u64) as usize }
    }
}

impl crate::Random for SimRandom {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().fill_bytes(bytes);
    }
}
