//! Waits for a condition with a deadline: no fixed sleeps, no endless loops.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Set by whoever watches for Ctrl-C: every wait ends, and what was made is cleaned up on the way out.
pub static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// A slow machine waits longer: every deadline is multiplied by `AIZEN_PATIENCE`.
static PATIENCE: LazyLock<u32> = LazyLock::new(|| {
    let told = std::env::var("AIZEN_PATIENCE").ok();
    told.and_then(|text| text.parse().ok()).unwrap_or(1).max(1)
});

/// True once somebody asked to stop.
#[must_use]
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// Asks `probe` every 50 ms until it gives a value.
///
/// # Errors
/// After `within` (more on a slow machine), naming `what` was waited for; at once when interrupted.
pub fn until<T>(what: &str, within: Duration, mut probe: impl FnMut() -> Option<T>) -> Result<T> {
    let within = within * *PATIENCE;
    let deadline = Instant::now() + within;
    loop {
        if let Some(value) = probe() {
            return Ok(value);
        }
        if interrupted() {
            bail!("interrupted while waiting for {what}");
        }
        if Instant::now() >= deadline {
            bail!("waited {within:?} for {what} in vain");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
