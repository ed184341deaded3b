//! The chunks of a heap in the order of their ids, in two levels, so that a snapshot shares all pages but those that were
//! touched since the last one.

use std::sync::Arc;

use super::chunk::Slot;

/// Slots per page.
const FANOUT: usize = 64;

/// A slot's page and index in it, as one number that is ordered as the slots are. Valid until slots are added or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key(pub u32);

impl Key {
    fn new(page: usize, slot: usize) -> Self {
        Self((page * FANOUT + slot) as u32)
    }
    fn page(self) -> usize {
        self.0 as usize / FANOUT
    }
    fn slot(self) -> usize {
        self.0 as usize % FANOUT
    }
}

#[derive(Clone, Debug, Default)]
struct Page {
    /// The first id of each slot's chunk.
    firsts: Vec<u64>,
    slots: Vec<Slot>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Directory {
    /// The first id of each page.
    firsts: Vec<u64>,
    /// None is empty.
    pages: Vec<Arc<Page>>,
}

impl Directory {
    /// An upper bound of all keys.
    pub fn keys(&self) -> usize {
        self.pages.len() * FANOUT
    }

    pub fn slots(&self) -> usize {
        self.pages.iter().map(|page| page.slots.len()).sum()
    }

    pub fn push(&mut self, slot: Slot) {
        let first = slot.chunk.ids.first();
        match self.pages.last_mut() {
            Some(page) if page.slots.len() < FANOUT => {
                let page = Arc::make_mut(page);
                page.firsts.push(first);
                page.slots.push(slot);
            }
            _ => {
                self.firsts.push(first);
                self.pages.push(Arc::new(Page { firsts: vec![first], slots: vec![slot] }));
            }
        }
    }

    pub fn slot(&self, key: Key) -> &Slot {
        &self.pages[key.page()].slots[key.slot()]
    }

    /// For changes of a slot's bitmap only: its first id must stay.
    pub fn slot_mut(&mut self, key: Key) -> &mut Slot {
        &mut Arc::make_mut(&mut self.pages[key.page()]).slots[key.slot()]
    }

    pub fn last(&self) -> Option<Key> {
        let page = self.pages.len().checked_sub(1)?;
        Some(Key::new(page, self.pages[page].slots.len() - 1))
    }

    pub fn before(&self, key: Key) -> Option<Key> {
        match (key.page(), key.slot()) {
            (0, 0) => None,
            (page, 0) => Some(Key::new(page - 1, self.pages[page - 1].slots.len() - 1)),
            (page, slot) => Some(Key::new(page, slot - 1)),
        }
    }

    pub fn after(&self, key: Key) -> Option<Key> {
        if key.slot() + 1 < self.pages[key.page()].slots.len() {
            return Some(Key::new(key.page(), key.slot() + 1));
        }
        (key.page() + 1 < self.pages.len()).then(|| Key::new(key.page() + 1, 0))
    }

    /// The slot that holds `id`, if any does.
    #[inline]
    pub fn find(&self, id: u64) -> Option<Key> {
        let page = self.firsts.partition_point(|&first| first <= id).checked_sub(1)?;
        let slot = self.pages[page].firsts.partition_point(|&first| first <= id) - 1;
        Some(Key::new(page, slot))
    }

    /// Puts `replacement` in the place of `count` slots from `start` on; without one they are only removed. The
    /// replacement's ids must be some of theirs.
    pub fn replace(&mut self, start: Key, count: usize, replacement: Option<Slot>) {
        let (mut index, mut slot, mut left) = (start.page(), start.slot(), count);
        if let Some(replacement) = replacement {
            let page = Arc::make_mut(&mut self.pages[index]);
            page.firsts[slot] = replacement.chunk.ids.first();
            page.slots[slot] = replacement;
            self.firsts[index] = page.firsts[0];
            (slot, left) = (slot + 1, left - 1);
        }
        while left > 0 {
            let here = left.min(self.pages[index].slots.len() - slot);
            if here == self.pages[index].slots.len() {
                self.pages.remove(index);
                self.firsts.remove(index);
            } else {
                if here > 0 {
                    let page = Arc::make_mut(&mut self.pages[index]);
                    page.firsts.drain(slot..slot + here);
                    page.slots.drain(slot..slot + here);
                    self.firsts[index] = page.firsts[0];
                }
                index += 1;
            }
            (slot, left) = (0, left - here);
        }
    }

    /// The slots in the order of ids.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Slot> {
        self.pages.iter().flat_map(|page| &page.slots)
    }

    /// The number of slots before each page, for access by ordinal.
    pub fn page_starts(&self) -> Vec<usize> {
        let mut slots = 0;
        let starts = self.pages.iter().map(|page| {
            let start = slots;
            slots += page.slots.len();
            start
        });
        starts.collect()
    }

    /// The slot of that ordinal.
    pub fn nth(&self, page_starts: &[usize], ordinal: usize) -> &Slot {
        let page = page_starts.partition_point(|&start| start <= ordinal) - 1;
        &self.pages[page].slots[ordinal - page_starts[page]]
    }
}
