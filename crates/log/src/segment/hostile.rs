//! What fuzzers give to the decoders of segments, spines and manifests.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use crossbeam_channel::unbounded;
use millpond_env::Disk as _;
use millpond_env::sim::Sim;
use millpond_types::{Commit, EventTime, Offset, PartitionId, RelationId};

use super::manifest::{self, Manifest, SegmentEntry};
use super::reader::RowCursor;
use super::spine::Spine;
use super::{Segment, Store, Tail, tail};
use crate::format::Bad;
use crate::payload::guarded;
use crate::{Log, LogOptions, TopicSpec, Transaction, WriteKind};

const JOURNAL: &str = "/journal";
/// Where the tail begins lies before the bytes of a segment.
const PLACE_BYTES: usize = 4;

pub(crate) fn spine(bytes: &[u8]) -> Result<String, Bad> {
    let groups = Spine::decode(bytes)?.collect::<Result<Vec<_>, _>>()?;
    Ok(format!("groups {}", groups.len().min(3)))
}

pub(crate) fn list(bytes: &[u8]) -> Result<String, Bad> {
    let manifest = Manifest::decode(bytes, 1)?;
    let again = Manifest::decode(&manifest.encode(2), 2).expect("what was encoded can be decoded");
    assert_eq!(again, manifest);
    Ok("sound".to_owned())
}

/// Makes the checksums of a manifest right again.
pub(crate) fn mend_manifest(bytes: &mut Vec<u8>) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some((_, body)) = text.split_once('\n') {
        *bytes = manifest::framed(body, 1);
    }
}

/// Makes the checksums of columns right again, as far as the tail says where they lie.
pub(crate) fn mend_segment(bytes: &mut [u8]) {
    let Some((place, file)) = bytes.split_first_chunk_mut::<PLACE_BYTES>() else { return };
    let tail_at = u32::from_le_bytes(*place) as usize;
    let Some(tail) = file.get(tail_at..) else { return };
    let Ok(tail) = Tail::decode(&Bytes::copy_from_slice(tail)) else { return };
    let columns = tail.parquet.metadata().row_groups().iter().flat_map(|group| group.columns());
    let ranges = columns.map(|column| guarded(|| Ok(column.byte_range())));
    for (n, range) in ranges.take(tail.crcs.len()).enumerate() {
        let Ok((start, length)) = range else { continue };
        let end = start.saturating_add(length);
        let crc = file.get(start as usize..end as usize).map(crc32c::crc32c);
        let at = tail_at + tail::CRCS_AT + 4 * n;
        if let (Some(crc), Some(place)) = (crc, file.get_mut(at..at + 4)) {
            place.copy_from_slice(&crc.to_le_bytes());
        }
    }
}

/// Reads all of a segment whose tail's checksum is believed.
pub(crate) fn segment(bytes: &[u8]) -> Result<String, Bad> {
    let (place, file) = bytes.split_first_chunk::<PLACE_BYTES>().ok_or("short")?;
    let tail_at = u64::from(u32::from_le_bytes(*place)).min(file.len() as u64);
    let entry = SegmentEntry {
        topic: RelationId(7),
        partition: PartitionId(0),
        first: Commit(1),
        last: Commit(9),
        number: 0,
        schema_version: 1,
        kind: WriteKind::Append,
        base_offset: Offset(0),
        end_offset: Offset(9),
        rows: 9,
        frames: 1,
        first_time: EventTime(0),
        last_time: EventTime(9),
        bytes: file.len() as u64,
        tail_at,
        tail_crc32c: crc32c::crc32c(&file[tail_at as usize..]),
        compacted: false,
        uploaded: false,
        local: true,
    };
    let store = Store::new(Sim::new(0).env(), Path::new(JOURNAL), None);
    let path = store.path(entry.local_name());
    store.create_dir().and_then(|()| store.write_file(&path, file)).expect("a simulated disk without faults");
    let segment = Arc::new(Segment::new(&store, entry));
    let words = |error: crate::LogError| error.to_string();
    let tail = store.tail(&segment).map_err(words)?;
    let mut cursor = RowCursor::default();
    for at in tail.frames_between(Commit(0), Commit(u64::MAX)) {
        let frame = super::frame_ref(&segment, &tail, at);
        let (first, rows) = (tail.frames[at].first_row, frame.rows as usize);
        let batch = cursor.rows(&store, &segment, &tail, first, rows).map_err(words)?;
        assert_eq!(batch.num_rows(), rows);
        for column in batch.columns() {
            column.to_data().validate_full().expect("rows that were read are valid");
        }
    }
    Ok("all read".to_owned())
}

/// A segment, a spine and a manifest, made of these transactions.
///
/// # Panics
/// If the log does not work.
pub(crate) fn samples(transactions: Vec<Transaction>) -> [Vec<u8>; 3] {
    let (sim, dir) = (Sim::new(0), Path::new(JOURNAL));
    let (observer, _groups) = unbounded();
    let options = LogOptions { background: false, file_bytes_max: 1, ..LogOptions::default() };
    let (log, _) = Log::open(sim.env(), dir, options, observer).expect("an empty disk");
    for write in transactions.iter().flat_map(|transaction| &transaction.writes) {
        log.declare_topic(write.topic, TopicSpec { partitions: 2 });
    }
    for transaction in transactions {
        log.submit(transaction).wait_blocking().expect("it is durable");
    }
    // It begins a file behind those.
    let last = log.submit(Transaction::default()).wait_blocking().expect("it is durable");
    log.checkpointed(last);
    log.maintain().expect("nothing fails");
    let store = Store::new(sim.env(), dir, None);
    let (number, newest) = super::survey::newest(&store).expect("it was just written");
    let contents = |name: String| sim.disk.contents(&store.path(name));
    let segment = &newest.segments[0];
    let place = (segment.tail_at as u32).to_le_bytes();
    assert!(sim.disk.exists(&store.path(manifest::name(number))).expect("a sound disk"));
    [
        [&place[..], &contents(segment.local_name())].concat(),
        contents(newest.cuts[0].local_name()),
        newest.encode(1),
    ]
}
