//! Memory for groups: fixed-width rows of 64-bit words in pages, and bytes in an arena.
//!
//! A slot is one row: hash, mark, key words, accumulator words (see [`super::layout::Layout`]). Row format beats column
//! format as soon as state leaves the L2 cache, because a probe and all its updates then touch one or two cache lines.

const PAGE_BITS: u32 = 9;
const PAGE_SLOTS: usize = 1 << PAGE_BITS;
/// Slots that the first page has at first: a power of two.
const FIRST_SLOTS: usize = 4;

/// A growing array of rows of `stride` words. Pages do not move once full, so growth never copies more than one page.
pub(crate) struct Slots {
    stride: usize,
    pages: Vec<Page>,
    len: u32,
    free: Vec<u32>,
}

/// Zeroed words that begin at a cache line, so that a slot of 8 words is one line.
struct Page {
    words: Vec<u64>,
    start: usize,
}

impl Page {
    fn new(words: usize) -> Self {
        let words = vec![0; words + 7];
        // In words, because it is a pointer to words; the largest answer it may give means that it cannot tell.
        let start = words.as_ptr().align_offset(64).min(7);
        Self { words, start }
    }
}

impl Slots {
    pub(crate) fn new(stride: usize) -> Self {
        Self { stride, pages: Vec::new(), len: 0, free: Vec::new() }
    }

    #[inline]
    pub(crate) fn get(&self, slot: u32) -> &[u64] {
        let page = &self.pages[(slot >> PAGE_BITS) as usize];
        let at = page.start + (slot as usize & (PAGE_SLOTS - 1)) * self.stride;
        &page.words[at..at + self.stride]
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, slot: u32) -> &mut [u64] {
        self.part_mut(slot, 0, self.stride)
    }

    /// `width` words of a slot from word `at`.
    #[inline]
    pub(crate) fn part_mut(&mut self, slot: u32, at: usize, width: usize) -> &mut [u64] {
        let page = &mut self.pages[(slot >> PAGE_BITS) as usize];
        let at = page.start + (slot as usize & (PAGE_SLOTS - 1)) * self.stride + at;
        &mut page.words[at..at + width]
    }

    /// Brings slots into the cache. The loads of one loop do not wait for each other, while those of a loop that probes or
    /// compares do: at 100,000 groups this is worth a factor of 2 to 3.
    pub(crate) fn touch(&self, slots: impl Iterator<Item = u32>) {
        let last = self.stride - 1;
        let sum = slots.fold(0, |sum, slot| {
            let words = self.get(slot);
            sum ^ words[0] ^ words[last]
        });
        std::hint::black_box(sum);
    }

    /// A slot of zeros.
    pub(crate) fn allocate(&mut self) -> u32 {
        if let Some(slot) = self.free.pop() {
            return slot;
        }
        let slot = self.len;
        let within = slot as usize & (PAGE_SLOTS - 1);
        if within == 0 {
            // Small tables (there is one per window) grow their only page; later pages are made whole.
            let slots = if slot == 0 { FIRST_SLOTS } else { PAGE_SLOTS };
            self.pages.push(Page::new(slots * self.stride));
        } else if self.pages.len() == 1 && within >= FIRST_SLOTS && within.is_power_of_two() {
            let small = &self.pages[0];
            let used = small.start..small.start + within * self.stride;
            let mut large = Page::new(2 * within * self.stride);
            large.words[large.start..large.start + used.len()].copy_from_slice(&small.words[used]);
            self.pages[0] = large;
        }
        self.len += 1;
        slot
    }

    pub(crate) fn release(&mut self, slot: u32) {
        self.get_mut(slot).fill(0);
        self.free.push(slot);
    }

    /// One past the largest slot ever allocated; released slots below it are all zeros.
    pub(crate) fn end(&self) -> u32 {
        self.len
    }

    pub(crate) fn clear(&mut self) {
        self.pages.clear();
        self.len = 0;
        self.free.clear();
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.pages.iter().map(|page| page.words.capacity() * 8).sum::<usize>() + self.free.capacity() * 4
    }
}

/// Appends a few words; a copy of a length that is known when compiling needs no call.
#[inline]
pub(crate) fn append(to: &mut Vec<u64>, words: &[u64]) {
    let (chunks, rest) = words.as_chunks::<4>();
    for chunk in chunks {
        to.extend_from_slice(chunk);
    }
    for word in rest {
        to.push(*word);
    }
}

/// Bytes of long strings. An address stays good until the arena is rewritten, which happens between epochs only.
#[derive(Clone, Default)]
pub(crate) struct Arena {
    bytes: Vec<u8>,
    garbage: usize,
}

/// Strings up to this length lie in their two words.
const INLINE: usize = 12;

impl Arena {
    /// The two words of `bytes`: length (32 bits) and the first 4 bytes, then 8 more bytes or an address in this arena.
    pub(crate) fn store(&mut self, bytes: &[u8]) -> [u64; 2] {
        let [head, tail] = view(bytes);
        if bytes.len() <= INLINE {
            return [head, tail];
        }
        let address = self.bytes.len() as u64;
        self.bytes.extend_from_slice(bytes);
        [head, address]
    }

    #[inline]
    pub(crate) fn long(&self, head: u64, tail: u64) -> &[u8] {
        let (at, length) = (tail as usize, length(head));
        &self.bytes[at..at + length]
    }

    /// Appends the bytes that `view` stands for.
    pub(crate) fn read(&self, view: [u64; 2], out: &mut Vec<u8>) {
        if is_long(view[0]) {
            out.extend_from_slice(self.long(view[0], view[1]));
        } else {
            out.extend_from_slice(&inline_bytes(view)[..length(view[0])]);
        }
    }

    /// Copies a string from another arena; a short one stays as it is.
    pub(crate) fn copy(&mut self, from: &Self, view: [u64; 2]) -> [u64; 2] {
        if !is_long(view[0]) {
            return view;
        }
        let address = self.bytes.len() as u64;
        self.bytes.extend_from_slice(from.long(view[0], view[1]));
        [view[0], address]
    }

    /// How the string of `view` compares with `bytes`.
    pub(crate) fn compare(&self, view: [u64; 2], bytes: &[u8]) -> std::cmp::Ordering {
        if is_long(view[0]) {
            self.long(view[0], view[1]).cmp(bytes)
        } else {
            inline_bytes(view)[..length(view[0])].cmp(bytes)
        }
    }

    pub(crate) fn forget(&mut self, view: [u64; 2]) {
        if is_long(view[0]) {
            self.garbage += length(view[0]);
        }
    }

    /// Most of the arena is dead, and it is worth the work.
    pub(crate) fn wants_rewrite(&self) -> bool {
        self.garbage > 1 << 20 && self.garbage > self.bytes.len() / 2
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.garbage = 0;
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.bytes.capacity()
    }
}

#[inline]
pub(crate) fn length(head: u64) -> usize {
    head as u32 as usize
}

#[inline]
pub(crate) fn is_long(head: u64) -> bool {
    length(head) > INLINE
}

/// As [`Arena::store`], with 0 for the address of a long string.
#[inline]
pub(crate) fn view(bytes: &[u8]) -> [u64; 2] {
    let mut inline = [0u8; INLINE];
    let n = bytes.len().min(INLINE);
    inline[..n].copy_from_slice(&bytes[..n]);
    let prefix = u32::from_le_bytes([inline[0], inline[1], inline[2], inline[3]]);
    let head = bytes.len() as u32 as u64 | u64::from(prefix) << 32;
    if bytes.len() > INLINE {
        return [head, 0];
    }
    let rest: [u8; 8] = inline[4..].try_into().expect("12 - 4 = 8");
    [head, u64::from_le_bytes(rest)]
}

/// The bytes of a short string, padded with zeros.
#[inline]
pub(crate) fn inline_bytes(view: [u64; 2]) -> [u8; INLINE] {
    let mut bytes = [0u8; INLINE];
    bytes[..4].copy_from_slice(&((view[0] >> 32) as u32).to_le_bytes());
    bytes[4..].copy_from_slice(&view[1].to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_come_back_from_their_words() {
        let mut arena = Arena::default();
        for text in ["", "a", "abcd", "exactly12bys", "thirteen byte", "a much longer string than that"] {
            let words = arena.store(text.as_bytes());
            let mut out = Vec::new();
            arena.read(words, &mut out);
            assert_eq!(out, text.as_bytes());
            assert!(arena.compare(words, text.as_bytes()).is_eq());
            assert_eq!(arena.compare(words, b"another"), text.as_bytes().cmp(b"another"));
        }
    }

    #[test]
    fn slots_are_zero_when_given_and_given_again() {
        let mut slots = Slots::new(3);
        let ids: Vec<u32> = (0..2000).map(|_| slots.allocate()).collect();
        for &id in &ids {
            assert_eq!(slots.get(id), [0; 3]);
            slots.get_mut(id).fill(u64::from(id) + 1);
        }
        assert_eq!(slots.get(1999), [2000; 3]);
        slots.release(700);
        assert_eq!(slots.allocate(), 700);
        assert_eq!(slots.get(700), [0; 3]);
    }
}
