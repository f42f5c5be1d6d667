//! Kernel parameters below `/proc/sys/net`: how they are named, read, written, and which others one of them moves.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Longest value that is read, bytes.
const VALUE: usize = 4096;
/// Most parameters that one pattern may match.
const MATCHES: usize = 4096;

/// A parameter's name: components below `/proc/sys`, the first of which is `net`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct SysctlKey(Vec<String>);

/// A name that is none, or that nothing may change here.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidSysctl {
    /// Not components joined by `.` or `/`.
    #[error("'{0}' is not the name of a kernel parameter")]
    Malformed(String),
    /// Outside `net`: the rest of the kernel is not the network's business, and some of it runs programs.
    #[error("'{0}' is not below net.: only the network's parameters can be changed")]
    NotNetwork(String),
}

impl SysctlKey {
    /// Takes `net.ipv4.ip_forward` and `net/ipv4/ip_forward`; as in sysctl(8) the first separator decides, and the
    /// other one stands for it inside a name (`net.ipv4.conf.eth0/1.forwarding`).
    ///
    /// # Errors
    /// [`InvalidSysctl`] with the text, bounded.
    pub fn parse(text: &str) -> Result<Self, InvalidSysctl> {
        let shown = || text.chars().take(80).collect::<String>();
        let dotted = text.chars().find(|c| matches!(c, '.' | '/')) == Some('.');
        let swap = |c: char| match c {
            '.' if dotted => '/',
            '/' if dotted => '.',
            c => c,
        };
        let slashed: String = text.chars().map(swap).collect();
        let parts: Vec<String> = slashed.split('/').map(str::to_owned).collect();
        let plain = |part: &String| {
            !part.is_empty()
                && part != "."
                && part != ".."
                && part
                    .chars()
                    .all(|c| c.is_ascii_graphic() && !matches!(c, '/' | '*'))
        };
        if text.len() > 200 || parts.len() < 2 || parts.len() > 8 || !parts.iter().all(plain) {
            return Err(InvalidSysctl::Malformed(shown()));
        }
        if parts[0] != "net" {
            return Err(InvalidSysctl::NotNetwork(shown()));
        }
        Ok(Self(parts))
    }

    fn path(&self) -> PathBuf {
        let mut path = PathBuf::from("/proc/sys");
        path.extend(&self.0);
        path
    }

    /// The interface that it belongs to; none for `all`, `default` and what is no interface's.
    #[must_use]
    pub fn dev(&self) -> Option<&str> {
        match self.parts().as_slice() {
            ["net", "ipv4" | "ipv6", "conf" | "neigh", dev, _]
                if !matches!(*dev, "all" | "default") =>
            {
                Some(dev)
            }
            _ => None,
        }
    }

    /// True if it is a parameter of IPv6.
    #[must_use]
    pub fn is_ipv6(&self) -> bool {
        self.0.get(1).is_some_and(|p| p == "ipv6")
    }

    fn parts(&self) -> Vec<&str> {
        self.0.iter().map(String::as_str).collect()
    }

    /// What writing it may move besides itself: `conf/all` and `conf/default` reach every interface, and forwarding
    /// resets `accept_redirects` (ip-sysctl.rst, `inet_forward_change`).
    pub(crate) fn moves(&self) -> Vec<Pattern> {
        let own = || vec![Pattern(self.0.clone())];
        let everywhere = |family: &str, name: &str| {
            Pattern(
                ["net", family, "conf", "*", name]
                    .map(str::to_owned)
                    .to_vec(),
            )
        };
        match self.parts().as_slice() {
            ["net", "ipv4", "ip_forward"] | ["net", "ipv4", "conf", _, "forwarding"] => {
                let mut moved = vec![Pattern::forwarding()];
                moved.push(everywhere("ipv4", "forwarding"));
                moved.push(everywhere("ipv4", "accept_redirects"));
                moved
            }
            ["net", family @ ("ipv4" | "ipv6"), "conf", _, name] => vec![everywhere(family, name)],
            ["net", family @ ("ipv4" | "ipv6"), "neigh", _, name] => {
                vec![Pattern(
                    ["net", family, "neigh", "*", name]
                        .map(str::to_owned)
                        .to_vec(),
                )]
            }
            _ => own(),
        }
    }

    /// Where it stands in an order of writing in which none undoes another: the one for all before each.
    pub(crate) fn rank(&self) -> u8 {
        match self.parts().as_slice() {
            ["net", _, "conf" | "neigh", "all", _] => 1,
            ["net", _, "conf" | "neigh", "default", _] => 2,
            ["net", _, "conf" | "neigh", ..] => 3,
            _ => 0,
        }
    }
}

impl fmt::Display for SysctlKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, part) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(".")?;
            }
            f.write_str(&part.replace('.', "/"))?;
        }
        Ok(())
    }
}

impl From<SysctlKey> for String {
    fn from(key: SysctlKey) -> Self {
        key.to_string()
    }
}

impl TryFrom<String> for SysctlKey {
    type Error = InvalidSysctl;
    fn try_from(text: String) -> Result<Self, InvalidSysctl> {
        Self::parse(&text)
    }
}

/// Some parameters: components, of which one may be `*`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Pattern(Vec<String>);

impl Pattern {
    /// Every parameter of an interface: all go with the interface's IPv4 or IPv6 side when its MTU gets too small.
    pub(crate) fn of_interface(dev: &str) -> Vec<Self> {
        let mut patterns = Vec::new();
        for family in ["ipv4", "ipv6"] {
            for folder in ["conf", "neigh"] {
                patterns.push(Self(
                    ["net", family, folder, dev, "*"]
                        .map(str::to_owned)
                        .to_vec(),
                ));
            }
        }
        patterns
    }

    /// Whether packets of others pass.
    pub(crate) fn forwarding() -> Self {
        Self(["net", "ipv4", "ip_forward"].map(str::to_owned).to_vec())
    }

    pub(crate) fn matches(&self, key: &SysctlKey) -> bool {
        self.0.len() == key.0.len() && self.0.iter().zip(&key.0).all(|(p, k)| p == "*" || p == k)
    }

    fn expand(&self) -> Vec<SysctlKey> {
        let Some(star) = self.0.iter().position(|p| p == "*") else {
            return vec![SysctlKey(self.0.clone())];
        };
        let mut folder = PathBuf::from("/proc/sys");
        folder.extend(&self.0[..star]);
        let Ok(entries) = std::fs::read_dir(folder) else {
            return Vec::new();
        };
        let names = entries
            .flatten()
            .filter_map(|e| e.file_name().into_string().ok());
        names
            .take(MATCHES)
            .map(|name| {
                let mut parts = self.0.clone();
                parts[star] = name;
                SysctlKey(parts)
            })
            .collect()
    }
}

/// White space as one blank: the kernel shows tabs where people write blanks.
pub(crate) fn plain(value: &str) -> String {
    value.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Its value; none if there is no such parameter.
///
/// # Errors
/// What the kernel says; a value longer than 4 KiB is [`io::ErrorKind::FileTooLarge`].
pub(crate) fn read(key: &SysctlKey) -> io::Result<Option<String>> {
    use std::io::Read as _;
    let file = match std::fs::File::open(key.path()) {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(None);
        }
        file => file?,
    };
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let mut bytes = Vec::new();
    file.take(VALUE as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > VALUE {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(Some(plain(&String::from_utf8_lossy(&bytes))))
}

/// Writes it.
pub(crate) fn write(key: &SysctlKey, value: &str) -> io::Result<()> {
    use std::io::Write as _;
    let mut file = std::fs::OpenOptions::new().write(true).open(key.path())?;
    // One write: each is a value of its own.
    file.write_all(format!("{value}\n").as_bytes())
}

/// The values of all that the patterns match and that can be written and read.
pub(crate) fn read_all(patterns: &[Pattern]) -> BTreeMap<SysctlKey, String> {
    use std::os::unix::fs::PermissionsExt as _;
    let writable = |key: &SysctlKey| {
        std::fs::metadata(key.path())
            .is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o200 != 0)
    };
    let keys = patterns.iter().flat_map(Pattern::expand).filter(writable);
    keys.filter_map(|key| read(&key).ok().flatten().map(|value| (key, value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_writing_a_name_are_the_same_name() {
        let dotted = SysctlKey::parse("net.ipv4.conf.eth0/1.forwarding").unwrap();
        assert_eq!(
            dotted,
            SysctlKey::parse("net/ipv4/conf/eth0.1/forwarding").unwrap()
        );
        assert_eq!(dotted.to_string(), "net.ipv4.conf.eth0/1.forwarding");
        assert_eq!(dotted.dev(), Some("eth0.1"));
    }

    #[test]
    fn a_name_that_leaves_its_folder_or_the_network_is_refused() {
        for text in [
            "",
            "net",
            "net/../kernel/core_pattern",
            "net..ipv4",
            "net/ipv4/",
            "/proc/sys/net/x",
            "net/*/x",
            "net.ipv4.a b",
        ] {
            assert!(
                matches!(SysctlKey::parse(text), Err(InvalidSysctl::Malformed(_))),
                "{text}"
            );
        }
        for text in [
            "kernel.core_pattern",
            "vm/drop_caches",
            "fs.protected_symlinks",
        ] {
            assert!(
                matches!(SysctlKey::parse(text), Err(InvalidSysctl::NotNetwork(_))),
                "{text}"
            );
        }
    }

    #[test]
    fn forwarding_is_known_to_move_accept_redirects_of_every_interface() {
        let moved = SysctlKey::parse("net.ipv4.ip_forward").unwrap().moves();
        let redirects = SysctlKey::parse("net.ipv4.conf.lan.accept_redirects").unwrap();
        assert!(moved.iter().any(|p| p.matches(&redirects)));
        let other = SysctlKey::parse("net.ipv4.conf.lan.rp_filter").unwrap();
        assert!(!moved.iter().any(|p| p.matches(&other)));
    }
}
