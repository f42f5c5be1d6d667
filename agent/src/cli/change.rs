//! `change`: the one command that a repair script finds besides the basic tools. It reads like `ip`, asks the broker
//! over descriptor 3, and says what was done or why not.

use std::ffi::OsString;
use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use aizen_protocol::package::manifest::Operation;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use crate::broker::{Answer, content_of};

mod address;
mod file;
mod link;
mod neighbour;
mod nft;
mod route;
mod rule;
mod service;
mod sysctl;
mod uci;
mod wireguard;

/// The descriptor that the sandbox leaves open for the broker.
const BROKER: RawFd = 3;
/// Longest answer, bytes.
const ANSWER: u64 = 64 << 10;
/// What is typed.
const USAGE: &str = "\
usage: change route {add | replace | delete} PREFIX [via ADDRESS] [dev NAME] [table N] [metric N]
       change address {add | delete} ADDRESS/LENGTH dev NAME
       change link set NAME [up | down] [mtu BYTES]
       change rule {add | delete} priority N [from PREFIX] [to PREFIX] [iif NAME] [oif NAME] [fwmark N] [ipv6] lookup TABLE
       change neighbour replace ADDRESS lladdr MAC dev NAME
       change neighbour delete ADDRESS dev NAME
       change nft replace-table FAMILY NAME        (the table comes on standard input, as 'nft list table' writes it)
       change nft delete-table FAMILY NAME
       change service {start | stop | restart | reload} NAME
       change uci {set | add_list | del_list} PACKAGE.SECTION[.OPTION]=VALUE
       change uci delete PACKAGE.SECTION[.OPTION]
       change uci reload PACKAGE
       change wireguard set NAME peer KEY [endpoint ADDRESS port N] [persistent-keepalive S] [allowed-ips PREFIX[,PREFIX…]]
       change wireguard set NAME peer KEY remove
       change sysctl NAME=VALUE
       change file write PATH        (the content comes on standard input)
       change file delete PATH
example: change route replace default via \"$IP_192_0_2_1\" dev wan
exit: 0 done, 1 failed, 2 wrong usage, 4 not granted
";

/// What can be changed.
const KNOWN: &str =
    "route, address, link, rule, neighbour, nft, service, uci, wireguard, sysctl or file";

/// Why no answer came.
#[derive(Debug, thiserror::Error)]
enum ChangeError {
    #[error("{0}")]
    Usage(UsageError),
    #[error("standard input: {0}")]
    Input(io::Error),
    #[error("standard input has more than {0} bytes, the most that is taken")]
    InputTooLarge(usize),
    #[error(
        "no broker is listening (descriptor 3: {0}): this command works inside a repair script only"
    )]
    NoBroker(io::Error),
    #[error("the broker gave no answer: {0}")]
    NoAnswer(io::Error),
}

/// What is wrong with the words.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum UsageError {
    #[error("what is to be changed? {KNOWN}")]
    Nothing,
    #[error("unknown object '{0}': {KNOWN}")]
    Object(String),
    #[error("unknown command '{word}' for {object}: {known}")]
    Command {
        object: &'static str,
        word: String,
        known: &'static str,
    },
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("unknown word '{0}'")]
    Unknown(String),
    #[error("'{0}' stands twice")]
    Twice(String),
    #[error("'{word}' is not {what}")]
    NotA { what: &'static str, word: String },
    #[error("an argument is not text")]
    NotText,
}

/// The program; its own name is the first argument. Needs no runtime.
#[must_use]
pub fn main(arguments: impl IntoIterator<Item = impl Into<OsString>>) -> ExitCode {
    let words = arguments.into_iter().skip(1).map(Into::into);
    let words: Result<Vec<String>, _> = words.map(OsString::into_string).collect();
    let words = words.unwrap_or_else(|_| vec!["\u{fffd}".to_owned()]);
    if matches!(
        words.first().map(String::as_str),
        Some("help" | "--help" | "-h")
    ) {
        return tell(&mut io::stdout(), USAGE, 0);
    }
    match run(&words) {
        Ok(Answer::Done(what)) => tell(&mut io::stdout(), &format!("{what}\n"), 0),
        Ok(Answer::Failed(why)) => tell(&mut io::stderr(), &format!("change: {why}\n"), 1),
        Ok(Answer::Refused(why)) => tell(&mut io::stderr(), &format!("change: {why}\n"), 4),
        Err(ChangeError::Usage(why)) => {
            tell(&mut io::stderr(), &format!("change: {why}\n{USAGE}"), 2)
        }
        Err(error) => tell(&mut io::stderr(), &format!("change: {error}\n"), 1),
    }
}

fn tell(to: &mut impl Write, text: &str, code: u8) -> ExitCode {
    // A closed output is no reason to say that the change failed.
    to.write_all(text.as_bytes()).ok();
    ExitCode::from(code)
}

fn run(words: &[String]) -> Result<Answer, ChangeError> {
    let operation = parse(words).map_err(ChangeError::Usage)?;
    let mut content = Vec::new();
    if let Some(bound) = content_of(&operation) {
        io::stdin()
            .lock()
            .take(bound as u64 + 1)
            .read_to_end(&mut content)
            .map_err(ChangeError::Input)?;
        if content.len() > bound {
            return Err(ChangeError::InputTooLarge(bound));
        }
    }
    ask(BROKER, &operation, &content)
}

/// Sends one request over `door` and waits for its answer.
fn ask(door: RawFd, operation: &Operation, content: &[u8]) -> Result<Answer, ChangeError> {
    let (mut ours, theirs) = UnixStream::pair().map_err(ChangeError::NoBroker)?;
    let rights = [theirs.as_raw_fd()];
    let sent = sendmsg::<()>(
        door,
        &[IoSlice::new(b"c")],
        &[ControlMessage::ScmRights(&rights)],
        MsgFlags::MSG_NOSIGNAL,
        None,
    );
    sent.map_err(|e| ChangeError::NoBroker(e.into()))?;
    drop(theirs);
    let mut request = serde_json::to_vec(operation).map_err(|e| ChangeError::NoAnswer(e.into()))?;
    request.push(b'\n');
    request.extend_from_slice(content);
    let exchange = ours
        .write_all(&request)
        .and_then(|()| ours.shutdown(Shutdown::Write));
    let mut line = Vec::new();
    let read = exchange.and_then(|()| ours.take(ANSWER).read_to_end(&mut line));
    read.map_err(ChangeError::NoAnswer)?;
    if line.is_empty() {
        return Err(ChangeError::NoAnswer(io::ErrorKind::UnexpectedEof.into()));
    }
    serde_json::from_slice(&line).map_err(|e| ChangeError::NoAnswer(e.into()))
}

/// Reads the words of a command line.
fn parse(words: &[String]) -> Result<Operation, UsageError> {
    let mut words = words.iter().map(String::as_str);
    let object = words.next().ok_or(UsageError::Nothing)?;
    match object {
        "\u{fffd}" => Err(UsageError::NotText),
        "route" | "ro" | "r" => route::parse(words),
        "address" | "addr" | "a" => address::parse(words),
        "link" | "l" => link::parse(words),
        "rule" | "ru" => rule::parse(words),
        "neighbour" | "neigh" | "n" => neighbour::parse(words),
        "nft" => nft::parse(words),
        "service" => service::parse(words),
        "uci" => uci::parse(words),
        "wireguard" | "wg" => wireguard::parse(words),
        "sysctl" => sysctl::parse(words),
        "file" => file::parse(words),
        other => Err(UsageError::Object(shown(other))),
    }
}

fn shown(word: &str) -> String {
    word.chars().take(80).flat_map(char::escape_debug).collect()
}

fn once<T>(slot: &mut Option<T>, name: &str, value: T) -> Result<(), UsageError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(UsageError::Twice(name.to_owned())),
    }
}

/// The word after another one.
fn after<'a>(
    words: &mut impl Iterator<Item = &'a str>,
    missing: &'static str,
) -> Result<&'a str, UsageError> {
    words.next().ok_or(UsageError::Missing(missing))
}

fn number(
    word: Option<&str>,
    missing: &'static str,
    what: &'static str,
) -> Result<u32, UsageError> {
    let word = word.ok_or(UsageError::Missing(missing))?;
    // `u32::from_str` takes a plus sign, `ip` does not.
    let digits = word.bytes().all(|b| b.is_ascii_digit());
    word.parse()
        .ok()
        .filter(|_| digits)
        .ok_or_else(|| UsageError::NotA {
            what,
            word: shown(word),
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    fn json(line: &str) -> String {
        serde_json::to_string(&parse(&words(line)).unwrap()).unwrap()
    }

    #[test]
    fn it_reads_like_ip() {
        let whole = r#"{"route":{"replace":{"dst":"default","via":"192.0.2.1","dev":"wan","table":254,"metric":100}}}"#;
        assert_eq!(
            json("route replace default via 192.0.2.1 dev wan table main metric 100"),
            whole
        );
        assert_eq!(
            json("route replace default metric 100 dev wan via 192.0.2.1 table 254"),
            whole
        );
        assert_eq!(
            json("route del 10.0.0.0/8"),
            r#"{"route":{"delete":{"dst":"10.0.0.0/8"}}}"#
        );
        assert_eq!(
            json("addr add 192.0.2.7/24 dev lan"),
            r#"{"address":{"add":{"address":"192.0.2.7/24","dev":"lan"}}}"#
        );
        assert_eq!(
            json("link set lan up mtu 1400"),
            json("link set dev lan mtu 1400 up")
        );
        assert_eq!(
            json("sysctl -w net.ipv4.ip_forward=1"),
            r#"{"sysctl":{"set":{"key":"net.ipv4.ip_forward","value":"1"}}}"#
        );
        assert_eq!(
            json("file write /etc/resolv.conf"),
            r#"{"file":{"write":"/etc/resolv.conf"}}"#
        );
        assert_eq!(
            json("rule add from 10.1.0.0/24 fwmark 0x10 lookup 100 priority 900"),
            json("ru add pref 900 table 100 fwmark 16 from 10.1.0.0/24")
        );
        assert_eq!(
            json("rule delete ipv6 iif lan lookup main priority 7"),
            r#"{"rule":{"delete":{"priority":7,"iif":"lan","table":254,"ipv6":true}}}"#
        );
        assert_eq!(
            json("neigh replace 10.1.0.7 lladdr 02:00:00:00:00:07 dev lan"),
            r#"{"neighbour":{"replace":{"address":"10.1.0.7","lladdr":"02:00:00:00:00:07","dev":"lan"}}}"#
        );
        assert_eq!(
            json("nft replace-table inet fw4"),
            r#"{"nft":{"replace_table":{"family":"inet","name":"fw4"}}}"#
        );
        assert_eq!(
            json("service restart dnsmasq"),
            r#"{"service":{"restart":"dnsmasq"}}"#
        );
        assert_eq!(
            json("uci set network.lan.ipaddr=192.0.2.1"),
            r#"{"uci":{"set":{"key":"network.lan.ipaddr","value":"192.0.2.1"}}}"#
        );
        assert_eq!(
            json("wg set wg0 peer KEY= allowed-ips 10.0.0.0/8,::/0 persistent-keepalive 25"),
            r#"{"wireguard":{"set_peer":{"dev":"wg0","peer":"KEY=","keepalive":25,"allowed_ips":["10.0.0.0/8","::/0"]}}}"#
        );
        assert_eq!(
            json("wireguard set wg0 peer KEY= remove"),
            r#"{"wireguard":{"remove_peer":{"dev":"wg0","peer":"KEY="}}}"#
        );
        assert_eq!(
            json("uci reload network"),
            r#"{"uci":{"reload":"network"}}"#
        );
        assert_eq!(
            json("neighbour del 10.1.0.7 dev lan"),
            r#"{"neighbour":{"delete":{"address":"10.1.0.7","dev":"lan"}}}"#
        );
    }

    #[test]
    fn what_is_wrong_with_the_words_is_said() {
        for (line, says) in [
            ("reboot", "unknown object 'reboot'"),
            ("route", "a command (add, replace or delete) is missing"),
            ("route flush", "unknown command 'flush' for route"),
            (
                "route add",
                "the destination (default or PREFIX) is missing",
            ),
            ("route add default via", "the address after via is missing"),
            (
                "route add default via 1.1.1.1 via 2.2.2.2",
                "'via' stands twice",
            ),
            ("route add default metric +5", "'+5' is not a metric"),
            ("route add default onlink", "unknown word 'onlink'"),
            ("address add 192.0.2.1/24", "dev NAME is missing"),
            (
                "link set lan",
                "what to set (up, down or mtu BYTES) is missing",
            ),
            ("link set lan up down", "'up or down' stands twice"),
            (
                "link set lan mtu 99999999999",
                "'99999999999' is not an MTU in bytes",
            ),
            (
                "sysctl net.ipv4.ip_forward",
                "'net.ipv4.ip_forward' is not NAME=VALUE",
            ),
            ("file write /a /b", "unknown word '/b'"),
            ("rule add from 10.0.0.0/8 lookup 5", "priority N is missing"),
            ("rule add priority 5", "lookup TABLE is missing"),
            (
                "rule add priority 5 lookup 0x",
                "'0x' is not the number of a table",
            ),
            (
                "neighbour replace 10.0.0.1 dev lan",
                "lladdr MAC is missing",
            ),
            ("neighbour delete 10.0.0.1", "dev NAME is missing"),
            ("nft flush ruleset", "unknown command 'flush' for nft"),
            ("wg show", "unknown command 'show' for wireguard"),
            (
                "wg set wg0 peer K private-key x",
                "unknown word 'private-key'",
            ),
            ("service enable x", "unknown command 'enable' for service"),
            ("uci commit network", "unknown command 'commit' for uci"),
            (
                "uci set network.lan",
                "'network.lan' is not PACKAGE.SECTION[.OPTION]=VALUE",
            ),
        ] {
            let error = parse(&words(line)).unwrap_err().to_string();
            assert!(error.contains(says), "{line}: {error}");
        }
        assert_eq!(parse(&[]).unwrap_err(), UsageError::Nothing);
    }

    #[test]
    fn without_a_broker_it_says_so() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let operation = parse(&words("file delete /x")).unwrap();
        let error = ask(file.as_raw_fd(), &operation, b"")
            .unwrap_err()
            .to_string();
        assert!(error.contains("no broker is listening"), "{error}");
    }

    proptest! {
        #[test]
        fn any_words_are_an_operation_or_a_usage_error(words in proptest::collection::vec(prop_oneof![
            Just("route".to_owned()), Just("add".to_owned()), Just("via".to_owned()), Just("dev".to_owned()), Just("link".to_owned()),
            Just("set".to_owned()), Just("mtu".to_owned()), Just("file".to_owned()), Just("write".to_owned()), ".{0,12}",
        ], 0..9)) {
            drop(parse(&words));
        }

        #[test]
        fn the_order_of_options_has_no_meaning(rotate in 0usize..4, metric in any::<u32>(), table in any::<u32>(), dev in "[a-z]{1,9}") {
            let options = ["via 192.0.2.1".to_owned(), format!("dev {dev}"), format!("table {table}"), format!("metric {metric}")];
            let mut turned = options.clone();
            turned.rotate_left(rotate);
            let line = |options: &[String]| words(&format!("route add default {}", options.join(" ")));
            prop_assert_eq!(parse(&line(&options)).unwrap(), parse(&line(&turned)).unwrap());
        }
    }
}
