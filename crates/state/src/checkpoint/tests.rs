use std::collections::BTreeMap;
use std::fmt;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use async_trait::async_trait;
use futures::stream::BoxStream;
use millpond_env::sim::{Fault, Gate, Sim, SimObjects, Survivors};
use millpond_types::Commit;
use object_store::memory::InMemory;
use object_store::*;

use super::manifest::Read;
use super::*;
use crate::{EncodedRun, KeyedRun};

type Table = BTreeMap<i64, i64>;

/// A state id that no path can hold as it is.
const STATE: &str = "view/1 %2F é";

fn run(changes: &[(i64, Option<i64>)]) -> EncodedRun {
    let key: ArrayRef = Arc::new(changes.iter().map(|(key, _)| Some(*key)).collect::<Int64Array>());
    let value: ArrayRef = Arc::new(changes.iter().map(|(_, value)| *value).collect::<Int64Array>());
    let deleted: BooleanArray = changes.iter().map(|(_, value)| Some(value.is_none())).collect();
    let batch = RecordBatch::try_from_iter_with_nullable([("k", key, true), ("v", value, true)]).unwrap();
    KeyedRun::new(1, batch, Some(deleted)).unwrap().encode().unwrap()
}

fn draft(cut: u64, change: Change) -> ManifestDraft {
    ManifestDraft { cut: Commit(cut), states: [(STATE.to_owned(), change)].into(), ..Default::default() }
}

fn add(run: EncodedRun) -> Change {
    Change::Add { fingerprint: "f".to_owned(), runs: vec![NewRun::Encoded(run)] }
}

fn options(writer: u64) -> CheckpointOptions {
    CheckpointOptions::new(writer)
}

async fn open(store: &SimObjects, writer: u64) -> Result<Checkpoints, CheckpointError> {
    // Parts of a few bytes, so that both ways of upload are taken.
    let objects = Objects { store: Arc::new(store.clone()), prefix: Path::from("a/b"), part_bytes: 1_000 };
    Ok(Checkpoints::open_in(objects, options(writer)).await?.0)
}

async fn contents(checkpoints: &Checkpoints, manifest: &Manifest) -> Result<Table, CheckpointError> {
    let Some(entry) = manifest.states.get(STATE) else { return Ok(Table::new()) };
    let runs = checkpoints.read_all(&entry.runs).await?;
    let Run::Keyed(merged) = Run::merge(runs, true).unwrap() else { panic!("not keyed") };
    let mut table = Table::new();
    for part in merged.parts() {
        assert!(part.deleted.as_ref().is_none_or(|deleted| !deleted.has_true()));
        let column = |at: usize| part.batch.column(at).as_primitive::<Int64Type>().values().to_vec();
        table.extend(column(0).into_iter().zip(column(1)));
    }
    Ok(table)
}

/// The changes of the n-th checkpoint: some keys come, some change, some go.
fn changes(n: i64) -> Vec<(i64, Option<i64>)> {
    let put = (0..20).map(|i| ((n * 7 + i) % 50, Some(n * 100 + i)));
    put.chain([(60 + n, Some(n)), (59 + n, None)]).collect()
}

fn model(checkpoints: i64) -> Table {
    let mut table = Table::new();
    for (key, value) in (1..=checkpoints).flat_map(changes) {
        match value {
            Some(value) => table.insert(key, value),
            None => table.remove(&key),
        };
    }
    table
}

async fn objects(store: &SimObjects) -> usize {
    use futures::TryStreamExt;
    store.list(None).try_collect::<Vec<_>>().await.unwrap().len()
}

fn manifest_path(number: u64) -> Path {
    Path::from(format!("a/b/manifest/{number:020}.json"))
}

async fn bytes(store: &SimObjects, path: &Path) -> Vec<u8> {
    store.get(path).await.unwrap().bytes().await.unwrap().to_vec()
}

#[tokio::test]
async fn states_are_kept_extended_and_replaced() {
    let sim = Sim::new(1);
    let it = open(&sim.objects, 1).await.unwrap();
    assert_eq!(it.current().cut, Commit(0));
    it.publish(&draft(1, add(run(&changes(1))))).await.unwrap();
    it.publish(&draft(2, add(run(&changes(2))))).await.unwrap();
    let kept = it.publish(&draft(3, Change::Keep)).await.unwrap();
    assert_eq!((kept.number, kept.states[STATE].runs.len()), (4, 2));
    assert_eq!(contents(&it, &kept).await.unwrap(), model(2));
    let again = open(&sim.objects, 2).await.unwrap();
    let manifest = again.current();
    assert_eq!((manifest.number, manifest.writer_epoch, manifest.cut), (5, 2, Commit(3)));
    let uploaded = again.upload(STATE, &run(&changes(1))).await.unwrap();
    let replace = Change::Replace { fingerprint: "g".to_owned(), runs: vec![NewRun::Uploaded(uploaded)] };
    let replaced = again.publish(&draft(3, replace)).await.unwrap();
    assert_eq!(contents(&again, &replaced).await.unwrap(), model(1));
    let none = ManifestDraft { cut: Commit(4), ..Default::default() };
    assert!(again.publish(&none).await.unwrap().states.is_empty());
    let newest =
        Checkpoints::newest(Arc::new(sim.objects.clone()), Path::from("a/b")).await.unwrap().unwrap();
    assert_eq!(newest, *again.current());
    assert!(Checkpoints::newest(Arc::new(sim.objects), Path::from("b")).await.unwrap().is_none());
}

#[tokio::test]
async fn drafts_that_contradict_the_manifest_are_refused() {
    let it = open(&Sim::new(1).objects, 1).await.unwrap();
    let message = async |draft| it.publish(&draft).await.unwrap_err().to_string();
    let expected = format!("checkpoint draft is refused: state \"{STATE}\" is to be kept and is not there");
    assert_eq!(message(draft(1, Change::Keep)).await, expected);
    it.publish(&draft(5, add(run(&changes(1))))).await.unwrap();
    let other = Change::Add { fingerprint: "g".to_owned(), runs: vec![] };
    let expected = format!("checkpoint draft is refused: state \"{STATE}\" gets runs of another plan");
    assert_eq!(message(draft(6, other)).await, expected);
    let expected = "the cut 4 is before the cut 5 of the newest checkpoint";
    assert_eq!(message(draft(4, Change::Keep)).await, expected);
    assert_eq!(contents(&it, &it.current()).await.unwrap(), model(1));
}

#[tokio::test]
async fn a_second_writer_fences_the_first() {
    let sim = Sim::new(1);
    let first = open(&sim.objects, 1).await.unwrap();
    first.publish(&draft(1, add(run(&changes(1))))).await.unwrap();
    let second = open(&sim.objects, 2).await.unwrap();
    for _ in 0..2 {
        let error = first.publish(&draft(2, Change::Keep)).await.unwrap_err();
        assert!(matches!(error, CheckpointError::Fenced { ours: 1, theirs: 2 }), "{error}");
    }
    assert!(matches!(first.sweep().await.unwrap_err(), CheckpointError::Fenced { .. }));
    let manifest = second.publish(&draft(2, add(run(&changes(2))))).await.unwrap();
    assert_eq!(contents(&second, &manifest).await.unwrap(), model(2));
}

/// Its number is free again, as newer manifests were published and old ones swept.
#[tokio::test]
async fn a_writer_that_slept_for_long_is_fenced() {
    let sim = Sim::new(1);
    let first = open(&sim.objects, 1).await.unwrap();
    first.publish(&draft(1, add(run(&changes(1))))).await.unwrap();
    let second = open(&sim.objects, 2).await.unwrap();
    for cut in 2..9 {
        second.publish(&draft(cut, Change::Keep)).await.unwrap();
    }
    second.sweep().await.unwrap();
    sim.objects.head(&manifest_path(3)).await.unwrap_err();
    let error = first.publish(&draft(9, Change::Keep)).await.unwrap_err();
    assert!(matches!(error, CheckpointError::Fenced { ours: 1, theirs: 2 }), "{error}");
    assert_eq!(open(&sim.objects, 3).await.unwrap().current().cut, Commit(8));
}

#[tokio::test]
async fn writers_that_start_together_take_turns() {
    let sim = Sim::new(1);
    let gate = Gate::new();
    // The first call lists, the second claims.
    sim.objects.fault_at(1, Fault::Hold(gate.clone()));
    let store = sim.objects.clone();
    let slow = tokio::spawn(async move { open(&store, 1).await });
    let reached = gate.clone();
    tokio::task::spawn_blocking(move || reached.wait_until_reached()).await.unwrap();
    let quick = open(&sim.objects, 2).await.unwrap();
    quick.publish(&draft(1, add(run(&changes(1))))).await.unwrap();
    gate.open();
    let slow = slow.await.unwrap().unwrap();
    assert_eq!((quick.writer_epoch(), slow.writer_epoch()), (1, 2));
    assert_eq!(contents(&slow, &slow.current()).await.unwrap(), model(1));
    assert!(matches!(quick.publish(&draft(2, Change::Keep)).await, Err(CheckpointError::Fenced { .. })));
}

/// What a server does: checkpoints, merges, sweeps. A failed publish is given again, with more runs added.
struct Server {
    checkpoints: Checkpoints,
    pending: Vec<NewRun>,
    merged: Vec<Merged>,
    acknowledged: i64,
}

const CHECKPOINTS: i64 = 8;

impl Server {
    async fn start(store: &SimObjects) -> Result<Self, CheckpointError> {
        let checkpoints = open(store, 1).await?;
        Ok(Self { checkpoints, pending: vec![], merged: vec![], acknowledged: 0 })
    }

    async fn checkpoint(&mut self, n: i64) -> Result<(), CheckpointError> {
        self.pending.push(NewRun::Encoded(run(&changes(n))));
        let add = Change::Add { fingerprint: "f".to_owned(), runs: self.pending.clone() };
        let draft = ManifestDraft { merged: self.merged.clone(), ..draft(n as u64, add) };
        self.checkpoints.publish(&draft).await?;
        (self.pending, self.merged, self.acknowledged) = (vec![], vec![], n);
        Ok(())
    }

    async fn maintain(&mut self) -> Result<(), CheckpointError> {
        if self.merged.is_empty() {
            for job in self.checkpoints.plan_merges() {
                self.merged.push(self.checkpoints.merge(&job).await?);
            }
        }
        self.checkpoints.sweep().await?;
        Ok(())
    }
}

/// Runs a server in which the n-th call meets a fault; gives up at errors once the power is gone.
async fn serve(store: &SimObjects, power: bool) -> Result<Server, CheckpointError> {
    let tolerate = |result: Result<(), CheckpointError>| match result {
        Err(CheckpointError::Store { .. }) if power => Ok(()),
        other => other,
    };
    let mut server = match Server::start(store).await {
        Err(CheckpointError::Store { .. }) if power => Server::start(store).await?,
        other => other?,
    };
    for n in 1..=CHECKPOINTS {
        if let Err(error) = tolerate(server.checkpoint(n).await) {
            assert!(!power, "{error}");
            return Ok(server);
        }
        if let Err(error) = tolerate(server.maintain().await) {
            assert!(!power, "{error}");
            return Ok(server);
        }
    }
    Ok(server)
}

async fn calls_of_a_server() -> u64 {
    let sim = Sim::new(1);
    let server = serve(&sim.objects, true).await.unwrap();
    assert_eq!(server.acknowledged, CHECKPOINTS);
    assert!(server.checkpoints.current().runs().count() < CHECKPOINTS as usize, "nothing was merged");
    sim.objects.calls()
}

#[tokio::test]
async fn one_failed_call_loses_nothing() {
    for call in 0..calls_of_a_server().await {
        for fault in [Fault::Error(std::io::ErrorKind::TimedOut), Fault::LostAnswer] {
            let sim = Sim::new(call);
            sim.objects.fault_at(call, fault.clone());
            let mut server = serve(&sim.objects, true).await.unwrap();
            sim.objects.heal();
            server.checkpoint(CHECKPOINTS + 1).await.unwrap();
            let manifest = open(&sim.objects, 2).await.unwrap().current();
            assert_eq!(manifest.cut, Commit(CHECKPOINTS as u64 + 1), "call {call} {fault:?}");
            let table = contents(&server.checkpoints, &manifest).await.unwrap();
            assert_eq!(table, model(CHECKPOINTS + 1), "call {call} {fault:?}");
        }
    }
}

#[tokio::test]
async fn a_crash_at_any_call_keeps_the_last_checkpoint() {
    for call in 0..calls_of_a_server().await {
        let sim = Sim::new(call);
        sim.objects.fault_at(call, Fault::PowerOff);
        let acknowledged = serve(&sim.objects, false).await.map_or(0, |server| server.acknowledged);
        let sim = sim.crash(Survivors::None);
        let it = open(&sim.objects, 2).await.unwrap();
        let cut = it.current().cut.0 as i64;
        assert!(cut == acknowledged || cut == acknowledged + 1, "call {call}: {cut} after {acknowledged}");
        assert_eq!(contents(&it, &it.current()).await.unwrap(), model(cut), "call {call}");
        // Whatever the crash has left behind is swept as soon as enough manifests are new.
        for _ in 0..3 {
            it.publish(&draft(cut as u64, if cut > 0 { Change::Keep } else { add(run(&[])) })).await.unwrap();
        }
        it.sweep().await.unwrap();
        let (manifests, runs) = (3, it.current().runs().count());
        assert!(objects(&sim.objects).await <= manifests + runs + 2, "call {call}");
        assert_eq!(contents(&it, &it.current()).await.unwrap(), model(cut), "call {call}");
    }
}

#[tokio::test]
async fn a_manifest_that_was_only_begun_is_passed_over() {
    let sim = Sim::new(1);
    let it = open(&sim.objects, 1).await.unwrap();
    it.publish(&draft(1, add(run(&changes(1))))).await.unwrap();
    let whole = bytes(&sim.objects, &manifest_path(2)).await;
    for (number, length) in [(3, whole.len() - 1), (4, 0)] {
        sim.objects.put(&manifest_path(number), whole[..length].to_vec().into()).await.unwrap();
    }
    assert_eq!(open(&sim.objects, 2).await.unwrap().current().number, 5);
    // A writer passes over it as well.
    let it = open(&sim.objects, 3).await.unwrap();
    sim.objects.put(&manifest_path(7), whole[..9].to_vec().into()).await.unwrap();
    let manifest = it.publish(&draft(2, add(run(&changes(2))))).await.unwrap();
    assert_eq!(manifest.number, 8);
    assert_eq!(contents(&it, &manifest).await.unwrap(), model(2));
    // The very first one may be so, too.
    let sim = Sim::new(1);
    sim.objects.put(&manifest_path(1), whole[..9].to_vec().into()).await.unwrap();
    assert_eq!(open(&sim.objects, 1).await.unwrap().current().number, 2);
    // But not the only one that is left of many.
    let sim = Sim::new(1);
    sim.objects.put(&manifest_path(9), whole[..9].to_vec().into()).await.unwrap();
    assert!(matches!(open(&sim.objects, 1).await, Err(CheckpointError::Corrupt { .. })));
}

#[tokio::test]
async fn damage_is_named_and_refused() {
    let sim = Sim::new(1);
    let it = open(&sim.objects, 1).await.unwrap();
    let manifest = it.publish(&draft(1, add(run(&changes(1))))).await.unwrap();
    let entry = &manifest.states[STATE].runs[0];
    let path = it.0.objects.run_path(entry).unwrap();
    let good = bytes(&sim.objects, &path).await;
    let mut flipped = good.clone();
    flipped[100] ^= 1;
    let message = async || contents(&it, &manifest).await.unwrap_err().to_string();
    sim.objects.put(&path, flipped.into()).await.unwrap();
    let text = message().await;
    assert!(text.contains(path.as_ref()) && text.contains("its checksum is"), "{text}");
    sim.objects.put(&path, good[..good.len() - 1].to_vec().into()).await.unwrap();
    assert!(message().await.contains("bytes, but its manifest says"), "{}", message().await);
    sim.objects.delete(&path).await.unwrap();
    assert_eq!(message().await, format!("object \"{path}\" is missing"));

    let path = manifest_path(2);
    let mut flipped = bytes(&sim.objects, &path).await;
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    sim.objects.put(&path, flipped.into()).await.unwrap();
    let text = open(&sim.objects, 2).await.unwrap_err().to_string();
    assert!(text.starts_with(&format!("object \"{path}\" is corrupt: its checksum is")), "{text}");
    let other = bytes(&sim.objects, &manifest_path(1)).await;
    sim.objects.put(&path, other.into()).await.unwrap();
    let text = open(&sim.objects, 2).await.unwrap_err().to_string();
    assert_eq!(text, format!("object \"{path}\" is corrupt: it is manifest 1"));
}

#[tokio::test]
async fn another_hash_or_format_is_refused() {
    let sim = Sim::new(1);
    let it = open(&sim.objects, 1).await.unwrap();
    let other = Manifest { hash_version: 99, number: 2, ..(*it.current()).clone() };
    sim.objects.put(&manifest_path(2), other.encode().into()).await.unwrap();
    let error = open(&sim.objects, 2).await.unwrap_err();
    assert!(
        matches!(&error, CheckpointError::Incompatible { what, .. } if what.contains("hash has version 99"))
    );
    let text =
        String::from_utf8(other.encode().to_vec()).unwrap().replacen("\"format\":1", "\"format\":7", 1);
    sim.objects.put(&manifest_path(2), text.into()).await.unwrap();
    let error = open(&sim.objects, 2).await.unwrap_err();
    assert!(matches!(&error, CheckpointError::Incompatible { what, .. } if what.contains("format is 7")));
}

#[tokio::test]
async fn a_sweep_spares_what_may_still_be_published() {
    let sim = Sim::new(1);
    let it = open(&sim.objects, 1).await.unwrap();
    let early = it.upload(STATE, &run(&changes(1))).await.unwrap();
    let never = it.upload(STATE, &run(&changes(9))).await.unwrap();
    for cut in 1..6 {
        let replace =
            Change::Replace { fingerprint: "f".to_owned(), runs: vec![NewRun::Encoded(run(&changes(5)))] };
        it.publish(&draft(cut, replace)).await.unwrap();
        it.sweep().await.unwrap();
    }
    // Three manifests with a run each, and the two uploads.
    assert_eq!(objects(&sim.objects).await, 3 + 3 + 2);
    let change = Change::Replace { fingerprint: "f".to_owned(), runs: vec![NewRun::Uploaded(early)] };
    let manifest = it.publish(&draft(6, change)).await.unwrap();
    assert_eq!(contents(&it, &manifest).await.unwrap(), model(1));
    // The next writer knows that nobody will publish the other one.
    let next = open(&sim.objects, 2).await.unwrap();
    next.sweep().await.unwrap();
    assert!(matches!(next.read(&never).await, Err(CheckpointError::Missing { .. })));
    assert_eq!(contents(&next, &next.current()).await.unwrap(), model(1));
}

#[tokio::test]
async fn a_merge_of_what_was_replaced_is_passed_over() {
    let sim = Sim::new(1);
    let it = open(&sim.objects, 1).await.unwrap();
    for n in 1..5 {
        it.publish(&draft(n as u64, add(run(&changes(n))))).await.unwrap();
    }
    let job = it.plan_merges().pop().unwrap();
    assert!(job.bottom && job.inputs.len() == 4);
    let merged = it.merge(&job).await.unwrap();
    let replace =
        Change::Replace { fingerprint: "f".to_owned(), runs: vec![NewRun::Encoded(run(&changes(1)))] };
    let manifest =
        it.publish(&ManifestDraft { merged: vec![merged.clone()], ..draft(5, replace) }).await.unwrap();
    assert_eq!(contents(&it, &manifest).await.unwrap(), model(1));
    it.publish(&draft(6, Change::Keep)).await.unwrap();
    it.publish(&draft(7, Change::Keep)).await.unwrap();
    it.sweep().await.unwrap();
    assert!(matches!(it.read(&merged.output).await, Err(CheckpointError::Missing { .. })));
}

/// Of 100,000 groups 100 change: the checkpoint writes about a thousandth, merges included a small multiple.
#[tokio::test]
async fn bytes_written_follow_the_changes() {
    let it = open(&Sim::new(1).objects, 1).await.unwrap();
    let all: Vec<_> = (0..100_000).map(|key| (key, Some(key * 31))).collect();
    it.publish(&draft(1, add(run(&all)))).await.unwrap();
    let base: u64 = it.current().runs().map(|run| run.bytes).sum();
    let mut written = 0;
    for n in 2..42 {
        let changes: Vec<_> = (0..100).map(|i| ((i * 997 + n * 13) % 100_000, Some(n))).collect();
        let changed = run(&changes);
        written += changed.bytes.len() as u64;
        let mut merged = Vec::new();
        for job in it.plan_merges() {
            merged.push(it.merge(&job).await.unwrap());
        }
        written += merged.iter().map(|merged| merged.output.bytes).sum::<u64>();
        it.publish(&ManifestDraft { merged, ..draft(n as u64, add(changed)) }).await.unwrap();
    }
    let each = written / 40;
    assert!(each * 200 < base, "{each} bytes for each checkpoint of a state of {base} bytes");
    assert!(it.current().runs().count() <= 9);
}

/// A store that takes `Create` for `Overwrite`.
#[derive(Debug)]
struct Careless(InMemory);

impl fmt::Display for Careless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("careless")
    }
}

#[async_trait]
impl ObjectStore for Careless {
    async fn put_opts(&self, location: &Path, payload: PutPayload, _: PutOptions) -> Result<PutResult> {
        self.0.put(location, payload).await
    }
    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(location, options).await
    }
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.0.get_opts(location, options).await
    }
    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(locations)
    }
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }
    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }
    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}

#[tokio::test]
async fn a_store_that_cannot_create_is_refused() {
    let store = Arc::new(Careless(InMemory::new()));
    let error = Checkpoints::open(store, Path::default(), options(1)).await.unwrap_err();
    assert!(matches!(error, CheckpointError::NoConditionalPut));
}

/// The engine runs these on tokio's threads.
#[tokio::test]
async fn futures_may_move_between_threads() {
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (it, _) = is_send(Checkpoints::open(store.clone(), Path::default(), options(1))).await.unwrap();
    let empty = ManifestDraft::default();
    is_send(it.publish(&empty)).await.unwrap();
    is_send(it.sweep()).await.unwrap();
    is_send(it.read_all(&[])).await.unwrap();
    assert!(is_send(Checkpoints::newest(store, Path::default())).await.unwrap().is_some());
    let job = MergeJob { state: "s".to_owned(), inputs: vec![], bottom: true };
    assert!(matches!(is_send(it.merge(&job)).await, Err(CheckpointError::Merge(_))));
    assert!(matches!(it.0.objects.read_manifest(2).await, Ok(Some(Read::Whole(_)))));
}
