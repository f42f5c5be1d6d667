//! The validated configuration: what the operator wrote in `/etc/aizen/aizen.toml`, checked once.
//!
//! Every key has a default, so that a missing file is a configuration too; an unknown key or a value out of its
//! bounds is an error that names file, line and key.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aizen_protocol::record::Role;

use crate::collect::portal::Known;
use crate::metrics::export::Receiver;
use crate::metrics::serve::Loopback;
use crate::probe::dns;
use crate::probe::web::Url;

mod parts;
mod raw;

/// Where the configuration is looked for when nobody says.
pub const DEFAULT_PATH: &str = "/etc/aizen/aizen.toml";

/// Everything the programs of this crate read from the operator.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where things are.
    pub paths: Paths,
    /// Whose process the daemon is.
    pub user: String,
    /// User of scripts with capabilities, and of nothing else.
    pub script_user: String,
    /// What the device is for.
    pub device: Device,
    /// When it is looked at.
    pub collect: Collect,
    /// What is asked of the world outside.
    pub probe: Probe,
    /// The way to the orchestrator.
    pub uplink: Uplink,
    /// Space for what waits.
    pub spool: Spool,
    /// Numbers for others on this device.
    pub metrics: Metrics,
}

/// Files and sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// What survives a reboot (`/var/lib/aizen`).
    pub state: PathBuf,
    /// Sockets (`/run/aizen`).
    pub run: PathBuf,
    /// The operator's policy on changes, owned by root.
    pub policy: PathBuf,
}

impl Paths {
    /// The daemon's own state.
    #[must_use]
    pub fn daemon(&self) -> PathBuf {
        self.state.join("daemon")
    }
    /// The executor's own state.
    #[must_use]
    pub fn executor(&self) -> PathBuf {
        self.state.join("executor")
    }
    /// The daemon's socket.
    #[must_use]
    pub fn daemon_socket(&self) -> PathBuf {
        self.run.join("daemon.sock")
    }
    /// The executor's socket.
    #[must_use]
    pub fn executor_socket(&self) -> PathBuf {
        self.run.join("executor.sock")
    }
    /// The executor's note that outcomes wait for the daemon: its time of change is all that counts.
    #[must_use]
    pub fn outcomes_waiting(&self) -> PathBuf {
        self.state.join("outcomes")
    }
    /// The key of the pseudonyms.
    #[must_use]
    pub fn sanitizer_key(&self) -> PathBuf {
        self.state.join("sanitizer.key")
    }
}

/// What the operator says about the device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Router or host.
    pub role: Role,
    /// Interfaces towards the provider.
    pub wan: Vec<String>,
    /// Interfaces that must have a carrier.
    pub expected_up: Vec<String>,
    /// The default gateway, for putting a lost route back.
    pub gateway: Option<IpAddr>,
}

/// The cadence of collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Collect {
    /// Between rounds.
    pub every: Duration,
}

/// Targets of probes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Far addresses that should answer ICMP echo.
    pub anchors: Vec<IpAddr>,
    /// Names that should resolve.
    pub names: Vec<String>,
    /// Resolvers besides those of `resolv.conf`.
    pub resolvers: Vec<IpAddr>,
    /// Time servers.
    pub ntp: Vec<IpAddr>,
    /// The kernel is asked whether its clock is synchronised. Not in a container, whose host keeps the clock.
    pub kernel_clock: bool,
    /// Resolvers that are asked over TLS.
    pub dot: Vec<dns::Server>,
    /// Hosts whose certificates are looked at.
    pub tls: Vec<Url>,
    /// What is asked over plain HTTP to find a captive portal.
    pub portal: Option<Known>,
}

/// The way to the orchestrator; the server itself is known from enrollment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Longest wait between two attempts.
    pub max_backoff: Duration,
    /// A connection that answers no ping for so long is dead.
    pub dead_after: Duration,
}

/// Bounds of the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spool {
    /// Bytes on disk.
    pub bytes: u64,
}

/// Who else gets the newest numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Where Prometheus scrapes.
    pub listen: Option<Loopback>,
    /// The OpenTelemetry collector, here or elsewhere.
    pub otlp: Option<Receiver>,
    /// Between two sendings to it.
    pub otlp_every: Duration,
}

/// Why a configuration was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("can't read the configuration {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no TOML, or a key or value in it is wrong.
    #[error("{}:{line}: {problem}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The key and what is wrong with it.
        problem: Problem,
    },
}

/// A wrong key or value.
#[derive(Debug)]
pub struct Problem {
    key: String,
    message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.key, self.message)
        }
    }
}

impl Config {
    /// Reads `path`, or [`DEFAULT_PATH`] if it exists, or takes the defaults.
    ///
    /// # Errors
    /// [`ConfigError`] with file, line and key.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let file = path.unwrap_or(Path::new(DEFAULT_PATH));
        match std::fs::read_to_string(file) {
            Ok(text) => Self::parse(file, &text),
            Err(e) if path.is_none() && e.kind() == std::io::ErrorKind::NotFound => {
                Self::parse(file, "")
            }
            Err(source) => Err(ConfigError::Unreadable {
                path: file.to_owned(),
                source,
            }),
        }
    }

    /// Reads the text of a configuration file.
    ///
    /// # Errors
    /// [`ConfigError::Wrong`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        raw::parse(text).map_err(|wrong| ConfigError::Wrong {
            path: path.to_owned(),
            line: text[..wrong.at.min(text.len())].matches('\n').count() + 1,
            problem: Problem {
                key: wrong.key,
                message: wrong.message,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Config::parse(Path::new("/etc/aizen/aizen.toml"), text)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn an_empty_file_gives_the_defaults() {
        let config = Config::parse(Path::new("x"), "").unwrap();
        assert_eq!(config.paths.state, Path::new("/var/lib/aizen"));
        assert_eq!(config.user, "aizen");
        assert_eq!(config.collect.every, Duration::from_secs(10));
    }

    #[test]
    fn an_unknown_key_is_named_with_its_file_and_line() {
        let text = error("[device]\nrole = \"router\"\n\n[collect]\nevry_s = 5\n");
        assert!(
            text.starts_with("/etc/aizen/aizen.toml:5: evry_s: unknown key"),
            "{text}"
        );
        assert!(text.contains("every_s"), "{text}");
    }

    #[test]
    fn a_value_out_of_its_bounds_is_named_with_its_file_and_line() {
        let text = error("[collect]\nevery_s = 0\n");
        assert!(
            text.starts_with("/etc/aizen/aizen.toml:2: every_s"),
            "{text}"
        );
        assert!(text.contains("1 to 3600"), "{text}");
        let text = error("[probe]\nanchors = [\n  \"192.0.2.1\",\n  \"192.0.2\"\n]\n");
        assert!(text.starts_with("/etc/aizen/aizen.toml:4: "), "{text}");
        let text = error("[device]\nwan = [\"a/b\"]\n");
        assert!(
            text.contains(":2:") && text.contains("interface name"),
            "{text}"
        );
    }

    #[test]
    fn numbers_leave_this_device_with_tls_alone() {
        let text = error("[metrics]\notlp = \"http://192.0.2.1:4318/v1/metrics\"\n");
        assert!(text.contains("https://"), "{text}");
        let taken = "[metrics]\notlp = \"https://otlp.example.org/v1/metrics\"\notlp_ca = \"/etc/aizen/ca.pem\"\n";
        let config = Config::parse(Path::new("x"), taken).unwrap();
        assert!(config.metrics.otlp.is_some());
    }

    #[test]
    fn an_unknown_section_or_inline_key_is_named_itself() {
        assert!(
            error("\n[spol]\nmib = 3\n").contains(":2: spol: unknown key"),
            "{}",
            error("\n[spol]\nmib = 3\n")
        );
        assert!(error("spool = { mibs = 3 }\n").contains(": mibs: unknown key"));
    }

    #[test]
    fn what_is_no_toml_is_named_with_its_line() {
        assert!(error("[collect]\nevery_s == 1\n").starts_with("/etc/aizen/aizen.toml:2: "));
    }
}
