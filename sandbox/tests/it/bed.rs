//! What the tests lie in.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use aizen_sandbox::{End, Finished, Profile, SandboxError};

pub(crate) const HELPER: &str = env!("CARGO_BIN_EXE_aizen-sandbox-check");

/// A profile for `sh` with this crate's helper.
pub(crate) fn profile(script: &str) -> Profile {
    let mut profile = Profile::new("/bin/sh", script);
    profile.helper = PathBuf::from(HELPER);
    profile.timeout = Duration::from_secs(20);
    profile
}

pub(crate) fn try_run(profile: Profile) -> Result<Finished, SandboxError> {
    aizen_sandbox::run(profile, &AtomicBool::new(false))
}

pub(crate) fn run(profile: Profile) -> Finished {
    try_run(profile).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs a shell script to its end and gives what it wrote.
pub(crate) fn sh(script: &str) -> String {
    said(&run(profile(script)))
}

pub(crate) fn said(finished: &Finished) -> String {
    String::from_utf8_lossy(&finished.output)
        .trim_end()
        .to_owned()
}

/// Runs a script that must exit with 0.
pub(crate) fn succeeds(profile: Profile) -> String {
    let finished = run(profile);
    assert_eq!(finished.end, End::Exited(0), "{}", said(&finished));
    said(&finished)
}

/// The errno that a system call gives a script, 0 if it succeeds. Arguments are Perl expressions; `$s`, `$t` and `$u` are
/// bytes that the kernel may write to.
pub(crate) fn errno(number: i64, arguments: &str) -> i32 {
    let script = format!(
        "exec perl -e 'my ($s, $t, $u) = (\"x\" x 64, pack(\"Li\", 0x20080522, 0), pack(\"L6\", (0xffffffff) x 6)); my $r = syscall({number}, {arguments}); print $r == -1 ? $! + 0 : 0'"
    );
    let output = sh(&script);
    output
        .parse()
        .unwrap_or_else(|_| panic!("{number}: {output}"))
}

/// True if a process of the host has `marker` in its command line.
pub(crate) fn runs(marker: &str) -> bool {
    let processes = fs::read_dir("/proc").into_iter().flatten();
    // One that ends meanwhile runs no more.
    processes.filter_map(Result::ok).any(|process| {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(marker)
    })
}

/// Waits until `wanted` holds; false if it doesn't within five seconds.
pub(crate) fn soon(mut wanted: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline {
        if wanted() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    wanted()
}

/// A process of the host that a script must not reach; gone with the test, however that ends.
pub(crate) struct Bystander(Child);

impl Bystander {
    pub(crate) fn start() -> std::io::Result<Self> {
        Command::new("sleep").arg("60").spawn().map(Self)
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn lives(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
