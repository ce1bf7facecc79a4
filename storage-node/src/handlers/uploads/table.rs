//! Values that arrive in blocks, until a put takes them.
//!
//! ```text
//!            first block            last missing block            put
//!   nothing -------------> filling --------------------> whole --------> nothing
//!                             |                            |
//!                             +-- idle, slow, or displaced +-----------> nothing
//! ```
//!
//! The memory of all uploads together is bounded, and so is their number. Whoever is alone may take
//! all of both. When nothing is left, whoever holds most gives way to whoever would hold less
//! ([`who_gives_way`]), by the loss of the upload that has waited longest for a block. So a host that
//! hoards, from however many ports, keeps nobody from an equal part.
//!
//! An upload has to get on: it ends when no new block came for a while, and when its blocks come too
//! slowly to be those of a request that anybody waits for.
//!
//! No sockets, no clock: peers and times are arguments. An upload whose time has passed is gone for
//! every call with a later time; [`Uploads::expire`] drops those that nobody asks for.

use std::collections::HashMap;
use std::time::Instant;

use bytes::Bytes;
use thiserror::Error;

use super::upload::{Block, Progress, Shape, Upload};
use crate::peer::{Account, Holding, Peer, who_gives_way};
use crate::statistics::UploadReport;

/// Most uploads at a time.
pub(in crate::handlers) const UPLOADS_MAX: usize = 1_024;

/// Which upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::handlers) struct UploadId {
    /// The peer that sends it: none can touch another's.
    pub(in crate::handlers) peer: Peer,
    /// The number that the peer gave it.
    pub(in crate::handlers) number: u64,
}

/// Why a block is not taken. Nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(in crate::handlers) enum BlockError {
    #[error("the value would be longer than the server takes")]
    TooLarge,
    #[error("the block does not lie in its value as it says, or as the upload's first block said")]
    Contradiction,
    #[error("memory or uploads are used up, and nobody holds more than the peer would")]
    Busy,
}

/// Why an upload's value is not returned. Nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(in crate::handlers) enum TakeError {
    #[error("there is no such upload, or not all of it has arrived")]
    Incomplete,
    #[error("the upload is of a value of another length")]
    Contradiction,
}

/// The uploads under way.
pub(in crate::handlers) struct Uploads {
    open: HashMap<UploadId, Open>,
    all: Held,
    limit: Held,
    value_bytes_max: usize,
    /// No upload expires before.
    next_expiry: Option<Instant>,
    counts: UploadReport,
}

/// An upload, and whom it is charged to.
struct Open {
    upload: Upload,
    account: Account,
}

/// What uploads have taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Held {
    uploads: usize,
    bytes: usize,
}

impl Uploads {
    /// None yet, of values of at most `value_bytes_max` bytes, in at most `bytes_max` bytes.
    pub(in crate::handlers) fn new(bytes_max: usize, value_bytes_max: usize) -> Self {
        Self {
            open: HashMap::new(),
            all: Held::default(),
            limit: Held {
                uploads: UPLOADS_MAX,
                bytes: bytes_max,
            },
            value_bytes_max,
            next_expiry: None,
            counts: UploadReport::default(),
        }
    }

    /// Takes a block, the first of which begins its upload, on this account. A repeat changes
    /// nothing.
    pub(in crate::handlers) fn stage(
        &mut self,
        id: UploadId,
        account: Account,
        shape: Shape,
        block: &Block,
        now: Instant,
    ) -> Result<Progress, BlockError> {
        if shape.value_bytes as usize > self.value_bytes_max {
            return Err(BlockError::TooLarge);
        }
        let number = shape.number(block).ok_or(BlockError::Contradiction)?;
        self.expire(now);
        if !self.open.contains_key(&id) {
            self.begin(id, account, shape, now)?;
        }
        match self.open.get_mut(&id) {
            Some(Open { upload, .. }) if upload.shape == shape => {
                upload.fill(number, block, now);
                Ok(upload.progress())
            }
            _ => Err(BlockError::Contradiction),
        }
    }

    /// Returns the value of an upload that has arrived as a whole, and frees the upload.
    pub(in crate::handlers) fn take(
        &mut self,
        id: UploadId,
        value_bytes: u32,
        now: Instant,
    ) -> Result<Bytes, TakeError> {
        self.expire(now);
        let Open { upload, .. } = self.open.get(&id).ok_or(TakeError::Incomplete)?;
        if upload.shape.value_bytes != value_bytes {
            return Err(TakeError::Contradiction);
        }
        if upload.missing > 0 {
            return Err(TakeError::Incomplete);
        }
        let upload = self.remove(id).ok_or(TakeError::Incomplete)?;
        self.counts.completed += 1;
        Ok(upload.value.into())
    }

    /// Frees an upload, if there is such a one, whatever has arrived of it.
    pub(in crate::handlers) fn free(&mut self, id: UploadId) {
        self.remove(id);
    }

    /// When [`Self::expire`] is to be called next, if there are uploads.
    pub(in crate::handlers) fn next_expiry(&self) -> Option<Instant> {
        self.next_expiry
    }

    /// Drops what has been idle, or slow, for too long.
    pub(in crate::handlers) fn expire(&mut self, now: Instant) {
        if self.next_expiry.is_none_or(|next| now < next) {
            return;
        }
        let is_over = |open: &Open| open.upload.expiry() <= now;
        let over = self.open.iter().filter(|(_, open)| is_over(open));
        let over: Vec<UploadId> = over.map(|(id, _)| *id).collect();
        for id in over {
            self.free(id);
            self.counts.expired += 1;
        }
        self.next_expiry = self.open.values().map(|open| open.upload.expiry()).min();
    }

    /// The memory that the uploads have reserved; never more than the limit.
    pub(in crate::handlers) fn bytes_reserved(&self) -> usize {
        self.all.bytes
    }

    /// What happened so far, and what is reserved now.
    pub(in crate::handlers) fn report(&self) -> UploadReport {
        UploadReport {
            bytes_reserved: self.bytes_reserved() as u64,
            ..self.counts
        }
    }

    fn remove(&mut self, id: UploadId) -> Option<Upload> {
        let Open { upload, .. } = self.open.remove(&id)?;
        self.all = self.all.less(Held::of(upload.shape));
        Some(upload)
    }

    fn begin(
        &mut self,
        id: UploadId,
        account: Account,
        shape: Shape,
        now: Instant,
    ) -> Result<(), BlockError> {
        let Some(displaced) = self.make_room(id, account, Held::of(shape)) else {
            self.counts.refused_busy += 1;
            return Err(BlockError::Busy);
        };
        for id in displaced {
            self.free(id);
            self.counts.displaced += 1;
        }
        let upload = Upload::new(shape, now);
        let expiry = upload.expiry();
        self.all = self.all.and(Held::of(shape));
        self.open.insert(id, Open { upload, account });
        self.next_expiry = Some(self.next_expiry.map_or(expiry, |next| next.min(expiry)));
        self.counts.begun += 1;
        Ok(())
    }

    /// Which uploads are to be dropped for another one that takes so much; none if there is no room
    /// and nobody has to give way.
    fn make_room(&self, id: UploadId, account: Account, more: Held) -> Option<Vec<UploadId>> {
        let mut all = self.all.and(more);
        if all.is_within(self.limit) {
            return Some(Vec::new());
        }
        let mut open: Vec<(&UploadId, &Open)> = self.open.iter().collect();
        let mut displaced = Vec::new();
        while !all.is_within(self.limit) {
            let of_bytes = all.bytes > self.limit.bytes;
            let amount = |held: Held| if of_bytes { held.bytes } else { held.uploads };
            let holdings = open.iter().map(|(id, open)| Holding {
                account: open.account,
                peer: id.peer,
                amount: amount(Held::of(open.upload.shape)),
            });
            let holdings: Vec<Holding> = holdings.collect();
            let giver = who_gives_way(&holdings, (account, id.peer), amount(more))?;
            let places = open.iter().enumerate();
            let its = places.filter(|(_, (id, open))| (open.account, id.peer) == giver);
            let oldest = its.min_by_key(|(_, (id, open))| (open.upload.last_block, id.number));
            let (place, _) = oldest?;
            let (id, dropped) = open.swap_remove(place);
            all = all.less(Held::of(dropped.upload.shape));
            displaced.push(*id);
        }
        Some(displaced)
    }
}

impl Held {
    /// What an upload of this shape takes.
    fn of(shape: Shape) -> Self {
        Self {
            uploads: 1,
            bytes: shape.bytes(),
        }
    }

    fn and(self, more: Self) -> Self {
        Self {
            uploads: self.uploads + more.uploads,
            bytes: self.bytes + more.bytes,
        }
    }

    fn less(self, freed: Self) -> Self {
        Self {
            uploads: self.uploads - freed.uploads,
            bytes: self.bytes - freed.bytes,
        }
    }

    fn is_within(self, limit: Self) -> bool {
        self.uploads <= limit.uploads && self.bytes <= limit.bytes
    }
}

#[cfg(test)]
mod tests;
