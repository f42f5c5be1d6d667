//! What the device's operator allows, whoever signed: `/etc/aizen/policy.toml`, owned by root.

use std::path::{Component, Path, PathBuf};

use aizen_protocol::package::manifest::{
    Capability, FileOperation, Manifest, NeighbourOperation, NftOperation, Operation, Risk,
    RuleOperation, ServiceOperation, SysctlOperation, UciOperation, UciPair, WireguardOperation,
};
use aizen_protocol::package::{DeliveryMode, Package};
use aizen_protocol::reason::Reason;
use serde::Deserialize;

use super::Refused;
use crate::store::{self, StoreError};

/// Longest policy file, bytes.
const FILE: u64 = 64 << 10;

/// The operator's policy. Without a file the device only observes.
///
/// Paths that end in `/` stand for everything below; others for themselves alone.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// False: the device only observes.
    pub allow_changes: bool,
    /// Changes that a technician confirms at the device are taken.
    pub on_site: bool,
    /// The highest risk that is taken.
    pub max_risk: Risk,
    /// People who must sign what is of high risk.
    pub approvers_for_high_risk: u8,
    /// The least isolation level of any run.
    pub min_isolation: u8,
    /// Programs that may interpret a script.
    pub interpreters: Vec<String>,
    /// Files that a change may write or remove.
    pub files: Vec<String>,
    /// Files that a script may read, besides those above.
    pub read: Vec<String>,
    /// Kernel parameters that a change may set; an entry that ends in `.` stands for all below.
    pub sysctls: Vec<String>,
    /// Tables of nftables that a change may replace: `FAMILY NAME`, or a family alone for all of it.
    pub nft_tables: Vec<String>,
    /// Services that a change may start, stop, restart or reload.
    pub services: Vec<String>,
    /// Packages of OpenWrt's configuration that a change may change and reload.
    pub uci: Vec<String>,
    /// Capabilities that a `direct` script may hold. None: no such script is taken.
    pub capabilities: Vec<Capability>,
    /// Interfaces whose links, addresses and routes no change may touch.
    pub protected_links: Vec<String>,
    /// Longest time from arming to the automatic rollback, seconds.
    pub deadline_max_s: u32,
    /// Longest run of a script, seconds.
    pub timeout_max_s: u32,
    /// What really changes must be what was rehearsed and approved, or it is undone.
    pub effect_must_match: bool,
    /// What would lock somebody out, as its rehearsal on this device showed, is refused.
    pub refuse_lock_outs: bool,
    /// A repair by uplink needs an effect that this device rehearsed for exactly this script and manifest.
    pub rehearsed_only: bool,
    /// The last network that was known good is kept, and put back where undoing a change did not bring back what held.
    pub rescue: bool,
}

impl Default for Policy {
    fn default() -> Self {
        let list = |entries: &[&str]| entries.iter().map(|e| (*e).to_owned()).collect();
        Self {
            allow_changes: false,
            on_site: true,
            max_risk: Risk::High,
            approvers_for_high_risk: 1,
            min_isolation: 2,
            interpreters: list(&["/bin/sh"]),
            files: list(&["/etc/resolv.conf", "/etc/hosts"]),
            read: list(&["/proc/sys/net/", "/sys/class/net/", "/etc/nsswitch.conf"]),
            sysctls: list(&["net."]),
            nft_tables: list(&["ip", "ip6", "inet", "arp", "bridge", "netdev"]),
            services: list(&[
                "NetworkManager",
                "chrony",
                "chronyd",
                "dnsmasq",
                "firewall",
                "hostapd",
                "network",
                "networking",
                "ntpd",
                "odhcpd",
                "sysntpd",
                "systemd-networkd",
                "systemd-resolved",
                "systemd-timesyncd",
                "unbound",
                "wpa_supplicant",
            ]),
            uci: list(&["dhcp", "firewall", "network"]),
            capabilities: Vec::new(),
            protected_links: Vec::new(),
            deadline_max_s: 900,
            timeout_max_s: 300,
            effect_must_match: false,
            refuse_lock_outs: false,
            rehearsed_only: true,
            rescue: true,
        }
    }
}

/// Why a policy was not taken.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// It can't be read, or others than root may write it.
    #[error("the policy can't be used: {0}")]
    Store(#[from] StoreError),
    /// It is no TOML, or has an unknown key or a wrong value.
    #[error("{}: {source}", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
    /// It is not UTF-8.
    #[error("{} is not UTF-8 text", path.display())]
    Encoding {
        /// The file.
        path: PathBuf,
    },
}

impl Policy {
    /// Reads the policy file; without one the device only observes.
    ///
    /// # Errors
    /// [`PolicyError`]; the executor then refuses every change.
    pub fn load(path: &Path) -> Result<Self, PolicyError> {
        let Some(bytes) = store::read_guarded(path, FILE)? else {
            return Ok(Self::default());
        };
        let text = String::from_utf8(bytes).map_err(|_| PolicyError::Encoding {
            path: path.to_owned(),
        })?;
        toml::from_str(&text).map_err(|source| PolicyError::Form {
            path: path.to_owned(),
            source: Box::new(source),
        })
    }

    /// Checks what a package asks for, in the order of its fields.
    pub(super) fn check(&self, package: &Package) -> Result<(), Refused> {
        let denied = |detail: String| Err(Refused::because(Reason::PolicyDenied, detail));
        let manifest = &package.manifest;
        if !self.interpreters.contains(&package.interpreter) {
            return denied(format!("the interpreter {}", package.interpreter));
        }
        if package.delivery == DeliveryMode::OnSite && !self.on_site {
            return denied("changes on the spot".to_owned());
        }
        understated(manifest)?;
        if manifest.risk() > self.max_risk {
            return denied(format!("a risk that is {:?}", manifest.risk()));
        }
        if manifest.confirm.within_s > self.deadline_max_s {
            return denied(format!("a deadline of {} s", manifest.confirm.within_s));
        }
        if manifest.timeout_s > self.timeout_max_s {
            return denied(format!("a run of {} s", manifest.timeout_s));
        }
        for path in &manifest.read {
            if !allows_path(&self.files, path) && !allows_path(&self.read, path) {
                return denied(format!("reading {path}"));
            }
        }
        match manifest.operations.iter().find(|op| !self.allows(op)) {
            Some(operation) => denied(describe(operation)),
            None => self.allows_capabilities(&manifest.capabilities),
        }
    }

    /// A script with capabilities can reach every interface: it is undone afterwards, but not stopped before.
    fn allows_capabilities(&self, wanted: &[Capability]) -> Result<(), Refused> {
        let denied = |detail: String| Err(Refused::because(Reason::PolicyDenied, detail));
        if let Some(other) = wanted.iter().find(|c| !self.capabilities.contains(c)) {
            return denied(format!("the capability {}", other.name()));
        }
        match self.protected_links.first() {
            Some(link) if wanted.contains(&Capability::NetAdmin) => denied(format!(
                "the capability net_admin, with which a script reaches the protected link {link}, too"
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// True if the policy allows the operation, whatever values its variables get.
    #[must_use]
    pub fn allows(&self, operation: &Operation) -> bool {
        let free = |dev: &str| !self.protected_links.iter().any(|link| link == dev);
        match operation {
            Operation::File(FileOperation::Write(path) | FileOperation::Delete(path)) => {
                allows_path(&self.files, path)
            }
            Operation::Sysctl(SysctlOperation::Set(sysctl)) => {
                let key = sysctl.key.replace('/', ".");
                let plain = !key.split('.').any(str::is_empty);
                // An interface's name may hold dots itself.
                let protected = self
                    .protected_links
                    .iter()
                    .any(|link| key.contains(&link.replace('/', ".")));
                plain
                    && !protected
                    && self
                        .sysctls
                        .iter()
                        .any(|s| *s == key || (s.ends_with('.') && key.starts_with(s.as_str())))
            }
            Operation::Link(aizen_protocol::package::manifest::LinkOperation::Set(link)) => {
                free(&link.dev)
            }
            Operation::Address(
                aizen_protocol::package::manifest::AddressOperation::Add(address)
                | aizen_protocol::package::manifest::AddressOperation::Delete(address),
            ) => free(&address.dev),
            Operation::Route(
                aizen_protocol::package::manifest::RouteOperation::Add(route)
                | aizen_protocol::package::manifest::RouteOperation::Replace(route)
                | aizen_protocol::package::manifest::RouteOperation::Delete(route),
            ) => match route.dev.as_deref() {
                Some(dev) => free(dev),
                // Without an interface it may be any: also a protected one.
                None => self.protected_links.is_empty(),
            },
            // A rule decides for packets of every interface that it does not name.
            Operation::Rule(RuleOperation::Add(rule) | RuleOperation::Delete(rule)) => {
                self.protected_links.is_empty()
                    || rule
                        .iif
                        .as_deref()
                        .is_some_and(|iif| free(iif) && rule.oif.as_deref().is_none_or(free))
            }
            Operation::Neighbour(NeighbourOperation::Replace(entry)) => free(&entry.dev),
            Operation::Neighbour(NeighbourOperation::Delete(name)) => free(&name.dev),
            Operation::Wireguard(WireguardOperation::SetPeer(peer)) => free(&peer.dev),
            Operation::Wireguard(WireguardOperation::RemovePeer(name)) => free(&name.dev),
            Operation::Service(
                ServiceOperation::Start(name)
                | ServiceOperation::Stop(name)
                | ServiceOperation::Restart(name)
                | ServiceOperation::Reload(name),
            ) => {
                let name = name.strip_suffix(".service").unwrap_or(name);
                self.services.iter().any(|service| service == name)
            }
            Operation::Uci(
                UciOperation::Set(UciPair { key, .. })
                | UciOperation::AddList(UciPair { key, .. })
                | UciOperation::DelList(UciPair { key, .. })
                | UciOperation::Delete(key)
                | UciOperation::Reload(key),
            ) => {
                let package = key.split('.').next().unwrap_or_default();
                self.uci.iter().any(|allowed| allowed == package)
            }
            Operation::Nft(
                NftOperation::ReplaceTable(table) | NftOperation::DeleteTable(table),
            ) => {
                let name = format!("{} {}", table.family, table.name);
                self.nft_tables
                    .iter()
                    .any(|entry| *entry == table.family || *entry == name)
            }
        }
    }
}

fn understated(manifest: &Manifest) -> Result<(), Refused> {
    let computed = Manifest {
        risk: None,
        ..manifest.clone()
    }
    .risk();
    match manifest.risk {
        Some(stated) if stated < computed => Err(Refused::because(
            Reason::RiskUnderstated,
            format!("stated {stated:?}, computed {computed:?}"),
        )),
        Some(_) | None => Ok(()),
    }
}

fn describe(operation: &Operation) -> String {
    serde_json::to_string(operation).unwrap_or_else(|_| format!("{operation:?}"))
}

fn allows_path(entries: &[String], path: &str) -> bool {
    let plain = Path::new(path)
        .components()
        .all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
        && path.starts_with('/')
        && !path.contains("//")
        && !path.contains("/./")
        && !path.ends_with("/.")
        && !path.contains(['\0', '\n']);
    plain
        && entries.iter().any(|entry| {
            entry == path || (entry.ends_with('/') && path.starts_with(entry.as_str()))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_file_the_device_only_observes() {
        let dir = tempfile::tempdir().unwrap();
        let policy = Policy::load(&dir.path().join("policy.toml")).unwrap();
        assert!(!policy.allow_changes);
        assert_eq!(policy, Policy::default());
    }

    #[test]
    fn a_file_says_what_differs_and_an_unknown_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.toml");
        std::fs::write(&path, "allow_changes = true\nmax_risk = \"low\"\n").unwrap();
        let policy = Policy::load(&path).unwrap();
        assert!(policy.allow_changes && policy.max_risk == Risk::Low && policy.on_site);
        std::fs::write(&path, "allow_chnages = true\n").unwrap();
        let error = Policy::load(&path).unwrap_err().to_string();
        assert!(error.contains("allow_chnages"), "{error}");
    }

    #[test]
    fn a_path_is_allowed_as_itself_or_below_a_directory_and_never_by_detour() {
        let entries = ["/etc/resolv.conf".to_owned(), "/etc/dnsmasq.d/".to_owned()];
        for path in ["/etc/resolv.conf", "/etc/dnsmasq.d/lan.conf"] {
            assert!(allows_path(&entries, path), "{path}");
        }
        for path in [
            "/etc/resolv.conf.bak",
            "/etc/dnsmasq.d",
            "/etc/dnsmasq.d/../shadow",
            "/etc/dnsmasq.d/./x",
            "/etc//resolv.conf",
            "/etc/dnsmasq.d//x",
            "etc/resolv.conf",
            "/etc/dnsmasq.d/a\nb",
            "/",
            "",
        ] {
            assert!(!allows_path(&entries, path), "{path:?}");
        }
    }

    #[test]
    fn kernel_parameters_outside_the_network_and_protected_links_are_denied() {
        let mut policy = Policy::default();
        let sysctl = |key: &str| -> Operation {
            serde_json::from_value(
                serde_json::json!({"sysctl": {"set": {"key": key, "value": "1"}}}),
            )
            .unwrap()
        };
        assert!(policy.allows(&sysctl("net.ipv4.ip_forward")));
        assert!(policy.allows(&sysctl("net/ipv4/ip_forward")));
        for key in [
            "kernel.core_pattern",
            "network.x",
            "net...kernel.panic",
            "net/../kernel/panic",
        ] {
            assert!(!policy.allows(&sysctl(key)), "{key}");
        }
        let link: Operation = serde_json::from_value(
            serde_json::json!({"link": {"set": {"dev": "mgmt", "up": false}}}),
        )
        .unwrap();
        assert!(policy.allows(&link));
        policy.protected_links.push("mgmt".into());
        assert!(!policy.allows(&link));
        assert!(!policy.allows(&sysctl("net.ipv4.conf.mgmt.forwarding")));
    }
}
