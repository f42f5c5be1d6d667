//! How long a script takes to start, beside bare and (where it is installed) bubblewrap. Prints; run it by name.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::bed::{profile, run};

#[test]
#[ignore = "a measurement: cargo nextest run -p aizen-sandbox --run-ignored all --no-capture start"]
fn a_script_starts_within_a_tenth_of_a_second() {
    let bare = median(|| {
        let status = Command::new("sh").args(["-c", "true"]).status().unwrap();
        assert!(status.success());
    });
    let sandboxed = median(|| {
        run(profile("true"));
    });
    let mut report = format!("bare {bare:?}, sandboxed {sandboxed:?}");
    let wrap = || {
        Command::new("bwrap")
            .args([
                "--ro-bind",
                "/usr",
                "/usr",
                "--symlink",
                "usr/bin",
                "/bin",
                "--symlink",
                "usr/lib",
                "/lib",
            ])
            .args([
                "--symlink",
                "usr/lib64",
                "/lib64",
                "--proc",
                "/proc",
                "--dev",
                "/dev",
                "--tmpfs",
                "/tmp",
            ])
            .args([
                "--unshare-all",
                "--die-with-parent",
                "--uid",
                "65534",
                "sh",
                "-c",
                "true",
            ])
            .stderr(Stdio::null())
            .status()
    };
    if wrap().is_ok_and(|status| status.success()) {
        let wrapped = median(|| drop(wrap()));
        report += &format!(", bwrap {wrapped:?}");
    }
    #[expect(clippy::print_stderr, reason = "the measurement's result")]
    {
        eprintln!("{report}");
    }
    assert!(sandboxed < Duration::from_millis(100), "{report}");
}

fn median(mut once: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..51)
        .map(|_| {
            let started = Instant::now();
            once();
            started.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}
