//! Hostile bytes for every decoder, from outside: for fuzzers.
//!
//! The first byte of an input chooses a decoder ([`TARGETS`]), the rest is what it gets. [`check`] panics if a decoder does,
//! or if it takes bytes that it should not. A mutated journal is stopped by its first checksum, so [`mutate`] may mend
//! checksums afterwards, as far as it can find them: then the lies behind them are told, too.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, ListArray, RecordBatch, StringArray};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, Int32Type, Schema};
use crossbeam_channel::unbounded;
use millpond_env::sim::Sim;
use millpond_env::{Disk as _, Open, Random};
use millpond_types::{Commit, EventTime, PartitionId, RelationId};

use crate::format::{
    FileHeader, ItemHeader, PRELUDE_BYTES, Skip, decode_record, decode_skips, encode_record, encode_skips,
    header_bytes_claimed,
};
use crate::payload::{BatchEncoder, decode_batch, decode_schema};
use crate::segment::hostile;
use crate::{Log, LogOptions, Offline, Producer, Record, TopicSpec, Transaction, Write, WriteKind};

/// What the first byte of an input means, modulo their number.
pub const TARGETS: [&str; 10] = [
    "journal",
    "item header",
    "record",
    "schema",
    "batch",
    "skips",
    "file header",
    "segment",
    "spine",
    "manifest",
];

const KIND_COMMIT: u8 = 3;

/// The columns of the batches of the corpus.
pub fn schema() -> Schema {
    let item = Arc::new(Field::new("item", DataType::Int32, true));
    Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("text", DataType::Utf8, true),
        Field::new("flag", DataType::Boolean, true),
        Field::new("list", DataType::List(item), true),
    ])
}

/// Gives an input to its decoder. Returns how far it came, in words without numbers: two inputs that come equally far are
/// much alike, and a fuzzer without a view of the code goes on with those that come somewhere new.
///
/// # Panics
/// If there is a bug.
pub fn check(input: &[u8]) -> String {
    let Some((target, bytes)) = input.split_first() else { return String::new() };
    let target = usize::from(*target) % TARGETS.len();
    let outcome = match target {
        0 => journal(bytes),
        1 => ItemHeader::decode(bytes).map(|header| {
            let mut again = Vec::new();
            let crc = ItemHeader::encode(&header.prelude, &header.body, &mut again);
            let decoded = ItemHeader::decode(&again).expect("what was encoded can be decoded");
            assert_eq!((&decoded.body, decoded.crc), (&header.body, crc));
            "sound".to_owned()
        }),
        2 => match bytes.split_first() {
            Some((tag, payload)) => decode_record(u16::from(*tag), payload).map(|_| format!("record {tag}")),
            None => Err("empty".to_owned()),
        },
        3 => decode_schema(bytes).map(|_| "sound".to_owned()),
        4 => match bytes.split_first() {
            Some((rows, payload)) => batch(u32::from(*rows), payload),
            None => Err("empty".to_owned()),
        },
        5 => decode_skips(bytes).map(|_| "sound".to_owned()),
        6 => match bytes.first_chunk::<{ FileHeader::BYTES }>() {
            Some(header) => FileHeader::decode(header).map(|_| "sound".to_owned()),
            None => Err("short".to_owned()),
        },
        7 => hostile::segment(bytes),
        8 => hostile::spine(bytes),
        _ => hostile::list(bytes),
    };
    let words = outcome.unwrap_or_else(|why| why);
    let words: String = words.chars().filter(|c| !c.is_ascii_digit()).take(200).collect();
    format!("{}: {words}", TARGETS[target])
}

fn batch(rows: u32, payload: &[u8]) -> Result<String, String> {
    let batch = decode_batch(&Buffer::from(payload), &Arc::new(schema()), rows, None)?;
    assert_eq!(batch.num_rows(), rows as usize);
    for column in batch.columns() {
        column.to_data().validate_full().expect("a batch that was decoded is valid");
    }
    Ok("sound".to_owned())
}

/// Opens a journal of one file, reads all of it, appends to it; else surveys and repairs it.
fn journal(bytes: &[u8]) -> Result<String, String> {
    let dir = Path::new("/journal");
    let sim = Sim::new(0);
    let write = || {
        sim.disk.create_dir_all(dir)?;
        let file = sim.disk.open(&dir.join(format!("{:020}.log", 1)), Open::Create)?;
        file.write_at(bytes, 0)?;
        file.sync_data()
    };
    write().expect("a simulated disk without faults");
    let first = read(&sim, dir);
    let Err(why) = first else { return first };
    let repaired = {
        let journal = Offline::open(&sim.env(), dir).expect("nobody else has it");
        journal.survey(false, &mut |_| ()).expect("damage is no error of a survey");
        journal.repair().is_ok()
    };
    // A repair mends what a survey finds; bytes that lie about what they mean may still be refused.
    let second = if repaired { read(&sim, dir).unwrap_or_else(|why| why) } else { "no repair".to_owned() };
    Err(format!("{why}; {second}"))
}

fn read(sim: &Sim, dir: &Path) -> Result<String, String> {
    let (observer, _groups) = unbounded();
    let opened = Log::open(sim.env(), dir, LogOptions::default(), observer);
    let (log, recovered) = opened.map_err(|error| error.to_string())?;
    let mut end = "all read".to_owned();
    for group in log.replay(Commit(0), Commit(u64::MAX)) {
        match group {
            Ok(group) => {
                for column in group.frames.iter().flat_map(|frame| frame.batch.columns()) {
                    column.to_data().validate_full().expect("a frame that was read is valid");
                }
            }
            Err(error) => end = error.to_string(),
        }
    }
    let appended = log.submit(Transaction::default()).wait_blocking();
    let cut = recovered.cut.map_or_else(String::new, |cut| cut.reason);
    Ok(format!("{end}, {cut}, {}", appended.is_ok()))
}

fn below(random: &dyn Random, bound: usize) -> usize {
    if bound == 0 { 0 } else { (random.next_u64() % bound as u64) as usize }
}

/// Changes an input a little; of two journals it may make one.
pub fn mutate(random: &dyn Random, input: &mut Vec<u8>, other: &[u8]) {
    const NUMBERS: [u64; 8] = [0, 1, 7, 8, 0xffff, u32::MAX as u64, i64::MAX as u64, u64::MAX];
    for _ in 0..=below(random, 4) {
        if input.len() < 2 {
            return;
        }
        let at = 1 + below(random, input.len() - 1);
        match below(random, 9) {
            0 => input[at] ^= 1 << below(random, 8),
            1 => input[at] = random.next_u64() as u8,
            2 => input[at] = input[at].wrapping_add(1),
            3 => {
                let width = [1, 2, 4, 8][below(random, 4)].min(input.len() - at);
                let number = NUMBERS[below(random, NUMBERS.len())].to_le_bytes();
                input[at..at + width].copy_from_slice(&number[..width]);
            }
            4 => input.truncate(at),
            5 => {
                let end = at + below(random, input.len() - at);
                input.drain(at..end);
            }
            6 => {
                let end = at + below(random, (input.len() - at).min(400));
                let piece = input[at..end].to_vec();
                input.splice(at..at, piece);
            }
            7 if !other.is_empty() => {
                let from = below(random, other.len());
                let piece = &other[from..from + below(random, (other.len() - from).min(400))];
                let end = (at + piece.len()).min(input.len());
                input.splice(at..end, piece.iter().copied());
            }
            _ => input.extend((0..below(random, 64)).map(|_| random.next_u64() as u8)),
        }
    }
    if below(random, 3) > 0 {
        mend(input);
    }
}

/// Makes the checksums of a journal, or of one header, right again.
pub fn mend(input: &mut Vec<u8>) {
    let Some((target, bytes)) = input.split_first_mut() else { return };
    match usize::from(*target) % TARGETS.len() {
        0 => mend_journal(bytes),
        1 if bytes.len() >= PRELUDE_BYTES => {
            mend_header(bytes);
        }
        6 if bytes.len() >= FileHeader::BYTES => {
            mend_file_header(bytes);
        }
        7 => hostile::mend_segment(bytes),
        9 => {
            let mut manifest = input.split_off(1);
            hostile::mend_manifest(&mut manifest);
            input.append(&mut manifest);
        }
        _ => {}
    }
}

fn mend_file_header(bytes: &mut [u8]) -> u32 {
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    crc
}

fn mend_header(header: &mut [u8]) -> u32 {
    let crc = crc32c::crc32c_append(crc32c::crc32c(&header[..28]), &header[32..]);
    header[28..32].copy_from_slice(&crc.to_le_bytes());
    crc
}

fn mend_journal(bytes: &mut [u8]) {
    if bytes.len() < FileHeader::BYTES {
        return;
    }
    let mut previous = mend_file_header(bytes);
    let (mut at, mut group_at, mut items) = (FileHeader::BYTES, FileHeader::BYTES, Vec::new());
    while let Some(head) = bytes.get(at..at + PRELUDE_BYTES) {
        let Ok(header) = header_bytes_claimed(head) else { return };
        let payload = u64::from_le_bytes(head[16..24].try_into().expect("eight bytes"));
        let padded = payload.checked_next_multiple_of(8).and_then(|n| usize::try_from(n).ok());
        let end = padded.and_then(|padded| (at + header).checked_add(padded));
        let Some(end) = end.filter(|end| *end <= bytes.len()) else { return };
        let payload_crc = crc32c::crc32c(&bytes[at + header..end]);
        let head = &mut bytes[at..at + header];
        head[12..16].copy_from_slice(&previous.to_le_bytes());
        head[24..28].copy_from_slice(&payload_crc.to_le_bytes());
        let is_commit = head[4] == KIND_COMMIT;
        if is_commit && header >= 64 + 4 * items.len() {
            for (n, crc) in items.iter().enumerate() {
                let crc: u32 = *crc;
                head[64 + 4 * n..68 + 4 * n].copy_from_slice(&crc.to_le_bytes());
            }
            if items.len() as u32 == u32::from_le_bytes(head[48..52].try_into().expect("four bytes")) {
                head[56..64].copy_from_slice(&((at - group_at) as u64).to_le_bytes());
            }
        }
        previous = mend_header(head);
        if is_commit {
            items.clear();
            group_at = end;
        } else {
            items.push(previous);
        }
        at = end;
    }
}

/// Small inputs for every decoder, to begin with: what the files of `corpus/` were made of.
///
/// # Panics
/// If the log does not work.
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    let mut add = |name: &str, target: u8, bytes: Vec<u8>| {
        all.push((name.to_owned(), [&[target][..], &bytes].concat()));
    };
    for (name, rows, close) in [("journal-closed", 1, true), ("journal-crashed", 3, false)] {
        add(name, 0, small_journal(rows, close));
    }
    let journal = small_journal(1, true);
    let file_header = FileHeader::BYTES;
    let mut at = file_header;
    for number in 0.. {
        let Some(head) = journal.get(at..at + PRELUDE_BYTES) else { break };
        let header = header_bytes_claimed(head).expect("a sound header");
        add(&format!("header-{number}"), 1, journal[at..at + header].to_vec());
        let payload = u64::from_le_bytes(head[16..24].try_into().expect("eight bytes"));
        at += header + payload.next_multiple_of(8) as usize;
    }
    let rows = rows(3);
    let (mut encoder, schema) = BatchEncoder::new(&rows.schema()).expect("a schema that the log stores");
    let mut payload = vec![rows.num_rows() as u8];
    encoder.encode(&rows, &mut payload).expect("a batch of it");
    add("schema", 3, schema);
    add("batch", 4, payload);
    let topic = RelationId(7);
    for record in [
        Record::Ddl("a change".into()),
        Record::Tick(EventTime(5)),
        Record::AdvanceWatermark { topic, to: EventTime(6) },
        Record::PartitionIdle { topic, partition: PartitionId(1) },
    ] {
        let (tag, payload) = encode_record(&record);
        add(&format!("record-{tag}"), 2, [&[tag as u8][..], &payload].concat());
    }
    let skip =
        |from, lost| Skip { from, to: from + 64, lost: Commit(lost), next: Commit(lost + 1), previous: 9 };
    add("skips", 5, encode_skips(7, &[skip(64, 1), skip(512, 4)]));
    add("file-header", 6, journal[..file_header].to_vec());
    let [segment, spine, manifest] = hostile::samples(small_transactions(3));
    add("segment", 7, segment);
    add("spine", 8, spine);
    add("manifest", 9, manifest);
    all
}

fn rows(rows: i64) -> RecordBatch {
    let list = (0..rows).map(|row| (row != 1).then(|| vec![Some(row as i32), None]));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(0..rows)),
        Arc::new(StringArray::from_iter((0..rows).map(|row| (row != 2).then_some("text")))),
        Arc::new(BooleanArray::from_iter((0..rows).map(|row| Some(row == 0)))),
        Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(list)),
    ];
    RecordBatch::try_new(Arc::new(schema()), columns).expect("columns of the schema")
}

fn small_journal(n: i64, close: bool) -> Vec<u8> {
    let (sim, dir) = (Sim::new(0), Path::new("/journal"));
    let (observer, _groups) = unbounded();
    let (log, _) = Log::open(sim.env(), dir, LogOptions::default(), observer).expect("an empty disk");
    log.declare_topic(RelationId(7), TopicSpec { partitions: 2 });
    for transaction in small_transactions(n) {
        log.submit(transaction).wait_blocking().expect("it is durable");
    }
    let file = dir.join(format!("{:020}.log", 1));
    if close {
        drop(log);
    }
    sim.disk.contents(&file)
}

fn small_transactions(n: i64) -> Vec<Transaction> {
    let topic = RelationId(7);
    let transaction = |sequence: u64| {
        let write = Write {
            topic,
            partition: PartitionId(sequence as u32 % 2),
            batch: rows(n),
            event_time: Some(EventTime(sequence as i64)),
            schema_version: 1,
            kind: WriteKind::Append,
            producer: Some(Producer { id: 3, epoch: 1, sequence }),
            position: Some("position".into()),
        };
        let records = vec![Record::AdvanceWatermark { topic, to: EventTime(9) }];
        Transaction { writes: vec![write], records }
    };
    (1..=2).map(transaction).collect()
}
