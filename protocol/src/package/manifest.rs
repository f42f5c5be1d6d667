//! What a script may do. Every grant is exact: what the manifest leaves out is not "any" but "none".

use serde::{Deserialize, Serialize};

use crate::limit;

pub use super::operation::{
    Neighbour, NeighbourName, NeighbourOperation, NftOperation, NftTable, Rule, RuleOperation,
    ServiceOperation, UciOperation, UciPair, WireguardOperation, WireguardPeer, WireguardPeerName,
};

/// How much a script may touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Reads and probes; changes nothing.
    Diagnose,
    /// Changes through typed, journalled operations only.
    Repair,
    /// Changes the host's network itself with declared capabilities.
    Direct,
}

/// A capability (capabilities(7)) that a `direct` script may hold. There are no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Capability {
    /// `CAP_NET_ADMIN`: links, addresses, routes, rules, filters.
    NetAdmin,
    /// `CAP_NET_RAW`: raw and packet sockets.
    NetRaw,
}

impl Capability {
    /// Its name as it stands in a manifest.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NetAdmin => "net_admin",
            Self::NetRaw => "net_raw",
        }
    }
}

/// What can go wrong. Computed, never believed: a stated one may only be higher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Risk {
    /// Changes nothing.
    None,
    /// Changes what no connection depends on.
    Low,
    /// Changes the network, but not the way to the orchestrator.
    Medium,
    /// May cut the device off.
    High,
}

/// A value as it stands in a manifest: literal, or `$VARIABLE` of a binding.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Value(pub String);

impl Value {
    /// The variable it refers to, without the `$`.
    #[must_use]
    pub fn variable(&self) -> Option<&str> {
        self.0.strip_prefix('$')
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// Services that connections stand on.
const CARRIERS: &[&str] = &[
    "NetworkManager",
    "dhcpcd",
    "firewall",
    "firewalld",
    "hostapd",
    "network",
    "networking",
    "nftables",
    "odhcpd",
    "openvpn",
    "pppd",
    "systemd-networkd",
    "ufw",
    "wpa_supplicant",
    "wpad",
];

/// One typed operation, as granted by a manifest and as asked for by `change`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// A route of the host.
    Route(RouteOperation),
    /// An address of an interface.
    Address(AddressOperation),
    /// An interface.
    Link(LinkOperation),
    /// A kernel parameter below `/proc/sys`.
    Sysctl(SysctlOperation),
    /// A regular file.
    File(FileOperation),
    /// A policy rule.
    Rule(RuleOperation),
    /// An entry of the neighbour table.
    Neighbour(NeighbourOperation),
    /// A table of nftables.
    Nft(NftOperation),
    /// A service.
    Service(ServiceOperation),
    /// Configuration of OpenWrt.
    Uci(UciOperation),
    /// A peer of WireGuard.
    Wireguard(WireguardOperation),
}

/// What is done to a route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteOperation {
    /// Fails if it exists.
    Add(Route),
    /// Adds it or changes the one with the same destination, table and metric.
    Replace(Route),
    /// Fails if it does not exist.
    Delete(Route),
}

/// A route as `ip route` names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// `default`, `default6`, a prefix or a variable.
    pub dst: Value,
    /// Next hop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<Value>,
    /// Interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dev: Option<String>,
    /// Table; none is `main`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// Metric; none is 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<u32>,
}

/// What is done to an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AddressOperation {
    /// Fails if it exists.
    Add(Address),
    /// Fails if it does not exist.
    Delete(Address),
}

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Address {
    /// `192.0.2.7/24` or a variable.
    pub address: Value,
    /// Interface.
    pub dev: String,
}

/// What is done to an interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkOperation {
    /// Sets what is given.
    Set(Link),
}

/// Settings of an interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// Interface.
    pub dev: String,
    /// Administrative state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up: Option<bool>,
    /// MTU, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
}

/// What is done to a kernel parameter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SysctlOperation {
    /// Writes it.
    Set(Sysctl),
}

/// A kernel parameter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sysctl {
    /// Dotted or slashed name (`net.ipv4.ip_forward`).
    pub key: String,
    /// Its value.
    pub value: String,
}

/// What is done to a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileOperation {
    /// Replaces its content (or creates it); the content comes with the request.
    Write(String),
    /// Removes it.
    Delete(String),
}

/// Bounds of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Memory, MiB.
    pub memory_mib: u32,
    /// Processes and threads.
    pub processes: u32,
    /// Output that is kept, KiB.
    pub output_kib: u32,
    /// Scratch space, MiB.
    pub scratch_mib: u32,
    /// CPU time, seconds.
    pub cpu_s: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_mib: 64,
            processes: 32,
            output_kib: 64,
            scratch_mib: 8,
            cpu_s: 10,
        }
    }
}

/// What must hold before a change is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// The orchestrator confirms over a fresh connection.
    Uplink(bool),
    /// The address answers ICMP echo.
    Ping(Value),
    /// The name resolves through the device's own resolver configuration.
    Dns(Value),
}

/// When and how a change is confirmed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confirm {
    /// Seconds from arming to the automatic rollback.
    pub within_s: u32,
    /// Seconds for which the probes must hold.
    pub stable_s: u32,
    /// What must hold.
    pub probes: Vec<Probe>,
}

impl Default for Confirm {
    fn default() -> Self {
        Self {
            within_s: 120,
            stable_s: 10,
            probes: vec![Probe::Uplink(true)],
        }
    }
}

/// What a script may do, and what must hold afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// How much it may touch.
    pub class: Class,
    /// The least isolation level it may run at (1 to 4).
    pub min_isolation: u8,
    /// Seconds until it is killed.
    pub timeout_s: u32,
    /// Stated risk; the computed one counts if it is higher.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub risk: Option<Risk>,
    /// The operations it may ask for. What a `direct` script changes with its own hands is compared with them afterwards.
    #[serde(default)]
    pub operations: Vec<Operation>,
    /// What a `direct` script holds; none for the other classes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<Capability>,
    /// Paths it may read, besides the minimal root.
    #[serde(default)]
    pub read: Vec<String>,
    /// Bounds of the run.
    #[serde(default)]
    pub limits: Limits,
    /// How the change is confirmed.
    #[serde(default)]
    pub confirm: Confirm,
}

impl Manifest {
    /// True if every list and number is within its bound, `diagnose` grants no operation, and `direct` and no other class
    /// holds capabilities.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        (1..=4).contains(&self.min_isolation)
            && (1..=3600).contains(&self.timeout_s)
            && self.operations.len() <= limit::OPERATIONS
            && self.read.len() <= limit::READ_PATHS
            && self
                .read
                .iter()
                .all(|path| path.starts_with('/') && !path.contains('\0'))
            && self.confirm.probes.len() <= limit::PROBES
            && (1..=24 * 3600).contains(&self.confirm.within_s)
            && self.confirm.stable_s <= self.confirm.within_s
            && (1..=4096).contains(&self.limits.memory_mib)
            && (1..=4096).contains(&self.limits.processes)
            && self.limits.output_kib as usize <= limit::OUTPUT >> 10
            && (1..=1024).contains(&self.limits.scratch_mib)
            && (1..=3600).contains(&self.limits.cpu_s)
            && (self.class != Class::Diagnose || self.operations.is_empty())
            && (self.class == Class::Direct) != self.capabilities.is_empty()
            && self.capabilities.is_sorted_by(|a, b| a < b)
    }

    /// The least risk that the operations have whatever the device: links, addresses, routes, rules, neighbours, filters and `net.*` parameters
    /// can cut it off; a file alone can not before something reads it.
    #[must_use]
    pub fn risk(&self) -> Risk {
        let of = |operation: &Operation| match operation {
            Operation::File(_) => Risk::Low,
            Operation::Uci(UciOperation::Reload(_)) => Risk::High,
            Operation::Uci(_) => Risk::Low,
            Operation::Service(
                ServiceOperation::Start(name)
                | ServiceOperation::Stop(name)
                | ServiceOperation::Restart(name)
                | ServiceOperation::Reload(name),
            ) => match name.strip_suffix(".service").unwrap_or(name) {
                name if CARRIERS.contains(&name) => Risk::High,
                _ => Risk::Medium,
            },
            Operation::Sysctl(SysctlOperation::Set(sysctl)) if !sysctl.key.starts_with("net") => {
                Risk::Low
            }
            Operation::Sysctl(_) => Risk::Medium,
            Operation::Route(_)
            | Operation::Address(_)
            | Operation::Link(_)
            | Operation::Rule(_)
            | Operation::Neighbour(_)
            | Operation::Nft(_)
            | Operation::Wireguard(_) => Risk::High,
        };
        let computed = match self.class {
            Class::Diagnose => Risk::None,
            Class::Repair => self.operations.iter().map(of).max().unwrap_or(Risk::None),
            Class::Direct => Risk::High,
        };
        computed.max(self.risk.unwrap_or(Risk::None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repair(operations: &str) -> Manifest {
        let text = format!(
            r#"{{"class":"repair","min_isolation":2,"timeout_s":30,"operations":{operations}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn the_manifest_of_the_design_reads_as_written() {
        let manifest = repair(
            r#"[{"route":{"replace":{"dst":"default","via":"$IP_10_83_7_1","dev":"wan"}}},{"file":{"write":"/etc/resolv.conf"}}]"#,
        );
        assert!(manifest.is_bounded());
        assert_eq!(manifest.risk(), Risk::High);
        assert_eq!(
            manifest.operations[1],
            Operation::File(FileOperation::Write("/etc/resolv.conf".into()))
        );
    }

    #[test]
    fn a_stated_risk_only_raises_the_computed_one() {
        let mut manifest = repair(r#"[{"route":{"delete":{"dst":"default"}}}]"#);
        manifest.risk = Some(Risk::Low);
        assert_eq!(manifest.risk(), Risk::High);
        let mut files = repair(r#"[{"file":{"write":"/etc/hosts"}}]"#);
        assert_eq!(files.risk(), Risk::Low);
        files.risk = Some(Risk::High);
        assert_eq!(files.risk(), Risk::High);
    }

    #[test]
    fn an_unknown_operation_or_field_is_refused() {
        for text in [
            r#"{"class":"repair","min_isolation":2,"timeout_s":1,"root":true}"#,
            r#"{"class":"repair","min_isolation":2,"timeout_s":1,"operations":[{"exec":"sh"}]}"#,
            r#"{"class":"root","min_isolation":2,"timeout_s":1}"#,
        ] {
            assert!(serde_json::from_str::<Manifest>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn direct_and_nothing_else_holds_capabilities_each_once() {
        let direct = |capabilities: &str| -> Manifest {
            let text = format!(
                r#"{{"class":"direct","min_isolation":2,"timeout_s":30,"capabilities":{capabilities}}}"#
            );
            serde_json::from_str(&text).unwrap()
        };
        assert!(direct(r#"["net_admin"]"#).is_bounded());
        assert!(direct(r#"["net_admin","net_raw"]"#).is_bounded());
        assert_eq!(direct(r#"["net_raw"]"#).risk(), Risk::High);
        assert!(!direct("[]").is_bounded());
        assert!(!direct(r#"["net_admin","net_admin"]"#).is_bounded());
        let mut manifest = repair("[]");
        manifest.capabilities.push(Capability::NetAdmin);
        assert!(!manifest.is_bounded());
        let text =
            r#"{"class":"direct","min_isolation":2,"timeout_s":1,"capabilities":["sys_admin"]}"#;
        assert!(serde_json::from_str::<Manifest>(text).is_err());
    }

    #[test]
    fn diagnose_grants_no_operation() {
        let mut manifest = repair(r#"[{"file":{"delete":"/etc/hosts"}}]"#);
        manifest.class = Class::Diagnose;
        assert!(!manifest.is_bounded());
    }
}
