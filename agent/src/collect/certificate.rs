//! The TLS certificates of this device's orchestrator and of the hosts that the operator named: good, or why not, by
//! this device's clock.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aizen_protocol::private::{Name, Text};
use aizen_protocol::record::{Certificate, Resolvers, TlsOutcome};
use futures_util::future::join_all;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::{Seen, aside};
use crate::identity::{DeviceFile, Layout, certificates};
use crate::probe::dns;
use crate::probe::roots::{NoRoots, Roots};
use crate::probe::tls::{self, Facts, Shown};
use crate::probe::web::Url;
use crate::stream::dial;

/// Whose certificates are looked at.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// Hosts that the operator named.
    pub(crate) hosts: Vec<Url>,
    /// Where the enrollment is, if anywhere.
    pub(crate) state: Option<PathBuf>,
    /// What stands before `/etc`.
    pub(crate) root: PathBuf,
    /// For each host.
    pub(crate) deadline: Duration,
}

/// A host, and what its certificate must lead to.
struct Target {
    host: String,
    port: u16,
    roots: Roots,
    uplink: bool,
}

/// Looks at all of them, side by side.
pub(crate) async fn collect(resolvers: &Resolvers, wanted: Wanted) -> Seen<Vec<Certificate>> {
    let until = Instant::now() + wanted.deadline;
    let found = aside::run("aizen-roots", move || targets(wanted)).await;
    let (targets, mut gaps) = match found {
        Ok(found) => (found.value, found.gaps),
        Err(error) => (Vec::new(), vec![error.to_string()]),
    };
    let servers: Vec<IpAddr> = resolvers
        .configured
        .iter()
        .chain(&resolvers.alternates)
        .copied()
        .collect();
    let looked = join_all(targets.iter().map(|target| look(target, &servers, until))).await;
    let mut value = Vec::new();
    for result in looked {
        match result {
            Ok(certificate) => value.push(certificate),
            Err(reason) => gaps.push(reason),
        }
    }
    Seen { value, gaps }
}

fn targets(wanted: Wanted) -> Seen<Vec<Target>> {
    let mut gaps = Vec::new();
    let mut value = Vec::new();
    match wanted.state.map(|state| uplink(&state)) {
        Some(Ok(target)) => value.extend(target),
        Some(Err(error)) => gaps.push(format!("the orchestrator's certificate: {error}")),
        None => {}
    }
    let more = wanted.hosts.len().saturating_sub(MAX_HOSTS);
    if more > 0 {
        gaps.push(format!("{more} more hosts were left out"));
    }
    if !wanted.hosts.is_empty() {
        match Roots::read(&wanted.root) {
            Ok(roots) => value.extend(wanted.hosts.into_iter().take(MAX_HOSTS).map(|url| Target {
                host: url.host,
                port: url.port,
                roots: roots.clone(),
                uplink: false,
            })),
            Err(NoRoots) => gaps.push(NoRoots.to_string()),
        }
    }
    Seen { value, gaps }
}

/// The orchestrator of the device that is enrolled there; none if it isn't.
fn uplink(state: &Path) -> anyhow::Result<Option<Target>> {
    let layout = Layout::new(state);
    if !layout.device_file().exists() {
        return Ok(None);
    }
    let server: dial::Server = DeviceFile::load(&layout)?.server.parse()?;
    let ca = certificates(&layout.ca())?.swap_remove(0);
    let roots = Roots::only(ca).ok_or_else(|| anyhow::anyhow!("its CA can't be used"))?;
    Ok(Some(Target {
        host: server.host,
        port: server.port,
        roots,
        uplink: true,
    }))
}

/// One host; the error is a gap.
async fn look(target: &Target, servers: &[IpAddr], until: Instant) -> Result<Certificate, String> {
    let name = ServerName::try_from(target.host.clone())
        .map_err(|_| format!("'{}' can't stand in a certificate", target.host))?;
    let addresses = dns::addresses(&target.host, servers, until).await;
    let mut failed = format!("the name {} has no address", target.host);
    let mut tried = None;
    for (place, address) in addresses.iter().enumerate() {
        tried = Some(*address);
        // An address that swallows packets leaves time for the next.
        let left = until.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - place).unwrap_or(1);
        let attempt = attempt(
            SocketAddr::new(*address, target.port),
            name.clone(),
            &target.roots,
        );
        match timeout_at(Instant::now() + share, attempt).await {
            Ok(Ok(shown)) => return Ok(judged(target, *address, &shown)),
            Ok(Err(error)) => failed = error,
            Err(_) => failed = "no answer in time".to_owned(),
        }
    }
    Ok(Certificate {
        outcome: TlsOutcome::NoHandshake,
        detail: Some(Text(failed)),
        ..blank(target, tried)
    })
}

async fn attempt(
    socket: SocketAddr,
    name: ServerName<'static>,
    roots: &Roots,
) -> Result<Shown, String> {
    let tcp = TcpStream::connect(socket)
        .await
        .map_err(|e| format!("no TCP connection: {e}"))?;
    // The server may want a certificate of ours: by then we have seen its own.
    match tls::handshake(tcp, name, Some(roots), &[]).await {
        (_, Some(shown)) => Ok(shown),
        (Err(error), None) => Err(format!("no TLS: {error}")),
        (Ok(_), None) => Err("no TLS: the server showed no certificate".to_owned()),
    }
}

fn judged(target: &Target, address: IpAddr, shown: &Shown) -> Certificate {
    let facts = Facts::read(&shown.certificate);
    let reason = shown
        .verdict
        .as_ref()
        .and_then(|v| v.as_ref().err())
        .map(tls::reason);
    Certificate {
        outcome: shown.outcome().unwrap_or(TlsOutcome::Invalid),
        not_before: facts.as_ref().and_then(|f| f.not_before),
        not_after: facts.as_ref().and_then(|f| f.not_after),
        issuer: facts.and_then(|f| f.issuer).map(Text),
        detail: reason.map(|r| Text(dns::printable(&r, MAX_DETAIL))),
        ..blank(target, Some(address))
    }
}

fn blank(target: &Target, address: Option<IpAddr>) -> Certificate {
    Certificate {
        host: Name(target.host.clone()),
        address,
        port: target.port,
        uplink: target.uplink,
        outcome: TlsOutcome::NoHandshake,
        not_before: None,
        not_after: None,
        issuer: None,
        detail: None,
    }
}

const MAX_HOSTS: usize = 8;
const MAX_DETAIL: usize = 300;
