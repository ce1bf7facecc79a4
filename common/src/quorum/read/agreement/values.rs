//! The distinct values that replicas reported, who holds each, and the fetching of those that are
//! known by their digests alone.

use crate::cluster::ServerId;
use crate::kv::Value;
use crate::quorum::read::response::GetResponse;
use crate::quorum::sources::{FetchFailure, FetchStart, Sources};
use crate::quorum::version::Version;
use crate::record::Digest;

/// The distinct values, in the order of their arrival.
#[derive(Debug, Default)]
pub(super) struct SeenValues(Vec<SeenValue>);

/// A value that some replicas hold. No replica holds two.
#[derive(Debug)]
pub(super) struct SeenValue {
    known: Known,
    /// The newest that a holder reported.
    version: Version,
    holders: Vec<ServerId>,
    /// The digest that it was fetched by.
    fetched: Option<Digest>,
    /// It turned out to be the value at this place, which has its holders now.
    same_as: Option<usize>,
}

#[derive(Debug)]
enum Known {
    Whole(Value),
    Digest { digest: Digest, sources: Sources },
}

impl SeenValue {
    pub(super) fn value_bytes(&self) -> usize {
        match &self.known {
            Known::Whole(value) => value.len(),
            Known::Digest { digest, .. } => digest.value_bytes as usize,
        }
    }

    /// The value, if its bytes are known.
    pub(super) fn whole(&self) -> Option<&Value> {
        match &self.known {
            Known::Whole(value) => Some(value),
            Known::Digest { .. } => None,
        }
    }

    /// The digest, as long as nothing else is known of the value.
    pub(super) fn digest(&self) -> Option<&Digest> {
        match &self.known {
            Known::Whole(_) => None,
            Known::Digest { digest, .. } => Some(digest),
        }
    }

    pub(super) fn version(&self) -> &Version {
        &self.version
    }

    pub(super) fn holders(&self) -> &[ServerId] {
        &self.holders
    }

    pub(super) fn is_held_by(&self, server: ServerId) -> bool {
        self.holders.contains(&server)
    }

    /// Whether its bytes are known, or a holder has not failed to give them; or another holder may
    /// yet respond.
    pub(super) fn can_be_known(&self, is_any_pending: bool) -> bool {
        match &self.known {
            Known::Whole(_) => true,
            Known::Digest { sources, .. } => {
                is_any_pending || sources.is_any_left(self.holders.iter().copied())
            }
        }
    }

    /// Begins to fetch it, from the first holder that has not failed to give it; none if it is
    /// known, or being fetched.
    fn begin_fetch(&mut self) -> Option<FetchStart> {
        match &mut self.known {
            Known::Whole(_) => None,
            Known::Digest { digest, sources } => {
                sources.begin(self.holders.iter().copied(), digest)
            }
        }
    }

    fn note_version(&mut self, version: Version) {
        if version.tag > self.version.tag {
            self.version = version;
        }
    }
}

impl SeenValues {
    /// The place of a value that a replica reports: its own, or the next free one.
    pub(super) fn place_for(&self, value: &Value) -> usize {
        self.place_of(value).unwrap_or(self.0.len())
    }

    /// The place of a value that a replica reports by its digest alone.
    pub(super) fn place_for_digest(&self, digest: &Digest) -> usize {
        self.place_reported_by(digest).unwrap_or(self.0.len())
    }

    /// Counts `from` among the holders of the value at `place`, which it reported.
    pub(super) fn insert(&mut self, place: usize, from: ServerId, response: GetResponse) {
        let (known, version) = match response {
            GetResponse::Absent | GetResponse::Tombstone(..) | GetResponse::Refused(_) => return,
            GetResponse::Untagged(value) => (Known::Whole(value), Version::default()),
            GetResponse::Record(digest, Some(value)) => {
                (Known::Whole(value), Version::from(&digest))
            }
            GetResponse::Record(digest, None) => {
                let version = Version::from(&digest);
                let sources = Sources::default();
                (Known::Digest { digest, sources }, version)
            }
        };
        match self.0.get_mut(place) {
            Some(seen) => {
                seen.holders.push(from);
                seen.note_version(version);
            }
            None => self.0.push(SeenValue {
                known,
                version,
                holders: vec![from],
                fetched: None,
                same_as: None,
            }),
        }
    }

    /// The value behind a digest has arrived; false if it is not awaited.
    pub(super) fn handle_fetched(&mut self, digest: &Digest, value: Value) -> bool {
        let Some(place) = self.place_of_digest(digest) else {
            return false;
        };
        let same = self.place_of(&value);
        let seen = &mut self.0[place];
        seen.fetched = Some(digest.clone());
        seen.known = Known::Whole(value);
        seen.same_as = same;
        if let Some(same) = same {
            let holders = std::mem::take(&mut seen.holders);
            let version = seen.version.clone();
            let same = &mut self.0[same];
            same.holders.extend(holders);
            same.note_version(version);
        }
        true
    }

    /// `server` did not give the value behind a digest; false if it is not awaited.
    pub(super) fn handle_fetch_failed(
        &mut self,
        digest: &Digest,
        server: ServerId,
        failure: FetchFailure,
    ) -> bool {
        let Some(place) = self.place_of_digest(digest) else {
            return false;
        };
        match &mut self.0[place].known {
            Known::Whole(_) => false,
            Known::Digest { sources, .. } => sources.handle_failed(server, failure),
        }
    }

    /// Begins the next fetch of a value at one of these places.
    pub(super) fn begin_fetch(&mut self, places: &[usize]) -> Option<FetchStart> {
        let mut places = places.iter();
        places.find_map(|place| self.0.get_mut(*place)?.begin_fetch())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &SeenValue> + Clone {
        self.0.iter()
    }

    pub(super) fn get(&self, place: usize) -> Option<&SeenValue> {
        self.0.get(place)
    }

    /// The place of a value whose bytes are known.
    pub(super) fn place_of(&self, value: &Value) -> Option<usize> {
        let is_same = |seen: &SeenValue| seen.same_as.is_none() && seen.whole() == Some(value);
        self.0.iter().position(is_same)
    }

    /// The place of the value that a digest stands for, whether or not it has been fetched.
    fn place_reported_by(&self, digest: &Digest) -> Option<usize> {
        let was_fetched = |seen: &SeenValue| {
            let mut fetched = seen.fetched.iter();
            fetched.any(|fetched| fetched.names_same_record(digest))
        };
        let fetched = self.0.iter().position(was_fetched);
        let fetched = fetched.map(|place| self.0[place].same_as.unwrap_or(place));
        fetched.or_else(|| self.place_of_digest(digest))
    }

    /// The place of a value that has not been fetched yet.
    fn place_of_digest(&self, digest: &Digest) -> Option<usize> {
        let is_same = |seen: &SeenValue| {
            let known = seen.digest();
            known.is_some_and(|known| known.names_same_record(digest))
        };
        self.0.iter().position(is_same)
    }
}
