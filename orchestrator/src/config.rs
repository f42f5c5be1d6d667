//! The validated settings; `raw` is what the operator typed. Every key is optional, an unknown one is an error.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aizen_protocol::limit;
use serde::Deserialize;

/// What the operator decides.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Address and port of the one listener.
    pub listen: SocketAddr,
    /// How long a person has for an answer.
    pub approval_life: Duration,
    /// How long a package is valid; the device must have admitted it by then.
    pub package_life: Duration,
    /// People who must sign a high-risk package.
    pub high_risk_approvers: u32,
    /// How long a fault is left alone after a repair of it ended without success.
    pub hold_off: Duration,
    /// Between two pings to a device.
    pub heartbeat: Duration,
    /// A device that was silent for this long is gone.
    pub dead_after: Duration,
    /// A delivery or rehearsal is sent again after this long without an answer.
    pub lease: Duration,
    /// Records kept of each device.
    pub records_per_device: u32,
    /// Bytes of records kept of each device.
    pub record_bytes_per_device: u64,
    /// Records older than this are forgotten.
    pub records_for: Duration,
    /// Between two looks at what is overdue.
    pub housekeeping: Duration,
    /// TLS handshakes at a time; more wait in the kernel's queue.
    pub pending_handshakes: usize,
    /// A handshake that takes longer is dropped.
    pub handshake_within: Duration,
    /// Connections at a time.
    pub connections: usize,
    /// How long a connection without a client certificate may last: nobody can be held to account for it.
    pub anonymous_life: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 8443)),
            approval_life: Duration::from_secs(45 * 60),
            package_life: Duration::from_secs(60 * 60),
            high_risk_approvers: 1,
            hold_off: Duration::from_secs(15 * 60),
            heartbeat: Duration::from_secs(20),
            dead_after: Duration::from_secs(60),
            lease: Duration::from_secs(30),
            records_per_device: 20_000,
            record_bytes_per_device: 64 << 20,
            records_for: Duration::from_secs(30 * 24 * 3600),
            housekeeping: Duration::from_secs(5),
            pending_handshakes: 256,
            handshake_within: Duration::from_secs(10),
            connections: 10_000,
            anonymous_life: Duration::from_secs(120),
        }
    }
}

/// Why a configuration was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("can't read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// Not TOML, an unknown key or a wrong type; the message names line and column.
    #[error("{path}: {source}")]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong and where.
        source: toml::de::Error,
    },
    /// A value outside its bounds.
    #[error("{path}: {key} = {value} is not within {least} to {most}")]
    Bounds {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// What it says.
        value: u64,
        /// The least it may say.
        least: u64,
        /// The most it may say.
        most: u64,
    },
    /// An approval that outlives its package could never be delivered.
    #[error("{path}: approval_life_s must be less than package_life_s")]
    ApprovalOutlivesPackage {
        /// The file.
        path: PathBuf,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    listen: Option<SocketAddr>,
    approval_life_s: Option<u64>,
    package_life_s: Option<u64>,
    high_risk_approvers: Option<u64>,
    hold_off_s: Option<u64>,
    records_per_device: Option<u64>,
    record_mib_per_device: Option<u64>,
    records_days: Option<u64>,
    connections: Option<u64>,
}

impl Settings {
    /// Reads a TOML file.
    ///
    /// # Errors
    /// The first thing that is wrong, with its file, key and bounds.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let raw: Raw = toml::from_str(text).map_err(|source| ConfigError::Form {
            path: path.to_owned(),
            source,
        })?;
        let within = |key, value: Option<u64>, default: u64, least, most| match value {
            Some(value) if !(least..=most).contains(&value) => Err(ConfigError::Bounds {
                path: path.to_owned(),
                key,
                value,
                least,
                most,
            }),
            given => Ok(given.unwrap_or(default)),
        };
        let own = Self::default();
        let longest = limit::PACKAGE_LIFE_S.unsigned_abs();
        let seconds = |key, value, default: Duration| {
            within(key, value, default.as_secs(), 1, longest).map(Duration::from_secs)
        };
        let count = |key, value, default: u64, most| within(key, value, default, 1, most);
        let settings = Self {
            listen: raw.listen.unwrap_or(own.listen),
            approval_life: seconds("approval_life_s", raw.approval_life_s, own.approval_life)?,
            package_life: seconds("package_life_s", raw.package_life_s, own.package_life)?,
            high_risk_approvers: count(
                "high_risk_approvers",
                raw.high_risk_approvers,
                own.high_risk_approvers.into(),
                limit::SIGNATURES as u64,
            )? as u32,
            hold_off: seconds("hold_off_s", raw.hold_off_s, own.hold_off)?,
            records_per_device: count(
                "records_per_device",
                raw.records_per_device,
                own.records_per_device.into(),
                10_000_000,
            )? as u32,
            record_bytes_per_device: count(
                "record_mib_per_device",
                raw.record_mib_per_device,
                own.record_bytes_per_device >> 20,
                1 << 20,
            )? << 20,
            records_for: Duration::from_secs(
                24 * 3600 * count("records_days", raw.records_days, 30, 3650)?,
            ),
            connections: count(
                "connections",
                raw.connections,
                own.connections as u64,
                1_000_000,
            )? as usize,
            ..own
        };
        if settings.approval_life >= settings.package_life {
            return Err(ConfigError::ApprovalOutlivesPackage {
                path: path.to_owned(),
            });
        }
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Settings, String> {
        Settings::parse(text, Path::new("o.toml")).map_err(|e| e.to_string())
    }

    #[test]
    fn an_empty_file_gives_the_defaults() {
        assert_eq!(parse("").unwrap().listen.port(), 8443);
    }

    #[test]
    fn a_mistake_names_file_line_and_key() {
        let unknown = parse("listen = \"127.0.0.1:1\"\nlisten_on = 3\n").unwrap_err();
        assert!(unknown.starts_with("o.toml: "), "{unknown}");
        assert!(
            unknown.contains("line 2") && unknown.contains("listen_on"),
            "{unknown}"
        );
        let bounds = parse("high_risk_approvers = 9").unwrap_err();
        assert!(
            bounds.contains("high_risk_approvers = 9") && bounds.contains("1 to 4"),
            "{bounds}"
        );
    }

    #[test]
    fn an_approval_never_outlives_its_package() {
        assert!(parse("approval_life_s = 60\npackage_life_s = 60").is_err());
        assert!(parse("approval_life_s = 59\npackage_life_s = 60").is_ok());
    }
}
