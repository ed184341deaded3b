//! All values of a min or max whose input retracts, or of a count(DISTINCT).
//!
//! A group whose values are all equal (most groups of small inputs) keeps the value and its weight in the slot; the second
//! distinct value moves it to a B-tree beside the slots. Weights may be negative inside an epoch, because a retraction may
//! come before its insertion; [`Multisets::settle`] insists that none is at its end.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::slots::Slots;
use crate::fault::Cause;

/// A value that min and max can be taken of. Fixed-width values lie in the slot as they are; strings need the arena.
pub(super) trait Value: Ord + Clone {
    /// What of the slot the value needs besides its own words.
    type Store;
    fn load(words: &[u64], store: &Self::Store) -> Self;
    fn save(&self, words: &mut [u64], store: &mut Self::Store);
    /// How the value compares with the one in a slot.
    fn compare(&self, words: &[u64], store: &Self::Store) -> Ordering;
    fn bytes(&self) -> usize;
}

/// A group's values with their weights.
struct Multiset<V> {
    weights: BTreeMap<V, i64>,
    /// How many weights are negative.
    negative: usize,
}

/// The extreme value may have changed. Most values of a large group are far from it, and then nobody looks for it.
const STALE: u64 = 1 << 63;

/// Words beside the value.
const COUNTERS: usize = 3;

/// The multisets of one call in one table.
///
/// The words of a call in a slot: the value, then the sum of all weights, then 0 or 1 + the place of the multiset with the
/// flag [`STALE`], then how many distinct values there are. Between epochs the value is the extreme one. A sum of 0 without a multiset means that there is no value.
pub(super) struct Multisets<V: Value> {
    /// Where the call's words begin in a slot, and how many of them are the value.
    at: usize,
    width: usize,
    max: bool,
    sets: Vec<Multiset<V>>,
    free: Vec<usize>,
    /// Slots and values whose weight has changed since the last freeze, possibly more than once.
    changed: Vec<(u32, V)>,
    /// Length of `changed` when it was last without duplicates.
    distinct: usize,
    /// How many weights are negative in all sets.
    negative: usize,
    bytes: usize,
}

impl<V: Value> Multisets<V> {
    pub(super) fn new(at: usize, width: usize, max: bool) -> Self {
        let (sets, free, changed) = (Vec::new(), Vec::new(), Vec::new());
        Self { at, width, max, sets, free, changed, distinct: 0, negative: 0, bytes: 0 }
    }

    /// Adds `weight` of `value`, and remembers it for the next freeze if `log` is set.
    pub(super) fn add(
        &mut self,
        slots: &mut Slots,
        store: &mut V::Store,
        slot: u32,
        value: V,
        weight: i64,
        log: bool,
    ) {
        let words = slots.part_mut(slot, self.at, self.width + COUNTERS);
        let (state, counters) = words.split_at_mut(self.width);
        let total = counters[0] as i64;
        if log {
            self.changed.push((slot, value.clone()));
        }
        counters[0] = (total + weight) as u64;
        if counters[1] != 0 {
            let place = place_of(counters[1]);
            let order = value.compare(state, store);
            let set = &mut self.sets[place];
            self.negative -= set.negative;
            self.bytes = self.bytes.saturating_add_signed(set.add(value, weight));
            self.negative += set.negative;
            let inside = if self.max { order.is_lt() } else { order.is_gt() };
            if set.weights.is_empty() {
                counters.fill(0);
                self.free.push(place);
            } else if !inside || set.weights.len() == 1 {
                counters[1] |= STALE;
            }
        } else if total == 0 {
            value.save(state, store);
        } else if value.compare(state, store).is_ne() {
            let mut set = Multiset { weights: BTreeMap::new(), negative: 0 };
            self.bytes = self.bytes.saturating_add_signed(set.add(V::load(state, store), total));
            self.bytes = self.bytes.saturating_add_signed(set.add(value, weight));
            self.negative += set.negative;
            let place = self.free.pop().unwrap_or(self.sets.len());
            counters[1] = (place as u64 + 1) | STALE;
            match self.sets.get_mut(place) {
                Some(free) => *free = set,
                None => self.sets.push(set),
            }
        }
        counters[2] = match counters[1] {
            0 => u64::from(counters[0] != 0),
            place => self.sets[place_of(place)].weights.len() as u64,
        };
        self.compact_changed();
    }

    fn compact_changed(&mut self) {
        if self.changed.len() > 4096 && self.changed.len() > 2 * self.distinct {
            self.changed.sort_unstable();
            self.changed.dedup();
            self.distinct = self.changed.len();
        }
    }

    /// Makes the slot's value the extreme one again, at the end of an epoch.
    pub(super) fn settle(&mut self, slots: &mut Slots, store: &mut V::Store, slot: u32) -> Result<(), Cause> {
        let words = slots.part_mut(slot, self.at, self.width + COUNTERS);
        let (state, counters) = words.split_at_mut(self.width);
        let total = counters[0] as i64;
        if counters[1] == 0 {
            return if total < 0 { Err(Cause::NegativeWeight { weight: total }) } else { Ok(()) };
        }
        let place = place_of(counters[1]);
        if self.negative > 0 && self.sets[place].negative > 0 {
            let weight = self.sets[place].weights.values().copied().find(|w| *w < 0).unwrap_or(total);
            return Err(Cause::NegativeWeight { weight });
        }
        if counters[1] & STALE == 0 {
            return Ok(());
        }
        counters[1] &= !STALE;
        let set = &mut self.sets[place];
        let extreme = if self.max { set.weights.last_key_value() } else { set.weights.first_key_value() };
        let (value, _) = extreme.expect("an empty multiset is given back at once");
        if value.compare(state, store).is_ne() {
            value.save(state, store);
        }
        if set.weights.len() == 1 {
            let only = value.bytes();
            self.bytes = self.bytes.saturating_sub(only);
            set.weights.clear();
            counters[1] = 0;
            self.free.push(place);
        }
        Ok(())
    }

    /// The values of a slot and their weights.
    pub(super) fn values(&self, words: &[u64], store: &V::Store) -> Vec<(V, i64)> {
        let words = &words[self.at..self.at + self.width + COUNTERS];
        let (state, counters) = words.split_at(self.width);
        match (counters[0] as i64, counters[1]) {
            (0, 0) => Vec::new(),
            (total, 0) => vec![(V::load(state, store), total)],
            (_, place) => self.sets[place_of(place)].weights.iter().map(|(v, w)| (v.clone(), *w)).collect(),
        }
    }

    /// What changed since the last call: slot, value, and its weight now (0: it is gone).
    pub(super) fn take_changed(&mut self, slots: &Slots, store: &V::Store) -> Vec<(u32, V, i64)> {
        let mut changed = std::mem::take(&mut self.changed);
        self.distinct = 0;
        changed.sort_unstable();
        changed.dedup();
        changed
            .into_iter()
            .map(|(slot, value)| {
                let words = &slots.get(slot)[self.at..self.at + self.width + COUNTERS];
                let (state, counters) = words.split_at(self.width);
                let weight = match (counters[0] as i64, counters[1]) {
                    (0, 0) => 0,
                    (total, 0) if value.compare(state, store).is_eq() => total,
                    (_, 0) => 0,
                    (_, place) => self.sets[place_of(place)].weights.get(&value).copied().unwrap_or(0),
                };
                (slot, value, weight)
            })
            .collect()
    }

    pub(super) fn clear(&mut self) {
        self.sets.clear();
        self.free.clear();
        self.changed.clear();
        (self.distinct, self.negative, self.bytes) = (0, 0, 0);
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes
            + self.changed.capacity() * size_of::<(u32, V)>()
            + self.sets.capacity() * size_of::<Multiset<V>>()
    }
}

fn place_of(counter: u64) -> usize {
    (counter & !STALE) as usize - 1
}

impl<V: Value> Multiset<V> {
    /// Returns by how many bytes the set has grown, estimated.
    fn add(&mut self, value: V, weight: i64) -> isize {
        let bytes = value.bytes() as isize;
        match self.weights.entry(value) {
            std::collections::btree_map::Entry::Vacant(vacant) => {
                vacant.insert(weight);
                self.negative += usize::from(weight < 0);
                bytes
            }
            std::collections::btree_map::Entry::Occupied(mut occupied) => {
                let before = *occupied.get();
                let after = before + weight;
                self.negative = self.negative + usize::from(after < 0) - usize::from(before < 0);
                if after == 0 {
                    occupied.remove();
                    return -bytes;
                }
                *occupied.get_mut() = after;
                0
            }
        }
    }
}

impl<const W: usize> Value for [u64; W] {
    type Store = ();

    fn load(words: &[u64], (): &()) -> Self {
        words.try_into().expect("a call's value has W words")
    }
    fn save(&self, words: &mut [u64], (): &mut ()) {
        words.copy_from_slice(self);
    }
    fn compare(&self, words: &[u64], (): &()) -> Ordering {
        self[..].cmp(words)
    }
    fn bytes(&self) -> usize {
        (W + 1) * 8 * 3 / 2
    }
}

impl Value for Box<[u8]> {
    type Store = super::slots::Arena;

    fn load(words: &[u64], arena: &Self::Store) -> Self {
        let mut bytes = Vec::new();
        arena.read([words[0], words[1]], &mut bytes);
        bytes.into()
    }
    fn save(&self, words: &mut [u64], arena: &mut Self::Store) {
        arena.forget([words[0], words[1]]);
        words.copy_from_slice(&arena.store(self));
    }
    fn compare(&self, words: &[u64], arena: &Self::Store) -> Ordering {
        arena.compare([words[0], words[1]], self).reverse()
    }
    fn bytes(&self) -> usize {
        self.len() + 40
    }
}
