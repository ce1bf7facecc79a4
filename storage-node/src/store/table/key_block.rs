//! Sorted keys, front-coded: of each key what it shares with the one before is only counted.
//!
//! ```text
//!   block:  first key, whole |  rest: entry | entry | ...
//!   entry:  bytes shared with the key before, 1 or 2 | bytes of the suffix, 1 or 2 | suffix
//! ```
//!
//! A number below 128 takes one byte; a greater one, below 2^15, takes two, of which the first has
//! its top bit set. Keys have fewer bytes than that.
//!
//! A block never has the same key twice, and its keys ascend. What is read here was written here: no
//! bytes of a disk or of the network are.

/// Most bytes of a block's rest: with more it is split.
pub(super) const REST_BYTES_MAX: usize = 2_048;

/// Two neighbours are merged if the rest of the two together has no more bytes than these.
pub(super) const MERGED_BYTES_MAX: usize = REST_BYTES_MAX / 8 * 7;

/// The keys of a block, by reference.
#[derive(Clone, Copy)]
pub(super) struct Block<'a> {
    pub(super) first: &'a [u8],
    pub(super) rest: &'a [u8],
}

/// Where a key is in a rest, or would be.
enum Place {
    /// It is the entry that begins here and ends there.
    Entry { start: usize, end: usize },
    /// It would be the entry that begins here.
    Gap {
        at: usize,
        /// How many bytes it shares with the key before.
        shared_before: usize,
        /// The same of the key behind; 0 if there is none.
        shared_behind: usize,
    },
}

/// What becomes of a block.
pub(super) enum Edit {
    /// Nothing.
    Unchanged,
    /// It has this rest.
    Rest(Box<[u8]>),
    /// It has this first key and this rest.
    Whole(Box<[u8]>, Box<[u8]>),
    /// It has this rest, if any is given, and beside it is a new block with this first key and this
    /// rest.
    Split(Option<Box<[u8]>>, Box<[u8]>, Box<[u8]>),
    /// It has no key any more.
    Gone,
}

/// An entry of a rest.
struct Entry<'a> {
    shared: usize,
    suffix: &'a [u8],
    /// Where the next one begins.
    end: usize,
}

/// The entry that begins at an offset; none at the end.
fn entry(rest: &[u8], at: usize) -> Option<Entry<'_>> {
    let (shared, at) = number(rest, at)?;
    let (length, at) = number(rest, at)?;
    let end = at + length;
    Some(Entry {
        shared,
        suffix: rest.get(at..end)?,
        end,
    })
}

/// A number, and where it ends.
fn number(rest: &[u8], at: usize) -> Option<(usize, usize)> {
    match *rest.get(at..)? {
        [low, ..] if low < 0x80 => Some((low.into(), at + 1)),
        [high, low, ..] => Some((usize::from(high & 0x7f) << 8 | usize::from(low), at + 2)),
        _ => None,
    }
}

fn push_number(rest: &mut Vec<u8>, number: usize) {
    if number >= 0x80 {
        rest.push((number >> 8) as u8 | 0x80);
    }
    rest.push(number as u8);
}

fn number_bytes(number: usize) -> usize {
    1 + usize::from(number >= 0x80)
}

/// Adds an entry of a key that is the concatenation of `shared` bytes of the key before and `parts`.
fn push_entry(rest: &mut Vec<u8>, shared: usize, parts: [&[u8]; 2]) {
    push_number(rest, shared);
    push_number(rest, parts[0].len() + parts[1].len());
    rest.extend_from_slice(parts[0]);
    rest.extend_from_slice(parts[1]);
}

/// Adds a key to the end of a block's rest, behind `last`, if there is room for it.
pub(super) fn append(rest: &mut Vec<u8>, last: &[u8], key: &[u8]) -> bool {
    let shared = common(last, key);
    let suffix = &key[shared..];
    let has_room = rest.len() + entry_bytes(shared, suffix.len()) <= REST_BYTES_MAX;
    if has_room {
        push_entry(rest, shared, [suffix, &[]]);
    }
    has_room
}

/// What such an entry takes at most, in bytes.
fn entry_bytes(shared: usize, suffix_bytes: usize) -> usize {
    number_bytes(shared) + number_bytes(suffix_bytes) + suffix_bytes
}

/// How many bytes two keys begin with alike.
fn common(one: &[u8], other: &[u8]) -> usize {
    let is_same = |(one, other): &(&u8, &u8)| one == other;
    one.iter().zip(other).take_while(is_same).count()
}

impl<'a> Block<'a> {
    /// The keys, one after the other.
    pub(super) fn walk(self) -> Walk<'a> {
        Walk {
            block: self,
            key: Vec::new(),
            next: None,
        }
    }

    /// Where a key that is greater than the first one is.
    ///
    /// No key has to be put together for that: an entry that shares more with the key before than that
    /// shares with the key in question is as much less than it, and one that shares less is greater.
    fn find(self, key: &[u8]) -> Place {
        let mut shared_before = common(self.first, key);
        let mut at = 0;
        while let Some(entry) = entry(self.rest, at) {
            if entry.shared <= shared_before {
                let is_beyond = entry.shared < shared_before;
                let wanted = &key[entry.shared..];
                let alike = match is_beyond {
                    true => 0,
                    false => common(entry.suffix, wanted),
                };
                if !is_beyond && entry.suffix == wanted {
                    let end = entry.end;
                    return Place::Entry { start: at, end };
                }
                if is_beyond || entry.suffix[alike..] > wanted[alike..] {
                    return Place::Gap {
                        at,
                        shared_before,
                        shared_behind: entry.shared + alike,
                    };
                }
                shared_before = entry.shared + alike;
            }
            at = entry.end;
        }
        Place::Gap {
            at,
            shared_before,
            shared_behind: 0,
        }
    }

    /// What the block becomes with one key more.
    pub(super) fn insert(self, key: &[u8]) -> Edit {
        let Self { first, rest } = self;
        if key == first {
            return Edit::Unchanged;
        }
        if key < first {
            let shared = common(key, first);
            let suffix = &first[shared..];
            let mut new = Vec::with_capacity(entry_bytes(shared, suffix.len()) + rest.len());
            push_entry(&mut new, shared, [suffix, &[]]);
            new.extend_from_slice(rest);
            if new.len() <= REST_BYTES_MAX {
                return Edit::Whole(key.into(), new.into());
            }
            return Edit::Split(None, key.into(), Box::default());
        }
        let Place::Gap {
            at,
            shared_before,
            shared_behind,
        } = self.find(key)
        else {
            return Edit::Unchanged;
        };
        let suffix = &key[shared_before..];
        let new_bytes = entry_bytes(shared_before, suffix.len()) + rest.len();
        if at == rest.len() && new_bytes > REST_BYTES_MAX {
            // Keys that come in their order fill blocks to the end.
            return Edit::Split(None, key.into(), Box::default());
        }
        // What is behind shares with the new key no less than with the one before.
        let mut new = Vec::with_capacity(new_bytes);
        new.extend_from_slice(&rest[..at]);
        push_entry(&mut new, shared_before, [suffix, &[]]);
        if let Some(behind) = entry(rest, at) {
            let suffix = &behind.suffix[shared_behind - behind.shared..];
            push_entry(&mut new, shared_behind, [suffix, &[]]);
            new.extend_from_slice(&rest[behind.end..]);
        }
        if new.len() <= REST_BYTES_MAX {
            return Edit::Rest(new.into());
        }
        Block { first, rest: &new }.split()
    }

    /// Splits a block whose rest is too long, before the entry in the middle of its bytes.
    fn split(self) -> Edit {
        let mut walk = self.walk();
        let (mut start, middle) = (0, self.rest.len() / 2);
        while walk.step() {
            if walk.end() > middle {
                let first_half = self.rest[..start].into();
                let second_half = self.rest[walk.end()..].into();
                return Edit::Split(Some(first_half), walk.key().into(), second_half);
            }
            start = walk.end();
        }
        Edit::Unchanged
    }

    /// What the block becomes without a key.
    pub(super) fn remove(self, key: &[u8]) -> Edit {
        let Self { first, rest } = self;
        if key == first {
            let Some(second) = entry(rest, 0) else {
                return Edit::Gone;
            };
            let new_first = [&first[..second.shared], second.suffix].concat();
            return Edit::Whole(new_first.into(), rest[second.end..].into());
        }
        if key < first {
            return Edit::Unchanged;
        }
        let Place::Entry { start, end } = self.find(key) else {
            return Edit::Unchanged;
        };
        let (Some(removed), behind) = (entry(rest, start), entry(rest, end)) else {
            return Edit::Unchanged;
        };
        let mut new = Vec::with_capacity(rest.len());
        new.extend_from_slice(&rest[..start]);
        if let Some(behind) = behind {
            // What it shared with the removed key beyond the key before it has to have itself.
            let lost = behind.shared.saturating_sub(removed.shared);
            let parts = [&removed.suffix[..lost], behind.suffix];
            push_entry(&mut new, behind.shared - lost, parts);
            new.extend_from_slice(&rest[behind.end..]);
        }
        Edit::Rest(new.into())
    }

    /// The rest of the two blocks in one, if that is short enough for one.
    pub(super) fn merge(self, next: Self) -> Option<Box<[u8]>> {
        let bytes = self.rest.len() + next.rest.len();
        if bytes > MERGED_BYTES_MAX {
            return None;
        }
        let mut walk = self.walk();
        while walk.step() {}
        let shared = common(&walk.key, next.first);
        let suffix = &next.first[shared..];
        let bytes = bytes + entry_bytes(shared, suffix.len());
        if bytes > MERGED_BYTES_MAX {
            return None;
        }
        let mut new = Vec::with_capacity(bytes);
        new.extend_from_slice(self.rest);
        push_entry(&mut new, shared, [suffix, &[]]);
        new.extend_from_slice(next.rest);
        Some(new.into())
    }
}

/// The keys of a block, each put together from the one before.
pub(super) struct Walk<'a> {
    block: Block<'a>,
    /// The key that it has come to.
    key: Vec<u8>,
    /// Where the entry behind that begins; none before the first key.
    next: Option<usize>,
}

impl Walk<'_> {
    /// Goes on to the next key, if there is one.
    pub(super) fn step(&mut self) -> bool {
        let Some(next) = self.next else {
            self.key.extend_from_slice(self.block.first);
            self.next = Some(0);
            return true;
        };
        let Some(entry) = entry(self.block.rest, next) else {
            return false;
        };
        self.key.truncate(entry.shared);
        self.key.extend_from_slice(entry.suffix);
        self.next = Some(entry.end);
        true
    }

    /// The key that it has come to.
    pub(super) fn key(&self) -> &[u8] {
        &self.key
    }

    /// Where in the rest the entry of that key ends.
    fn end(&self) -> usize {
        self.next.unwrap_or(0)
    }
}
