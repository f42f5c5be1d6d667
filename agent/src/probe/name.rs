//! Names to addresses, as the system resolves them (getaddrinfo(3)): on threads of their own, because it can hang.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6, ToSocketAddrs as _};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::echo::Target;

/// Which addresses of a name are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Family {
    /// The first one, as the system orders them.
    #[default]
    Any,
    /// IPv4 alone.
    V4,
    /// IPv6 alone.
    V6,
}

impl Family {
    fn takes(self, address: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
        }
    }
}

/// Why a name has no address.
#[derive(Debug, thiserror::Error)]
pub enum NameError {
    /// The resolver says no.
    #[error("{name}: {source}; 'aizen dns {name}' asks each resolver")]
    Unknown {
        /// The name.
        name: String,
        /// What it said.
        source: io::Error,
    },
    /// It has addresses of the other family only.
    #[error("{name} has no address of the family asked for")]
    OtherFamily {
        /// The name.
        name: String,
    },
    /// The resolver took too long.
    #[error("{name}: the resolver did not answer within {} s", .waited.as_secs())]
    TooSlow {
        /// The name.
        name: String,
        /// The deadline.
        waited: Duration,
    },
}

/// The address of each name, in their order. Addresses stand for themselves, `fe80::1%eth0` with its interface.
#[must_use]
pub fn resolve(
    names: &[String],
    family: Family,
    deadline: Duration,
) -> Vec<Result<Target, NameError>> {
    let until = Instant::now() + deadline;
    let mut found: Vec<Option<Result<Target, NameError>>> =
        names.iter().map(|name| literal(name, family)).collect();
    let open: Vec<usize> = (0..names.len()).filter(|n| found[*n].is_none()).collect();
    let (done, results) = mpsc::sync_channel(AT_ONCE);
    let mut waiting = open.iter();
    let mut under_way = 0_usize;
    loop {
        while under_way < AT_ONCE
            && let Some(place) = waiting.next()
        {
            let (done, place, name) = (done.clone(), *place, names[*place].clone());
            let ask = move || {
                // Nobody listens after the deadline.
                done.send((place, ask(&name, family))).ok();
            };
            let thread = thread::Builder::new().name("aizen-name".to_owned());
            if let Err(source) = thread.spawn(ask) {
                let name = names[place].clone();
                found[place] = Some(Err(NameError::Unknown { name, source }));
            } else {
                under_way += 1;
            }
        }
        if under_way == 0 {
            break;
        }
        let left = until.saturating_duration_since(Instant::now());
        let Ok((place, result)) = results.recv_timeout(left) else {
            break;
        };
        found[place] = Some(result);
        under_way -= 1;
    }
    let late = |name: &String| NameError::TooSlow {
        name: name.clone(),
        waited: deadline,
    };
    found
        .into_iter()
        .zip(names)
        .map(|(result, name)| result.unwrap_or_else(|| Err(late(name))))
        .collect()
}

/// The address that a text stands for by itself.
fn literal(text: &str, family: Family) -> Option<Result<Target, NameError>> {
    let target = if let Ok(address) = text.parse::<IpAddr>() {
        Target {
            address,
            link: None,
        }
    } else {
        let (address, link) = text.split_once('%')?;
        let link = link
            .parse()
            .ok()
            .or_else(|| nix::net::if_::if_nametoindex(link).ok())?;
        Target {
            address: address.parse::<std::net::Ipv6Addr>().ok()?.into(),
            link: Some(link),
        }
    };
    Some(if family.takes(target.address) {
        Ok(target)
    } else {
        Err(NameError::OtherFamily {
            name: text.to_owned(),
        })
    })
}

fn ask(name: &str, family: Family) -> Result<Target, NameError> {
    let addresses = (name, 0)
        .to_socket_addrs()
        .map_err(|source| NameError::Unknown {
            name: name.to_owned(),
            source,
        })?;
    let scope = |a: &SocketAddrV6| (a.scope_id() != 0).then(|| a.scope_id());
    addresses
        .filter(|address| family.takes(address.ip()))
        .map(|address| Target {
            address: address.ip(),
            link: match &address {
                SocketAddr::V4(_) => None,
                SocketAddr::V6(a) => scope(a),
            },
        })
        .next()
        .ok_or_else(|| NameError::OtherFamily {
            name: name.to_owned(),
        })
}

/// Names asked for side by side.
const AT_ONCE: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve_one(name: &str, family: Family) -> Result<Target, NameError> {
        resolve(&[name.to_owned()], family, Duration::from_secs(20)).remove(0)
    }

    #[test]
    fn an_address_stands_for_itself_and_a_scope_for_its_interface() {
        let plain = resolve_one("192.0.2.1", Family::Any).unwrap();
        assert_eq!(plain.address.to_string(), "192.0.2.1");
        let scoped = resolve_one("fe80::1%lo", Family::V6).unwrap();
        assert_eq!(scoped.link, Some(1));
    }

    #[test]
    fn an_address_of_the_wrong_family_is_told() {
        let error = resolve_one("192.0.2.1", Family::V6).unwrap_err();
        assert!(matches!(error, NameError::OtherFamily { .. }), "{error}");
    }

    #[test]
    fn names_and_addresses_keep_their_order() {
        let names = ["192.0.2.1", "localhost", "192.0.2.2"].map(str::to_owned);
        let found = resolve(&names, Family::V4, Duration::from_secs(20));
        let text: Vec<String> = found
            .into_iter()
            .map(|target| target.unwrap().address.to_string())
            .collect();
        assert_eq!(text, ["192.0.2.1", "127.0.0.1", "192.0.2.2"]);
    }

    #[test]
    fn a_passed_deadline_is_told_for_names_but_not_for_addresses() {
        let names = ["192.0.2.1", "a.name.invalid"].map(str::to_owned);
        let found = resolve(&names, Family::Any, Duration::ZERO);
        assert!(found[0].is_ok());
        assert!(found[1].is_err());
    }
}
