use super::*;

fn filled(dir: &Path, records: &[&str]) -> PathBuf {
    let path = dir.join("journal");
    let mut journal = Journal::open::<String>(&path).unwrap().journal;
    for record in records {
        journal.append(record).unwrap();
    }
    path
}

#[test]
fn a_journal_that_somebody_has_open_can_be_read_without_what_is_half_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = filled(dir.path(), &["one", "two"]);
    let whole = std::fs::read(&path).unwrap();
    let _open = Journal::open::<String>(&path).unwrap();
    assert_eq!(Journal::peek::<String>(&path).unwrap(), ["one", "two"]);
    std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    assert_eq!(Journal::peek::<String>(&path).unwrap(), ["one"]);
    assert_eq!(std::fs::read(&path).unwrap().len(), whole.len() - 1);
    std::fs::remove_file(&path).unwrap();
    let gone = Journal::peek::<String>(&path);
    assert!(matches!(gone, Err(JournalError::Io { .. })), "{gone:?}");
}

#[test]
fn records_read_back_in_order_and_the_chain_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = filled(dir.path(), &["one", "two"]);
    let mut opened = Journal::open::<String>(&path).unwrap();
    assert_eq!(
        (opened.records, opened.torn),
        (vec!["one".to_owned(), "two".to_owned()], 0)
    );
    let head = opened.journal.head();
    opened.journal.append(&"three").unwrap();
    assert_ne!(opened.journal.head(), head);
    drop(opened.journal);
    assert_eq!(Journal::open::<String>(&path).unwrap().records.len(), 3);
}

#[test]
fn a_journal_cut_at_any_byte_keeps_every_whole_record_and_takes_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let path = filled(
        dir.path(),
        &["first record", "", "third record, somewhat longer"],
    );
    let whole = std::fs::read(&path).unwrap();
    let ends: Vec<usize> = (0..=3)
        .map(|n| {
            ["first record", "", "third record, somewhat longer"][..n]
                .iter()
                .map(|r| HEADER + r.len() + 2 + TRAILER)
                .sum()
        })
        .collect();
    assert_eq!(whole.len(), ends[3]);
    for cut in 0..=whole.len() {
        let torn = dir.path().join("torn");
        std::fs::write(&torn, &whole[..cut]).unwrap();
        let mut opened = Journal::open::<String>(&torn).unwrap();
        let expected = ends.iter().filter(|end| **end <= cut).count() - 1;
        assert_eq!(opened.records.len(), expected, "cut at {cut}");
        assert_eq!(opened.torn, (cut - ends[expected]) as u64);
        opened.journal.append(&"after the cut").unwrap();
        drop(opened.journal);
        let again = Journal::open::<String>(&torn).unwrap();
        assert_eq!(again.records.len(), expected + 1);
        assert_eq!(again.torn, 0);
    }
}

#[test]
fn a_last_record_whose_pages_never_reached_the_disk_is_torn() {
    let dir = tempfile::tempdir().unwrap();
    let path = filled(dir.path(), &["one", "two"]);
    let whole = std::fs::read(&path).unwrap();
    let second = HEADER + 5 + TRAILER;
    for (from, to) in [
        (second, whole.len()),
        (second, second + 20),
        (second + HEADER, whole.len()),
    ] {
        let mut zeroed = whole.clone();
        zeroed[from..to].fill(0);
        std::fs::write(&path, &zeroed).unwrap();
        assert_eq!(Journal::open::<String>(&path).unwrap().records, ["one"]);
    }
}

#[test]
fn any_flipped_bit_before_the_last_record_is_an_alarm() {
    let dir = tempfile::tempdir().unwrap();
    let path = filled(dir.path(), &["one", "two", "three"]);
    let whole = std::fs::read(&path).unwrap();
    let last = 2 * (HEADER + 5 + TRAILER);
    for at in 0..last {
        for bit in [0, 3, 7] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << bit;
            std::fs::write(&path, &damaged).unwrap();
            assert!(
                matches!(
                    Journal::open::<String>(&path),
                    Err(JournalError::Damaged { .. })
                ),
                "bit {bit} of byte {at}"
            );
        }
    }
}

#[test]
fn a_record_taken_out_of_the_middle_is_an_alarm() {
    let dir = tempfile::tempdir().unwrap();
    let path = filled(dir.path(), &["one", "two", "three"]);
    let mut bytes = std::fs::read(&path).unwrap();
    let size = HEADER + 5 + TRAILER;
    bytes.drain(size..2 * size);
    std::fs::write(&path, &bytes).unwrap();
    assert!(matches!(
        Journal::open::<String>(&path),
        Err(JournalError::Damaged { offset, .. }) if offset == size as u64
    ));
}

#[test]
fn two_processes_can_not_write_one_journal() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let first = Journal::open::<String>(&path).unwrap();
    assert!(matches!(
        Journal::open::<String>(&path),
        Err(JournalError::InUse { .. })
    ));
    drop(first);
    assert!(Journal::open::<String>(&path).is_ok());
}

#[test]
fn reserving_space_does_not_lengthen_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let path = filled(dir.path(), &["one"]);
    let mut opened = Journal::open::<String>(&path).unwrap();
    let length = opened.journal.len();
    opened.journal.reserve(1 << 20).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), length);
    opened.journal.append(&"two").unwrap();
    drop(opened.journal);
    assert_eq!(Journal::open::<String>(&path).unwrap().records.len(), 2);
}

#[test]
fn a_rotated_journal_continues_the_chain_of_its_archive() {
    let dir = tempfile::tempdir().unwrap();
    let path = filled(dir.path(), &["one", "two"]);
    let mut journal = Journal::open::<String>(&path).unwrap().journal;
    let before = journal.head();
    journal
        .rotate(&dir.path().join("journal-1"), &"rotated")
        .unwrap();
    journal.append(&"three").unwrap();
    let head = journal.head();
    drop(journal);
    let fresh = Journal::open::<String>(&path).unwrap();
    assert_eq!(fresh.records, ["rotated", "three"]);
    assert_eq!(fresh.journal.head(), head);
    let old = Journal::open::<String>(&dir.path().join("journal-1")).unwrap();
    assert_eq!(old.journal.head(), before);
}

#[test]
fn a_journal_that_failed_once_takes_no_more_records() {
    let dir = tempfile::tempdir().unwrap();
    let path = filled(dir.path(), &["one"]);
    let mut journal = Journal::open::<String>(&path).unwrap().journal;
    // A descriptor that can't be written stands for a disk that fails.
    journal.file = File::open(&path).unwrap();
    assert!(matches!(journal.append(&"x"), Err(JournalError::Io { .. })));
    assert!(matches!(
        journal.append(&"y"),
        Err(JournalError::Failed { .. })
    ));
}
