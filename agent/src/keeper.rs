//! The second keeper of a deadline: a small process beside the executor that undoes a change when the executor can't.
//!
//! ```text
//! executor ── begins a change ──→ starts it (this program again), before anything is touched
//!          ── arms ─────────────→ tells it the deadline
//!          ── reported ─────────→ tells it that the change ended: it ends
//!          ── dies ─────────────→ it waits for a restarted one, else it recovers, as `aizen recover` does
//!          ── hangs ────────────→ some time after the deadline it is killed; then the same
//! ```
//!
//! Who recovers holds the journal's lock: a restarted executor, `aizen recover` and the keeper never do so at once.
//! Where there is a service manager it is the first keeper (it restarts what died, and ends what hangs if it has a
//! watchdog); this one is for those without, and for when it fails. What is decided is `watch`'s alone.

use std::path::PathBuf;
use std::time::Duration;

use aizen_protocol::id::ChangeId;
use serde::{Deserialize, Serialize};

use crate::clock::BootTime;
use crate::executor;

mod post;
mod process;
mod watch;

pub(crate) use post::Keeper;
pub use process::{KeeperError, main};
pub use watch::End;

/// The hidden word that makes this program a keeper; what follows it is for people who list processes.
pub const KEEP_WORD: &str = "keep";
/// Longest word between the two, bytes: paths and numbers.
const WORD: usize = 32 << 10;

/// What a keeper waits for, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// From the executor's death until the keeper recovers: time for whoever restarts it. systemd's unit takes 2 s,
    /// procd 5 s by default.
    pub grace: Duration,
    /// From the deadline until an executor that has not begun to undo hangs: it ends the script first (2 s for it to
    /// leave, 7 s at most to be ended), and reads what changed.
    pub margin: Duration,
    /// From there until an executor that began to undo hangs, too. One deed of a service may take 60 s, one table 30 s.
    pub undoing: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(10),
            margin: Duration::from_secs(30),
            undoing: Duration::from_secs(300),
        }
    }
}

/// What the executor tells its keeper, one JSON object a packet.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "word")]
enum Word {
    /// First: whom to watch, and what a recovery needs to know.
    Begin(Order),
    /// From here on something may be touched.
    Armed {
        /// Until when it is confirmed or undone, on this boot's clock.
        until: BootTime,
    },
    /// The change ended and is reported.
    Ended,
}

/// Whom to watch, and what a recovery needs.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    /// Process number of the executor: the keeper's parent.
    executor: i32,
    change: ChangeId,
    /// As in [`crate::executor::Settings`].
    state: PathBuf,
    sanitizer_key: PathBuf,
    policy: PathBuf,
    root: PathBuf,
    name: Option<String>,
    settings: Settings,
}

impl Order {
    fn new(settings: &executor::Settings, change: &ChangeId) -> Self {
        Self {
            executor: i32::try_from(std::process::id()).unwrap_or_default(),
            change: change.clone(),
            state: settings.state.clone(),
            sanitizer_key: settings.sanitizer_key.clone(),
            policy: settings.policy.clone(),
            root: settings.root.clone(),
            name: settings.name.clone(),
            settings: settings.keeper,
        }
    }

    /// What a recovery looks at, as the executor has it.
    fn recovery(&self) -> executor::Settings {
        executor::Settings {
            state: self.state.clone(),
            sanitizer_key: self.sanitizer_key.clone(),
            policy: self.policy.clone(),
            root: self.root.clone(),
            name: self.name.clone(),
            ..executor::Settings::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recovery_in_the_executors_stead_has_its_places_its_policy_and_its_probes() {
        let own = executor::Settings {
            state: "/a".into(),
            sanitizer_key: "/b".into(),
            policy: "/c".into(),
            root: "/d".into(),
            name: Some("e.example".to_owned()),
            ..executor::Settings::default()
        };
        let word = Word::Begin(Order::new(&own, &"chg-1".parse().unwrap()));
        let sent = serde_json::to_vec(&word).unwrap();
        let Word::Begin(heard) = serde_json::from_slice(&sent).unwrap() else {
            panic!("another word");
        };
        assert_eq!(heard.recovery(), own);
    }
}
