//! What comes between: a kill, a stop, a full disk, at its time.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::plan::Misfortune;

/// Lets it come at its time.
pub(super) fn threaten(
    misfortune: &Misfortune,
    executor: u32,
    length: Duration,
    state: &Path,
) -> Option<JoinHandle<()>> {
    let id = Pid::from_raw(i32::try_from(executor).unwrap());
    match misfortune.clone() {
        Misfortune::None | Misfortune::Refused { .. } => None,
        Misfortune::Killed { at, .. } | Misfortune::Rebooted { at, .. } => {
            Some(std::thread::spawn(move || {
                std::thread::sleep(length.mul_f64(at));
                kill(id, Signal::SIGKILL).unwrap();
            }))
        }
        Misfortune::Stopped { at } => Some(std::thread::spawn(move || {
            std::thread::sleep(length.mul_f64(at));
            kill(id, Signal::SIGSTOP).unwrap();
            std::thread::sleep(Duration::from_millis(1200));
            kill(id, Signal::SIGCONT).unwrap();
        })),
        Misfortune::Full { at, left } => {
            let state = state.to_owned();
            let filling = move || {
                std::thread::sleep(length.mul_f64(at));
                fill(&state, left);
            };
            if at > 0.0 {
                return Some(std::thread::spawn(filling));
            }
            filling();
            None
        }
    }
}

/// Leaves so much of a file system, bytes.
fn fill(state: &Path, left: u64) {
    let mut ballast = fs::File::create(state.join("ballast")).unwrap();
    loop {
        let space = nix::sys::statvfs::statvfs(state).unwrap();
        let free = space.blocks_available() * space.fragment_size();
        let more = free.saturating_sub(left).min(256 << 10);
        if more < 4096 {
            return;
        }
        let zeros = vec![0; usize::try_from(more).unwrap()];
        if ballast.write_all(&zeros).is_err() {
            return;
        }
    }
}
