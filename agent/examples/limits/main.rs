//! What this machine can do at best, for `cargo xtask bench` to measure the product by; by hand:
//!
//! ```text
//! cargo run --profile device -p aizen-agent --example limits collection 3
//! {"bare_us":310,"tables_us":420,"local_us":2500,"round_us":9100}
//! cargo run --profile device -p aizen-agent --example limits sweep 1000 10
//! {"answered":10000}
//! ```
//!
//! The numbers: rounds, which take seconds each; targets and requests to each.

mod collection;
mod sweep;

use std::io;

fn main() -> io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |place: usize| words.get(place).and_then(|word| word.parse().ok());
    match (words.first().map(String::as_str), number(1), number(2)) {
        (Some("collection"), Some(rounds), None) => collection::run(rounds),
        (Some("sweep"), Some(targets), Some(times)) => sweep::run(targets, times),
        _ => Err(io::Error::other(
            "collection ROUNDS, or sweep TARGETS TIMES",
        )),
    }
}
