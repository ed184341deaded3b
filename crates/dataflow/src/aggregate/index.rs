//! From hash to slot: open addressing with linear probing over 8-byte entries.
//!
//! An entry holds the upper half of the hash beside the slot, so that nearly all mismatches are seen without touching the
//! slot. The place comes from the lower half: shards own ranges of the upper bits, which are therefore alike inside a shard.

/// `tag << 32 | slot + 1`; 0 is empty.
pub(crate) struct Index {
    entries: Vec<u64>,
    len: usize,
}

const TAG: u64 = 0xffff_ffff_0000_0000;

impl Index {
    pub(crate) fn new() -> Self {
        Self { entries: vec![0; 8], len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    fn mask(&self) -> usize {
        self.entries.len() - 1
    }

    /// The slot at the first place where `hash` may be: nearly always the one that [`Index::find`] gives.
    #[inline]
    pub(crate) fn guess(&self, hash: u64) -> Option<u32> {
        (self.entries[hash as usize & self.mask()] as u32).checked_sub(1)
    }

    /// The slot whose hash is `hash` and for which `same` holds.
    #[inline]
    pub(crate) fn find(&self, hash: u64, mut same: impl FnMut(u32) -> bool) -> Option<u32> {
        let mask = self.mask();
        let mut at = hash as usize & mask;
        loop {
            let entry = self.entries[at];
            if entry == 0 {
                return None;
            }
            if (entry ^ hash) & TAG == 0 {
                let slot = entry as u32 - 1;
                if same(slot) {
                    return Some(slot);
                }
            }
            at = (at + 1) & mask;
        }
    }

    /// Adds a slot that is not there. `hash_of` gives the hashes of slots that are.
    pub(crate) fn insert(&mut self, hash: u64, slot: u32, hash_of: impl Fn(u32) -> u64) {
        if (self.len + 1) * 8 > self.entries.len() * 5 {
            self.grow(hash_of);
        }
        self.place(hash, slot);
        self.len += 1;
    }

    fn place(&mut self, hash: u64, slot: u32) {
        let mask = self.mask();
        let mut at = hash as usize & mask;
        while self.entries[at] != 0 {
            at = (at + 1) & mask;
        }
        self.entries[at] = hash & TAG | (u64::from(slot) + 1);
    }

    fn grow(&mut self, hash_of: impl Fn(u32) -> u64) {
        let size = self.entries.len() * 2;
        let old = std::mem::replace(&mut self.entries, vec![0; size]);
        for entry in old {
            if entry != 0 {
                let slot = entry as u32 - 1;
                self.place(hash_of(slot), slot);
            }
        }
    }

    /// Takes a slot out and closes the gap, so that no probe passes over tombstones.
    pub(crate) fn remove(&mut self, hash: u64, slot: u32, hash_of: impl Fn(u32) -> u64) {
        let mask = self.mask();
        let wanted = hash & TAG | (u64::from(slot) + 1);
        let mut gap = hash as usize & mask;
        while self.entries[gap] != wanted {
            debug_assert!(self.entries[gap] != 0, "only slots that are there are removed");
            gap = (gap + 1) & mask;
        }
        let mut at = gap;
        loop {
            at = (at + 1) & mask;
            let entry = self.entries[at];
            if entry == 0 {
                break;
            }
            let home = hash_of(entry as u32 - 1) as usize & mask;
            // The entry may fill the gap if its home does not lie behind the gap (cyclically).
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(gap) & mask {
                self.entries[gap] = entry;
                gap = at;
            }
        }
        self.entries[gap] = 0;
        self.len -= 1;
    }

    pub(crate) fn clear(&mut self) {
        self.entries.fill(0);
        self.len = 0;
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.entries.capacity() * 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millpond_types::hash::mix;
    use std::collections::BTreeMap;

    #[test]
    fn index_agrees_with_a_map_over_random_inserts_and_removes() {
        let mut index = Index::new();
        let mut slots: BTreeMap<u32, u64> = BTreeMap::new();
        for step in 0..20_000u64 {
            let slot = (mix(step) % 500) as u32;
            // Few distinct low bits make long chains that wrap around.
            let hash = (mix(u64::from(slot)) & !0xff) | 0xf8 | u64::from(slot & 7);
            let hash_of = |s: u32| (mix(u64::from(s)) & !0xff) | 0xf8 | u64::from(s & 7);
            assert_eq!(index.find(hash, |s| s == slot).is_some(), slots.contains_key(&slot));
            if slots.remove(&slot).is_some() {
                index.remove(hash, slot, hash_of);
            } else {
                index.insert(hash, slot, hash_of);
                slots.insert(slot, hash);
            }
        }
        assert_eq!(index.len(), slots.len());
        assert!(slots.iter().all(|(&slot, &hash)| index.find(hash, |s| s == slot) == Some(slot)));
    }
}
