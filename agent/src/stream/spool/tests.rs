use std::collections::VecDeque;
use std::os::unix::fs::FileExt as _;

use aizen_protocol::envelope::{Envelope, PayloadType};
use aizen_protocol::frame::DeviceFrame;
use aizen_protocol::key::PrivateKey;
use proptest::prelude::*;

use super::*;
use crate::stream::attested::Attested;
use crate::stream::evidence;

const SMALL: SpoolLimits = SpoolLimits {
    records: 16 << 10,
    signed: 16 << 10,
    segment: 4 << 10,
    reserve: 0,
};

fn record(size: usize) -> Payload {
    Payload::record(&evidence::record(size)).unwrap()
}

fn signed(size: usize) -> Payload {
    let key = PrivateKey::generate().unwrap();
    let envelope = Envelope::sign(PayloadType::Outcome, &vec![b'x'; size], &[&key]);
    Payload::signed(&Attested::check(envelope, &key.public()).unwrap()).unwrap()
}

fn drain(spool: &mut Spool) -> Vec<u64> {
    spool.rewind();
    std::iter::from_fn(|| spool.next_frame())
        .map(|frame| frame.sequence().0)
        .collect()
}

fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .collect();
    found.sort();
    found
}

#[test]
fn what_comes_out_is_the_frame_of_the_protocol() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(dir.path(), SMALL);
    let evidence = evidence::record(10);
    spool.append(&Payload::record(&evidence).unwrap()).unwrap();
    let key = PrivateKey::generate().unwrap();
    let envelope = Envelope::sign(PayloadType::Effect, b"{}", &[&key]);
    let attested = Attested::check(envelope.clone(), &key.public()).unwrap();
    spool.append(&Payload::signed(&attested).unwrap()).unwrap();
    let mut next = || -> DeviceFrame {
        serde_json::from_slice(&spool.next_frame().unwrap().into_text()).unwrap()
    };
    assert_eq!(
        next(),
        DeviceFrame::Record {
            seq: Sequence(1),
            record: Box::new(evidence.get().clone())
        }
    );
    assert_eq!(
        next(),
        DeviceFrame::Signed {
            seq: Sequence(2),
            envelope
        }
    );
}

#[test]
fn numbers_are_never_given_out_twice_even_if_the_spool_was_empty_at_the_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut highest = 0;
    for clean in [true, false, true, false, false] {
        let mut spool = Spool::open(dir.path(), SMALL);
        for payload in [record(10), signed(10), record(3000), record(3000)] {
            let Sequence(number) = spool.append(&payload).unwrap();
            assert!(number > highest, "{number} after {highest}");
            highest = number;
        }
        spool.acknowledge(Sequence(highest)).unwrap();
        assert_eq!(drain(&mut spool), [0; 0]);
        if clean {
            spool.close().unwrap();
        }
    }
}

#[test]
fn a_clean_close_leaves_no_gap() {
    let dir = tempfile::tempdir().unwrap();
    for expected in 1..5 {
        let mut spool = Spool::open(dir.path(), SMALL);
        assert_eq!(spool.append(&record(10)).unwrap(), Sequence(expected));
        spool.close().unwrap();
    }
}

#[test]
fn the_oldest_records_are_dropped_and_counted_and_results_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(dir.path(), SMALL);
    let mut results = Vec::new();
    for i in 0..200_u64 {
        spool.append(&record(300)).unwrap();
        if i % 20 == 0 {
            results.push(spool.append(&signed(100)).unwrap().0);
        }
    }
    let kept = drain(&mut spool);
    assert!(kept.is_sorted());
    assert!(results.iter().all(|result| kept.contains(result)));
    let status = spool.status();
    assert_eq!(status.dropped + status.frames, 200 + results.len() as u64);
    assert_eq!(status.frames, kept.len() as u64);
    assert!(spool.records.bytes() <= SMALL.records + SMALL.segment);
    let records: Vec<_> = kept.iter().filter(|n| !results.contains(n)).collect();
    let newest = spool.status().newest.0;
    assert_eq!(**records.last().unwrap(), newest);
    drop(spool);
    let mut again = Spool::open(dir.path(), SMALL);
    assert_eq!(again.status().dropped, status.dropped);
    assert_eq!(drain(&mut again), kept);
}

#[test]
fn records_on_their_way_are_dropped_last() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(dir.path(), SMALL);
    for _ in 0..10 {
        spool.append(&record(300)).unwrap();
    }
    let on_their_way: Vec<_> = (0..3)
        .map(|_| spool.next_frame().unwrap().sequence())
        .collect();
    for _ in 0..100 {
        spool.append(&record(300)).unwrap();
    }
    assert!(spool.status().dropped > 0);
    assert_eq!(spool.status().oldest, on_their_way[0]);
    let next = spool.next_frame().unwrap().sequence();
    assert_eq!(next.0, 4, "the reader goes on where it was");
}

#[test]
fn a_spool_whose_records_are_all_on_their_way_stays_bounded_and_counts() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(dir.path(), SMALL);
    for _ in 0..100 {
        spool.append(&record(300)).unwrap();
        spool.next_frame().unwrap();
    }
    let status = spool.status();
    assert!(spool.records.bytes() <= SMALL.records);
    assert_eq!(status.dropped + status.frames, 100);
    assert!(status.dropped > 0);
}

#[test]
fn power_lost_between_counting_and_removing_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(dir.path(), SMALL);
    while spool.records.bytes() + 600 < SMALL.records {
        spool.append(&record(300)).unwrap();
    }
    let oldest = files(dir.path(), "seg")[0].clone();
    let bytes = fs::read(&oldest).unwrap();
    while oldest.exists() {
        spool.append(&record(300)).unwrap();
    }
    spool.sync().unwrap();
    let (status, kept) = (spool.status(), drain(&mut spool));
    assert!(status.dropped > 0);
    drop(spool);
    fs::write(&oldest, bytes).unwrap();
    let mut again = Spool::open(dir.path(), SMALL);
    assert_eq!(again.status().dropped, status.dropped);
    assert_eq!(drain(&mut again), kept);
    assert!(!oldest.exists());
}

#[test]
fn signed_results_have_a_bound_and_are_refused_not_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(dir.path(), SMALL);
    let mut appended = 0;
    let error = loop {
        match spool.append(&signed(1000)) {
            Ok(_) => appended += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, SpoolError::SignedFull { .. }), "{error}");
    assert_eq!(drain(&mut spool).len(), appended);
    assert_eq!(spool.status().dropped, 0);
    let newest = spool.status().newest;
    spool.acknowledge(newest).unwrap();
    assert!(spool.append(&signed(1000)).is_ok());
}

#[test]
fn a_record_larger_than_a_frame_is_dropped_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(dir.path(), SpoolLimits::default());
    let error = spool.append(&record(limit::FRAME)).unwrap_err();
    assert!(matches!(error, SpoolError::TooLarge { .. }), "{error}");
    assert_eq!(spool.status().dropped, 1);
    assert!(spool.append(&record(limit::FRAME - 1000)).is_ok());
    assert!(spool.next_frame().unwrap().size() <= limit::FRAME);
}

#[test]
fn damage_in_the_middle_is_moved_aside_and_counted_and_the_rest_survives() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(dir.path(), SMALL);
    for _ in 0..20 {
        spool.append(&record(300)).unwrap();
    }
    spool.append(&signed(10)).unwrap();
    spool.close().unwrap();
    let victim = files(dir.path(), "seg")[0].clone();
    let file = fs::OpenOptions::new().write(true).open(&victim).unwrap();
    file.write_all_at(b"?????", 700).unwrap();
    for _ in 0..2 {
        let mut spool = Spool::open(dir.path(), SMALL);
        assert_eq!(drain(&mut spool).len(), 20);
        assert_eq!((spool.status().dropped, spool.status().damaged), (1, 1));
        assert_eq!(files(dir.path(), "damaged").len(), 1);
        spool.close().unwrap();
    }
}

#[test]
fn damage_that_shows_while_reading_costs_that_entry_only() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(dir.path(), SMALL);
    for _ in 0..8 {
        spool.append(&record(300)).unwrap();
    }
    assert_eq!(spool.next_frame().unwrap().sequence(), Sequence(1));
    spool.acknowledge(Sequence(1)).unwrap();
    let entry = spool.records.bytes() / 8;
    let file = fs::OpenOptions::new()
        .write(true)
        .open(&files(dir.path(), "seg")[0])
        .unwrap();
    file.write_all_at(b"?", 3 * entry + 100).unwrap();
    file.write_all_at(b"?", 5 * entry + 1).unwrap();
    let rest: Vec<_> = std::iter::from_fn(|| spool.next_frame())
        .map(|frame| frame.sequence().0)
        .collect();
    assert_eq!(rest, [2, 3, 5, 7, 8]);
    assert_eq!(spool.status().damaged, 2);
    assert_eq!(spool.status().frames, 5);
}

#[test]
fn a_spool_made_of_rubbish_starts_and_works() {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in [
        ("ledger", &b"rubbish"[..]),
        ("records-00000000000000000003.seg", &[0xff; 3000]),
        (
            "records-00000000000000000009.seg",
            b"\xffAz\xfe\xff\xff\xff\xff",
        ),
        ("signed-00000000000000000004.seg", b""),
        ("signed-x.seg", b"no number"),
    ] {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    fs::create_dir(dir.path().join("records-00000000000000000005.seg")).unwrap();
    let mut spool = Spool::open(dir.path(), SMALL);
    spool.append(&record(10)).unwrap();
    spool.append(&signed(10)).unwrap();
    assert_eq!(drain(&mut spool).len(), 2);
    assert!(spool.status().damaged >= 2);
    assert_eq!(files(dir.path(), "unreadable").len(), 1);
}

#[test]
fn a_spool_whose_folder_can_not_be_made_starts_counts_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let blocked = dir.path().join("file");
    fs::write(&blocked, b"").unwrap();
    let mut spool = Spool::open(&blocked.join("spool"), SMALL);
    assert!(spool.status().fault.is_some());
    assert!(matches!(
        spool.append(&record(10)).unwrap_err(),
        SpoolError::Storage { .. }
    ));
    assert_eq!(spool.status().dropped, 1);
    fs::remove_file(&blocked).unwrap();
    spool.append(&record(10)).unwrap();
    assert_eq!(spool.status().fault, None);
    spool.sync().unwrap();
    drop(spool);
    let spool = Spool::open(&blocked.join("spool"), SMALL);
    assert_eq!((spool.status().dropped, spool.status().frames), (1, 1));
}

#[test]
fn a_spool_that_lost_its_memory_continues_behind_what_the_orchestrator_has() {
    // More than waits, and fewer: both ways the numbers 1 to 6 are taken.
    for through in [4, 100] {
        let dir = tempfile::tempdir().unwrap();
        let mut fresh = Spool::open(dir.path(), SMALL);
        for _ in 0..6 {
            fresh.append(&record(10)).unwrap();
        }
        fresh.welcome(Sequence(through)).unwrap();
        let expected: Vec<u64> = (through + 1..through + 7).collect();
        assert_eq!(drain(&mut fresh), expected);
        fresh.acknowledge(Sequence(through + 2)).unwrap();
        assert_eq!(drain(&mut fresh), expected[2..]);
        drop(fresh);
        let mut again = Spool::open(dir.path(), SMALL);
        again.welcome(Sequence(through + 3)).unwrap();
        assert_eq!(drain(&mut again), expected[3..]);
    }
}

#[test]
fn a_spool_with_its_memory_takes_the_welcome_as_an_acknowledgement() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(dir.path(), SMALL);
    spool.welcome(Sequence(0)).unwrap();
    for _ in 0..5 {
        spool.append(&record(10)).unwrap();
    }
    spool.welcome(Sequence(3)).unwrap();
    assert_eq!(drain(&mut spool), [4, 5]);
    assert!(matches!(
        spool.welcome(Sequence(u64::MAX)).unwrap_err(),
        SpoolError::Numbers(_)
    ));
    assert_eq!(drain(&mut spool), [4, 5]);
}

#[test]
fn a_welcome_is_remembered_over_a_crash_before_anything_else_was_synced() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(dir.path(), SMALL);
    for _ in 0..6 {
        spool.append(&record(10)).unwrap();
    }
    spool.welcome(Sequence(0)).unwrap();
    drop(spool);
    let mut again = Spool::open(dir.path(), SMALL);
    again.welcome(Sequence(4)).unwrap();
    assert_eq!(drain(&mut again), [5, 6]);
}

/// A tmpfs of its own, unmounted also when the test fails.
struct TinyDisk(tempfile::TempDir);

impl TinyDisk {
    #[expect(clippy::print_stderr, reason = "a test that is skipped says why")]
    fn mount(options: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = nix::mount::mount(
            Some("tmpfs"),
            dir.path(),
            Some("tmpfs"),
            nix::mount::MsFlags::empty(),
            Some(options),
        );
        match mounted {
            Ok(()) => Some(Self(dir)),
            Err(error) => {
                eprintln!("skipped: mounting a tmpfs needs root with CAP_SYS_ADMIN ({error})");
                None
            }
        }
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        nix::mount::umount2(self.0.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
}

#[test]
fn on_a_full_disk_records_are_dropped_and_counted_and_a_result_still_finds_room() {
    for options in ["size=128k", "size=4m,nr_inodes=8"] {
        let Some(disk) = TinyDisk::mount(options) else {
            return;
        };
        let dir = disk.0.path().join("spool");
        let limits = SpoolLimits {
            records: 1 << 20,
            signed: 1 << 20,
            segment: 16 << 10,
            reserve: 32 << 10,
        };
        let mut spool = Spool::open(&dir, limits);
        spool.append(&record(100)).unwrap();
        spool.sync().unwrap();
        // Somebody else fills the disk to the last byte and inode.
        let mut others = 0;
        while fs::write(disk.0.path().join(format!("other-{others}")), b"x").is_ok() {
            others += 1;
            if others > 3 {
                let mut file = fs::File::create(disk.0.path().join("other-0")).unwrap();
                while io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
            }
            if others > 1000 {
                break;
            }
        }
        let mut refused = 0;
        for _ in 0..200 {
            match spool.append(&record(1000)) {
                Ok(_) => {}
                Err(error) => {
                    assert!(matches!(&error, SpoolError::Storage { .. }), "{error}");
                    refused += 1;
                }
            }
        }
        assert!(refused > 0);
        let before = spool.status();
        assert!(before.fault.is_some());
        assert_eq!(before.dropped + before.frames, 201);
        let result = spool.append(&signed(5000)).unwrap();
        let kept = drain(&mut spool);
        assert!(kept.contains(&result.0));
        assert_eq!(spool.status().dropped + spool.status().frames, 202);
        drop(spool);
        let mut again = Spool::open(&dir, limits);
        assert_eq!(drain(&mut again), kept);
        drop(again);
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// A burst of records of one size.
    Records(usize, usize),
    Signed(usize),
    Sync,
    Read(usize),
    Acknowledge(prop::sample::Index),
    Restart,
    /// Power is cut: the newest segment of records keeps some of what was not synced.
    Cut(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..900_usize, 1..20_usize).prop_map(|(size, count)| Step::Records(size, count)),
        2 => (0..300_usize).prop_map(Step::Signed),
        1 => Just(Step::Sync),
        2 => (0..20_usize).prop_map(Step::Read),
        1 => any::<prop::sample::Index>().prop_map(Step::Acknowledge),
        1 => Just(Step::Restart),
        1 => any::<prop::sample::Index>().prop_map(Step::Cut),
    ]
}

/// What must be in the spool.
#[derive(Default)]
struct Model {
    waiting: VecDeque<(u64, Class)>,
    produced: u64,
    acknowledged: u64,
    cut: u64,
    highest: u64,
    synced: u64,
}

impl Model {
    fn appended(&mut self, number: Sequence, class: Class) {
        assert!(number.0 > self.highest, "{} was given out before", number.0);
        self.highest = number.0;
        self.produced += 1;
        self.waiting.push_back((number.0, class));
        if class == Class::Signed {
            self.synced = number.0;
        }
    }

    /// What the spool has, in order, may lack records that are counted as dropped, the oldest first but for those on
    /// their way; nothing else.
    fn check(&mut self, spool: &mut Spool) {
        let found = drain(spool);
        assert!(found.is_sorted());
        self.waiting.retain(|(number, class)| {
            let here = found.contains(number);
            assert!(here || *class == Class::Record, "result {number} is lost");
            here
        });
        assert_eq!(found.len(), self.waiting.len(), "{found:?}");
        let status = spool.status();
        assert_eq!(status.frames, found.len() as u64);
        assert_eq!(
            self.produced,
            self.acknowledged + status.frames + status.dropped + self.cut,
            "something is lost and not counted"
        );
        assert_eq!(status.damaged, 0);
        assert!(spool.records.bytes() <= SMALL.records + SMALL.segment);
    }

    fn acknowledge(&mut self, through: u64) {
        let before = self.waiting.len();
        self.waiting.retain(|(number, _)| *number > through);
        self.acknowledged += (before - self.waiting.len()) as u64;
    }
}

fn cut_power(spool: Spool, synced_bytes: u64, at: prop::sample::Index) {
    let newest = spool.records.newest_path();
    drop(spool);
    if let Some(path) = newest {
        let length = fs::metadata(&path).unwrap().len();
        let unsynced = length.saturating_sub(synced_bytes);
        let keep = length - at.index(usize::try_from(unsynced).unwrap() + 1) as u64;
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(keep).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_results_survive_numbers_rise_and_every_loss_is_counted(
        steps in prop::collection::vec(step(), 1..80)
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path(), SMALL);
        spool.welcome(Sequence(0)).unwrap();
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Records(size, count) => {
                    for _ in 0..count {
                        let number = spool.append(&record(size)).unwrap();
                        model.appended(number, Class::Record);
                    }
                }
                Step::Signed(size) => match spool.append(&signed(size)) {
                    Ok(number) => model.appended(number, Class::Signed),
                    Err(error) => assert!(matches!(error, SpoolError::SignedFull { .. })),
                },
                Step::Sync => {
                    spool.sync().unwrap();
                    model.synced = model.highest;
                }
                Step::Read(frames) => {
                    for _ in 0..frames {
                        spool.next_frame();
                    }
                }
                Step::Acknowledge(which) => {
                    model.check(&mut spool);
                    if !model.waiting.is_empty() {
                        let (through, _) = model.waiting[which.index(model.waiting.len())];
                        spool.acknowledge(Sequence(through)).unwrap();
                        model.acknowledge(through);
                    }
                }
                Step::Restart => {
                    model.check(&mut spool);
                    spool.close().unwrap();
                    spool = Spool::open(dir.path(), SMALL);
                    model.synced = model.highest;
                }
                Step::Cut(at) => {
                    model.check(&mut spool);
                    // An acknowledgement that the ledger doesn't have is told again by the welcome.
                    spool.write_ledger().unwrap();
                    let synced = spool.records.synced_bytes(model.synced);
                    cut_power(spool, synced, at);
                    spool = Spool::open(dir.path(), SMALL);
                    let left = drain(&mut spool);
                    let before = model.waiting.len();
                    let synced = model.synced;
                    model.waiting.retain(|(number, class)| {
                        let here = left.contains(number);
                        assert!(here || (*class == Class::Record && *number > synced));
                        here
                    });
                    model.cut += (before - model.waiting.len()) as u64;
                }
            }
        }
        model.check(&mut spool);
    }
}
