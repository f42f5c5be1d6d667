//! Prints what this host gives to a script: the level, and each layer. Also the helper of this crate's tests.

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    aizen_sandbox::enter_if_asked();
    let isolation = aizen_sandbox::check();
    let mut text = format!("level {}\n", isolation.level);
    for layer in isolation.layers {
        let mark = if layer.enforced { "yes" } else { "no" };
        text += &format!("{:<18} {mark:<4} {}\n", layer.name, layer.detail);
    }
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
