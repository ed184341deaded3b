//! Chance that is a function of a seed and a number: row n can be made without the rows before it.

use millpond_types::hash::mix;

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The random numbers of one row: SplitMix64 (Steele, Lea, Flood, OOPSLA 2014) begun at a hash of seed and row.
///
/// Generators promise the same rows for ever, so neither this nor the order in which they draw may change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream(u64);

impl Stream {
    #[inline]
    pub fn of(seed: u64, row: u64) -> Self {
        Self(mix(seed ^ mix(row.wrapping_add(GOLDEN))))
    }

    #[inline]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// A number below `n`, which is not 0. The bias of 2^-64·n is of no account here.
    #[inline]
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    /// A number in [0, 1) with 53 bits.
    #[inline]
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }
}

/// A store of random lower-case letters; texts are pieces of it. It is larger than the window of the compressions that the
/// log and Parquet use, so that copies do not compress better than fresh letters would.
#[derive(Clone, Debug)]
pub(crate) struct Letters(Vec<u8>);

impl Letters {
    const BYTES: usize = 1 << 20;

    pub fn new(seed: u64) -> Self {
        let mut stream = Stream::of(seed, 0x006c_6574_7465_7273);
        let mut letters = Vec::with_capacity(Self::BYTES);
        while letters.len() < Self::BYTES {
            let drawn = stream.next().to_le_bytes();
            letters.extend(drawn.map(|b| b'a' + ((u16::from(b) * 26) >> 8) as u8));
        }
        Self(letters)
    }

    /// Appends `length` letters, chosen by `at`.
    #[inline]
    pub fn append(&self, out: &mut Vec<u8>, at: u64, mut length: usize) {
        let mut start = at as usize % Self::BYTES;
        while length > 0 {
            let piece = length.min(Self::BYTES - start);
            out.extend_from_slice(&self.0[start..start + piece]);
            length -= piece;
            start = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_never_change() {
        let mut stream = Stream::of(1, 2);
        assert_eq!([stream.next(), stream.next()], [5_196_188_657_185_181_188, 5_005_007_431_957_806_747]);
        let mut text = Vec::new();
        Letters::new(0).append(&mut text, 5, 12);
        assert_eq!(String::from_utf8(text).unwrap(), "wtivyyjqkovc");
    }

    #[test]
    fn a_text_may_be_longer_than_the_store() {
        let mut text = Vec::new();
        Letters::new(0).append(&mut text, Letters::BYTES as u64 - 3, Letters::BYTES + 10);
        assert_eq!(text.len(), Letters::BYTES + 10);
        assert!(text.iter().all(u8::is_ascii_lowercase));
    }

    #[test]
    fn below_reaches_every_number() {
        let mut stream = Stream::of(7, 7);
        let mut seen = [0u32; 6];
        (0..6000).for_each(|_| seen[stream.below(6) as usize] += 1);
        assert!(seen.iter().all(|n| (850..1150).contains(n)), "{seen:?}");
        assert!((0..1000).all(|_| (0.0..1.0).contains(&stream.unit())));
    }
}
