//! What is never reversible: keys, passwords and their hashes, tokens of known vendors, cookies, PINs.
//!
//! Forms as they stand in OpenWrt, Linux, Cisco IOS, Juniper, `MikroTik` and `VyOS` configurations, in JSON, and in logs.

use std::ops::Range;

use crate::rule::{Action, Guard, Rule};

/// The kind that stands in `[redacted:kind]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SecretKind {
    PrivateKey,
    Password,
    Hash,
    ApiKey,
    Cookie,
    Url,
    Community,
    Pin,
    Entropy,
}

impl SecretKind {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::PrivateKey => "private-key",
            Self::Password => "password",
            Self::Hash => "hash",
            Self::ApiKey => "api-key",
            Self::Cookie => "cookie",
            Self::Url => "url",
            Self::Community => "community",
            Self::Pin => "pin",
            Self::Entropy => "entropy",
        }
    }

    pub(crate) fn redacted(self) -> String {
        format!("[redacted:{}]", self.word())
    }
}

/// What looks random and has no other reason to be there: the long words of a part of a text for which it holds.
pub(crate) fn random_words(text: &str, part: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    const LEAST: usize = 20;
    let mut at = part.start;
    std::iter::from_fn(move || {
        let bytes = text.as_bytes();
        let of_word =
            |b: &&u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'_' | b'-' | b'=');
        while at < part.end {
            let start = at;
            at += bytes[at..part.end].iter().take_while(of_word).count();
            if at - start >= LEAST && text.get(start..at).is_some_and(looks_random) {
                return Some(start..at);
            }
            at += usize::from(at == start);
        }
        None
    })
}

/// True for what a random generator writes in base64 and what people don't write: letters of both cases and digits
/// that change places often.
fn looks_random(value: &str) -> bool {
    let class = |b: u8| match b {
        b'a'..=b'z' => 0_u8,
        b'A'..=b'Z' => 1,
        b'0'..=b'9' => 2,
        _ => 3,
    };
    let bytes = value.as_bytes();
    let has = |c: u8| bytes.iter().any(|b| class(*b) == c);
    let digits = bytes.iter().filter(|b| b.is_ascii_digit()).count();
    let changes = bytes
        .windows(2)
        .filter(|w| class(w[0]) != class(w[1]))
        .count();
    let mut seen = [false; 256];
    bytes.iter().for_each(|b| seen[usize::from(*b)] = true);
    let distinct = seen.iter().filter(|s| **s).count();
    has(0) && has(1) && digits >= 2 && distinct >= 12 && changes * 5 >= bytes.len() * 2
}

/// A value: in quotes, in escaped quotes, or without any; a quote that never closes lasts to the end of the line, since
/// text may have been cut.
macro_rules! value {
    () => {
        r#"(?m:"((?:[^"\\\r\n]|\\.)*)(?:"|\\?\r?$)|'((?:[^'\\\r\n]|\\.)*)(?:'|\\?\r?$)|\\"([^"\\\r\n]*)(?:\\"|\\?\r?$)|([^\s"']\S*))"#
    };
}

/// Words that are a secret's key wherever they stand, also inside a longer one (`wifi_password_2g`).
macro_rules! secret_words {
    () => {
        concat!(
            "(?:passw(?:or)?ds?|passphrase|passcode|passwort|kennwort|mot_?de_?passe|psk|wep[_-]?key|",
            "(?:pre[_-]?shared|shared|private|secret|api|access|auth|encryption|signing|master|licen[sc]e|hmac|md5|authentication|wpa|session)[_ -]?key|",
            "(?:client|shared|consumer|app|pre[_-]?shared|radius|auth)[_ -]?secret|",
            "(?:access|auth|refresh|bearer|session|csrf|xsrf|device|enroll?ment|secret|api|security|id)[_ -]?token|",
            "secret|credentials?|key-string|session[_-]?id|jsessionid|phpsessid)"
        )
    };
}

macro_rules! suffix {
    () => {
        r"(?:[_-][A-Za-z0-9]{1,20}|\d{1,2})?"
    };
}

const fn secret(pattern: &'static str, kind: SecretKind, guard: Guard) -> Rule {
    Rule {
        pattern,
        action: Action::Secret(kind),
        guard,
    }
}

/// In order of precedence where two start at the same place.
pub(crate) const SECRETS: &[Rule] = &[
    // PEM (RFC 7468) and OpenPGP armour; a block that was cut off ends with the text.
    secret(
        r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----[\x00-\xff]*?(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|\z)",
        SecretKind::PrivateKey,
        Guard::Always,
    ),
    // crypt(5) and its relatives: shadow files, Cisco types 5, 8 and 9, Juniper $9$.
    secret(
        r"\$(?:[1-9]|2[abxy]|y|gy|sha1|apr1|argon2(?:id|i|d)|pbkdf2(?:-sha\d+)?|[PH])\$[./A-Za-z0-9$,=+_-]{4,}",
        SecretKind::Hash,
        Guard::Always,
    ),
    secret(
        r"(?i)\{(?:s?sha\d{0,3}|s?md5|crypt|pbkdf2[a-z0-9-]*)\}[./A-Za-z0-9$,=+_-]{8,}",
        SecretKind::Hash,
        Guard::Always,
    ),
    // Tokens that vendors made recognisable.
    secret(
        r"\b(?:AKIA|ASIA|AROA|AIDA)[0-9A-Z]{16}|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_[A-Za-z0-9_]{20,}|\bgl(?:pat|dt|rt|cbt)-[A-Za-z0-9_-]{16,}|\bxox[abeoprs]-[A-Za-z0-9-]{10,}|\bsk-[A-Za-z0-9_-]{16,}|\b[spr]k_(?:live|test)_[A-Za-z0-9]{10,}|\bAIza[A-Za-z0-9_-]{30,}|\bya29\.[A-Za-z0-9_-]{20,}|\bhf_[A-Za-z0-9]{20,}|\bnpm_[A-Za-z0-9]{30,}|\bpypi-[A-Za-z0-9_-]{30,}|\bdo[opr]_v1_[a-f0-9]{40,}|\bSG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}|\b\d{8,10}:AA[A-Za-z0-9_-]{30,}|\btskey-[A-Za-z0-9-]{10,}|\bhooks\.slack\.com/services/[A-Za-z0-9/]{20,}|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?",
        SecretKind::ApiKey,
        Guard::Always,
    ),
    // user:password@ of a URL (RFC 3986 section 3.2.1).
    secret(
        r#"://([^\s/@:"'<>]*:[^\s/@"'<>]+)@"#,
        SecretKind::Url,
        Guard::Always,
    ),
    // HTTP (RFC 9110 section 11.6, RFC 6265).
    secret(
        r#"(?i)\b(?:proxy-)?authorization["']?[ \t]*[:=][ \t]*["']?(?:(?:basic|bearer|digest|token|negotiate|ntlm|apikey)[ \t]+)?([^\s"'][^\r\n"']*)"#,
        SecretKind::ApiKey,
        Guard::Always,
    ),
    secret(
        r"(?i)\b(?:bearer|basic)[ \t]+([A-Za-z0-9+/._~-]{12,}=*)",
        SecretKind::ApiKey,
        Guard::HasDigit,
    ),
    secret(
        r#"(?i)\b(?:set-)?cookie2?["']?[ \t]*[:=][ \t]*["']?([^\s"'][^\r\n"']*)"#,
        SecretKind::Cookie,
        Guard::Always,
    ),
    // "password": 1234 as JSON has it: the value ends where JSON's does.
    secret(
        concat!(
            "(?i)",
            secret_words!(),
            suffix!(),
            r#"\\?["'][ \t]*:[ \t]*([^\s"'\\,}\]\[{][^\s,}\]]*)"#
        ),
        SecretKind::Password,
        Guard::NotProse,
    ),
    // ?token=…&, in a URL.
    secret(
        concat!(
            "(?i)[?&](?:[a-z0-9_-]{0,20}",
            secret_words!(),
            suffix!(),
            r#"|token|key|pass|pwd|sig|signature|code)=([^\s&"'<>#]+)"#
        ),
        SecretKind::Password,
        Guard::Always,
    ),
    // key = value, key: value, key => value; the key may be quoted.
    secret(
        concat!(
            "(?i)",
            secret_words!(),
            suffix!(),
            r#"\\?["']?[ \t]*(?:=>|:=|==?|:)[ \t]*"#,
            value!()
        ),
        SecretKind::Password,
        Guard::NotProse,
    ),
    // Shorter words are keys only with an equals sign close by, or quoted as JSON's.
    secret(
        concat!(r"\b(?:(?i:token|pass|key\d?|otp|totp)|pwd|Pwd)=", value!()),
        SecretKind::Password,
        Guard::NotProse,
    ),
    secret(
        concat!(
            r#"(?i)["'](?:token|pass|pwd|key\d?|otp)\\?["'][ \t]*:[ \t]*"#,
            r#"(?:"((?:[^"\\\r\n]|\\.)*)"|\\"([^"\\\r\n]*)\\")"#
        ),
        SecretKind::Password,
        Guard::NotProse,
    ),
    // key: value of YAML, at the start of a line only: in the middle it is prose.
    secret(
        concat!(
            r"(?im)^[ \t+-]*(?:token|pass|pwd|key\d?|pin)[ \t]*:[ \t]+",
            value!()
        ),
        SecretKind::Password,
        Guard::NotProse,
    ),
    // SNMP communities: net-snmp, Cisco, Juniper, VyOS.
    secret(
        concat!(
            r#"(?i)\b(?:snmp(?:-server|v2c?)?[ \t]+(?:community|trap-community)|r[ow]community6?|snmp-community|trap-group-community)["']?[ \t]*[:=]?[ \t]*"#,
            value!()
        ),
        SecretKind::Community,
        Guard::Always,
    ),
    secret(
        concat!(r#"(?i)\bcommunity["']?[ \t]*[:=][ \t]*"#, value!()),
        SecretKind::Community,
        Guard::NotProse,
    ),
    // PINs of SIM cards and WPS.
    secret(
        r#"(?i)\b(?:sim|wps|device)?[ _-]?(?:pin|puk)(?:[ _-]?code|[ _-]?\d)?["']?(?:[ \t]+is)?[ \t]*[:= ][ \t]*["']?(\d{4,10})\b"#,
        SecretKind::Pin,
        Guard::Always,
    ),
    // UCI and its like: option key 'secret'.
    secret(
        concat!(
            r#"(?im)^[ \t+-]*(?:option|list)[ \t]+["']?(?:[a-z0-9_]{0,20}(?:key|passw(?:or)?d|secret|psk|pin|pincode|token|community|passphrase)[a-z0-9_]{0,8})["']?[ \t]+"#,
            value!()
        ),
        SecretKind::Password,
        Guard::Always,
    ),
    // Lines of routers' configurations where "key" or "md5" is a secret's.
    secret(
        concat!(
            r"(?im)^[ \t+-]*(?:crypto|tacacs|radius|ntp|ip ospf|ip rip|neighbor|standby|vrrp|server|key|area|isis|aaa|set|authentication|address|pre-shared-key)[^\r\n]*?[ \t](?:key|md5|key-string|hmac-sha-\d+)[ \t]+(?:(?:\d{1,2}|md5|text|encrypted|clear|0x)[ \t]+)*",
            value!()
        ),
        SecretKind::Password,
        Guard::NotProse,
    ),
    secret(
        concat!(
            r"(?im)^[ \t+-]*(?:standby|vrrp)[ \t]+\d+[ \t]+authentication[ \t]+(?:text[ \t]+)?",
            value!()
        ),
        SecretKind::Password,
        Guard::NotProse,
    ),
    // password 7 0822…, secret 9 $9$…, encrypted-password "…", pre-shared-key ascii-text "…", "password is …".
    secret(
        concat!(
            r"(?i)(?:\b|_|--)",
            secret_words!(),
            r"(?:[ \t]+is)?[ \t]+(?:(?:\d{1,2}|encrypted|hashed|plaintext|clear(?:text)?|sha\d{1,3}|md5|pbkdf2|ascii-text|ascii|hexadecimal|hex|level \d{1,2}|for \S+ is)[ \t]+){0,2}",
            value!()
        ),
        SecretKind::Password,
        Guard::NotProse,
    ),
    // Command lines: curl -u user:password, sshpass -p password.
    secret(
        r"\b(?:curl|wget)\b[^\r\n]{0,200}?[ \t](?:-u[ \t]?|--user[ =]|--password[ =])(\S+)",
        SecretKind::Password,
        Guard::Always,
    ),
    secret(
        r"\bsshpass[ \t]+-p[ \t]*(\S+)",
        SecretKind::Password,
        Guard::Always,
    ),
    // <password>…</password>
    secret(
        r"(?i)<(?:[a-z0-9_:-]{0,30}(?:password|passwd|passphrase|secret|psk|token|community|sharedkey|keymaterial))(?:[ \t][^<>]*)?>([^<\r\n]+)<",
        SecretKind::Password,
        Guard::Always,
    ),
];
