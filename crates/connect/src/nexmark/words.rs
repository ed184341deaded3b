//! The vocabulary of the benchmark: names and places as its public description lists them, and the channels of bids.

use crate::sample::{Letters, Stream};

pub(super) const FIRST_NAMES: [&str; 11] =
    ["Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter"];
pub(super) const LAST_NAMES: [&str; 9] =
    ["Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"];
pub(super) const STATES: [&str; 6] = ["AZ", "CA", "ID", "OR", "WA", "WY"];
pub(super) const CITIES: [&str; 10] = [
    "Phoenix",
    "Los Angeles",
    "San Francisco",
    "Boise",
    "Portland",
    "Bend",
    "Redmond",
    "Seattle",
    "Kent",
    "Cheyenne",
];
pub(super) const HOT_CHANNELS: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];

const CHANNELS: u32 = 10_000;

/// The channels through which bids come, each with its URL: four hot ones, then `channel-0` to `channel-9999`.
#[derive(Clone, Debug)]
pub(super) struct Channels {
    names: Texts,
    urls: Texts,
}

/// Texts end to end, as in an Arrow string array.
#[derive(Clone, Debug, Default)]
struct Texts {
    ends: Vec<u32>,
    bytes: Vec<u8>,
}

impl Texts {
    fn push(&mut self, text: &[u8]) {
        self.bytes.extend_from_slice(text);
        self.ends.push(self.bytes.len() as u32);
    }

    #[inline]
    fn at(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] as usize };
        &self.bytes[start..self.ends[index] as usize]
    }
}

impl Channels {
    pub fn new(seed: u64, letters: &Letters) -> Self {
        let mut stream = Stream::of(seed, 0x6368_616e_6e65_6c73);
        let mut channels = Self { names: Texts::default(), urls: Texts::default() };
        for name in HOT_CHANNELS {
            channels.names.push(name.as_bytes());
            channels.urls.push(&url(&mut stream, letters));
        }
        for number in 0..CHANNELS {
            channels.names.push(format!("channel-{number}").as_bytes());
            let mut url = url(&mut stream, letters);
            // One channel in ten does not say its number in its URL.
            if stream.below(10) > 0 {
                let id = (number.reverse_bits() as i32).unsigned_abs();
                url.extend_from_slice(format!("&channel_id={id}").as_bytes());
            }
            channels.urls.push(&url);
        }
        channels
    }

    /// The index of the channel that two draws choose.
    #[inline]
    pub fn choose(hot: bool, stream: &mut Stream) -> usize {
        let hot_count = HOT_CHANNELS.len() as u64;
        let draw = stream.next();
        let scaled = |n: u64| ((u128::from(draw) * u128::from(n)) >> 64) as usize;
        if hot { scaled(hot_count) } else { HOT_CHANNELS.len() + scaled(u64::from(CHANNELS)) }
    }

    #[inline]
    pub fn name(&self, channel: usize) -> &[u8] {
        self.names.at(channel)
    }

    #[inline]
    pub fn url(&self, channel: usize) -> &[u8] {
        self.urls.at(channel)
    }
}

fn url(stream: &mut Stream, letters: &Letters) -> Vec<u8> {
    let mut url = b"https://www.nexmark.com/".to_vec();
    for _ in 0..3 {
        let length = 3 + stream.below(3) as usize;
        letters.append(&mut url, stream.next(), length);
        url.push(b'/');
    }
    url.extend_from_slice(b"item.htm?query=1");
    url
}

/// Appends a text of 3 letters or more, less than `most`, with a space now and then.
pub(super) fn append_phrase(out: &mut Vec<u8>, stream: &mut Stream, letters: &Letters, most: u64) {
    let start = out.len();
    let length = 3 + stream.below(most - 3) as usize;
    letters.append(out, stream.next(), length);
    // Two letters of 26 become spaces, about each thirteenth; the first and the last letter stay.
    for byte in &mut out[start + 1..start + length - 1] {
        if matches!(byte, b'q' | b'x') {
            *byte = b' ';
        }
    }
}
