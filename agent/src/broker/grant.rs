//! What is granted, and what is asked for, in the one form in which both can be compared: exact equality, no patterns.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aizen_protocol::package::manifest::{
    Address, AddressOperation, FileOperation, Link, LinkOperation, Manifest, NeighbourOperation,
    Operation, Route, RouteOperation, RuleOperation, Sysctl, SysctlOperation, UciOperation, Value,
    WireguardOperation,
};
use aizen_protocol::private::{Mac, Prefix};
use aizen_protocol::reason::Reason;

use crate::rollback::file::{self, FileError};
use crate::rollback::route::{LOCAL, MAIN, RouteKey};
use crate::rollback::rule::RuleKey;
use crate::rollback::service::Deed;
use crate::rollback::sysctl::{self, InvalidSysctl, SysctlKey};
use crate::rollback::uci::{Edit, Key, UciError};
use crate::rollback::wireguard::{PeerWish, PublicKey};

mod neighbour;
mod nft;
mod rule;
mod service;
mod uci;
mod wireguard;

/// Longest value of a kernel parameter, bytes.
const SYSCTL_VALUE: usize = 1024;
/// `IP6_RT_PRIO_USER`: what the kernel makes of no metric in IPv6.
const IPV6_METRIC: u32 = 1024;

/// Why an operation is none.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// A variable that has no value here.
    #[error("${0} has no value")]
    Unbound(String),
    /// Neither an address nor a prefix.
    #[error("'{0}' is not an address or prefix")]
    NotAnAddress(String),
    /// Not a hardware address of Ethernet.
    #[error("'{0}' is not a hardware address")]
    NotAMac(String),
    /// Not the name of a service.
    #[error("'{0}' is not the name of a service")]
    NotAService(String),
    /// The one that undoes changes.
    #[error("{0} is what undoes changes: it is not changed by one")]
    OwnService(String),
    /// Not a key of WireGuard.
    #[error("'{0}' is not a public key of WireGuard")]
    NotAKey(String),
    /// Half an endpoint.
    #[error("an endpoint has an address and a port")]
    NoEndpoint,
    /// A key or value of uci.
    #[error(transparent)]
    Uci(#[from] UciError),
    /// Not a table of nftables.
    #[error("'{0}' is not FAMILY NAME of an nft table")]
    NotATable(String),
    /// IPv4 and IPv6 in one rule.
    #[error("rule {0}: its addresses are of IPv4 and of IPv6")]
    RuleFamilies(u32),
    /// A rule of the kernel's own.
    #[error("rule {0}: the rules 0, 32766 and 32767 are the kernel's own")]
    KernelRule(u32),
    /// IPv4 and IPv6 in one route.
    #[error("{dst} can't be reached via {via}: one is IPv4, the other IPv6")]
    Families {
        /// Destination.
        dst: Prefix,
        /// Next hop.
        via: IpAddr,
    },
    /// An interface name that the kernel would not take.
    #[error("'{0}' is not the name of an interface")]
    NotADevice(String),
    /// Table 255.
    #[error("table local belongs to the kernel")]
    LocalTable,
    /// A route that says neither via nor dev.
    #[error("route {0}: say where to: via ADDRESS, dev NAME or both")]
    NoWay(RouteKey),
    /// A link operation that sets nothing.
    #[error("link set {0}: nothing to set")]
    NothingToSet(String),
    /// Outside of what the kernel takes.
    #[error("mtu {0} is not between 68 and 65535")]
    Mtu(u32),
    /// A kernel parameter's name.
    #[error(transparent)]
    Sysctl(#[from] InvalidSysctl),
    /// A kernel parameter's value.
    #[error("the value of {0} is empty, too long or has control characters")]
    SysctlValue(SysctlKey),
    /// A path.
    #[error(transparent)]
    File(#[from] FileError),
}

/// What is done to a route or an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Add,
    Replace,
    Delete,
}

/// An operation, typed and normalised. Two texts that mean the same give the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Exact {
    Route {
        verb: Verb,
        key: RouteKey,
        via: Option<IpAddr>,
        dev: Option<String>,
    },
    Address {
        verb: Verb,
        address: Prefix,
        dev: String,
    },
    Link {
        dev: String,
        up: Option<bool>,
        mtu: Option<u32>,
    },
    Sysctl {
        key: SysctlKey,
        value: String,
    },
    File {
        write: bool,
        path: String,
    },
    Rule {
        verb: Verb,
        key: RuleKey,
    },
    /// With a hardware address it is made permanent, without one it is removed.
    Neighbour {
        address: IpAddr,
        dev: String,
        mac: Option<Mac>,
    },
    /// Set, or without a wish removed.
    Wireguard {
        dev: String,
        key: PublicKey,
        set: Option<PeerWish>,
    },
    Service {
        deed: Deed,
        name: String,
    },
    Uci {
        key: Key,
        edit: Edit,
    },
    UciReload {
        package: String,
    },
    /// `FAMILY NAME`, replaced or removed.
    Nft {
        replace: bool,
        table: String,
    },
}

impl Exact {
    /// True if it acts on objects that rtnetlink or `/proc/sys` shows.
    pub(crate) fn is_of_the_network(&self) -> bool {
        match self {
            Self::Route { .. }
            | Self::Address { .. }
            | Self::Link { .. }
            | Self::Sysctl { .. }
            | Self::Rule { .. }
            | Self::Neighbour { .. } => true,
            Self::File { .. }
            | Self::Nft { .. }
            | Self::Service { .. }
            | Self::Wireguard { .. }
            | Self::Uci { .. }
            | Self::UciReload { .. } => false,
        }
    }
}

/// The operations that a manifest grants: variables replaced by `values` (without `$`), in canonical form.
///
/// # Errors
/// [`Reason::UnknownBinding`] for a variable without a value, [`Reason::BindingMismatch`] if a value is not of the kind
/// that stands in its place, [`Reason::MalformedPayload`] for everything else that is no operation.
pub fn resolve_grants(
    manifest: &Manifest,
    values: &BTreeMap<String, String>,
) -> Result<Vec<Operation>, Reason> {
    let mut grants: Vec<Operation> = Vec::new();
    for granted in &manifest.operations {
        let mut operation = granted.clone();
        let mut bound = false;
        for value in variables(&mut operation) {
            if let Some(variable) = value.variable() {
                let real = values.get(variable).ok_or(Reason::UnknownBinding)?;
                // A value is never looked at as a variable again.
                if real.starts_with('$') {
                    return Err(Reason::BindingMismatch);
                }
                *value = Value(real.clone());
                bound = true;
            }
        }
        let exact = Exact::try_from(&operation).map_err(|error| match error {
            GrantError::NotAnAddress(_)
            | GrantError::NotAMac(_)
            | GrantError::RuleFamilies(_)
            | GrantError::Families { .. }
                if bound =>
            {
                Reason::BindingMismatch
            }
            _ => Reason::MalformedPayload,
        })?;
        let canonical = Operation::from(&exact);
        if !grants.contains(&canonical) {
            grants.push(canonical);
        }
    }
    Ok(grants)
}

fn variables(operation: &mut Operation) -> Vec<&mut Value> {
    match operation {
        Operation::Route(
            RouteOperation::Add(route)
            | RouteOperation::Replace(route)
            | RouteOperation::Delete(route),
        ) => std::iter::once(&mut route.dst)
            .chain(route.via.as_mut())
            .collect(),
        Operation::Address(AddressOperation::Add(address) | AddressOperation::Delete(address)) => {
            vec![&mut address.address]
        }
        Operation::Rule(RuleOperation::Add(rule) | RuleOperation::Delete(rule)) => {
            rule.from.iter_mut().chain(rule.to.as_mut()).collect()
        }
        Operation::Neighbour(NeighbourOperation::Replace(entry)) => {
            vec![&mut entry.address, &mut entry.lladdr]
        }
        Operation::Neighbour(NeighbourOperation::Delete(entry)) => vec![&mut entry.address],
        Operation::Uci(
            UciOperation::Set(pair) | UciOperation::AddList(pair) | UciOperation::DelList(pair),
        ) => vec![&mut pair.value],
        Operation::Wireguard(WireguardOperation::SetPeer(peer)) => peer
            .endpoint
            .iter_mut()
            .chain(&mut peer.allowed_ips)
            .collect(),
        Operation::Link(_)
        | Operation::Sysctl(_)
        | Operation::File(_)
        | Operation::Nft(_)
        | Operation::Service(_)
        | Operation::Wireguard(_)
        | Operation::Uci(_) => Vec::new(),
    }
}

/// An address with host bits cleared.
pub(crate) fn network(prefix: Prefix) -> Prefix {
    let length = u32::from(prefix.length);
    let address = match prefix.address {
        IpAddr::V4(a) => IpAddr::from(Ipv4Addr::from(
            u32::from(a) & u32::MAX.checked_shl(32 - length).unwrap_or(0),
        )),
        IpAddr::V6(a) => IpAddr::from(Ipv6Addr::from(
            u128::from(a) & u128::MAX.checked_shl(128 - length).unwrap_or(0),
        )),
    };
    Prefix {
        address,
        length: prefix.length,
    }
}

fn literal(value: &Value) -> Result<&str, GrantError> {
    match value.variable() {
        Some(variable) => Err(GrantError::Unbound(variable.chars().take(80).collect())),
        None => Ok(&value.0),
    }
}

fn not_an_address(text: &str) -> GrantError {
    GrantError::NotAnAddress(text.chars().take(80).collect())
}

fn device(name: &str) -> Result<String, GrantError> {
    let plain = !name.is_empty()
        && name.len() < 16
        && !matches!(name, "." | "..")
        && name
            .bytes()
            .all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b':' | b'$' | b'*' | b'%'));
    if plain {
        Ok(name.to_owned())
    } else {
        Err(GrantError::NotADevice(name.chars().take(80).collect()))
    }
}

fn exact_route(verb: Verb, route: &Route) -> Result<Exact, GrantError> {
    let via = route.via.as_ref().map(literal).transpose()?;
    let via: Option<IpAddr> = via
        .map(|text| text.parse().map_err(|_| not_an_address(text)))
        .transpose()?;
    let dev = route.dev.as_deref().map(device).transpose()?;
    let v6 = via.is_some_and(|v| v.is_ipv6());
    let destination = match literal(&route.dst)? {
        "default" if !v6 => Prefix {
            address: Ipv4Addr::UNSPECIFIED.into(),
            length: 0,
        },
        "default" | "default6" => Prefix {
            address: Ipv6Addr::UNSPECIFIED.into(),
            length: 0,
        },
        text => network(text.parse().map_err(|_| not_an_address(text))?),
    };
    if let Some(via) = via.filter(|via| via.is_ipv6() != destination.address.is_ipv6()) {
        return Err(GrantError::Families {
            dst: destination,
            via,
        });
    }
    let table = match route.table {
        // `RT_TABLE_UNSPEC`.
        None | Some(0) => MAIN,
        Some(LOCAL) => return Err(GrantError::LocalTable),
        Some(table) => table,
    };
    let metric = match route.metric.unwrap_or(0) {
        0 if destination.address.is_ipv6() => IPV6_METRIC,
        metric => metric,
    };
    let key = RouteKey {
        destination,
        table,
        metric,
        tos: 0,
    };
    if verb != Verb::Delete && via.is_none() && dev.is_none() {
        return Err(GrantError::NoWay(key));
    }
    Ok(Exact::Route {
        verb,
        key,
        via,
        dev,
    })
}

fn exact_address(verb: Verb, address: &Address) -> Result<Exact, GrantError> {
    let text = literal(&address.address)?;
    Ok(Exact::Address {
        verb,
        address: text.parse().map_err(|_| not_an_address(text))?,
        dev: device(&address.dev)?,
    })
}

impl TryFrom<&Operation> for Exact {
    type Error = GrantError;

    fn try_from(operation: &Operation) -> Result<Self, GrantError> {
        match operation {
            Operation::Route(RouteOperation::Add(route)) => exact_route(Verb::Add, route),
            Operation::Route(RouteOperation::Replace(route)) => exact_route(Verb::Replace, route),
            Operation::Route(RouteOperation::Delete(route)) => exact_route(Verb::Delete, route),
            Operation::Address(AddressOperation::Add(address)) => exact_address(Verb::Add, address),
            Operation::Address(AddressOperation::Delete(address)) => {
                exact_address(Verb::Delete, address)
            }
            Operation::Link(LinkOperation::Set(link)) => {
                let dev = device(&link.dev)?;
                match (link.up, link.mtu) {
                    (None, None) => Err(GrantError::NothingToSet(dev)),
                    (_, Some(mtu)) if !(68..=65535).contains(&mtu) => Err(GrantError::Mtu(mtu)),
                    (up, mtu) => Ok(Self::Link { dev, up, mtu }),
                }
            }
            Operation::Sysctl(SysctlOperation::Set(sysctl)) => {
                let key = SysctlKey::parse(&sysctl.key)?;
                let value = sysctl::plain(&sysctl.value);
                if value.is_empty()
                    || value.len() > SYSCTL_VALUE
                    || value.chars().any(char::is_control)
                {
                    return Err(GrantError::SysctlValue(key));
                }
                Ok(Self::Sysctl { key, value })
            }
            Operation::File(FileOperation::Write(path)) => {
                file::plain(path)?;
                Ok(Self::File {
                    write: true,
                    path: path.clone(),
                })
            }
            Operation::File(FileOperation::Delete(path)) => {
                file::plain(path)?;
                Ok(Self::File {
                    write: false,
                    path: path.clone(),
                })
            }
            Operation::Rule(RuleOperation::Add(rule)) => rule::exact(Verb::Add, rule),
            Operation::Rule(RuleOperation::Delete(rule)) => rule::exact(Verb::Delete, rule),
            Operation::Neighbour(operation) => neighbour::exact(operation),
            Operation::Nft(operation) => nft::exact(operation),
            Operation::Service(operation) => service::exact(operation),
            Operation::Uci(operation) => uci::exact(operation),
            Operation::Wireguard(operation) => wireguard::exact(operation),
        }
    }
}

impl From<&Exact> for Operation {
    fn from(exact: &Exact) -> Self {
        match exact {
            Exact::Route {
                verb,
                key,
                via,
                dev,
            } => {
                let route = Route {
                    dst: Value(key.destination.to_string()),
                    via: via.map(|via| Value(via.to_string())),
                    dev: dev.clone(),
                    table: Some(key.table),
                    metric: Some(key.metric),
                };
                Self::Route(match verb {
                    Verb::Add => RouteOperation::Add(route),
                    Verb::Replace => RouteOperation::Replace(route),
                    Verb::Delete => RouteOperation::Delete(route),
                })
            }
            Exact::Address { verb, address, dev } => {
                let address = Address {
                    address: Value(address.to_string()),
                    dev: dev.clone(),
                };
                Self::Address(match verb {
                    Verb::Delete => AddressOperation::Delete(address),
                    Verb::Add | Verb::Replace => AddressOperation::Add(address),
                })
            }
            Exact::Link { dev, up, mtu } => Self::Link(LinkOperation::Set(Link {
                dev: dev.clone(),
                up: *up,
                mtu: *mtu,
            })),
            Exact::Sysctl { key, value } => Self::Sysctl(SysctlOperation::Set(Sysctl {
                key: key.to_string(),
                value: value.clone(),
            })),
            Exact::File { write: true, path } => Self::File(FileOperation::Write(path.clone())),
            Exact::File { write: false, path } => Self::File(FileOperation::Delete(path.clone())),
            Exact::Rule { verb, key } => rule::operation(*verb, key),
            Exact::Neighbour { address, dev, mac } => neighbour::operation(*address, dev, *mac),
            Exact::Nft { replace, table } => nft::operation(*replace, table),
            Exact::Service { deed, name } => service::operation(*deed, name),
            Exact::Uci { key, edit } => uci::operation(key, edit),
            Exact::Wireguard { dev, key, set } => wireguard::operation(dev, *key, set.as_ref()),
            Exact::UciReload { package } => Self::Uci(UciOperation::Reload(package.clone())),
        }
    }
}

impl std::fmt::Display for Exact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verb = |verb: &Verb| match verb {
            Verb::Add => "add",
            Verb::Replace => "replace",
            Verb::Delete => "delete",
        };
        match self {
            Self::Route {
                verb: v,
                key,
                via,
                dev,
            } => {
                write!(f, "route {} {key}", verb(v))?;
                via.map_or(Ok(()), |via| write!(f, " via {via}"))?;
                dev.as_ref().map_or(Ok(()), |dev| write!(f, " dev {dev}"))
            }
            Self::Address {
                verb: v,
                address,
                dev,
            } => write!(f, "address {} {address} dev {dev}", verb(v)),
            Self::Link { dev, up, mtu } => {
                write!(f, "link set {dev}")?;
                up.map_or(Ok(()), |up| f.write_str(if up { " up" } else { " down" }))?;
                mtu.map_or(Ok(()), |mtu| write!(f, " mtu {mtu}"))
            }
            Self::Sysctl { key, value } => write!(f, "sysctl {key}={value}"),
            Self::File { write, path } => {
                write!(f, "file {} {path}", if *write { "write" } else { "delete" })
            }
            Self::Nft { replace, table } => {
                let verb = if *replace { "replace" } else { "delete" };
                write!(f, "nft {verb}-table {table}")
            }
            Self::Service { deed, name } => write!(f, "service {} {name}", deed.word()),
            Self::Uci { key, edit } => uci::shown(key, edit, f),
            Self::Wireguard { dev, key, set } => {
                write!(f, "wireguard set {dev} peer {key}")?;
                match set {
                    Some(wish) => write!(f, "{wish}"),
                    None => f.write_str(" remove"),
                }
            }
            Self::UciReload { package } => write!(f, "uci reload {package}"),
            Self::Rule { verb: v, key } => write!(f, "rule {} {key}", verb(v)),
            Self::Neighbour {
                address,
                dev,
                mac: Some(mac),
            } => write!(f, "neighbour replace {address} lladdr {mac} dev {dev}"),
            Self::Neighbour { address, dev, .. } => {
                write!(f, "neighbour delete {address} dev {dev}")
            }
        }
    }
}

#[cfg(test)]
mod tests;
