//! Runs one untrusted program with the least privilege that its manifest allows.
//!
//! The parent ([`run`]) re-executes a helper program (usually its own) that builds the walls from outside in and then
//! becomes three processes: a *keeper* outside the walls that only waits, an *init* inside that reaps and ends what is
//! left, and the script. Nothing of the script runs before the parent has seen which walls stand and has said go.
//!
//! What stands is a vector of layers and one level derived from it ([`Isolation`]); a run below the level that its
//! [`Profile`] asks for is refused, never run with less.

//!
//! Two questions to the kernel that have no safe form elsewhere live here as well, as only this crate may hold `unsafe`:
//! [`clock`] and [`driver`].

#![deny(unsafe_code)]

mod capability;
mod capture;
pub mod clock;
pub mod driver;
mod cgroup;
mod enter;
mod landlock;
mod launch;
mod level;
mod message;
mod mount;
mod namespace;
mod profile;
mod rlimit;
mod seccomp;
mod sys;

pub use enter::enter_if_asked;
pub use launch::{End, Finished, SandboxError, check, check_with, run, run_when};
pub use level::{Isolation, Layer};
pub use profile::{Limits, Network, Powers, Profile, ProfileError, ReadBind};
