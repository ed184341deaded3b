//! Decoders refuse what no writer wrote, without a panic and without believing a length.

use arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, FixedSizeBinaryArray, IntervalMonthDayNanoArray, ListArray,
    NullArray, StructArray, TimestampMicrosecondArray,
};
use arrow::buffer::Buffer;
use arrow::datatypes::{Int32Type, IntervalMonthDayNano};
use bytes::Bytes;
use millpond_env::Random as _;
use millpond_env::sim::{SimRandom, Survivors};
use millpond_types::Offset;

use super::*;
use crate::Producer;
use crate::format::{
    Body, CommitRecord, FileHeader, FrameHeader, ItemHeader, Prelude, WriteEntry, decode_record,
    encode_record,
};
use crate::payload::{BatchEncoder, decode_batch, decode_schema};

/// Every kind of column that the log stores.
fn many_types() -> RecordBatch {
    let list =
        ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None, Some(vec![])]);
    let structs = StructArray::from(vec![(
        Arc::new(Field::new("a", DataType::Int64, true)),
        Arc::new(Int64Array::from(vec![Some(1), None, Some(3)])) as ArrayRef,
    )]);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("int", Arc::new(Int64Array::from(vec![1, 2, 3]))),
        ("text", Arc::new(StringArray::from(vec![Some("a"), None, Some("ccc")]))),
        ("bool", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)]))),
        ("decimal", Arc::new(Decimal128Array::from(vec![1, 2, 3]).with_precision_and_scale(20, 2).unwrap())),
        (
            "uuid",
            Arc::new(FixedSizeBinaryArray::try_from_iter([[1u8; 16], [2; 16], [3; 16]].iter()).unwrap()),
        ),
        ("time", Arc::new(TimestampMicrosecondArray::from(vec![1, 2, 3]).with_timezone("+00:00"))),
        ("interval", Arc::new(IntervalMonthDayNanoArray::from(vec![IntervalMonthDayNano::new(1, 2, 3); 3]))),
        ("list", Arc::new(list)),
        ("struct", Arc::new(structs)),
        ("null", Arc::new(NullArray::new(3))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn encoded(batch: &RecordBatch) -> (Vec<u8>, Vec<u8>) {
    let (mut encoder, schema) = BatchEncoder::new(&batch.schema()).unwrap();
    let mut payload = Vec::new();
    encoder.encode(batch, &mut payload).unwrap();
    (schema, payload)
}

fn below(random: &SimRandom, bound: usize) -> usize {
    (random.next_u64() % bound as u64) as usize
}

/// Changes a few bytes, preferring small numbers and extremes, or cuts the end off.
fn mutate(random: &SimRandom, bytes: &mut Vec<u8>) {
    for _ in 0..=below(random, 4) {
        if bytes.is_empty() {
            return;
        }
        let at = below(random, bytes.len());
        match below(random, 6) {
            0 => bytes[at] = 0xff,
            1 => bytes[at] = 0,
            2 => bytes[at] ^= 1 << below(random, 8),
            3 => bytes[at] = bytes[at].wrapping_add(1),
            4 => bytes[at] = random.next_u64() as u8,
            _ => bytes.truncate(at + 1),
        }
    }
}

#[test]
fn columns_of_all_types_and_slices_come_back() {
    let batch = many_types();
    let (schema, payload) = encoded(&batch);
    let decoded = decode_schema(&schema).unwrap();
    assert_eq!(decoded, batch.schema());
    assert_eq!(decode_batch(&Buffer::from_vec(payload.clone()), &decoded, 3, None).unwrap(), batch);
    let some = decode_batch(&Buffer::from_vec(payload.clone()), &decoded, 3, Some(&[3, 7])).unwrap();
    assert_eq!(some, batch.project(&[3, 7]).unwrap());
    let none = decode_batch(&Buffer::from_vec(payload), &decoded, 3, Some(&[])).unwrap();
    assert_eq!((none.num_rows(), none.num_columns()), (3, 0));
    let slice = batch.slice(1, 2);
    let (_, payload) = encoded(&slice);
    assert_eq!(decode_batch(&Buffer::from_vec(payload), &decoded, 2, None).unwrap(), slice);
}

#[test]
fn a_frame_of_one_row_is_small() {
    let (_, payload) = encoded(&rows(1, 1));
    assert!(payload.len() < 400, "{} bytes", payload.len());
}

#[test]
fn mutated_payloads_are_refused_or_valid() {
    std::panic::set_hook(Box::new(|_| ()));
    let random = SimRandom::new(1);
    let batch = many_types();
    let (schema, payload) = encoded(&batch);
    let mut read = 0;
    for _ in 0..20_000 {
        let mut bytes = payload.clone();
        mutate(&random, &mut bytes);
        let columns = (below(&random, 2) == 0).then_some(&[1, 7, 8][..]);
        if let Ok(batch) = decode_batch(&Buffer::from_vec(bytes), &batch.schema(), 3, columns) {
            batch.columns().iter().for_each(|column| column.to_data().validate_full().unwrap());
            read += 1;
        }
        let mut bytes = schema.clone();
        mutate(&random, &mut bytes);
        let _ = decode_schema(&bytes);
    }
    assert!(read > 0);
    let _ = std::panic::take_hook();
}

fn headers() -> Vec<Body> {
    let frame = FrameHeader {
        topic: TOPIC,
        partition: PartitionId(3),
        base_offset: Offset(77),
        rows: 30,
        schema_id: 2,
        schema_version: 4,
        kind: WriteKind::Upsert,
        watermark: at(-5),
        event_time: at(6),
        position: Some(Bytes::from_static(b"position")),
        ranges: Some(
            [
                crate::ColumnRange { column: 0, min: -9, max: 9 },
                crate::ColumnRange { column: 4, min: i64::MIN, max: 0 },
            ]
            .into(),
        ),
        writes: vec![
            WriteEntry { rows: 10, producer: None, continues: false },
            WriteEntry {
                rows: 20,
                producer: Some(Producer { id: 9, epoch: 1, sequence: 8 }),
                continues: true,
            },
        ],
    };
    let plain =
        FrameHeader { watermark: None, event_time: None, position: None, ranges: None, ..frame.clone() };
    let commit =
        CommitRecord { items: vec![1, 2, 3], group_bytes: 96, watermarks: vec![(TOPIC, EventTime(4))] };
    vec![
        Body::Frame(frame),
        Body::Frame(plain),
        Body::Record { tag: 2 },
        Body::Commit(commit),
        Body::Commit(CommitRecord::default()),
        Body::Schema { id: 4, topic: OTHER },
        Body::Seal,
    ]
}

#[test]
fn headers_come_back_and_mutated_ones_are_refused() {
    let random = SimRandom::new(2);
    let prelude = Prelude {
        commit: Commit(12),
        ingest_time: EventTime(-1),
        previous: 0xdead_beef,
        payload_bytes: 1 << 40,
        payload_crc: 5,
    };
    for body in headers() {
        let mut good = Vec::new();
        let crc = ItemHeader::encode(&prelude, &body, &mut good);
        let header = ItemHeader::decode(&good).unwrap();
        assert_eq!((&header.prelude, &header.body, header.crc), (&prelude, &body, crc));
        for _ in 0..3_000 {
            let mut bytes = good.clone();
            mutate(&random, &mut bytes);
            if bytes != good {
                assert!(ItemHeader::decode(&bytes).is_err(), "a checksum catches it");
            }
            // Somebody who also mends the checksum.
            if bytes.len() >= 48 {
                let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..28]), &bytes[32..]);
                bytes[28..32].copy_from_slice(&crc.to_le_bytes());
                let _ = ItemHeader::decode(&bytes);
            }
        }
    }
}

#[test]
fn records_and_file_headers_come_back_and_mutated_ones_are_refused() {
    let random = SimRandom::new(3);
    let all = [
        Record::Ddl(Bytes::from_static(b"ddl")),
        Record::Tick(EventTime(5)),
        Record::AdvanceWatermark { topic: TOPIC, to: EventTime(-7) },
        Record::PartitionIdle { topic: TOPIC, partition: PartitionId(1) },
    ];
    for record in &all {
        let (tag, payload) = encode_record(record);
        assert_eq!(&decode_record(tag, &payload).unwrap(), record);
        for _ in 0..500 {
            let mut bytes = payload.to_vec();
            mutate(&random, &mut bytes);
            let _ = decode_record(below(&random, 8) as u16, &bytes);
        }
    }
    let header = FileHeader { first: Commit(9), previous: 4, created_micros: 5 };
    let good = header.encode();
    assert_eq!(FileHeader::decode(&good).unwrap(), header);
    for at in 0..good.len() {
        let mut bad = good;
        bad[at] ^= 0x10;
        FileHeader::decode(&bad).unwrap_err();
    }
}

#[test]
fn no_bytes_in_a_file_make_opening_panic() {
    let random = SimRandom::new(4);
    let sim = Sim::new(4);
    let opened = open(&sim);
    for id in 0..4 {
        opened.append(rows(id, 3)).unwrap();
    }
    let sim = sim.crash(Survivors::All);
    let good = sim.disk.contents(&first_file());
    for _ in 0..600 {
        let mut bytes = good.clone();
        mutate(&random, &mut bytes);
        let copy = sim.crash(Survivors::All);
        copy.disk.corrupt(&first_file(), bytes);
        if let Ok(opened) = try_open(&copy, LogOptions::default()) {
            assert!(opened.ids(TOPIC).len().is_multiple_of(3));
        }
    }
}

#[test]
fn a_length_is_not_believed() {
    let sim = Sim::new(5);
    let opened = open(&sim);
    opened.append(rows(0, 1)).unwrap();
    drop(opened);
    let mut bytes = sim.disk.contents(&first_file());
    let prelude = Prelude {
        commit: Commit(2),
        ingest_time: EventTime(i64::MAX),
        previous: 0,
        payload_bytes: u64::MAX - 3,
        payload_crc: 0,
    };
    bytes.truncate(bytes.len() - 48);
    let seal = bytes.len();
    ItemHeader::encode(&prelude, &Body::Record { tag: 1 }, &mut bytes);
    sim.disk.corrupt(&first_file(), bytes);
    let opened = open(&sim);
    assert_eq!(opened.recovered.cut.as_ref().unwrap().offset, seal as u64);
}
