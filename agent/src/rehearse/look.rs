//! Looking at the ways of a shadow: its routes, and what comes back of packets that are really sent in it.

use std::collections::BTreeSet;
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use aizen_protocol::effect::ObjectChange;
use aizen_protocol::package::manifest::Operation;
use futures_util::future::join_all;

use super::ShadowRequest;
use super::exchange;
use super::lockout::{self, DNS, INTERNET, Judged, Look, Wanted, Way};
use super::outside::{self, Outside};
use super::replica::{Original, Replica};
use crate::collect::resolvers;
use crate::rollback::checkpoint::{Network, Scope};
use crate::rollback::kernel::KernelError;
use crate::rollback::route;
use crate::rollback::sysctl::SysctlKey;

const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Longest file that is read, bytes.
const FILE: u64 = 1 << 20;

/// The ways of one rehearsal, and how they were before the script.
pub(super) struct Watched {
    outside: Outside,
    before: Look,
    listening: Vec<IpAddr>,
}

/// Tries the ways again after the script. Ways that can't be tried are told, and don't end the rehearsal.
pub(super) async fn end(
    watched: io::Result<Option<Watched>>,
    replica: &Replica,
    named: Vec<IpAddr>,
    changes: &[ObjectChange],
) -> Judged {
    let judged = match watched {
        Ok(Some(watched)) => watched.end(replica, named, changes).await,
        Ok(None) => Ok(Judged::default()),
        Err(error) => Err(error),
    };
    judged.unwrap_or_else(|error| Judged {
        not_judged: vec![format!("whether somebody is locked out: {error}")],
        ..Judged::default()
    })
}

/// True if one of the operations can take a way: files of no resolver, services and configuration alone can't.
fn matters(grants: &[Operation]) -> bool {
    grants.iter().any(|grant| match grant {
        Operation::Uci(_) => false,
        Operation::Service(_) => true,
        Operation::File(file) => {
            use aizen_protocol::package::manifest::FileOperation::{Delete, Write};
            let (Write(path) | Delete(path)) = file;
            path == RESOLV_CONF
        }
        _ => true,
    })
}

impl Watched {
    /// Settles somebody outside and tries every way.
    pub(super) async fn begin(
        replica: &mut Replica,
        request: &ShadowRequest,
        original: &Original,
        named: Vec<IpAddr>,
    ) -> io::Result<Option<Self>> {
        if !request.powers.any() && !matters(&request.grants) {
            return Ok(None);
        }
        let Some((kernel, namespace)) = replica.outside.take() else {
            return Ok(None);
        };
        let network = network(replica).await?;
        let mut before = Look {
            network,
            resolvers: named,
            ..Look::default()
        };
        let login = request.login.as_ref();
        let mut asked: Vec<IpAddr> = before.resolvers.clone();
        asked.extend(request.uplink.iter().chain(login.map(|l| &l.from)));
        asked.extend(INTERNET);
        before.hops = hops(replica, &before.network, &asked).await?;
        let wanted = Wanted {
            uplink: &request.uplink,
            port: request.uplink_port,
            login,
            forwards: ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"].map(|key| {
                let key = SysctlKey::parse(key).ok();
                key.and_then(|key| original.sysctls.get(&key))
                    .is_some_and(|value| value == "1")
            }),
        };
        let ways = lockout::ways(&before, &wanted);
        let clients = ways.iter().filter_map(|way| match way {
            Way::Clients { from, .. } => Some(*from),
            _ => None,
        });
        asked.extend(clients);
        let ports: BTreeSet<u16> = ways
            .iter()
            .filter_map(|way| match way {
                Way::Orchestrator(to) | Way::Internet(to) => Some(to.port()),
                _ => None,
            })
            .collect();
        let known = outside::neighbours(&original.network, &original.heard, &asked);
        let outside = Outside::settle(kernel, namespace, &original.network, known, &ports).await?;
        if let Some(login) = login {
            for ipv6 in [false, true] {
                let listens = exchange::answer_streams(login.at.port(), ipv6, None);
                tracing::debug!(?listens, ipv6, "the technician's port");
            }
        }
        let mut watched = Self {
            outside,
            before: Look::default(),
            listening: original.listening.clone(),
        };
        watched.try_all(&mut before, ways).await;
        watched.before = before;
        Ok(Some(watched))
    }

    /// Tries them again after the script and compares. `named` are the resolvers that it left.
    async fn end(
        mut self,
        replica: &Replica,
        named: Vec<IpAddr>,
        changes: &[ObjectChange],
    ) -> io::Result<Judged> {
        let network = network(replica).await?;
        let believed = self
            .outside
            .follow(&self.before.network, &network, &named)
            .await;
        outside::forget(&replica.kernel, &network.names()).await;
        let mut asked: Vec<IpAddr> = named.clone();
        let ways: Vec<Way> = self
            .before
            .heard
            .keys()
            .filter(|way| !matches!(way, Way::Resolver(_)))
            .cloned()
            .collect();
        asked.extend(ways.iter().filter_map(Way::to));
        let mut after = Look {
            hops: hops(replica, &network, &asked).await?,
            network,
            resolvers: named,
            ..Look::default()
        };
        // What did not hold before can't be judged: nobody waits for it twice.
        let held = ways
            .into_iter()
            .filter(|way| self.before.heard.get(way).is_some_and(|h| h.is_answer()));
        self.try_all(&mut after, held.collect()).await;
        let mut judged = lockout::judge(&self.before, &after, &self.listening, changes);
        judged.not_judged.extend(believed);
        Ok(judged)
    }

    async fn try_all(&self, look: &mut Look, mut ways: Vec<Way>) {
        let foreign: Vec<IpAddr> = look
            .resolvers
            .iter()
            .copied()
            .filter(|a| !look.owns(*a) && !a.is_unspecified())
            .collect();
        self.outside.resolve(&foreign).await;
        ways.extend(foreign.into_iter().map(Way::Resolver));
        let heard = join_all(ways.iter().map(|way| self.outside.try_way(way))).await;
        look.heard = ways.into_iter().zip(heard).collect();
    }
}

async fn network(replica: &Replica) -> io::Result<Network> {
    Network::read(&replica.kernel)
        .await
        .map_err(io::Error::other)
}

async fn hops(
    replica: &Replica,
    network: &Network,
    to: &[IpAddr],
) -> io::Result<std::collections::BTreeMap<IpAddr, Option<route::Hop>>> {
    let names = network.names();
    let mut hops = std::collections::BTreeMap::new();
    for address in to {
        let hop = route::way_to(&replica.kernel, &names, *address).await;
        hops.insert(*address, hop.map_err(|e: KernelError| io::Error::other(e))?);
    }
    Ok(hops)
}

/// The resolvers that `/etc/resolv.conf` names: the copy's, where the script may change it.
pub(super) fn named(root: &Path, scope: &Scope) -> Vec<IpAddr> {
    let granted = scope.files().any(|path| path == RESOLV_CONF);
    let bytes = if granted {
        let place = scope.place(root, RESOLV_CONF).ok().flatten();
        let state = place.and_then(|place| place.read().ok());
        state.map(|state| state.content().to_vec())
    } else {
        let file = std::fs::File::open(root.join(RESOLV_CONF.trim_start_matches('/')));
        file.ok().and_then(|file| {
            let mut bytes = Vec::new();
            file.take(FILE).read_to_end(&mut bytes).ok()?;
            Some(bytes)
        })
    };
    let mut named = resolvers::parse(&bytes.unwrap_or_default())
        .value
        .configured;
    if named.is_empty() {
        // Without one the C library asks the device itself (resolv.conf(5)).
        named.push(Ipv4Addr::LOCALHOST.into());
    }
    named
}

/// The same, as the script left it.
pub(super) fn left(copy: &Path, device: &Path, scope: &Scope) -> Vec<IpAddr> {
    let granted = scope.files().any(|path| path == RESOLV_CONF);
    named(if granted { copy } else { device }, scope)
}

/// Addresses of this namespace at which somebody takes datagrams for port 53 (`/proc/net/udp`, `udp6`).
pub(super) fn listening() -> Vec<IpAddr> {
    let mut found = Vec::new();
    for file in ["udp", "udp6"] {
        let mut text = String::new();
        let read = std::fs::File::open(format!("/proc/thread-self/net/{file}"))
            .and_then(|f| f.take(FILE).read_to_string(&mut text));
        if read.is_ok() {
            found.extend(text.lines().filter_map(socket));
        }
    }
    found.retain(|at: &SocketAddr| at.port() == DNS);
    found.iter().map(SocketAddr::ip).collect()
}

/// `  12: 0100007F:0035 …`: words of 32 bits in the machine's order (net/ipv4/udp.c, `udp4_format_sock`).
fn socket(line: &str) -> Option<SocketAddr> {
    let (address, port) = line.split_whitespace().nth(1)?.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let word = u32::from_str_radix(address.get(at * 8..at * 8 + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    let ip = match address.len() {
        8 => IpAddr::from(Ipv4Addr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(words.concat()).ok()?))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_read_as_the_kernel_writes_them_and_garbage_is_none() {
        let of = |line: &str| socket(line).map(|s| s.to_string());
        if cfg!(target_endian = "little") {
            assert_eq!(
                of("  12: 3500007F:0035 00000000:0000 07 0").as_deref(),
                Some("127.0.0.53:53")
            );
            assert_eq!(
                of(" 1: 00000000000000000000000001000000:0035 0:0").as_deref(),
                Some("[::1]:53")
            );
        }
        for line in [
            "",
            "sl local",
            "1: é",
            "1: 0100007F",
            "1: 0100007F:zz",
            "1: 01éé007F:0035",
        ] {
            assert_eq!(of(line), None, "{line}");
        }
    }
}
