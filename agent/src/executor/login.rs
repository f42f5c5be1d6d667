//! From where whoever asks is logged in: sshd says so in the environment of a login (`SSH_CONNECTION`, ssh(1)).
//!
//! It decides nothing: a lie only adds a way that a rehearsal looks at.

use std::fs::File;
use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use crate::rehearse::Login;

/// Processes between the asking one and the login, `sudo` among them.
const PARENTS: usize = 16;
/// Longest environment that is read, bytes.
const ENVIRONMENT: u64 = 256 << 10;
const VARIABLE: &[u8] = b"SSH_CONNECTION=";

/// The login in which a process runs; none at a console.
pub(super) fn of(proc: &Path, pid: i32) -> Option<Login> {
    let mut pid = u32::try_from(pid).ok()?;
    for _ in 0..PARENTS {
        let folder = proc.join(pid.to_string());
        let environment = read(&folder.join("environ")).unwrap_or_default();
        let value = environment
            .split(|byte| *byte == 0)
            .find_map(|variable| variable.strip_prefix(VARIABLE));
        if let Some(value) = value {
            return parse(std::str::from_utf8(value).ok()?);
        }
        pid = parent(&read(&folder.join("stat"))?).filter(|pid| *pid > 1)?;
    }
    None
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path).ok()?;
    file.take(ENVIRONMENT).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// The fourth field of proc_pid_stat(5); the second may hold blanks and brackets.
fn parent(stat: &[u8]) -> Option<u32> {
    let text = String::from_utf8_lossy(stat);
    let (_, rest) = text.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

/// `CLIENT PORT SERVER PORT`; an address may name its link.
fn parse(value: &str) -> Option<Login> {
    let mut words = value.split(' ');
    let address = |word: &str| word.split('%').next()?.parse::<IpAddr>().ok();
    let from = address(words.next()?)?;
    words.next()?;
    let own = address(words.next()?)?;
    let at = SocketAddr::new(own, words.next()?.parse().ok()?);
    (words.next().is_none() && from.is_ipv4() == own.is_ipv4()).then_some(Login { from, at })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_login_over_the_network_is_found_behind_sudo_and_none_at_a_console() {
        let proc = tempfile::tempdir().unwrap();
        let process = |pid: u32, parent: u32, environment: &[u8]| {
            let folder = proc.path().join(pid.to_string());
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("environ"), environment).unwrap();
            fs::write(folder.join("stat"), format!("{pid} (a) b) S {parent} 1 1")).unwrap();
        };
        process(30, 20, b"PATH=/bin\0");
        process(20, 10, b"");
        process(
            10,
            1,
            b"HOME=/\0SSH_CONNECTION=192.0.2.9 50000 192.0.2.1 22\0",
        );
        let login = Login {
            from: "192.0.2.9".parse().unwrap(),
            at: "192.0.2.1:22".parse().unwrap(),
        };
        assert_eq!(of(proc.path(), 30), Some(login));
        process(40, 1, b"HOME=/\0");
        assert_eq!(of(proc.path(), 40), None);
        process(50, 50, b"");
        assert_eq!(of(proc.path(), 50), None, "a circle ends");
        assert_eq!(of(proc.path(), 60), None);
    }

    #[test]
    fn what_is_no_connection_is_none() {
        assert!(parse("fe80::1%lan0 1 fe80::2%lan0 22").is_some());
        for value in [
            "",
            "192.0.2.9",
            "192.0.2.9 1 192.0.2.1",
            "a b c d",
            "192.0.2.9 1 ::1 22",
            "192.0.2.9 1 192.0.2.1 99999",
            "192.0.2.9 1 192.0.2.1 22 x",
        ] {
            assert_eq!(parse(value), None, "{value:?}");
        }
    }
}
