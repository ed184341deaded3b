//! Headers of items.

use millpond_types::{Commit, EventTime, RelationId};

use super::{Bad, Fields, FrameHeader};

pub(crate) const MAGIC: u32 = u32::from_le_bytes(*b"MPJI");
pub(crate) const PRELUDE_BYTES: usize = 48;
/// No header is longer: 10 000 writes with a producer each, and a position, take 350 KB.
pub(crate) const HEADER_BYTES_MAX: usize = 16 << 20;
const VERSION: u8 = 1;

const KIND_FRAME: u8 = 1;
const KIND_RECORD: u8 = 2;
const KIND_COMMIT: u8 = 3;
const KIND_SCHEMA: u8 = 4;
const KIND_SEAL: u8 = 5;

pub(crate) fn pad8(bytes: usize) -> usize {
    bytes.next_multiple_of(8)
}

/// What all items share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prelude {
    /// Of the group that the item belongs to; of a seal, the newest one.
    pub commit: Commit,
    pub ingest_time: EventTime,
    /// The crc of the header before.
    pub previous: u32,
    /// Without padding.
    pub payload_bytes: u64,
    pub payload_crc: u32,
}

/// What an item is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// Rows; the payload is an Arrow IPC record batch message.
    Frame(FrameHeader),
    /// A control record; the payload is the record.
    Record { tag: u16 },
    /// Ends a group.
    Commit(CommitRecord),
    /// The payload is an Arrow IPC schema message, which frames of this file name by `id`.
    Schema { id: u32, topic: RelationId },
    /// The log was closed here in order: what lies before is complete, and no torn tail.
    Seal,
}

/// ```text
/// 48 items u32         52 watermarks u32    56 group bytes u64
/// 64 per item: crc u32, together padded to 8; per watermark: topic u64, W i64
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CommitRecord {
    /// The crc of each header of the group, in order.
    pub items: Vec<u32>,
    /// How many bytes they and their payloads take.
    pub group_bytes: u64,
    /// W after the group, of the topics where it has risen.
    pub watermarks: Vec<(RelationId, EventTime)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ItemHeader {
    pub prelude: Prelude,
    pub body: Body,
    /// Its own crc, which the next header repeats.
    pub crc: u32,
    pub header_bytes: usize,
}

/// How long the header claims to be, if the bytes could begin one: a multiple of 8, no more than the limit.
pub(crate) fn header_bytes_claimed(bytes: &[u8]) -> Result<usize, Bad> {
    let mut fields = Fields(bytes);
    if fields.u32()? != MAGIC {
        return Err("there is no item".to_owned());
    }
    fields.u32()?;
    let claimed = fields.u32()? as usize;
    if !claimed.is_multiple_of(8) || !(PRELUDE_BYTES..=HEADER_BYTES_MAX).contains(&claimed) {
        return Err(format!("a header cannot be {claimed} bytes long"));
    }
    Ok(claimed)
}

impl Body {
    fn kind_and_flags(&self) -> (u8, u16) {
        match self {
            Self::Frame(frame) => (KIND_FRAME, frame.flags()),
            Self::Record { tag } => (KIND_RECORD, *tag),
            Self::Commit(_) => (KIND_COMMIT, 0),
            Self::Schema { .. } => (KIND_SCHEMA, 0),
            Self::Seal => (KIND_SEAL, 0),
        }
    }

    pub fn header_bytes(&self) -> usize {
        let own = match self {
            Self::Frame(frame) => frame.bytes(),
            Self::Record { .. } | Self::Seal => 0,
            Self::Commit(commit) => 16 + pad8(4 * commit.items.len()) + 16 * commit.watermarks.len(),
            Self::Schema { .. } => 8,
        };
        pad8(PRELUDE_BYTES + own)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Frame(frame) => frame.encode(out),
            Self::Record { .. } | Self::Seal => {}
            Self::Commit(commit) => commit.encode(out),
            Self::Schema { id, topic } => {
                out.extend(id.to_le_bytes());
                out.extend(topic.0.to_le_bytes());
            }
        }
    }

    fn decode(kind: u8, flags: u16, mut fields: Fields<'_>) -> Result<Self, Bad> {
        if flags != 0 && !matches!(kind, KIND_FRAME | KIND_RECORD) {
            return Err(format!("the flags {flags:#x} are not known"));
        }
        let body = match kind {
            KIND_FRAME => return FrameHeader::decode(flags, fields).map(Self::Frame),
            KIND_RECORD => Self::Record { tag: flags },
            KIND_COMMIT => Self::Commit(CommitRecord::decode(&mut fields)?),
            KIND_SCHEMA => Self::Schema { id: fields.u32()?, topic: RelationId(fields.u32()?) },
            KIND_SEAL => Self::Seal,
            _ => return Err(format!("items of kind {kind} are not known")),
        };
        fields.end()?;
        Ok(body)
    }
}

impl CommitRecord {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend((self.items.len() as u32).to_le_bytes());
        out.extend((self.watermarks.len() as u32).to_le_bytes());
        out.extend(self.group_bytes.to_le_bytes());
        out.extend(self.items.iter().flat_map(|crc| crc.to_le_bytes()));
        out.extend(&[0; 4][..4 * (self.items.len() % 2)]);
        for (topic, watermark) in &self.watermarks {
            out.extend(u64::from(topic.0).to_le_bytes());
            out.extend(watermark.0.to_le_bytes());
        }
    }

    fn decode(fields: &mut Fields<'_>) -> Result<Self, Bad> {
        let (items, watermarks) = (fields.u32()? as usize, fields.u32()? as usize);
        let group_bytes = fields.u64()?;
        // Bounded by what is there before anything is allocated.
        let too_long = "the list of items is too long";
        let list = fields.bytes(items.checked_mul(4).ok_or(too_long)?)?;
        let items = list.chunks_exact(4).map(|crc| u32::from_le_bytes(crc.try_into().expect("four bytes")));
        let items: Vec<u32> = items.collect();
        fields.bytes(4 * (items.len() % 2))?;
        let list = fields.bytes(watermarks.checked_mul(16).ok_or(too_long)?)?;
        let watermarks = list.chunks_exact(16).map(|entry| {
            let mut fields = Fields(entry);
            let topic = u32::try_from(fields.u64()?).map_err(|_| "a topic has an impossible number")?;
            Ok((RelationId(topic), EventTime(fields.i64()?)))
        });
        Ok(Self { items, group_bytes, watermarks: watermarks.collect::<Result<_, Bad>>()? })
    }
}

impl ItemHeader {
    /// Appends the header to `out` and returns its crc.
    pub fn encode(prelude: &Prelude, body: &Body, out: &mut Vec<u8>) -> u32 {
        let start = out.len();
        let header_bytes = body.header_bytes();
        let (kind, flags) = body.kind_and_flags();
        out.extend(MAGIC.to_le_bytes());
        out.extend([kind, VERSION]);
        out.extend(flags.to_le_bytes());
        out.extend((header_bytes as u32).to_le_bytes());
        out.extend(prelude.previous.to_le_bytes());
        out.extend(prelude.payload_bytes.to_le_bytes());
        out.extend(prelude.payload_crc.to_le_bytes());
        out.extend([0; 4]);
        out.extend(prelude.commit.0.to_le_bytes());
        out.extend(prelude.ingest_time.0.to_le_bytes());
        body.encode(out);
        out.resize(start + header_bytes, 0);
        let crc = header_crc(&out[start..]);
        out[start + 28..start + 32].copy_from_slice(&crc.to_le_bytes());
        debug_assert_eq!(
            Self::decode(&out[start..]).map(|h| (h.prelude, h.body)),
            Ok((*prelude, body.clone()))
        );
        crc
    }

    /// Decodes a header out of exactly its own bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, Bad> {
        let header_bytes = header_bytes_claimed(bytes)?;
        if header_bytes != bytes.len() {
            return Err("the header is cut off".to_owned());
        }
        let mut fields = Fields(&bytes[4..]);
        let (kind, version, flags) = (fields.u8()?, fields.u8()?, fields.u16()?);
        fields.u32()?;
        let previous = fields.u32()?;
        let payload_bytes = fields.u64()?;
        let payload_crc = fields.u32()?;
        let crc = fields.u32()?;
        if crc != header_crc(bytes) {
            return Err("the checksum of the header does not match".to_owned());
        }
        if version != VERSION {
            return Err(format!("the item has version {version}, this program reads {VERSION}"));
        }
        let commit = fields.commit()?;
        let ingest_time = EventTime(fields.i64()?);
        let body = Body::decode(kind, flags, fields)?;
        let prelude = Prelude { commit, ingest_time, previous, payload_bytes, payload_crc };
        Ok(Self { prelude, body, crc, header_bytes })
    }

    /// Payload and its padding; `None` if that is no length at all.
    pub fn payload_padded(&self) -> Option<u64> {
        self.prelude.payload_bytes.checked_next_multiple_of(8)
    }
}

fn header_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..28]), &bytes[32..])
}
