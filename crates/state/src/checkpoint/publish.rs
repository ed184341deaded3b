//! Claiming the writer role, uploading and publishing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use super::manifest::{Change, Manifest, ManifestDraft, NewRun, Read, RunRef, StateEntry};
use super::objects::{Created, Objects};
use super::{Checkpoints, Merged};
use crate::{CheckpointError, EncodedRun};

/// Two writers that start together take turns; more than a few turns mean something else.
const CLAIM_TRIES: usize = 16;

/// A publish meets the leftovers of failed ones before it; a store that calls more numbers taken makes no sense.
const CREATE_TRIES: usize = 64;

/// What publishes hand on to each other.
#[derive(Debug)]
pub(super) struct Role {
    /// The number of the next manifest.
    next: u64,
    /// The epoch of the writer that has taken over.
    fenced_by: Option<u64>,
    /// Runs that publishes have uploaded and that were not published (yet).
    tried: Vec<u64>,
}

impl Role {
    pub fn at(number: u64) -> Self {
        Self { next: number + 1, fenced_by: None, tried: Vec::new() }
    }
}

/// What has a number that this writer wanted.
enum Occupant {
    /// Exactly these bytes: the answer to an earlier call was lost.
    Same,
    /// An earlier manifest of this writer, in which it had lost its belief.
    Own,
    /// Nobody can have been told that it is there.
    Begun,
    Other(u64),
    /// It is gone, or never came.
    Nothing,
}

async fn occupant(objects: &Objects, wanted: &Manifest) -> Result<Occupant, CheckpointError> {
    Ok(match objects.read_manifest(wanted.number).await? {
        None => Occupant::Nothing,
        Some(Read::Begun) => Occupant::Begun,
        Some(Read::Whole(found)) if *found == *wanted => Occupant::Same,
        Some(Read::Whole(found))
            if (found.writer_epoch, found.writer) == (wanted.writer_epoch, wanted.writer) =>
        {
            Occupant::Own
        }
        Some(Read::Whole(found)) => Occupant::Other(found.writer_epoch),
    })
}

/// Creates the next manifest with the next writer epoch.
pub(super) async fn claim(objects: &Objects, writer: u64) -> Result<Manifest, CheckpointError> {
    for _ in 0..CLAIM_TRIES {
        let (newest, highest) = objects.newest().await?;
        let base = newest.unwrap_or_else(Manifest::empty);
        let program = Manifest::empty().program;
        let claim =
            Manifest { number: highest + 1, writer_epoch: base.writer_epoch + 1, writer, program, ..base };
        let bytes = claim.encode();
        let claimed = match objects.create_manifest(claim.number, &bytes).await {
            Ok(Created::Yes) => true,
            Ok(Created::Taken) => matches!(occupant(objects, &claim).await?, Occupant::Same),
            Err(error) => match occupant(objects, &claim).await {
                Ok(Occupant::Same) => true,
                _ => return Err(error),
            },
        };
        if claimed {
            probe(objects, &claim, &bytes).await?;
            return Ok(claim);
        }
    }
    let path = format!("{}/manifest", objects.prefix);
    Err(CheckpointError::Incompatible { path, what: "other writers keep claiming it".to_owned() })
}

/// A store that creates what is there already would let two writers publish side by side.
async fn probe(objects: &Objects, claim: &Manifest, bytes: &Bytes) -> Result<(), CheckpointError> {
    match objects.create_manifest(claim.number, bytes).await {
        Ok(Created::Taken) => Ok(()),
        Ok(Created::Yes) => Err(CheckpointError::NoConditionalPut),
        Err(error) => Err(error),
    }
}

impl Checkpoints {
    /// Uploads a run ahead of the publish that names it. It is kept until a manifest names it or this process ends.
    pub async fn upload(&self, state: &str, run: &EncodedRun) -> Result<RunRef, CheckpointError> {
        let (sequence, target) = self.fresh(state, run);
        match self.0.objects.put_run(&target, &run.bytes).await {
            Ok(()) => Ok(target),
            Err(error) => {
                self.0.unsettled.lock().remove(&sequence);
                Err(error)
            }
        }
    }

    /// A name that was never used. A sweep leaves it alone from now on.
    fn fresh(&self, state: &str, run: &EncodedRun) -> (u64, RunRef) {
        // Under the lock, so that a sweep sees no number that is neither unsettled nor to come.
        let mut unsettled = self.0.unsettled.lock();
        let sequence = self.0.sequence.fetch_add(1, Ordering::Relaxed);
        unsettled.insert(sequence);
        let target = RunRef {
            path: Objects::run_name(state, self.0.writer_epoch, sequence),
            bytes: run.bytes.len() as u64,
            crc32c: crc32c::crc32c(&run.bytes),
            kind: run.kind,
            rows: run.rows,
        };
        (sequence, target)
    }

    /// Uploads the draft's runs, then the manifest.
    ///
    /// # Errors
    /// After `Store` the draft can be given again, alone or with more runs added; should the manifest have come through in
    /// spite of the error, that does no harm. `Fenced` is final.
    pub async fn publish(&self, draft: &ManifestDraft) -> Result<Arc<Manifest>, CheckpointError> {
        let mut role = self.0.role.lock().await;
        if let Some(theirs) = role.fenced_by {
            return Err(self.fenced(theirs));
        }
        let base = self.current();
        if draft.cut < base.cut {
            return Err(CheckpointError::CutWentBack(draft.cut, base.cut));
        }
        let planned = plan(&base, draft)?;
        let states = self.upload_all(planned, &mut role).await?;
        let mut manifest = Manifest {
            number: role.next,
            writer_epoch: self.0.writer_epoch,
            writer: base.writer,
            cut: draft.cut,
            now: draft.now,
            watermarks: draft.watermarks.clone(),
            time_zone_data: draft.time_zone_data.clone(),
            catalog: draft.catalog.clone(),
            extra: draft.extra.clone(),
            states,
            ..Manifest::empty()
        };
        self.create(&mut manifest, &mut role).await?;
        self.check_newest(manifest.number, &mut role).await?;
        let manifest = Arc::new(manifest);
        *self.0.current.lock() = manifest.clone();
        self.settle(&manifest, &draft.merged, &mut role);
        Ok(manifest)
    }

    fn fenced(&self, theirs: u64) -> CheckpointError {
        CheckpointError::Fenced { ours: self.0.writer_epoch, theirs }
    }

    async fn upload_all(
        &self,
        planned: BTreeMap<String, Planned<'_>>,
        role: &mut Role,
    ) -> Result<BTreeMap<String, StateEntry>, CheckpointError> {
        let mut uploads = Vec::new();
        let mut states = BTreeMap::new();
        for (state, planned) in planned {
            let mut runs = Vec::with_capacity(planned.runs.len());
            for run in planned.runs {
                match run {
                    PlannedRun::There(run) => runs.push(run),
                    PlannedRun::New(encoded) => {
                        let (sequence, target) = self.fresh(&state, encoded);
                        // At once: should the caller drop this future, the next publish still knows.
                        role.tried.push(sequence);
                        runs.push(target.clone());
                        uploads.push((target, encoded.bytes.clone()));
                    }
                }
            }
            states.insert(state, StateEntry { fingerprint: planned.fingerprint, runs });
        }
        let objects = &self.0.objects;
        let puts: Vec<_> =
            uploads.iter().map(|(target, bytes)| Box::pin(objects.put_run(target, bytes))).collect();
        let concurrency = self.0.options.concurrency.max(1);
        stream::iter(puts).buffer_unordered(concurrency).try_collect::<()>().await?;
        Ok(states)
    }

    /// Creates the manifest under the first number that is free behind this writer's own.
    async fn create(&self, manifest: &mut Manifest, role: &mut Role) -> Result<(), CheckpointError> {
        let objects = &self.0.objects;
        for _ in 0..CREATE_TRIES {
            manifest.number = role.next;
            let (found, failure) = match objects.create_manifest(role.next, &manifest.encode()).await {
                Ok(Created::Yes) => (Occupant::Same, None),
                Ok(Created::Taken) => (occupant(objects, manifest).await?, None),
                Err(error) => match occupant(objects, manifest).await {
                    Ok(found) => (found, Some(error)),
                    Err(_) => return Err(error),
                },
            };
            match (found, failure) {
                (Occupant::Same, _) => {
                    role.next += 1;
                    return Ok(());
                }
                (Occupant::Other(theirs), _) => {
                    role.fenced_by = Some(theirs);
                    return Err(self.fenced(theirs));
                }
                (_, Some(error)) => return Err(error),
                (Occupant::Own | Occupant::Begun, None) => role.next += 1,
                (Occupant::Nothing, None) => {
                    // Taken a moment ago and gone: swept by a writer that is far ahead.
                    self.check_newest(role.next, role).await?;
                    role.next += 1;
                }
            }
        }
        Err(CheckpointError::NoConditionalPut)
    }

    /// A writer that slept for long may have found its number free again, because newer writers sweep old manifests.
    async fn check_newest(&self, number: u64, role: &mut Role) -> Result<(), CheckpointError> {
        let objects = &self.0.objects;
        for newer in objects.manifests().await?.into_iter().filter(|&other| other > number) {
            if let Some(Read::Whole(found)) = objects.read_manifest(newer).await?
                && found.writer_epoch > self.0.writer_epoch
            {
                role.fenced_by = Some(found.writer_epoch);
                return Err(self.fenced(found.writer_epoch));
            }
        }
        Ok(())
    }

    /// Leaves to the sweep what is published, and what will never be.
    fn settle(&self, manifest: &Manifest, merged: &[Merged], role: &mut Role) {
        let mut unsettled = self.0.unsettled.lock();
        let outputs = merged.iter().map(|merged| &merged.output);
        for run in manifest.runs().chain(outputs) {
            if let Some((epoch, sequence)) = Objects::parse_run_name(&run.path.as_str().into())
                && epoch == self.0.writer_epoch
            {
                unsettled.remove(&sequence);
            }
        }
        for sequence in role.tried.drain(..) {
            unsettled.remove(&sequence);
        }
    }
}

struct Planned<'a> {
    fingerprint: String,
    runs: Vec<PlannedRun<'a>>,
}

enum PlannedRun<'a> {
    There(RunRef),
    New(&'a EncodedRun),
}

/// The runs of each state in the next manifest.
fn plan<'a>(
    base: &Manifest,
    draft: &'a ManifestDraft,
) -> Result<BTreeMap<String, Planned<'a>>, CheckpointError> {
    let mut planned = BTreeMap::new();
    for (state, change) in &draft.states {
        let refused = |why: &str| Err(CheckpointError::Draft(format!("state \"{state}\" {why}")));
        if state.is_empty() {
            return refused("has no name");
        }
        let old = base.states.get(state);
        let (fingerprint, mut runs, new) = match (change, old) {
            (Change::Keep, None) => return refused("is to be kept and is not there"),
            (Change::Keep, Some(old)) => (&old.fingerprint, old.runs.clone(), &[][..]),
            (Change::Add { fingerprint, .. }, Some(old)) if *fingerprint != old.fingerprint => {
                return refused("gets runs of another plan");
            }
            (Change::Add { fingerprint, runs }, old) => {
                (fingerprint, old.map(|old| old.runs.clone()).unwrap_or_default(), &runs[..])
            }
            (Change::Replace { fingerprint, runs }, _) => (fingerprint, vec![], &runs[..]),
        };
        for merged in draft.merged.iter().filter(|merged| merged.state == *state && !merged.inputs.is_empty())
        {
            let inputs = merged.inputs.len();
            if let Some(at) = runs.windows(inputs).position(|window| window == merged.inputs) {
                runs.splice(at..at + inputs, [merged.output.clone()]);
            }
        }
        let new = new.iter().map(|run| match run {
            NewRun::Encoded(run) => PlannedRun::New(run),
            NewRun::Uploaded(run) => PlannedRun::There(run.clone()),
        });
        let runs = runs.into_iter().map(PlannedRun::There).chain(new).collect();
        planned.insert(state.clone(), Planned { fingerprint: fingerprint.clone(), runs });
    }
    Ok(planned)
}
