//! What a disk, a configuration or a program may hand to a rollback.

use std::time::Duration;

use crate::executor::ledger::Entry;
use crate::fuzz::{in_file, survives};
use crate::rescue::plan;
use crate::rescue::profile::Profile;

use super::checkpoint::{Checkpoint, Network};
use super::journal::Journal;
use super::seal::Seal;
use super::uci::{Edit, File, Held, Key};
use super::{Inverse, nft};

/// The executor's journal.
pub fn change_journal(bytes: &[u8]) {
    in_file(bytes, |path| {
        if let Ok(opened) = Journal::open::<Entry>(path) {
            opened.records.iter().for_each(survives);
            // Cut where it was torn, it reads the same again.
            let records = opened.records.len();
            drop(opened.journal);
            let again =
                Journal::open::<Entry>(path).map(|opened| (opened.records.len(), opened.torn));
            assert!(matches!(again, Ok((r, 0)) if r == records), "{again:?}");
        }
    });
}

/// Snapshots, and the rescue profile that holds one, opened.
pub fn checkpoint(bytes: &[u8]) {
    if let Ok(profile) = Profile::parse(bytes) {
        let text = serde_json::to_vec(&profile).unwrap_or_default();
        assert_eq!(Profile::parse(&text).ok().as_ref(), Some(&profile));
        let mut later = profile.moment.clone();
        later.since_boot.0 = later.since_boot.0.saturating_add(Duration::from_secs(60));
        let state = profile.state_at(&later);
        assert!(profile.covers(&profile));
        let same = plan::choose(&state, &state, true);
        assert!(same.put.is_empty() && same.left.is_empty());
        let mut bare = state.clone();
        bare.network = bare.network.map(|_| Network::default());
        plan::choose(&state, &bare, false);
        plan::choose(&bare, &state, true);
    }
    if let Ok(checkpoint) = serde_json::from_slice::<Checkpoint>(bytes) {
        assert!(checkpoint.differences(&checkpoint).is_empty());
        let text = serde_json::to_vec(&checkpoint).unwrap_or_default();
        let again = serde_json::from_slice::<Checkpoint>(&text).map(|again| again.digest());
        assert_eq!(again.ok(), Some(checkpoint.digest()));
        let files = checkpoint.persistent();
        assert_eq!(files.persistent().digest(), files.digest());
    }
}

/// Snapshots and inverses as they are stored.
pub fn sealed(bytes: &[u8]) {
    let seal = Seal::of([7; 32]);
    drop(seal.unseal("chg-1", bytes));
    if let Ok(value) = serde_json::from_slice(bytes)
        && let Ok(inverse) = seal.unseal_inverse("chg-1", &value)
    {
        survives::<Inverse>(&inverse);
        drop(inverse.to_string());
        drop(inverse.joined(&inverse).object());
    }
    if let Ok(mut stored) = seal.seal("chg-1", bytes) {
        let opened = seal.unseal("chg-1", &stored);
        assert!(opened.is_ok_and(|opened| opened.as_slice() == bytes));
        assert!(seal.unseal("chg-2", &stored).is_err());
        let place = bytes.iter().map(|b| usize::from(*b)).sum::<usize>() % stored.len();
        if let Some(byte) = stored.get_mut(place) {
            *byte ^= 1;
        }
        // Without its magic it is no sealed text at all, and without a brace nothing else.
        assert!(seal.unseal("chg-1", &stored).is_err());
    }
}

/// What `nft list ruleset` prints.
pub fn nft_listing(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    nft::is_whole(text);
    // Lines are left out or made shorter, never made or moved.
    let mut lines = text.lines();
    for kept in nft::plain(text).lines() {
        assert!(lines.any(|line| shortened(kept, line)), "{kept}");
    }
    if let Ok(tables) = nft::split(text) {
        for (name, table) in &tables {
            // Each part alone is a listing of this table.
            let again = nft::split(table).ok();
            let alone = again.is_some_and(|parts| parts.keys().eq([name]));
            assert!(alone, "{name}: {table}");
        }
    }
}

/// True if `part` is `whole` with something left out.
fn shortened(part: &str, whole: &str) -> bool {
    let mut left = whole.bytes();
    part.bytes().all(|byte| left.any(|other| other == byte))
}

/// Files of `/etc/config`: the key in the first line, its value in the second, then the file.
pub fn uci(bytes: &[u8]) {
    let mut parts = bytes.splitn(3, |b| *b == b'\n');
    let mut line = || String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let (key, value) = (line(), line());
    let file = parts.next().unwrap_or_default();
    drop(File::parse(bytes));
    let (Ok(key), Ok(parsed)) = (Key::parse(&key), File::parse(file)) else {
        return;
    };
    survives(&key);
    let before = parsed.get(&key);
    for edit in [
        Edit::Set(value.clone()),
        Edit::AddList(value.clone()),
        Edit::DelList(value),
        Edit::Delete,
    ] {
        let Ok(parsed) = File::parse(file) else {
            return;
        };
        let Ok(edited) = parsed.edit(&key, &edit) else {
            continue;
        };
        let text = edited.into_text();
        let read = File::parse(text.as_bytes());
        let held = match read {
            Ok(read) => read.get(&key),
            Err(error) => panic!("{edit:?} wrote what can't be read: {error}: {text}"),
        };
        if let (Edit::Set(value), Ok(Held::Text(held))) = (&edit, &held) {
            assert_eq!(value, held, "{text}");
        }
        // The way back of a key alone, where somebody else wrote the file meanwhile.
        if let (Ok(before @ (Held::Absent | Held::Text(_) | Held::List(_))), Ok(read)) =
            (&before, File::parse(text.as_bytes()))
            && let Ok(back) = read.put(&key, before)
        {
            let back = File::parse(back.into_text().as_bytes());
            let back = back.ok().and_then(|back| back.get(&key).ok());
            assert_eq!(back.as_ref(), Some(before), "{edit:?} of {key}");
        }
    }
}
