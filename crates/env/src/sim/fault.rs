//! What goes wrong, and at which call.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

/// What happens to one call.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It fails with this kind and changes nothing. A failed sync also throws away what it should have made durable,
    /// though reads still show it, as Linux does.
    Error(io::ErrorKind),
    /// A write keeps its first bytes, then fails with this kind.
    Torn(usize, io::ErrorKind),
    /// The power goes: this call and all later ones fail. What an interrupted write had begun is among the unsynced
    /// changes of which a crash keeps any part.
    PowerOff,
    /// It waits until the gate is opened, then happens.
    Hold(Gate),
    /// It waits until the gate is opened, then fails as [`Fault::Error`] does.
    HeldError(Gate, io::ErrorKind),
    /// It happens, but the caller is told that it failed, as when an answer is lost. Object stores only.
    LostAnswer,
}

/// Holds calls until it is opened.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<(Mutex<GateState>, Condvar)>);

#[derive(Debug, Default)]
struct GateState {
    open: bool,
    waiting: usize,
}

impl Gate {
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets all pass, now and later.
    pub fn open(&self) {
        self.0.0.lock().open = true;
        self.0.1.notify_all();
    }

    /// Blocks until some call waits here.
    pub fn wait_until_reached(&self) {
        let mut state = self.0.0.lock();
        while state.waiting == 0 && !state.open {
            self.0.1.wait(&mut state);
        }
    }

    pub(super) fn pass(&self) {
        let mut state = self.0.0.lock();
        state.waiting += 1;
        self.0.1.notify_all();
        while !state.open {
            self.0.1.wait(&mut state);
        }
        state.waiting -= 1;
    }
}

/// Counts calls and finds their faults.
#[derive(Debug, Default)]
pub(super) struct Faults {
    calls: u64,
    planned: BTreeMap<u64, Fault>,
}

impl Faults {
    /// The number of calls so far; the next one has this number.
    pub(super) fn calls(&self) -> u64 {
        self.calls
    }

    pub(super) fn plan(&mut self, call: u64, fault: Fault) {
        self.planned.insert(call, fault);
    }

    pub(super) fn clear(&mut self) {
        self.planned.clear();
    }

    /// Counts one call.
    pub(super) fn next(&mut self) -> Option<Fault> {
        let fault = self.planned.remove(&self.calls);
        self.calls += 1;
        fault
    }
}
