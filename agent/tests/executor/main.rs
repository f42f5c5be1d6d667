//! The executor as its own process, over its real socket, with the real sandbox and broker, in a network namespace of
//! its own: every promise about a change is kept or broken here.
//!
//! This program is also what it tests: the sandbox's child side, `change`, the shadow and the executor are this file
//! started again, as they are the one `aizen` on a device. Hence a harness of its own.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test may fail by a panic, and a harness talks to whoever runs it"
)]

mod abuse;
mod cases;
mod crashes;
mod device;
mod direct;
mod door;
mod faults;
mod foreseen;
mod keeper;
#[path = "../broker/lab.rs"]
#[expect(
    dead_code,
    reason = "the broker's tests use more of the router than these"
)]
mod lab;
mod lockouts;
mod loops;
mod prefixes;
mod refusals;
mod rescue;
mod rounds;
mod tunnels;
mod ubus;

use std::process::ExitCode;

type Case = (&'static str, fn());

fn main() -> ExitCode {
    aizen_sandbox::enter_if_asked();
    let called = std::env::args_os().next().unwrap_or_default();
    if called.to_string_lossy().ends_with("change") {
        return aizen_agent::cli::change::main(std::env::args_os());
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some(code) = device::play_role(&words) {
        return code;
    }
    let cases: Vec<Case> = cases::ALL
        .iter()
        .chain(refusals::ALL)
        .chain(crashes::ALL)
        .chain(door::ALL)
        .chain(abuse::ALL)
        .chain(abuse::WITH_CAPABILITIES)
        .chain(direct::ALL)
        .chain(faults::ALL)
        .chain(prefixes::ALL)
        .chain(lockouts::LOST)
        .chain(lockouts::HELD)
        .chain(lockouts::MORE)
        .chain(foreseen::ALL)
        .chain(foreseen::SOAK.iter().filter(|_| prefixes::is_soak()))
        .chain(loops::ALL)
        .chain(keeper::ALL)
        .chain(rescue::ALL)
        .chain(rounds::ALL)
        .chain(rounds::LONG.iter().filter(|_| prefixes::is_soak()))
        .chain(prefixes::SOAK.iter().filter(|_| prefixes::is_soak()))
        .chain(tunnels::SOAK.iter().filter(|_| prefixes::is_soak()))
        .chain(faults::LONG.iter().filter(|_| prefixes::is_soak()))
        .copied()
        .collect();
    if words.iter().any(|w| w == "--list") {
        let ignored = words.iter().any(|w| w == "--ignored");
        for (name, _) in cases.iter().filter(|_| !ignored) {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    let exact = words.iter().any(|w| w == "--exact");
    let wanted = words.iter().find(|w| !w.starts_with('-'));
    let chosen = |name: &str| {
        wanted.is_none_or(|w| {
            if exact {
                name == w
            } else {
                name.contains(w.as_str())
            }
        })
    };
    let mut failed = false;
    for (name, case) in cases.into_iter().filter(|(name, _)| chosen(name)) {
        // Each case in a thread: a panic is a failure of this case alone, and its namespace ends with it.
        let passed = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(case)
            .is_ok_and(|thread| thread.join().is_ok());
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        failed |= !passed;
    }
    if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
