//! The promise that a transaction gets when it is submitted.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::{Poll, Waker};

use millpond_types::Commit;
use parking_lot::{Condvar, Mutex};

use crate::LogError;

/// Resolves when its transaction is written, and when it is durable. Dropping it changes nothing.
#[derive(Debug)]
pub struct Ticket(Arc<Shared>);

/// The writer's side. Dropping it unresolved tells the waiters that the log is closed.
#[derive(Debug)]
pub(crate) struct Resolver(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// What a repeated append answers instead of its own commit, which is a later one.
    original: Option<Commit>,
    written: Option<Commit>,
    end: Option<Result<Commit, LogError>>,
    wakers: Vec<Waker>,
}

pub(crate) fn ticket() -> (Resolver, Ticket) {
    let shared = Arc::new(Shared::default());
    (Resolver(Arc::clone(&shared)), Ticket(shared))
}

impl Ticket {
    /// A ticket that failed at once.
    pub(crate) fn failed(error: LogError) -> Self {
        let (resolver, ticket) = ticket();
        resolver.finish(Err(error));
        ticket
    }

    /// Waits until the transaction is durable: it survives any crash from now on.
    ///
    /// # Errors
    /// What the disk said. The transaction may then still turn up after a restart: its fate is unknown.
    pub async fn wait(&self) -> Result<Commit, LogError> {
        self.until(|state| state.end.clone()).await
    }

    /// [`Ticket::wait`] for threads without a runtime.
    pub fn wait_blocking(&self) -> Result<Commit, LogError> {
        let mut state = self.0.state.lock();
        loop {
            if let Some(end) = &state.end {
                return end.clone();
            }
            self.0.changed.wait(&mut state);
        }
    }

    /// Waits until the transaction is written but perhaps not synced: for `synchronous_commit = off`.
    ///
    /// # Errors
    /// As [`Ticket::wait`].
    pub async fn written(&self) -> Result<Commit, LogError> {
        self.until(|state| state.end.clone().or(state.written.map(Ok))).await
    }

    fn until(
        &self,
        ready: impl Fn(&State) -> Option<Result<Commit, LogError>>,
    ) -> impl Future<Output = Result<Commit, LogError>> {
        poll_fn(move |context| {
            let mut state = self.0.state.lock();
            if let Some(result) = ready(&state) {
                return Poll::Ready(result);
            }
            if !state.wakers.iter().any(|waker| waker.will_wake(context.waker())) {
                state.wakers.push(context.waker().clone());
            }
            Poll::Pending
        })
    }
}

impl Resolver {
    /// The transaction repeats one that has this number.
    pub(crate) fn repeats(&self, original: Option<Commit>) {
        self.0.state.lock().original = original;
    }

    pub(crate) fn written(&self, commit: Commit) {
        self.change(|state| state.written = Some(state.original.unwrap_or(commit)));
    }

    pub(crate) fn finish(self, result: Result<Commit, LogError>) {
        self.change(|state| state.end = Some(result.map(|commit| state.original.unwrap_or(commit))));
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.0.state.lock();
        change(&mut state);
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        self.0.changed.notify_all();
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        if self.0.state.lock().end.is_none() {
            self.change(|state| state.end = Some(Err(LogError::Closed)));
        }
    }
}
