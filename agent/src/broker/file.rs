//! Files: replaced whole or removed; what a diff shows of them.

use std::io;

use aizen_protocol::id::Digest;
use similar::algorithms::{Capture, Compact, Replace, myers};
use similar::udiff::UnifiedHunkHeader;

use super::{BrokerError, Plan, World};
use crate::rollback::FileError;
use crate::rollback::checkpoint::Scope;
use crate::rollback::file::{FileState, Place, Regular, Times};
use crate::rollback::inverse::Inverse;

/// Lines of both sides together up to which the shortest diff is looked for: its cost is their product.
const LINES: usize = 4000;

/// What is about to be done.
pub(super) struct Act {
    place: std::sync::Arc<Place>,
    pub(super) state: FileState,
}

impl Act {
    pub(super) fn new(place: Place, state: FileState) -> Self {
        Self {
            place: std::sync::Arc::new(place),
            state,
        }
    }

    pub(super) async fn run(&self) -> Result<(), FileError> {
        let (place, state) = (self.place.clone(), self.state.clone());
        // Flash may take a second for a sync.
        let made = tokio::task::spawn_blocking(move || place.make(&state, Times::Fresh)).await;
        made.unwrap_or_else(|_| {
            Err(self
                .place
                .failed("finish writing it", io::ErrorKind::Interrupted.into()))
        })
    }
}

pub(super) fn plan(
    world: &World,
    scope: &Scope,
    path: &str,
    content: Option<Vec<u8>>,
) -> Result<Option<Plan>, BrokerError> {
    let missing = |content: &Option<Vec<u8>>| match content {
        Some(_) => BrokerError::NoFolder(path.to_owned()),
        None => BrokerError::NoFile(path.to_owned()),
    };
    let place = scope
        .place(&world.root, path)?
        .ok_or_else(|| missing(&content))?;
    let before = place.read()?;
    let state = match (&before, content) {
        (FileState::Absent, None) => return Err(BrokerError::NoFile(path.to_owned())),
        (FileState::Regular(file), Some(content)) if file.content == content => return Ok(None),
        (FileState::Regular(file), Some(content)) => FileState::Regular(Regular {
            content,
            ..file.clone()
        }),
        (FileState::Absent, Some(content)) => FileState::Regular(Regular::fresh(content)),
        (FileState::Regular(_), None) => FileState::Absent,
    };
    let after = match &state {
        FileState::Absent => None,
        FileState::Regular(file) => Some(Digest::of(&file.content)),
    };
    let inverse = Inverse::File {
        path: path.to_owned(),
        before,
        after,
    };
    let act = Act::new(place, state);
    Ok(Some(Plan {
        inverse,
        act: super::Act::File(act),
    }))
}

/// A unified diff; for what is no text, sizes and checksums. The same two files always give the same diff.
pub(super) fn diff(path: &str, before: &FileState, after: &FileState) -> String {
    let head = match (before, after) {
        (FileState::Absent, FileState::Regular(file)) => format!(
            "new file, mode {:04o}, owner {}:{}\n",
            file.mode, file.uid, file.gid
        ),
        (FileState::Regular(file), FileState::Absent) => format!(
            "file removed, mode {:04o}, owner {}:{}\n",
            file.mode, file.uid, file.gid
        ),
        _ => String::new(),
    };
    let name = |state: &FileState| match state {
        FileState::Absent => "/dev/null".to_owned(),
        FileState::Regular(_) => path.to_owned(),
    };
    let text = |bytes| {
        std::str::from_utf8(bytes)
            .ok()
            .filter(|text| !text.contains('\0'))
    };
    let (Some(old), Some(new)) = (text(before.content()), text(after.content())) else {
        let sum = |state: &FileState| {
            format!(
                "{} bytes, SHA-256 {}",
                state.content().len(),
                Digest::of(state.content())
            )
        };
        return format!("{head}binary file\n- {}\n+ {}\n", sum(before), sum(after));
    };
    if is_long(old, new) {
        return head + &coarse(&name(before), &name(after), old, new);
    }
    head + &fine(&name(before), &name(after), old, new)
}

/// The shortest diff, three lines around each change.
pub(super) fn fine(from: &str, to: &str, old: &str, new: &str) -> String {
    let lines = |text| str::split_inclusive(text, '\n').collect::<Vec<&str>>();
    let (old, new) = (lines(old), lines(new));
    let mut found = Compact::new(Replace::new(Capture::new()), &*old, &*new);
    let Ok(()) = myers::diff(&mut found, &*old, 0..old.len(), &*new, 0..new.len());
    let hunks = found.into_inner().into_inner().into_grouped_ops(3);
    let mut text = String::new();
    if !hunks.is_empty() {
        text = format!("--- {from}\n+++ {to}\n");
    }
    for hunk in hunks {
        text += &format!("{}\n", UnifiedHunkHeader::new(&hunk));
        for change in hunk.iter().flat_map(|part| part.iter_changes(&*old, &*new)) {
            text += &format!("{}{}", change.tag(), change.value());
            if !change.value().ends_with('\n') {
                text += "\n\\ No newline at end of file\n";
            }
        }
    }
    text
}

/// True if the shortest diff of the two is not worth its cost.
pub(super) fn is_long(old: &str, new: &str) -> bool {
    old.lines().count() + new.lines().count() > LINES
}

/// All between the first and the last line that differ, as one hunk: linear in the size.
pub(super) fn coarse(from: &str, to: &str, old: &str, new: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let head = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let tail = old[head..]
        .iter()
        .rev()
        .zip(new[head..].iter().rev())
        .take_while(|(a, b)| a == b)
        .count();
    let (gone, come) = (&old[head..old.len() - tail], &new[head..new.len() - tail]);
    let mut text = format!(
        "--- {from}\n+++ {to}\n@@ -{},{} +{},{} @@\n",
        head + 1,
        gone.len(),
        head + 1,
        come.len()
    );
    for (sign, lines) in [('-', gone), ('+', come)] {
        for line in lines {
            text.push(sign);
            text += line;
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &str) -> FileState {
        FileState::Regular(Regular::fresh(content.as_bytes().to_vec()))
    }

    #[test]
    fn a_diff_reads_as_people_know_it() {
        let text = diff(
            "/etc/resolv.conf",
            &file("nameserver 192.0.2.1\nsearch lan\n"),
            &file("nameserver 192.0.2.2\nsearch lan\n"),
        );
        assert_eq!(
            text,
            "--- /etc/resolv.conf\n+++ /etc/resolv.conf\n@@ -1,2 +1,2 @@\n-nameserver 192.0.2.1\n+nameserver 192.0.2.2\n search lan\n"
        );
        let created = diff("/etc/x", &FileState::Absent, &file("a\n"));
        assert!(
            created.starts_with("new file, mode 0644, owner 0:0\n--- /dev/null\n+++ /etc/x\n"),
            "{created}"
        );
    }

    #[test]
    fn changes_far_apart_are_hunks_of_their_own_and_a_missing_newline_is_told() {
        let old: String = (1..=20).map(|n| format!("{n}\n")).collect();
        let new = old.replace("2\n3\n", "2\nthree\n").replace("20\n", "20");
        assert_eq!(
            diff("/x", &file(&old), &file(&new)),
            "--- /x\n+++ /x\n@@ -1,6 +1,6 @@\n 1\n 2\n-3\n+three\n 4\n 5\n 6\n\
             @@ -17,4 +17,4 @@\n 17\n 18\n 19\n-20\n+20\n\\ No newline at end of file\n"
        );
        assert_eq!(diff("/x", &file(&old), &file(&old)), "");
    }

    #[test]
    fn a_diff_of_large_files_that_share_nothing_is_made_in_linear_time() {
        let old: String = (0..60_000).map(|n| format!("{n}\n")).collect();
        let new: String = (0..60_000).map(|n| format!("{}\n", n + 100_000)).collect();
        let text = diff("/x", &file(&old), &file(&new));
        assert_eq!(text.lines().count(), 3 + 120_000);
        let one = diff(
            "/x",
            &file(&old),
            &file(&old.replace("\n777\n", "\nseven\n")),
        );
        assert_eq!(one, "--- /x\n+++ /x\n@@ -778,1 +778,1 @@\n-777\n+seven\n");
    }

    #[test]
    fn what_is_no_text_is_told_by_size_and_checksum() {
        let binary = FileState::Regular(Regular::fresh(vec![0, 159, 146]));
        let text = diff("/x", &file("a"), &binary);
        assert!(
            text.contains("binary file\n- 1 bytes, SHA-256 ca97"),
            "{text}"
        );
    }
}
