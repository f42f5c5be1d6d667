//! What a round changes: kinds of change, ways to end, and what the files must be afterwards.

use std::collections::BTreeMap;

use aizen_protocol::id::Digest;
use serde_json::{Value, json};

use crate::lab::draw::Draw;

/// The files that changes of the soak may touch: boot configuration and what a resolver reads.
pub(in crate::vm) const FILES: [&str; 4] = [
    "/etc/network/interfaces",
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/network/extra",
];

/// SHA-256 of each file's content, in hexadecimal; none: the file is not there.
pub(super) type Contents = BTreeMap<String, Option<String>>;

/// What a round changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The network's boot configuration.
    BootConfiguration,
    /// Boot configuration, resolver and hosts together.
    ThreeFiles,
    /// A file that is not there, or another content of it.
    FileMade,
    /// A file is removed.
    FileRemoved,
    /// A file of some hundred kilobytes.
    LongFile,
    /// Address, route, link and sysctl.
    Kernel,
    /// Boot configuration and the kernel's state.
    Mixed,
}

const KINDS: [Kind; 7] = [
    Kind::BootConfiguration,
    Kind::ThreeFiles,
    Kind::FileMade,
    Kind::FileRemoved,
    Kind::LongFile,
    Kind::Kernel,
    Kind::Mixed,
];

/// How the change is to end, if the power lets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// A person confirms it.
    Confirmed,
    /// Nobody confirms it: it is rolled back at its deadline.
    Unconfirmed,
    /// The script fails after its operations: it is rolled back.
    Fails,
}

impl Kind {
    pub(super) fn draw(draw: &mut Draw) -> Self {
        KINDS[usize::try_from(draw.below(KINDS.len() as u64)).unwrap_or(0)]
    }

    /// Its name in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BootConfiguration => "boot configuration",
            Self::ThreeFiles => "three files",
            Self::FileMade => "file made",
            Self::FileRemoved => "file removed",
            Self::LongFile => "long file",
            Self::Kernel => "kernel state",
            Self::Mixed => "file and kernel state",
        }
    }

    fn writes(self) -> &'static [&'static str] {
        match self {
            Self::BootConfiguration | Self::Mixed => &["/etc/network/interfaces"],
            Self::ThreeFiles => &["/etc/network/interfaces", "/etc/resolv.conf", "/etc/hosts"],
            Self::FileMade => &["/etc/network/extra"],
            Self::LongFile => &["/etc/hosts"],
            Self::FileRemoved | Self::Kernel => &[],
        }
    }
}

impl Ending {
    pub(super) fn draw(draw: &mut Draw) -> Self {
        // A confirmation is the only ending with something to keep: every other round.
        match draw.below(4) {
            0 | 1 => Self::Confirmed,
            2 => Self::Unconfirmed,
            _ => Self::Fails,
        }
    }

    /// Its name in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Unconfirmed => "unconfirmed",
            Self::Fails => "fails",
        }
    }
}

/// One change, ready to be signed.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) script: String,
    pub(super) manifest: Value,
    /// What the files are if it is kept.
    pub(super) after: Contents,
}

/// Draws up the change of one round. `before` is what the files are now.
pub(super) fn plan(number: u32, kind: Kind, ending: Ending, before: &Contents) -> Plan {
    let mut plan = Plan {
        script: "set -e\n".to_owned(),
        manifest: Value::Null,
        after: before.clone(),
    };
    let mut operations = Vec::new();
    for path in kind.writes() {
        let lines = if kind == Kind::LongFile { 4000 } else { 2 };
        let line = format!("# round {number} wrote this into {path}\n");
        plan.script.push_str(&format!(
            "i=0; while [ $i -lt {lines} ]; do echo '{}'; i=$((i+1)); done | change file write {path}\n",
            line.trim_end()
        ));
        plan.after.insert(
            (*path).to_owned(),
            Some(Digest::of(line.repeat(lines).as_bytes()).to_string()),
        );
        operations.push(json!({"file": {"write": path}}));
    }
    if kind == Kind::FileRemoved {
        let there = |path: &str| before.get(path).is_some_and(Option::is_some);
        // The boot configuration first; the resolver's file is always there.
        let path = FILES
            .into_iter()
            .find(|path| there(path))
            .unwrap_or(FILES[1]);
        plan.script
            .push_str(&format!("change file delete {path}\n"));
        plan.after.insert(path.to_owned(), None);
        operations.push(json!({"file": {"delete": path}}));
    }
    if matches!(kind, Kind::Kernel | Kind::Mixed) {
        plan.script.push_str(
            "change address add 198.51.100.7/24 dev wan\nchange link set wan mtu 1400\n\
             change route add 203.0.113.0/24 via 192.0.2.9 dev wan\nchange sysctl net.ipv4.ip_forward=1\n",
        );
        operations.extend([
            json!({"address": {"add": {"address": "198.51.100.7/24", "dev": "wan"}}}),
            json!({"link": {"set": {"dev": "wan", "mtu": 1400}}}),
            json!({"route": {"add": {"dst": "203.0.113.0/24", "via": "192.0.2.9", "dev": "wan"}}}),
            json!({"sysctl": {"set": {"key": "net.ipv4.ip_forward", "value": "1"}}}),
        ]);
    }
    if ending == Ending::Fails {
        plan.script.push_str("exit 3\n");
    }
    let within = if ending == Ending::Unconfirmed {
        8
    } else {
        120
    };
    plan.manifest = json!({
        "class": "repair", "min_isolation": 2, "timeout_s": 100, "operations": operations,
        "confirm": {"within_s": within, "stable_s": 1, "probes": []},
    });
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_change_differs_from_the_state_before_in_what_it_writes_alone() {
        let before: Contents = FILES
            .iter()
            .map(|path| ((*path).to_owned(), Some("x".to_owned())))
            .collect();
        for kind in KINDS {
            let plan = plan(7, kind, Ending::Confirmed, &before);
            let differ = before
                .iter()
                .filter(|(path, content)| plan.after[*path] != **content)
                .count();
            let files = kind.writes().len() + usize::from(kind == Kind::FileRemoved);
            assert_eq!(differ, files, "{kind:?}");
        }
    }
}
