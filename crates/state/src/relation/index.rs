//! From the hash of an identity to the rows that have it.

use hashbrown::HashMap;
use hashbrown::HashTable;

/// One entry per identity. Equal rows of a multiset hang behind each other, so that they cost no probes.
#[derive(Debug, Default)]
pub(super) struct Index {
    table: HashTable<Entry>,
    /// From a row to the equal row that was appended before it.
    older: HashMap<u64, u64>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    hash: u64,
    /// A row id, or, with the highest bit set, what [`Head::Vacant`] says.
    head: u64,
}

const VACANT: u64 = 1 << 63;

/// What an entry stands for at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// The newest row of this identity.
    Row(u64),
    /// None: the delta being applied has retracted it. Its row of this number has the identity.
    Vacant(usize),
}

/// An entry's place in the table. Entries keep theirs until the table grows, which only [`Index::reserve`] does.
pub(super) type Bucket = usize;

impl Index {
    /// Makes room for that many more entries.
    pub fn reserve(&mut self, entries: usize) {
        self.table.reserve(entries, |entry| entry.hash);
    }

    pub fn bytes(&self) -> usize {
        self.table.allocation_size() + self.older.allocation_size()
    }

    /// Some entry with that hash: most likely the only one.
    #[inline]
    pub fn find(&self, hash: u64) -> Option<Bucket> {
        self.table.find_bucket_index(hash, |entry| entry.hash == hash)
    }

    /// All entries with that hash.
    pub fn find_all(&self, hash: u64) -> Vec<Bucket> {
        let same_hash =
            |&bucket: &Bucket| self.table.get_bucket(bucket).is_some_and(|entry| entry.hash == hash);
        self.table.iter_hash_buckets(hash).filter(same_hash).collect()
    }

    #[inline]
    pub fn head(&self, bucket: Bucket) -> Head {
        let head = self.entry(bucket).head;
        match head & VACANT {
            0 => Head::Row(head),
            _ => Head::Vacant((head & !VACANT) as usize),
        }
    }

    fn entry(&self, bucket: Bucket) -> &Entry {
        self.table.get_bucket(bucket).expect("buckets are kept while a delta is applied")
    }

    fn entry_mut(&mut self, bucket: Bucket) -> &mut Entry {
        self.table.get_bucket_mut(bucket).expect("buckets are kept while a delta is applied")
    }

    /// A new identity.
    #[inline]
    pub fn insert(&mut self, hash: u64, id: u64) {
        self.table.insert_unique(hash, Entry { hash, head: id }, |entry| entry.hash);
    }

    /// A further row of an identity, or the first after its rows were retracted.
    pub fn push(&mut self, bucket: Bucket, id: u64) {
        if let Head::Row(head) = self.head(bucket) {
            self.older.insert(id, head);
        }
        self.entry_mut(bucket).head = id;
    }

    /// Takes the newest row away. If it was the last one the entry stays, vacant, with `row` as what has its identity.
    pub fn pop(&mut self, bucket: Bucket, row: usize) -> Option<u64> {
        let Head::Row(id) = self.head(bucket) else { return None };
        let older = if self.older.is_empty() { None } else { self.older.remove(&id) };
        self.entry_mut(bucket).head = older.unwrap_or(VACANT | row as u64);
        Some(id)
    }

    /// Forgets an entry if it is vacant.
    pub fn remove_vacant(&mut self, bucket: Bucket) {
        if let Ok(entry) = self.table.get_bucket_entry(bucket)
            && entry.get().head & VACANT != 0
        {
            entry.remove();
        }
    }
}
