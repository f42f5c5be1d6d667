//! Undoing a change of OpenWrt's configuration: the file as it was, or, where somebody else changed it meanwhile, the
//! keys alone.

use aizen_protocol::id::Digest;
use serde::{Deserialize, Serialize};

use super::{UndoError, put_file};
use crate::broker::World;
use crate::rollback::checkpoint::Scope;
use crate::rollback::file::{FileError, FileState, Regular, Times};
use crate::rollback::uci::{File, Held, Key};

/// One key of one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyChange {
    /// Which.
    pub key: Key,
    /// What it held.
    pub before: Held,
    /// What the operation makes it hold.
    pub after: Held,
}

/// True if a key does not hold in `now` what it held in `before`.
pub(crate) fn differ(keys: &[KeyChange], before: &FileState, now: &FileState) -> bool {
    let (FileState::Regular(old), FileState::Regular(new)) = (before, now) else {
        return true;
    };
    if old.content == new.content {
        return true;
    }
    match (File::parse(&old.content), File::parse(&new.content)) {
        (Ok(old), Ok(new)) => keys
            .iter()
            .any(|k| old.get(&k.key) != new.get(&k.key) || old.get(&k.key).is_err()),
        _ => true,
    }
}

/// True if a file is as an operation found or left it, as far as its keys say.
pub(crate) fn knows(
    keys: &[KeyChange],
    before: &FileState,
    after: &[Digest],
    now: &FileState,
) -> bool {
    let FileState::Regular(file) = now else {
        return now == before;
    };
    let holds = |parsed: &File, change: &KeyChange| {
        let held = parsed.get(&change.key);
        held.is_ok_and(|held| held == change.before || held == change.after)
    };
    file.content == before.content()
        || after.contains(&Digest::of(&file.content))
        || File::parse(&file.content).is_ok_and(|parsed| keys.iter().all(|k| holds(&parsed, k)))
}

/// Makes the keys hold what they held.
pub(crate) async fn put(
    world: &World,
    scope: &Scope,
    path: &str,
    before: &FileState,
    after: &[Digest],
    keys: &[KeyChange],
) -> Result<(), UndoError> {
    let Some(place) = scope.place(&world.root, path)? else {
        return put_file(world, scope, path, before).await;
    };
    place.clean()?;
    let now = place.read()?;
    let FileState::Regular(file) = &now else {
        return put_file(world, scope, path, before).await;
    };
    let ours = file.content == before.content() || after.contains(&Digest::of(&file.content));
    let Ok(mut parsed) = File::parse(&file.content) else {
        return put_file(world, scope, path, before).await;
    };
    if ours {
        return put_file(world, scope, path, before).await;
    }
    for change in keys.iter().rev() {
        parsed = parsed.put(&change.key, &change.before)?;
    }
    let content = parsed.into_text().into_bytes();
    if content == file.content {
        return Ok(());
    }
    let state = FileState::Regular(Regular {
        content,
        ..file.clone()
    });
    let made = tokio::task::spawn_blocking(move || place.make(&state, Times::Fresh)).await;
    Ok(made.unwrap_or_else(|_| {
        Err(FileError::System {
            path: path.to_owned(),
            doing: "put its keys back",
            source: std::io::ErrorKind::Interrupted.into(),
        })
    })?)
}
