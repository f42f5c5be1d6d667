//! From what was typed to who is asked what, and how.

use std::net::IpAddr;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::time::Instant;

use super::DnsArgs;
use crate::cli::exit;
use crate::collect::{Settings, resolvers};
use crate::probe::dns::{
    self, DomainName, InvalidKind, InvalidServer, Kind, Options, Question, Server, Transport, Url,
};
use crate::probe::roots::Roots;
use crate::probe::web::InvalidUrl;

/// Who is asked what.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) question: Question,
    /// The name as it was typed, where names that don't exist can be looked for beside it.
    pub(super) beside: Option<String>,
    pub(super) targets: Vec<Target>,
    pub(super) roots: Option<Roots>,
    pub(super) count: u32,
    /// Questions under way at each target; no more than `count`.
    pub(super) at_once: u32,
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
}

/// One server, asked in one way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) server: Server,
    pub(super) transport: Transport,
    pub(super) configured: bool,
}

/// Why nothing is asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Wrong {
    #[error("a name is missing: aizen dns NAME [TYPE] [@SERVER]…")]
    NoName,
    #[error("'{0}' is one word too many: aizen dns NAME [TYPE] [@SERVER]…")]
    TooMany(String),
    #[error(
        "'{0}' can't stand in a question: write it in ASCII (xn--…), labels of 1 to 63 bytes, 255 in all"
    )]
    Name(String),
    #[error(transparent)]
    Kind(#[from] InvalidKind),
    #[error(transparent)]
    Server(#[from] InvalidServer),
    #[error(transparent)]
    Url(#[from] InvalidUrl),
    #[error("DNS over HTTPS needs a URL with https")]
    NotSecure,
    #[error("'{0}' can't stand in a certificate")]
    TlsName(String),
    #[error(
        "{targets} servers with {at_once} questions at once are more than {MAX_OPEN} sockets: ask fewer at once, or name servers with --only"
    )]
    TooManyAtOnce { targets: usize, at_once: u16 },
    #[error("no resolver is configured on this device: name one with @ADDRESS")]
    Nobody,
    #[error("--only asks the servers named with @ or a URL: name one")]
    NobodyNamed,
    #[error("the host of {0} has no address: give the URL with an address, or a server with @")]
    Unresolved(String),
}

impl Wrong {
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::Nobody | Self::Unresolved(_) => exit::FAILED,
            _ => USAGE,
        }
    }
}

impl Plan {
    pub(super) async fn new(args: &DnsArgs, settings: &Settings) -> Result<Self, Wrong> {
        let (question, beside, named) = words(args)?;
        let device = resolvers::collect(&settings.root, &settings.alternates).value;
        let own: Vec<IpAddr> = device
            .configured
            .iter()
            .chain(&device.alternates)
            .copied()
            .collect();
        let mut servers: Vec<(Server, bool)> = Vec::new();
        for address in own.iter().filter(|_| !args.only) {
            let configured = device.configured.contains(address);
            push_new(&mut servers, (Server::at(*address), configured));
        }
        for server in named {
            let configured = server.port.is_none() && device.configured.contains(&server.address);
            // Named with more than its address, it is the better known of the two.
            servers
                .retain(|(known, _)| *known != Server::at(server.address) || server.port.is_some());
            push_new(&mut servers, (server, configured));
        }
        let mut targets = Vec::new();
        for (server, configured) in servers {
            targets.extend(targets_of(args, &server, configured)?);
        }
        if let Some(Some(url)) = &args.https {
            targets.push(by_url(url, &own, args.timeout).await?);
        }
        if targets.is_empty() {
            return Err(if args.only {
                Wrong::NobodyNamed
            } else {
                Wrong::Nobody
            });
        }
        targets.truncate(MAX_TARGETS);
        let targets_asked = targets.len();
        let encrypted = targets
            .iter()
            .any(|t| matches!(t.transport, Transport::Tls | Transport::Https(_)));
        Ok(Self {
            question,
            beside,
            targets,
            roots: encrypted
                .then(|| Roots::read(&settings.root).ok())
                .flatten(),
            count: args.count,
            at_once: at_once(args, targets_asked)?,
            interval: args.interval,
            timeout: args.timeout,
        })
    }
}

/// The question, the name as typed if it is no address, and the servers, in whatever order they were typed.
fn words(args: &DnsArgs) -> Result<(Question, Option<String>, Vec<Server>), Wrong> {
    let (servers, words): (Vec<&String>, Vec<&String>) =
        args.words.iter().partition(|word| word.starts_with('@'));
    let servers = servers
        .iter()
        .map(|s| s[1..].parse())
        .collect::<Result<_, _>>()?;
    let mut words = words.into_iter();
    let text = words.next().ok_or(Wrong::NoName)?;
    let kind = words.next().map(|word| word.parse::<Kind>()).transpose()?;
    if let Some(word) = words.next() {
        return Err(Wrong::TooMany(word.clone()));
    }
    let address = text
        .parse::<IpAddr>()
        .ok()
        .filter(|_| kind.is_none_or(|k| k == Kind::PTR));
    let name = match address {
        Some(address) => DomainName::reverse(address),
        None => Some(text)
            .filter(|t| t.is_ascii())
            .and_then(|t| DomainName::parse(t))
            .ok_or_else(|| Wrong::Name(text.chars().take(300).collect()))?,
    };
    let kind = kind.unwrap_or(if address.is_some() {
        Kind::PTR
    } else {
        Kind::A
    });
    let question = Question {
        name,
        kind,
        options: Options {
            edns: true,
            dnssec: args.dnssec,
            unvalidated: false,
        },
    };
    Ok((question, address.is_none().then(|| text.clone()), servers))
}

/// Each question under way has a socket, and a port, of its own.
fn at_once(args: &DnsArgs, targets: usize) -> Result<u32, Wrong> {
    let at_once = args.at_once;
    if targets * usize::from(at_once) > MAX_OPEN.max(targets) {
        return Err(Wrong::TooManyAtOnce { targets, at_once });
    }
    Ok(u32::from(at_once).min(args.count))
}

fn targets_of(args: &DnsArgs, server: &Server, configured: bool) -> Result<Vec<Target>, Wrong> {
    let mut server = server.clone();
    if let (None, Some(Some(name))) = (&server.name, &args.tls) {
        if !matches!(
            ServerName::try_from(name.as_str()),
            Ok(ServerName::DnsName(_))
        ) {
            return Err(Wrong::TlsName(name.chars().take(300).collect()));
        }
        server.name = Some(name.clone());
    }
    let plain = args.udp || !(args.tcp || args.tls.is_some() || args.https.is_some());
    let mut transports = Vec::new();
    if plain || args.all {
        transports.push(Transport::Udp);
    }
    if args.tcp || args.all {
        transports.push(Transport::Tcp);
    }
    if args.tls.is_some() || args.all {
        transports.push(Transport::Tls);
    }
    if matches!(args.https, Some(None)) || (args.all && args.https.is_none()) {
        transports.push(Transport::Https(url_of(&server)));
    }
    Ok(transports
        .into_iter()
        .map(|transport| Target {
            server: server.clone(),
            transport,
            configured,
        })
        .collect())
}

/// The path that RFC 8484 uses in its examples, and nearly everybody with it.
fn url_of(server: &Server) -> Url {
    Url {
        secure: true,
        host: server
            .name
            .clone()
            .unwrap_or_else(|| server.address.to_string()),
        port: server.port.unwrap_or(443),
        path: "/dns-query".to_owned(),
    }
}

async fn by_url(text: &str, own: &[IpAddr], timeout: Duration) -> Result<Target, Wrong> {
    let url: Url = text.parse()?;
    if !url.secure {
        return Err(Wrong::NotSecure);
    }
    let found = dns::addresses(&url.host, own, Instant::now() + timeout).await;
    let address = found
        .first()
        .ok_or_else(|| Wrong::Unresolved(url.to_string()))?;
    Ok(Target {
        server: Server {
            address: *address,
            port: None,
            name: Some(url.host.clone()),
        },
        transport: Transport::Https(url),
        configured: false,
    })
}

fn push_new(servers: &mut Vec<(Server, bool)>, server: (Server, bool)) {
    if !servers.iter().any(|(known, _)| *known == server.0) {
        servers.push(server);
    }
}

const USAGE: u8 = 2;
const MAX_TARGETS: usize = 64;
/// Sockets; a process may have 1024 files open.
const MAX_OPEN: usize = 512;

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        args: DnsArgs,
    }

    async fn plan(words: &str) -> Result<Plan, Wrong> {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::write(
            root.path().join("etc/resolv.conf"),
            "nameserver 192.0.2.1\n",
        )
        .unwrap();
        let settings = Settings {
            root: root.path().to_owned(),
            ..Settings::default()
        };
        let typed = ["dns"].into_iter().chain(words.split_whitespace());
        Plan::new(&Typed::parse_from(typed).args, &settings).await
    }

    async fn asked(words: &str) -> Vec<String> {
        let plan = plan(words).await.unwrap();
        let shown = |t: &Target| format!("{:?} {}", t.transport.kind(), t.server);
        plan.targets.iter().map(shown).collect()
    }

    #[tokio::test]
    async fn the_devices_resolvers_and_those_named_are_asked_each_once() {
        assert_eq!(
            asked("a.example @192.0.2.9 @192.0.2.1").await,
            ["Udp 192.0.2.9", "Udp 192.0.2.1"]
        );
        assert_eq!(
            asked("@192.0.2.9 a.example mx --only").await,
            ["Udp 192.0.2.9"]
        );
        assert_eq!(
            asked("a.example --tcp --tls").await,
            ["Tcp 192.0.2.1", "Tls 192.0.2.1"]
        );
        assert_eq!(asked("a.example --all").await.len(), 4);
        assert_eq!(
            asked("a.example --https=https://192.0.2.7:8443/q --tls=dns.example").await,
            ["Tls 192.0.2.1#dns.example", "Https 192.0.2.7#192.0.2.7"]
        );
    }

    #[tokio::test]
    async fn an_address_is_looked_up_backwards() {
        let plan = plan("192.0.2.7").await.unwrap();
        assert_eq!(plan.question.kind, Kind::PTR);
        assert_eq!(plan.question.name.to_string(), "7.2.0.192.in-addr.arpa.");
        assert_eq!(plan.beside, None);
    }

    #[tokio::test]
    async fn what_makes_no_sense_is_wrong_usage() {
        for words in [
            "@192.0.2.1",
            "a b.c",
            "a A mx",
            "a..b",
            "ä.example",
            "a @x",
            "a --tls=192.0.2.1",
            "a --https=http://a/",
            "a --only",
            "a --all -c 1000 -q 256",
        ] {
            assert_eq!(
                plan(words).await.map(drop).unwrap_err().code(),
                2,
                "{words}"
            );
        }
    }
}
