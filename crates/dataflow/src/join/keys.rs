//! The keys of both sides, each with a chain of rows and their weight per side.
//!
//! ```text
//! | hash | mark | left: head, weight | right: head, weight | key … |
//! ```
//! `mark` is the number of the delta that last touched the key, never 0 while the key lives.

use crate::aggregate::index::Index;
use crate::aggregate::key::{KeyBytes, KeyCodec, Keys};
use crate::aggregate::slots::{Arena, Slots};

const HASH: usize = 0;
const MARK: usize = 1;
const SIDES: usize = 2;
const KEY: usize = 6;

/// Keys whose slots are brought into the cache together before they are probed.
const TOUCHED: usize = 128;

pub(super) struct KeyTable {
    pub(super) codec: KeyCodec,
    index: Index,
    slots: Slots,
    arena: Arena,
}

impl KeyTable {
    pub(super) fn new(codec: KeyCodec) -> Self {
        let slots = Slots::new(KEY + codec.words());
        Self { codec, index: Index::new(), slots, arena: Arena::default() }
    }

    /// Finds or makes the slot of each row's key.
    pub(super) fn upsert(&mut self, keys: &Keys, hashes: &[u64]) -> Vec<u32> {
        let width = self.codec.words();
        let mut found = Vec::with_capacity(hashes.len());
        for from in (0..hashes.len()).step_by(TOUCHED) {
            let until = hashes.len().min(from + TOUCHED);
            self.slots.touch(hashes[from..until].iter().filter_map(|hash| self.index.guess(*hash)));
            for (row, &hash) in hashes.iter().enumerate().take(until).skip(from) {
                let key = &keys.words[row * width..(row + 1) * width];
                let slot = self.look(keys, row, hash);
                found.push(slot.unwrap_or_else(|| self.add(hash, key, row, keys.bytes())));
            }
        }
        found
    }

    /// The slot of each row's key, where there is one.
    pub(super) fn find(&self, keys: &Keys, hashes: &[u64]) -> Vec<Option<u32>> {
        let mut found = Vec::with_capacity(hashes.len());
        for from in (0..hashes.len()).step_by(TOUCHED) {
            let until = hashes.len().min(from + TOUCHED);
            self.slots.touch(hashes[from..until].iter().filter_map(|hash| self.index.guess(*hash)));
            found.extend((from..until).map(|row| self.look(keys, row, hashes[row])));
        }
        found
    }

    #[inline]
    fn look(&self, keys: &Keys, row: usize, hash: u64) -> Option<u32> {
        let width = self.codec.words();
        let key = &keys.words[row * width..(row + 1) * width];
        let plain = !self.codec.has_bytes();
        self.index.find(hash, |slot| {
            let stored = &self.slots.get(slot)[KEY..];
            if plain { stored == key } else { self.codec.same(stored, &self.arena, key, row, keys.bytes()) }
        })
    }

    fn add(&mut self, hash: u64, key: &[u64], row: usize, bytes: KeyBytes) -> u32 {
        let slot = self.slots.allocate();
        let words = self.slots.get_mut(slot);
        words[HASH] = hash;
        words[KEY..].copy_from_slice(key);
        self.codec.adopt(&mut words[KEY..], row, bytes, &mut self.arena);
        let slots = &self.slots;
        self.index.insert(hash, slot, |slot| slots.get(slot)[HASH]);
        slot
    }

    /// Marks a key with the number of a delta; true if it was not marked with it before.
    pub(super) fn touch(&mut self, slot: u32, number: u64) -> bool {
        std::mem::replace(&mut self.slots.get_mut(slot)[MARK], number) != number
    }

    /// The first row of a key's chain.
    #[inline]
    pub(super) fn head(&self, slot: u32, side: usize) -> Option<u32> {
        (self.slots.get(slot)[SIDES + 2 * side] as u32).checked_sub(1)
    }

    pub(super) fn set_head(&mut self, slot: u32, side: usize, entry: Option<u32>) {
        self.slots.get_mut(slot)[SIDES + 2 * side] = entry.map_or(0, |entry| u64::from(entry) + 1);
    }

    /// The weight of all rows of a key's chain.
    #[inline]
    pub(super) fn weight(&self, slot: u32, side: usize) -> i64 {
        self.slots.get(slot)[SIDES + 2 * side + 1] as i64
    }

    pub(super) fn add_weight(&mut self, slot: u32, side: usize, weight: i64) {
        let word = &mut self.slots.get_mut(slot)[SIDES + 2 * side + 1];
        *word = word.wrapping_add(weight as u64);
    }

    /// Takes a key without rows out of the table. It may be asked for more than once.
    pub(super) fn remove_unused(&mut self, slot: u32) {
        let slots = &self.slots;
        let words = slots.get(slot);
        if words[MARK] == 0 || words[SIDES] != 0 || words[SIDES + 2] != 0 {
            return;
        }
        self.index.remove(words[HASH], slot, |slot| slots.get(slot)[HASH]);
        self.codec.forget(&words[KEY..], &mut self.arena);
        self.slots.release(slot);
    }

    /// Moves the bytes of long strings together when much of their memory is waste.
    pub(super) fn tidy(&mut self) {
        if !self.arena.wants_rewrite() {
            return;
        }
        let mut fresh = Arena::default();
        for slot in 0..self.slots.end() {
            let words = self.slots.get_mut(slot);
            if words[MARK] != 0 {
                self.codec.adopt(&mut words[KEY..], 0, KeyBytes::Arena(&self.arena), &mut fresh);
            }
        }
        self.arena = fresh;
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.index.memory_bytes() + self.slots.memory_bytes() + self.arena.memory_bytes()
    }
}
