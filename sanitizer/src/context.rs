//! Names and numbers that are somebody's by their place: what stands behind `hostname`, in a syslog header, in a lease.

use crate::rule::{Action, Guard, Rule};
use crate::token::TokenKind;

const fn name(pattern: &'static str) -> Rule {
    Rule {
        pattern,
        action: Action::Name,
        guard: Guard::NotCommon,
    }
}

const fn names(pattern: &'static str) -> Rule {
    Rule {
        pattern,
        action: Action::Names,
        guard: Guard::HostLine,
    }
}

const fn token(pattern: &'static str, kind: TokenKind, guard: Guard) -> Rule {
    Rule {
        pattern,
        action: Action::Token(kind),
        guard,
    }
}

/// In order of precedence where two start at the same place, behind the secrets.
pub(crate) const CONTEXTS: &[Rule] = &[
    // Public keys are no secret and name their owner.
    token(
        r#"(?i)\bpublic[_ -]?key["']?[ \t]*[:= ][ \t]*["']?([A-Za-z0-9+/]{40,}={0,2})"#,
        TokenKind::PublicKey,
        Guard::Always,
    ),
    token(
        r"\b(?:ssh-(?:rsa|ed25519|dss)|ecdsa-sha2-nistp\d{3})[ \t]+(AAAA[A-Za-z0-9+/]{16,}={0,3})",
        TokenKind::PublicKey,
        Guard::Always,
    ),
    // Serial numbers, subscriber identities, contract numbers.
    token(
        r#"(?i)\b(?:serial(?:[ _-]?(?:number|no|num))?|s/n|chassis[ _-]?id)["']?[ \t]*(?:\.|:|=|#|is)?[ \t]*["']?([A-Za-z0-9][A-Za-z0-9/-]{4,40})"#,
        TokenKind::Serial,
        Guard::HasDigit,
    ),
    token(
        r#"(?i)\b(?:imei(?:sv)?|imsi|iccid|msisdn|meid|esn|eid)["']?[ \t]*(?:number|no)?[ \t]*(?::|=|is)?[ \t]*["']?([0-9A-Fa-f][0-9A-Fa-f -]{8,}[0-9A-Fa-f])"#,
        TokenKind::Subscriber,
        Guard::HasDigit,
    ),
    token(
        r#"(?i)\b(?:account|customer|contract|subscriber|kundennummer|vertrag)[ _-]?(?:number|no|num|id|nr)?["']?[ \t]*(?:\.|:|=|#)[ \t]*["']?([A-Za-z0-9][A-Za-z0-9/-]{3,40})"#,
        TokenKind::Account,
        Guard::HasDigit,
    ),
    token(
        r#"(?i)\b(?:lat(?:itude)?|lon(?:gitude)?|lng)["']?[ \t]*[:= ][ \t]*["']?([+-]?\d{1,3}\.\d{3,})"#,
        TokenKind::Coordinates,
        Guard::Always,
    ),
    token(
        r"[+-]?\d{1,2}\.\d{4,}[ \t]*,[ \t]*[+-]?\d{1,3}\.\d{4,}",
        TokenKind::Coordinates,
        Guard::Always,
    ),
    // Wireless networks.
    token(
        r#"(?i)\be?ssid\d?["']?[ \t]*[:= ][ \t]*(?:"([^"\r\n]{1,64})"|'([^'\r\n]{1,64})')"#,
        TokenKind::Ssid,
        Guard::Always,
    ),
    token(
        r#"(?i)\be?ssid\d?[ \t]*[:=][ \t]*([^\s"'][^\s]{0,63})"#,
        TokenKind::Ssid,
        Guard::NotProse,
    ),
    token(
        r#"(?im)^[ \t+-]*ssid[ \t]+([^\s"'][^\r\n]{0,63})"#,
        TokenKind::Ssid,
        Guard::NotProse,
    ),
    // Hosts by their key.
    name(
        r#"(?i)\b(?:host[_-]?name|sys[_-]?name|client-hostname|fqdn|node[_-]?name|computer[_-]?name|device[_-]?name|system[_-]name|server[_-]name|identity|vendor_class_host)["']?[ \t]*[:= ][ \t]*["']?([A-Za-z0-9\x80-\xff][A-Za-z0-9._\x80-\xff-]*)"#,
    ),
    // BSD syslog (RFC 3164) and RFC 5424 headers.
    name(
        r"(?m)^(?:<\d{1,3}>)?[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d ([A-Za-z0-9][A-Za-z0-9._-]*) [^\s:\[]+(?:\[\d+\])?:",
    ),
    name(
        r"(?m)^(?:<\d{1,3}>\d )?\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[.,\d]*(?:Z|[+-]\d\d:?\d\d) ([A-Za-z0-9][A-Za-z0-9._-]*) ",
    ),
    // dnsmasq: what a client calls itself, and its lease file.
    name(
        r"\bDHCP(?:ACK|REQUEST|OFFER|DISCOVER|INFORM|NAK)\([^)\s]*\) (?:[\d.]+ )?(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2} ([A-Za-z0-9\x80-\xff][A-Za-z0-9._\x80-\xff-]*)",
    ),
    name(
        r"(?m)^[+ -]?\d{9,10} (?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2} [0-9A-Fa-f.:]+ ([A-Za-z0-9\x80-\xff][A-Za-z0-9._\x80-\xff-]*) ",
    ),
    // hosts(5) and resolv.conf(5), also as lines of a diff.
    names(
        r"(?m)^[+ -]?[ \t]*(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:]*:[0-9A-Fa-f.:]*)[ \t]+([A-Za-z][A-Za-z0-9._-]*(?:[ \t]+[A-Za-z][A-Za-z0-9._-]*){0,5})[ \t]*(?:#[^\r\n]*)?\r?$",
    ),
    names(
        r"(?m)^[+ -]?[ \t]*(?:search|domain)[ \t]+([A-Za-z0-9][A-Za-z0-9._-]*(?:[ \t]+[A-Za-z0-9][A-Za-z0-9._-]*){0,5})[ \t]*\r?$",
    ),
    // UCI: option hostname 'x', option name 'x'.
    name(
        r#"(?im)^[ \t+-]*(?:option|list)[ \t]+(?:hostname|name|domain|username|dns_name|clientid|server_name)[ \t]+["']?([A-Za-z0-9\x80-\xff][A-Za-z0-9._\x80-\xff-]*)"#,
    ),
    // People: home directories, logins.
    name(r"/(?:home|Users)/([A-Za-z0-9\x80-\xff][A-Za-z0-9._\x80-\xff-]*)"),
    name(
        r#"(?i)\b(?:user(?:[_-]?name)?|login|logname|ruser|uname|acct|owner)["']?[ \t]*[:=][ \t]*["']?([A-Za-z\x80-\xff][A-Za-z0-9._\x80-\xff-]*)"#,
    ),
    name(
        r#"\b(?:[Ii]nvalid user|for user|for invalid user|[Ff]ailed (?:password|publickey|none) for|[Aa]ccepted (?:password|publickey|keyboard-interactive/pam) for|session (?:opened|closed) for user)[ \t]+["']?([A-Za-z\x80-\xff][A-Za-z0-9._\x80-\xff-]*)"#,
    ),
    name(r#"(?i)\buser(?:name)?[ \t]+["']([a-z\x80-\xff][a-z0-9._\x80-\xff-]*)["']"#),
];
