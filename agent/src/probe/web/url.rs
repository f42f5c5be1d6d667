//! URLs of probes: `http://HOST[:PORT]/PATH` and `https://…`, nothing else (RFC 3986).

use std::fmt;
use std::str::FromStr;

use rustls::pki_types::ServerName;

/// Where a probe asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// True for `https`.
    pub secure: bool,
    /// A name, or an address without brackets.
    pub host: String,
    /// The port, the scheme's own if none is written.
    pub port: u16,
    /// Path and query, from the first slash.
    pub path: String,
}

/// A text that is no such URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no URL of the form http://HOST[:PORT]/PATH or https://HOST[:PORT]/PATH")]
pub struct InvalidUrl(String);

impl Url {
    /// Host and port as a request names them: without the scheme's own port, an IPv6 address in brackets.
    #[must_use]
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        if self.port == default_port(self.secure) {
            host
        } else {
            format!("{host}:{}", self.port)
        }
    }
}

impl FromStr for Url {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        parse(text).ok_or_else(|| InvalidUrl(text.chars().take(200).collect()))
    }
}

fn parse(text: &str) -> Option<Url> {
    // A line break would end the request, a space its target.
    if text.len() > MAX_BYTES || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return None;
    }
    let (scheme, rest) = text.split_once("://")?;
    let secure = match scheme.to_ascii_lowercase().as_str() {
        "http" => false,
        "https" => true,
        _ => return None,
    };
    let rest = rest.split('#').next()?;
    let start = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(start);
    let (host, port) = match authority.strip_prefix('[') {
        Some(v6) => {
            let (host, rest) = v6.split_once(']')?;
            let port = if rest.is_empty() {
                None
            } else {
                Some(rest.strip_prefix(':')?)
            };
            (host, port)
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    ServerName::try_from(host).ok()?;
    let port = port.map_or(Some(default_port(secure)), |p| p.parse().ok());
    let slash = if path.starts_with('/') { "" } else { "/" };
    Some(Url {
        secure,
        host: host.to_owned(),
        port: port.filter(|p| *p != 0)?,
        path: format!("{slash}{path}"),
    })
}

fn default_port(secure: bool) -> u16 {
    if secure { 443 } else { 80 }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

const MAX_BYTES: usize = 2000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_url_gives_host_port_and_path() {
        for (text, host, port, path) in [
            ("http://a.example", "a.example", 80, "/"),
            (
                "HTTPS://a.example/dns-query",
                "a.example",
                443,
                "/dns-query",
            ),
            ("http://a.example:8080/x?y=z#w", "a.example", 8080, "/x?y=z"),
            ("http://a.example?y", "a.example", 80, "/?y"),
            ("http://[2001:db8::1]:81/", "2001:db8::1", 81, "/"),
            ("http://192.0.2.1/x", "192.0.2.1", 80, "/x"),
        ] {
            let url: Url = text.parse().unwrap();
            assert_eq!(
                (url.host.as_str(), url.port, url.path.as_str()),
                (host, port, path),
                "{text}"
            );
            assert_eq!(url.to_string().parse(), Ok(url));
        }
        for text in [
            "",
            "a.example",
            "ftp://a/",
            "http://",
            "http://a:0/",
            "http://a:b/",
            "http://u@a/",
            "http://a/ b",
            "http://a\r\nX: y/",
            "http://[::1/",
        ] {
            assert!(text.parse::<Url>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_url_that_says_the_same_again_or_none(text in "(https?://)?.{0,60}") {
            if let Ok(url) = text.parse::<Url>() {
                prop_assert_eq!(url.to_string().parse(), Ok(url));
            }
        }
    }
}
