//! The broker and the rollback on a real kernel: every test in a network namespace of its own.

#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod cases;
mod configured;
mod files;
mod lab;
mod rehearsed;
mod restored;
mod served;
