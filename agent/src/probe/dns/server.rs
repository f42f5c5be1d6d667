//! Whom to ask, and how the question travels.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use aizen_protocol::record::DnsTransport;
use rustls::pki_types::ServerName;

pub use crate::probe::web::Url;

/// A server by its address, in the form of resolved.conf(5): `192.0.2.53`, `[2001:db8::53]:853#dns.example`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its address.
    pub address: IpAddr,
    /// Its port, where it isn't the transport's own.
    pub port: Option<u16>,
    /// The name that its certificate must be for.
    pub name: Option<String>,
}

/// How a question travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
    /// TLS; the certificate is judged if the server's name is known (RFC 7858, 4).
    Tls,
    /// HTTPS, to the host and path of this URL; the certificate must be for that host.
    Https(Url),
}

impl Transport {
    /// As records have it.
    #[must_use]
    pub fn kind(&self) -> DnsTransport {
        match self {
            Self::Udp => DnsTransport::Udp,
            Self::Tcp => DnsTransport::Tcp,
            Self::Tls => DnsTransport::Tls,
            Self::Https(_) => DnsTransport::Https,
        }
    }

    fn port(&self) -> u16 {
        match self {
            Self::Udp | Self::Tcp => 53,
            Self::Tls => 853,
            Self::Https(url) => url.port,
        }
    }
}

/// A text that names no server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no DNS server: ADDRESS, ADDRESS:PORT or ADDRESS#NAME, an IPv6 address with a port in [ ]"
)]
pub struct InvalidServer(String);

impl Server {
    /// The server at this address, with nothing else known.
    #[must_use]
    pub fn at(address: IpAddr) -> Self {
        Self {
            address,
            port: None,
            name: None,
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self, transport: &Transport) -> SocketAddr {
        SocketAddr::new(self.address, self.port.unwrap_or(transport.port()))
    }
}

impl FromStr for Server {
    type Err = InvalidServer;

    fn from_str(text: &str) -> Result<Self, InvalidServer> {
        let invalid = || InvalidServer(text.chars().take(300).collect());
        let (place, name) = match text.split_once('#') {
            Some((place, name)) => (place, Some(name)),
            None => (text, None),
        };
        let bare = place.strip_prefix('[').and_then(|p| p.strip_suffix(']'));
        let (address, port) = match (bare.unwrap_or(place).parse(), place.parse::<SocketAddr>()) {
            (Ok(address), _) => (address, None),
            (Err(_), Ok(socket)) => (socket.ip(), Some(socket.port())),
            (Err(_), Err(_)) => return Err(invalid()),
        };
        let named =
            name.is_none_or(|n| matches!(ServerName::try_from(n), Ok(ServerName::DnsName(_))));
        if port == Some(0) || !named {
            return Err(invalid());
        }
        Ok(Self {
            address,
            port,
            name: name.map(str::to_owned),
        })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.address, port).fmt(f)?,
            None => self.address.fmt(f)?,
        }
        match &self.name {
            Some(name) => write!(f, "#{name}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_written_with_and_without_port_and_name() {
        for (text, shown) in [
            ("192.0.2.53", "192.0.2.53"),
            ("192.0.2.53:5353", "192.0.2.53:5353"),
            ("2001:db8::53", "2001:db8::53"),
            ("[2001:db8::53]", "2001:db8::53"),
            (
                "[2001:db8::53]:853#dns.example",
                "[2001:db8::53]:853#dns.example",
            ),
            ("192.0.2.53#dns.example", "192.0.2.53#dns.example"),
        ] {
            let server: Server = text.parse().unwrap();
            assert_eq!(server.to_string(), shown);
        }
        for text in [
            "",
            "dns.example",
            "192.0.2.53:0",
            "192.0.2.53#",
            "192.0.2.53#a b",
            "192.0.2.53#192.0.2.1",
        ] {
            assert!(text.parse::<Server>().is_err(), "{text}");
        }
    }

    #[test]
    fn each_transport_has_its_port_unless_the_server_has_another() {
        let socket =
            |text: &str, transport| text.parse::<Server>().unwrap().socket(&transport).port();
        assert_eq!(socket("192.0.2.53", Transport::Tcp), 53);
        assert_eq!(socket("192.0.2.53", Transport::Tls), 853);
        assert_eq!(socket("192.0.2.53:8853", Transport::Tls), 8853);
        let url = "https://dns.example:8443/dns-query".parse().unwrap();
        assert_eq!(socket("192.0.2.53", Transport::Https(url)), 8443);
    }
}
