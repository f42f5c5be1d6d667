//! One run of a verified script on the device itself: sandboxed, every operation journalled before it is done.

pub mod attempt;
pub mod binding;

pub use attempt::{Attempt, Ground, Poised};

use std::path::PathBuf;
use std::time::Duration;

/// How scripts are run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The program that becomes the sandbox's child side (`/proc/self/exe`).
    pub helper: PathBuf,
    /// The program that scripts find as `change` (`/proc/self/exe`).
    pub change_tool: PathBuf,
    /// The script's user and group, never root; none leaves it to the sandbox.
    pub user: Option<(u32, u32)>,
    /// User and group that no process but a script with capabilities runs as; none: no such script is started. It has no
    /// user namespace of its own, so another process of the same user could reach it.
    pub direct_user: Option<(u32, u32)>,
    /// From SIGTERM to SIGKILL.
    pub grace: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            helper: PathBuf::from("/proc/self/exe"),
            change_tool: PathBuf::from("/proc/self/exe"),
            user: None,
            direct_user: None,
            grace: Duration::from_secs(2),
        }
    }
}

impl Settings {
    /// The program as a file: the sandbox opens it without following links, and `/proc/self/exe` is one.
    ///
    /// # Errors
    /// If it is not there any more.
    pub fn change_tool_file(&self) -> std::io::Result<PathBuf> {
        self.change_tool.canonicalize()
    }
}
