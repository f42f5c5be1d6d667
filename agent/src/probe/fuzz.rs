//! Entries of [`crate::fuzz`]: what comes back from the network.

use super::dns::{DomainName, Kind, Message, Question, Server};
use super::packet::{HEADER, Mark, inside_ipv4, judge, quoted};
use super::tls::Facts;
use super::web::{Url, read_response};

/// DNS messages, by themselves and as an answer.
pub fn dns_message(bytes: &[u8]) {
    if let Some(message) = Message::read(bytes) {
        assert!(message.addresses().count() <= message.answers.len());
        drop(format!("{message:?}"));
        for record in message.answers.iter().chain(&message.authority) {
            drop((record.name.to_string(), record.data.to_string()));
        }
    }
    let id = bytes.first_chunk().map_or(0, |id| u16::from_be_bytes(*id));
    if let Some(question) = Question::new("www.example", Kind::A) {
        drop(question.judge(id, bytes));
    }
}

/// Domain names as text and as bytes: what is read is written so that it reads as the same.
pub fn dns_name(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Some(name) = DomainName::parse(&text) {
        assert_eq!(DomainName::parse(&name.to_string()), Some(name));
    }
    drop((text.parse::<Kind>(), text.parse::<Server>()));
    if let Some((name, end)) = DomainName::read(bytes, 0) {
        assert!(end <= bytes.len() && name.wire().len() <= 255);
        assert_eq!(DomainName::parse(&name.to_string()), Some(name));
    }
}

/// Certificates.
pub fn certificate(bytes: &[u8]) {
    drop(Facts::read(bytes));
}

/// HTTP answers.
pub fn http(bytes: &[u8]) {
    for most in [0, 10, 64 << 10] {
        let mut rest = bytes;
        let answer = futures_util::future::FutureExt::now_or_never(read_response(&mut rest, most));
        if let Some(Ok(answer)) = answer {
            assert!(answer.body.len() <= most);
        }
    }
}

/// URLs: what is read can be put into a request and read again.
pub fn url(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(url) = text.parse::<Url>() {
        let scheme = if url.secure { "https" } else { "http" };
        let again = format!("{scheme}://{}{}", url.authority(), url.path);
        assert_eq!(again.parse(), Ok(url), "{again}");
    }
}

/// ICMP, and what of it quotes a packet of ours.
pub fn icmp(bytes: &[u8]) {
    let inside = inside_ipv4(bytes).unwrap_or_default();
    for packet in [bytes, inside] {
        for ipv4 in [true, false] {
            judge(packet, ipv4, None);
            quoted(packet, ipv4, Some(1));
        }
        Mark::read(packet.get(HEADER..).unwrap_or_default());
    }
}
