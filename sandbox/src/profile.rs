//! What a manifest may ask for: typed, closed, validated before anything is built.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One run.
#[derive(Debug)]
pub struct Profile {
    /// The program that reads the script, an absolute path.
    pub interpreter: PathBuf,
    /// The verified bytes; exactly these are run, from a sealed memory file.
    pub script: Vec<u8>,
    /// Variables that the script sees besides `PATH`, `HOME`, `TMPDIR` and `LANG`. Nothing is inherited.
    pub environment: BTreeMap<String, String>,
    /// Paths that the script may read besides the minimal root.
    pub reads: Vec<ReadBind>,
    /// The program that the script finds as `change`, first on its `PATH`.
    pub change_tool: Option<PathBuf>,
    /// The script's end of the broker's socket; becomes descriptor 3.
    pub broker: Option<OwnedFd>,
    /// Which network namespace the script sees. Without powers it can't make an internet or netlink socket in either.
    pub network: Network,
    /// What it may do to that network with its own hands.
    pub powers: Powers,
    /// Bounds of the run.
    pub limits: Limits,
    /// From the script's first instruction to SIGTERM.
    pub timeout: Duration,
    /// From SIGTERM to SIGKILL.
    pub grace: Duration,
    /// The least level (0 to 4) that this run is started at.
    pub min_level: u8,
    /// The program that calls [`crate::enter_if_asked`] first in its `main`.
    pub helper: PathBuf,
    /// The script's user on the host, never 0.
    pub uid: u32,
    /// The script's group on the host, never 0.
    pub gid: u32,
}

/// A path of the host that the script may read. Symbolic links are followed once, when the descriptor is opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadBind {
    /// Where it is on the host.
    pub source: PathBuf,
    /// Where the script finds it.
    pub target: PathBuf,
}

/// The network namespace of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// A fresh one with a loopback that is down.
    Empty,
    /// The caller's, to read its state in `/proc/self/net`.
    Host,
}

/// What a script may do to the host's network with its own hands; by default nothing.
///
/// A capability means something in the host's network only if it is held in the initial user namespace, so such a script
/// gets no user namespace of its own: what stands between it and the host is its uid, and every other layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Powers {
    /// `CAP_NET_ADMIN` (capabilities(7)), with sockets of rtnetlink and of netfilter to use it by.
    pub net_admin: bool,
    /// `CAP_NET_RAW`, with raw and packet sockets.
    pub net_raw: bool,
    /// Sockets of generic netlink besides, by which WireGuard is set. Needs `net_admin`.
    pub generic_netlink: bool,
}

impl Powers {
    /// True if there is one.
    #[must_use]
    pub fn any(self) -> bool {
        self.net_admin || self.net_raw
    }

    /// Its capabilities, by the names of capabilities(7) in small letters.
    pub(crate) fn names(self) -> String {
        let held = [(self.net_admin, "net_admin"), (self.net_raw, "net_raw")];
        let held: Vec<_> = held
            .iter()
            .filter(|(held, _)| *held)
            .map(|(_, name)| *name)
            .collect();
        held.join(" ")
    }
}

/// Bounds of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory of all processes together (scratch included) where the kernel has a memory controller, of each one elsewhere.
    pub memory_bytes: u64,
    /// Processes and threads at one time.
    pub processes: u32,
    /// Output that is kept: half of it from the start, half from the end.
    pub output_bytes: usize,
    /// Size of `/tmp`, the only place that can be written.
    pub scratch_bytes: u64,
    /// CPU time of one process.
    pub cpu_seconds: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 64 << 20,
            processes: 32,
            output_bytes: 64 << 10,
            scratch_bytes: 8 << 20,
            cpu_seconds: 10,
        }
    }
}

/// Why a profile can't be run as it stands.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// Relative, with `..`, or not UTF-8.
    #[error("{path:?} is not a plain absolute path")]
    Path {
        /// The path.
        path: PathBuf,
    },
    /// The sandbox's own places are not for binding over.
    #[error("{path:?} lies where the sandbox keeps its own files")]
    Reserved {
        /// The target.
        path: PathBuf,
    },
    /// Not `[A-Za-z_][A-Za-z0-9_]*`, or the value holds a NUL, or the loader would obey it.
    #[error("{name:?} is not a variable that a script may be given")]
    Variable {
        /// The name.
        name: String,
    },
    /// User or group 0 would make the walls decoration.
    #[error("a script does not run as root")]
    Root,
    /// A power over a network that is not there.
    #[error("powers over the network need the host's, and generic netlink needs net_admin")]
    Powers,
    /// A bound of 0.
    #[error("the bound {name} is 0")]
    Zero {
        /// Which.
        name: &'static str,
    },
}

impl Profile {
    /// A run with the default bounds: 30 s, empty network, level 2 or better, nobody's user, the current program as helper.
    #[must_use]
    pub fn new(interpreter: impl Into<PathBuf>, script: impl Into<Vec<u8>>) -> Self {
        Self {
            interpreter: interpreter.into(),
            script: script.into(),
            environment: BTreeMap::new(),
            reads: Vec::new(),
            change_tool: None,
            broker: None,
            network: Network::Empty,
            powers: Powers::default(),
            limits: Limits::default(),
            timeout: Duration::from_secs(30),
            grace: Duration::from_secs(2),
            min_level: 2,
            helper: PathBuf::from("/proc/self/exe"),
            uid: NOBODY,
            gid: NOBODY,
        }
    }

    pub(crate) fn validate(&self) -> Result<(), ProfileError> {
        let reads = self.reads.iter();
        let paths = reads.flat_map(|read| [&read.source, &read.target]);
        for path in paths.chain([&self.interpreter]).chain(&self.change_tool) {
            plain(path)?;
        }
        if let Some(read) = self.reads.iter().find(|read| reserved(&read.target)) {
            return Err(ProfileError::Reserved {
                path: read.target.clone(),
            });
        }
        if let Some((name, _)) = self
            .environment
            .iter()
            .find(|(name, value)| !variable(name, value))
        {
            return Err(ProfileError::Variable { name: name.clone() });
        }
        if self.uid == 0 || self.gid == 0 {
            return Err(ProfileError::Root);
        }
        let host = self.network == Network::Host;
        if (self.powers.any() && !host) || (self.powers.generic_netlink && !self.powers.net_admin) {
            return Err(ProfileError::Powers);
        }
        let bounds = [
            ("memory_bytes", self.limits.memory_bytes == 0),
            ("processes", self.limits.processes == 0),
            ("scratch_bytes", self.limits.scratch_bytes == 0),
            ("cpu_seconds", self.limits.cpu_seconds == 0),
            ("timeout", self.timeout.is_zero()),
        ];
        match bounds.into_iter().find(|(_, zero)| *zero) {
            Some((name, _)) => Err(ProfileError::Zero { name }),
            None => Ok(()),
        }
    }
}

fn plain(path: &Path) -> Result<(), ProfileError> {
    let ordinary = path
        .components()
        .skip(1)
        .all(|part| matches!(part, Component::Normal(_)));
    let text = path.to_str().is_some_and(|text| !text.contains('\0'));
    if path.is_absolute() && ordinary && text {
        return Ok(());
    }
    Err(ProfileError::Path {
        path: path.to_path_buf(),
    })
}

fn reserved(target: &Path) -> bool {
    target == Path::new("/") || RESERVED.iter().any(|place| target.starts_with(place))
}

fn variable(name: &str, value: &str) -> bool {
    let mut letters = name.bytes();
    let first = letters
        .next()
        .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    first
        && letters.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !name.starts_with("LD_")
        && !value.contains('\0')
}

/// `nobody` on Debian, OpenWrt and Yocto alike.
const NOBODY: u32 = 65534;

const RESERVED: [&str; 4] = ["/proc", "/dev", "/tmp", "/run/aizen"];

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: impl FnOnce(&mut Profile)) -> Result<(), ProfileError> {
        let mut profile = Profile::new("/bin/sh", "true");
        change(&mut profile);
        profile.validate()
    }

    #[test]
    fn paths_that_climb_or_are_relative_are_refused() {
        for path in ["etc/hosts", "/etc/../root", "", "/etc/\0"] {
            let refused = with(|profile| {
                profile.reads.push(ReadBind {
                    source: path.into(),
                    target: "/etc/x".into(),
                });
            });
            assert_eq!(refused, Err(ProfileError::Path { path: path.into() }));
        }
    }

    #[test]
    fn nothing_is_bound_over_the_sandboxs_own_places() {
        for path in ["/", "/proc/self", "/dev/null", "/tmp/x", "/run/aizen/bin"] {
            let refused = with(|profile| {
                profile.reads.push(ReadBind {
                    source: "/etc/hosts".into(),
                    target: path.into(),
                });
            });
            assert_eq!(refused, Err(ProfileError::Reserved { path: path.into() }));
        }
    }

    #[test]
    fn variables_that_the_loader_obeys_or_a_shell_would_trip_over_are_refused() {
        for name in ["LD_PRELOAD", "A-B", "", "1A", "A=B", "Ä"] {
            let refused = with(|profile| {
                profile.environment.insert(name.into(), "x".into());
            });
            assert_eq!(refused, Err(ProfileError::Variable { name: name.into() }));
        }
        let nul = with(|profile| {
            profile.environment.insert("A".into(), "x\0y".into());
        });
        assert_eq!(nul, Err(ProfileError::Variable { name: "A".into() }));
    }

    #[test]
    fn powers_need_the_hosts_network() {
        let admin = Powers {
            net_admin: true,
            ..Powers::default()
        };
        assert_eq!(with(|p| p.powers = admin), Err(ProfileError::Powers));
        let generic = |p: &mut Profile| {
            p.network = Network::Host;
            p.powers.generic_netlink = true;
        };
        assert_eq!(with(generic), Err(ProfileError::Powers));
        let held = |p: &mut Profile| {
            p.network = Network::Host;
            p.powers = admin;
        };
        assert_eq!(with(held), Ok(()));
    }

    #[test]
    fn root_and_bounds_of_zero_are_refused() {
        assert_eq!(with(|profile| profile.uid = 0), Err(ProfileError::Root));
        assert_eq!(with(|profile| profile.gid = 0), Err(ProfileError::Root));
        assert_eq!(
            with(|profile| profile.limits.processes = 0),
            Err(ProfileError::Zero { name: "processes" })
        );
        assert_eq!(with(|_| ()), Ok(()));
    }
}
