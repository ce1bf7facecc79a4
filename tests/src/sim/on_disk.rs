//! A server's disk, which forgets, loses and damages what lies on it, and what the server is doing there.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use dkvs_common::kv::Key;
use dkvs_common::model::Durability;
use dkvs_common::ring::Position;
use dkvs_log::simulated::{Fault, Kept, SimulatedDisk};
use dkvs_log::{Location, SEGMENT_BYTES_MIN};
use dkvs_storage_node::high_water::PeerMarks;
use dkvs_storage_node::scrub::Scrub;
use dkvs_storage_node::store::disk::{
    Batch, ColdRead, Committer, Declaration, DiskStore, OpenOptions, Opened,
};
use dkvs_storage_node::store::{Progress, RecordStore as _};

use super::chance::Chance;
use super::disk_plan::DiskPlan;
use super::moment::Moment;
use crate::random::Random;
use crate::stores::HISTORY;

/// What a crash does beside ending the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// Nothing.
    None,
    /// What was confirmed is forgotten, and nobody says so.
    Amnesia,
    /// The disk is lost.
    Loss,
    /// Bits of the disk flip.
    Damage,
    /// A copy is made of the disk.
    Copied,
    /// The last copy takes the place of what is on the disk.
    SetBack,
}

/// How often the log has something done after a commit that it would have done when nobody asks: a hint,
/// the next segment, compaction of what is mostly dead.
const IDLES: Chance = Chance::percent(20);

/// How often the oldest segment is compacted then, whatever it holds.
const COMPACTS: Chance = Chance::percent(30);

/// How often a crash that comes while something is on its way to the disk comes in the middle of
/// that, and not before.
const CRASHES_IN_COMMIT: Chance = Chance::percent(60);

/// Most reads at a time.
const READS_MAX: usize = 4;

/// A server's disk, and what is to be declared of it at the next start.
pub struct OnDisk {
    plan: DiskPlan,
    disk: SimulatedDisk,
    random: Random,
    declaration: Option<Declaration>,
    /// Whether the server started without what it had confirmed, and knows.
    has_lost: bool,
    /// How often it was started.
    starts: u64,
    /// How far the peers are, as the server has noted beside its log.
    marks: String,
    /// A copy, and how far the store was when it was made.
    copy: Option<(Files, Progress)>,
    /// Whether the disk is set back, and the server has not been started since.
    is_set_back: bool,
}

/// Files, by name.
type Files = Vec<(String, Vec<u8>)>;

/// What a process is doing on its disk.
pub struct AtWork {
    committer: Committer,
    committing: Option<Batch>,
    reading: VecDeque<ColdRead>,
    scrub: Option<Scrub>,
}

impl OnDisk {
    /// An empty one.
    pub fn new(plan: DiskPlan, random: Random) -> Self {
        Self {
            plan,
            disk: SimulatedDisk::default(),
            random,
            declaration: Some(Declaration::New),
            has_lost: false,
            starts: 0,
            marks: String::new(),
            copy: None,
            is_set_back: false,
        }
    }

    /// Whether the server started without what it had confirmed, and knows.
    pub fn has_lost(&self) -> bool {
        self.has_lost
    }

    /// How far the store was when the copy was made that there is.
    pub fn copied_at(&self) -> Option<Progress> {
        self.copy.as_ref().map(|(_, progress)| *progress)
    }

    /// The server has noted how far its peers are.
    pub fn keep_marks(&mut self, marks: &PeerMarks) {
        if let Some(text) = marks.take_changed() {
            self.marks = text;
        }
    }

    /// A server starts that has noted that before.
    pub fn load_marks(&self, marks: &PeerMarks) {
        if !self.marks.is_empty() {
            marks.load(&self.marks).expect("it was kept so");
        }
    }

    /// Whether the server was started so often.
    pub fn is_start(&self, start: u64) -> bool {
        self.starts == start
    }

    /// Which start of the server begins to commit, and how long it takes.
    pub fn commit_begins(&mut self) -> (u64, Duration) {
        (self.starts, self.plan.commit.draw(&mut self.random))
    }

    /// Which start of the server begins to read, and how long it takes.
    pub fn read_begins(&mut self) -> (u64, Duration) {
        (self.starts, self.plan.read.draw(&mut self.random))
    }

    /// The disk has what was given to it.
    pub fn finish_commit(&mut self, at_work: &mut AtWork) {
        let Some(batch) = at_work.committing.take() else {
            return;
        };
        let committer = &mut at_work.committer;
        committer.finish(batch);
        committer.compact();
        // What was lost makes compaction worth watching: copies have to say what they are.
        if !self.has_lost && !IDLES.happens(&mut self.random) {
            return;
        }
        if self.has_lost || COMPACTS.happens(&mut self.random) {
            committer.compact_oldest();
        }
        committer.idle();
        if let Some(job) = committer.hint_job() {
            committer.finish_hint(job.run());
        }
    }

    /// The process ends while the disk is at work, or the whole machine does.
    pub fn crash(&mut self, mut at_work: Option<AtWork>, harm: Harm) {
        let progress = at_work
            .as_ref()
            .and_then(|it| it.committer.store().progress());
        if let Some(at_work) = &mut at_work
            && at_work.committing.is_some()
            && CRASHES_IN_COMMIT.happens(&mut self.random)
        {
            let operation = self.disk.operations() + self.random.below(12) as u64;
            self.disk.fail_at(operation, Fault::Crash);
            self.finish_commit(at_work);
        }
        // Bits that flip while power fails pass for a batch that was cut short.
        let loses_power = harm != Harm::Damage && self.plan.power_loss.happens(&mut self.random);
        match loses_power {
            true => {
                // A disk writes sectors as a whole.
                let piece_bytes = self.random.one_of(&[512, 4_096, usize::MAX]);
                let mut keeps = || self.random.below(2) == 0;
                self.disk.crash(Kept::Pieces(piece_bytes, &mut keeps));
            }
            false => self.disk.restart(),
        }
        match harm {
            Harm::None => {}
            Harm::Copied => {
                let files = self.disk.names().into_iter();
                let files =
                    files.filter_map(|name| Some((name.clone(), self.disk.contents(&name)?)));
                self.copy = progress.map(|progress| (files.collect(), progress));
            }
            Harm::SetBack => {
                if let Some((files, _)) = self.copy.take() {
                    self.wipe();
                    for (name, bytes) in files {
                        self.disk.put(&name, bytes);
                    }
                    self.is_set_back = true;
                }
            }
            Harm::Amnesia => {
                self.wipe();
                self.declaration = Some(Declaration::New);
            }
            Harm::Loss => {
                self.wipe();
                self.declaration = Some(Declaration::Incomplete);
            }
            // Where it is looked for, it is worth looking for.
            Harm::Damage if self.plan.scrub.is_some() && self.random.below(2) == 0 => {
                let live = at_work.map_or(Vec::new(), |it| places(it.committer.store()));
                self.damage_values(&live);
            }
            Harm::Damage => self.damage(),
        }
    }

    fn wipe(&mut self) {
        self.marks.clear();
        self.disk
            .names()
            .iter()
            .for_each(|name| self.disk.take(name));
    }

    /// Flips bits of files, wherever something was written.
    fn damage(&mut self) {
        let written = |file: &Vec<u8>| file.iter().rposition(|byte| *byte != 0);
        for _ in 0..1 + self.random.below(3) {
            let files = self.disk.names().into_iter().filter_map(|name| {
                let bytes = self.disk.contents(&name)?;
                let end = written(&bytes)?;
                Some((name, bytes, end))
            });
            let mut files: Vec<_> = files.collect();
            if files.is_empty() {
                return;
            }
            let (name, mut bytes, end) = files.swap_remove(self.random.below(files.len()));
            bytes[self.random.below(end + 1)] ^= 1 << self.random.below(8);
            self.disk.put(&name, bytes);
        }
    }

    /// Begins to read again what a store holds, if servers do.
    pub fn begin_scrub(&self, store: &Arc<DiskStore>, now: Moment) -> Option<Scrub> {
        let new = |pace| Scrub::new(Arc::clone(store), pace, now.instant(), || {});
        self.plan.scrub.map(new)
    }

    /// Flips a bit of the value of some of these records.
    fn damage_values(&mut self, live: &[Location]) {
        for at in live {
            if self.random.below(2) == 0 {
                let name = format!("{:010}.log", at.segment);
                let last = (at.offset + at.bytes) as usize - 1;
                self.disk.flip(&name, last, self.random.below(8));
            }
        }
    }

    /// Opens what the disk holds, as its operator does. Damage keeps no server from starting.
    pub fn open(&mut self) -> Opened {
        self.starts += 1;
        let options = OpenOptions {
            declaration: self.declaration.take(),
            cache_bytes_max: self.plan.cache_bytes_max,
            segment_bytes: SEGMENT_BYTES_MIN,
            // No other start has it.
            lineage: self.starts,
            ..OpenOptions::new(usize::MAX, Durability::Fsync, 1)
        };
        let opened = DiskStore::open(Arc::new(self.disk.clone()), HISTORY, options);
        let opened = opened.unwrap_or_else(|error| panic!("a server does not start: {error}"));
        self.has_lost = options.declaration == Some(Declaration::Incomplete)
            || !opened.recovery.lost.is_empty()
            || std::mem::take(&mut self.is_set_back);
        opened
    }
}

/// Where the records lie that a store holds.
fn places(store: &DiskStore) -> Vec<Location> {
    let mut keys = Vec::new();
    store.scan(Position([0; 20]), None, |held| {
        keys.extend(Key::new(held.key().to_vec()));
        ControlFlow::Continue(())
    });
    keys.iter().filter_map(|key| store.location(key)).collect()
}

impl AtWork {
    /// Doing nothing yet.
    pub fn new(committer: Committer, scrub: Option<Scrub>) -> Self {
        Self {
            scrub,
            committer,
            committing: None,
            reading: VecDeque::new(),
        }
    }

    /// Takes what has gathered, unless it is at that already. Returns whether it begins anything.
    pub fn begin_commit(&mut self) -> bool {
        if self.committing.is_some() {
            return false;
        }
        self.committing = self.committer.begin();
        self.committing.is_some()
    }

    /// Takes a read that waits for the disk. Returns whether it begins one.
    pub fn begin_read(&mut self, store: &DiskStore) -> bool {
        if self.reading.len() >= READS_MAX {
            return false;
        }
        let read = store.take_read();
        let begins = read.is_some();
        self.reading.extend(read);
        begins
    }

    /// Has the next record read again, if it is time.
    pub fn scrub(&mut self, now: Moment) {
        if let Some(scrub) = &mut self.scrub {
            scrub.handle_read(now.instant());
            scrub.handle_timeout(now.instant());
        }
    }

    /// When that is next, if nothing is read before.
    pub fn next_scrub(&self) -> Option<Moment> {
        self.scrub.as_ref()?.poll_timeout().map(Moment::of)
    }

    /// Reads nothing again any more.
    pub fn end_scrub(&mut self) {
        self.scrub = None;
    }

    /// One of the reads ends.
    pub fn finish_read(&mut self, now: Moment) {
        if let Some(read) = self.reading.pop_front() {
            read.run(self.committer.store(), now.instant());
        }
    }
}
