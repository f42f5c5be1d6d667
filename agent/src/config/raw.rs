//! What the operator typed: the TOML as it is, with the bounds of each value in its type.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use aizen_protocol::record::Role;
use serde::{Deserialize, Deserializer, de};

use super::{Collect, Config, Device, Metrics, Paths, Probe, Spool, Uplink};
use crate::collect::portal::Known;
use crate::metrics::export::Receiver;
use crate::metrics::serve::Loopback;
use crate::probe::dns;
use crate::probe::web::Url;

/// A problem and the byte where it stands.
pub(super) struct Wrong {
    pub(super) at: usize,
    pub(super) key: String,
    pub(super) message: String,
}

pub(super) fn parse(text: &str) -> Result<Config, Wrong> {
    let raw: Raw = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let message = error
            .message()
            .replace("unknown field", "unknown key")
            .replace('`', "'");
        // The whole line names the key for a value; for an unknown key the span is the key itself.
        let line = text[..at.min(text.len())].rfind('\n').map_or(0, |n| n + 1);
        let key = text[line..]
            .lines()
            .next()
            .and_then(|l| l.split_once('='))
            .map_or("", |(key, _)| key.trim());
        // The key that serde names is the wrong one itself, wherever it stands in its line.
        let named = message
            .strip_prefix("unknown key '")
            .and_then(|rest| rest.split('\'').next());
        let key = named.unwrap_or(key).to_owned();
        let message = match message.split_once(", ") {
            Some((what, rest)) if what.starts_with("unknown key") => format!("unknown key, {rest}"),
            _ => message,
        };
        Wrong { at, key, message }
    })?;
    Ok(raw.validated())
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Raw {
    paths: RawPaths,
    daemon: RawDaemon,
    executor: RawExecutor,
    device: RawDevice,
    collect: RawCollect,
    probe: RawProbe,
    uplink: RawUplink,
    spool: RawSpool,
    metrics: RawMetrics,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawPaths {
    state: Absolute,
    run: Absolute,
    policy: Absolute,
}

impl Default for RawPaths {
    fn default() -> Self {
        Self {
            state: Absolute("/var/lib/aizen".into()),
            run: Absolute("/run/aizen".into()),
            policy: Absolute("/etc/aizen/policy.toml".into()),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawDaemon {
    user: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawExecutor {
    script_user: String,
}

impl Default for RawExecutor {
    fn default() -> Self {
        Self {
            script_user: "aizen-script".to_owned(),
        }
    }
}

impl Default for RawDaemon {
    fn default() -> Self {
        Self {
            user: "aizen".to_owned(),
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawDevice {
    role: Role,
    wan: Vec<Interface>,
    expected_up: Vec<Interface>,
    gateway: Option<IpAddr>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawCollect {
    every_s: Whole<1, 3600>,
}

impl Default for RawCollect {
    fn default() -> Self {
        Self { every_s: Whole(10) }
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawProbe {
    anchors: Few<IpAddr>,
    names: Few<HostName>,
    resolvers: Few<IpAddr>,
    ntp: Few<IpAddr>,
    kernel_clock: Option<bool>,
    dot: Few<Written<dns::Server>>,
    tls: Few<TlsHost>,
    portal: Option<PlainUrl>,
    portal_body: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawUplink {
    max_backoff_s: Whole<1, 3600>,
    dead_after_s: Whole<2, 600>,
}

impl Default for RawUplink {
    fn default() -> Self {
        Self {
            max_backoff_s: Whole(30),
            dead_after_s: Whole(20),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawSpool {
    mib: Whole<1, 4096>,
}

impl Default for RawSpool {
    fn default() -> Self {
        Self { mib: Whole(16) }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawMetrics {
    listen: Option<LoopbackAddress>,
    otlp: Option<Collector>,
    otlp_ca: Option<Absolute>,
    otlp_every_s: Whole<1, 3600>,
}

impl Default for RawMetrics {
    fn default() -> Self {
        Self {
            listen: None,
            otlp: None,
            otlp_ca: None,
            otlp_every_s: Whole(60),
        }
    }
}

impl Raw {
    fn validated(self) -> Config {
        let names = |list: Vec<Interface>| list.into_iter().map(|i| i.0).collect();
        Config {
            paths: Paths {
                state: self.paths.state.0,
                run: self.paths.run.0,
                policy: self.paths.policy.0,
            },
            user: self.daemon.user,
            script_user: self.executor.script_user,
            device: Device {
                role: self.device.role,
                wan: names(self.device.wan),
                expected_up: names(self.device.expected_up),
                gateway: self.device.gateway,
            },
            collect: Collect {
                every: self.collect.every_s.duration(),
            },
            probe: Probe {
                anchors: self.probe.anchors.0,
                names: self.probe.names.0.into_iter().map(|n| n.0).collect(),
                resolvers: self.probe.resolvers.0,
                ntp: self.probe.ntp.0,
                kernel_clock: self.probe.kernel_clock.unwrap_or(true),
                dot: self.probe.dot.0.into_iter().map(|s| s.0).collect(),
                tls: self.probe.tls.0.into_iter().map(|h| h.0).collect(),
                portal: self.probe.portal.map(|url| Known {
                    url: url.0,
                    body: self.probe.portal_body,
                }),
            },
            uplink: Uplink {
                max_backoff: self.uplink.max_backoff_s.duration(),
                dead_after: self.uplink.dead_after_s.duration(),
            },
            spool: Spool {
                bytes: self.spool.mib.0 << 20,
            },
            metrics: Metrics {
                listen: self.metrics.listen.map(|listen| listen.0),
                otlp: self
                    .metrics
                    .otlp
                    .map(|otlp| otlp.0.vouched_by(self.metrics.otlp_ca.map(|ca| ca.0))),
                otlp_every: self.metrics.otlp_every_s.duration(),
            },
        }
    }
}

/// A whole number from `LEAST` to `MOST`.
struct Whole<const LEAST: u64, const MOST: u64>(u64);

impl<const LEAST: u64, const MOST: u64> Whole<LEAST, MOST> {
    fn duration(&self) -> Duration {
        Duration::from_secs(self.0)
    }
}

impl<'de, const LEAST: u64, const MOST: u64> Deserialize<'de> for Whole<LEAST, MOST> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let value = i64::deserialize(d)?;
        u64::try_from(value)
            .ok()
            .filter(|v| (LEAST..=MOST).contains(v))
            .map(Self)
            .ok_or_else(|| {
                de::Error::custom(format_args!(
                    "{value} is out of bounds, {LEAST} to {MOST} are taken"
                ))
            })
    }
}

struct Absolute(PathBuf);

impl<'de> Deserialize<'de> for Absolute {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let path = PathBuf::deserialize(d)?;
        if path.is_absolute() {
            Ok(Self(path))
        } else {
            Err(de::Error::custom("a path must begin with '/'"))
        }
    }
}

/// An address that nobody else can reach.
struct LoopbackAddress(Loopback);

impl<'de> Deserialize<'de> for LoopbackAddress {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let address = SocketAddr::deserialize(d)?;
        Loopback::new(address).map(Self).ok_or_else(|| {
            de::Error::custom(format_args!(
                "{address} can be reached from outside; only a loopback address is taken, as 127.0.0.1:9751"
            ))
        })
    }
}

/// The URL of an OpenTelemetry collector.
struct Collector(Receiver);

impl<'de> Deserialize<'de> for Collector {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let Written(url) = Written::<Url>::deserialize(d)?;
        Receiver::new(url).map(Self).ok_or_else(|| {
            de::Error::custom(
                "without TLS only a collector on this device is taken, as http://127.0.0.1:4318/v1/metrics; elsewhere \
                 https://HOST/v1/metrics",
            )
        })
    }
}

/// An interface name as the kernel takes it (`dev_valid_name`): at most 15 bytes, no '/', ':' or white space.
struct Interface(String);

impl<'de> Deserialize<'de> for Interface {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let name = String::deserialize(d)?;
        let valid = (1..=15).contains(&name.len())
            && name != "."
            && name != ".."
            && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace());
        if valid {
            Ok(Self(name))
        } else {
            Err(de::Error::custom(format_args!(
                "'{name}' is no interface name"
            )))
        }
    }
}

/// A host name (RFC 1123) that fits a DNS question.
struct HostName(String);

impl<'de> Deserialize<'de> for HostName {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let name = String::deserialize(d)?;
        let label = |l: &str| {
            (1..=63).contains(&l.len())
                && l.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        };
        if name.len() <= 253 && name.trim_end_matches('.').split('.').all(label) {
            Ok(Self(name))
        } else {
            Err(de::Error::custom(format_args!("'{name}' is no host name")))
        }
    }
}

/// A value that is read from its text.
struct Written<T>(T);

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Written<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?
            .parse()
            .map(Self)
            .map_err(de::Error::custom)
    }
}

/// `HOST` or `HOST:PORT`, port 443 if none is written.
struct TlsHost(Url);

impl<'de> Deserialize<'de> for TlsHost {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let url = format!("https://{text}").parse().ok();
        url.filter(|url: &Url| url.path == "/")
            .map(Self)
            .ok_or_else(|| de::Error::custom(format_args!("'{text}' is no HOST or HOST:PORT")))
    }
}

/// A URL without TLS: a portal can't step into another.
struct PlainUrl(Url);

impl<'de> Deserialize<'de> for PlainUrl {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let Written(url) = Written::<Url>::deserialize(d)?;
        if url.secure {
            return Err(de::Error::custom(
                "no portal can answer over https: give a URL with http",
            ));
        }
        Ok(Self(url))
    }
}

/// At most 32 values: probes cost time and traffic.
struct Few<T>(Vec<T>);

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Few<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let list = Vec::deserialize(d)?;
        if list.len() <= 32 {
            Ok(Self(list))
        } else {
            Err(de::Error::custom("at most 32 entries"))
        }
    }
}
