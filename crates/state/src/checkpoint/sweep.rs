//! Deleting what nobody needs.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;

use super::Checkpoints;
use super::manifest::Read;
use super::objects::Objects;
use crate::CheckpointError;

impl Checkpoints {
    /// Deletes manifests but the newest few, and runs that none of those names and that no publish of this writer may still
    /// come to name. Returns how many objects were deleted. May run beside publishes and merges.
    ///
    /// Runs of older writers need no grace: those writers are fenced. Runs of newer writers are left alone.
    pub async fn sweep(&self) -> Result<usize, CheckpointError> {
        let objects = &self.0.objects;
        // Before anything is listed: what is uploaded or published from here on is not in question.
        let (unsettled, next) = {
            let unsettled = self.0.unsettled.lock();
            (unsettled.clone(), self.0.sequence.load(Ordering::Relaxed))
        };
        let present = objects.run_objects().await?;
        let Some((needed, oldest_kept)) = self.needed().await? else { return Ok(0) };

        let unneeded = |path: &Path| {
            let Some((epoch, sequence)) = Objects::parse_run_name(path) else { return false };
            let ours = epoch == self.0.writer_epoch;
            let coming =
                epoch > self.0.writer_epoch || (ours && (sequence >= next || unsettled.contains(&sequence)));
            !coming && !needed.contains(path)
        };
        let runs: Vec<Path> = present.into_iter().filter(unneeded).collect();
        let manifests: Vec<u64> =
            objects.manifests().await?.into_iter().filter(|&number| number < oldest_kept).collect();
        let deleted = runs.len() + manifests.len();

        // Manifests go first, so that none is left that names what is gone.
        let concurrency = self.0.options.concurrency.max(1);
        let deletions: Vec<_> =
            manifests.into_iter().map(|number| Box::pin(objects.delete_manifest(number))).collect();
        stream::iter(deletions).buffer_unordered(concurrency).try_collect::<()>().await?;
        let deletions: Vec<_> = runs.iter().map(|path| Box::pin(objects.delete(path))).collect();
        stream::iter(deletions).buffer_unordered(concurrency).try_collect::<()>().await?;
        Ok(deleted)
    }

    /// What the newest manifests name, and the number of the oldest of them. `None` if there are too few to sweep.
    async fn needed(&self) -> Result<Option<(HashSet<Path>, u64)>, CheckpointError> {
        let objects = &self.0.objects;
        let (mut needed, mut kept) = (HashSet::new(), 0);
        for number in objects.manifests().await?.into_iter().rev() {
            match objects.read_manifest(number).await? {
                Some(Read::Whole(manifest)) if manifest.writer_epoch > self.0.writer_epoch => {
                    let (ours, theirs) = (self.0.writer_epoch, manifest.writer_epoch);
                    return Err(CheckpointError::Fenced { ours, theirs });
                }
                Some(Read::Whole(manifest)) => {
                    for run in manifest.runs() {
                        needed.insert(objects.run_path(run)?);
                    }
                    kept += 1;
                    if kept >= self.0.options.manifests_kept.max(2) {
                        return Ok(Some((needed, number)));
                    }
                }
                Some(Read::Begun) | None => {}
            }
        }
        // Fewer than are kept: all of them are, but what none of them names can go.
        Ok((kept > 0).then_some((needed, 0)))
    }
}
