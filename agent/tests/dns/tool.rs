//! `aizen dns` against servers that agree, differ, lie and fail.

use std::net::UdpSocket;
use std::process::ExitCode;
use std::time::Duration;

use aizen_agent::cli::dns::{self, DnsArgs};
use aizen_agent::collect::Settings;
use clap::Parser;
use serde_json::Value;

use crate::collected::BOGUS;
use crate::daemon::{dnsmasq, unbound};
use crate::netns::{Netns, device_and_gateway, root};
use crate::secure::{Ca, GOOD, listen};

#[derive(Parser)]
struct Typed {
    #[command(flatten)]
    args: DnsArgs,
}

/// Types `words` on the device; what was printed, and the exit code as text.
fn typed(device: &Netns, settings: Settings, words: &str, json: bool) -> (String, String) {
    let words: Vec<String> = ["dns"]
        .into_iter()
        .chain(words.split_whitespace())
        .map(str::to_owned)
        .collect();
    device.block_on(move || async move {
        let mut out = Vec::new();
        let args = Typed::parse_from(words).args;
        let code = dns::run(args, json, &settings, &mut out).await.unwrap();
        (String::from_utf8(out).unwrap(), format!("{code:?}"))
    })
}

fn asked(device: &Netns, settings: &Settings, words: &str) -> (Value, String) {
    let (text, code) = typed(device, settings.clone(), words, true);
    (serde_json::from_str(&text).unwrap(), code)
}

fn code(code: u8) -> String {
    format!("{:?}", ExitCode::from(code))
}

/// The kinds of the differences.
fn kinds(told: &Value) -> Vec<&str> {
    told["differences"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| d["kind"].as_str().unwrap())
        .collect()
}

fn device_of(resolv_conf: &str) -> (Netns, Netns, tempfile::TempDir, Settings) {
    let (device, gateway) = device_and_gateway();
    let root = root(resolv_conf);
    let settings = Settings {
        root: root.path().to_owned(),
        ..Settings::default()
    };
    (device, gateway, root, settings)
}

/// Hands the body of a request on to the resolver and its answer back, as RFC 8484 says.
fn over_https(request: &[u8]) -> Vec<u8> {
    let body = request
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .map(|at| &request[at + 4..])
        .unwrap();
    assert!(request.starts_with(b"POST /dns-query HTTP/1.1\r\n"));
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("192.0.2.1:53").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    socket.send(body).unwrap();
    let mut answer = [0; 4096];
    let length = socket.recv(&mut answer).unwrap();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/dns-message\r\nContent-Length: {length}\r\n\r\n"
    );
    [head.as_bytes(), &answer[..length]].concat()
}

#[test]
fn one_server_asked_in_four_ways_answers_alike() {
    let (device, gateway, root, settings) = device_of("nameserver 192.0.2.1\n");
    let (ca, files) = (Ca::new(), tempfile::tempdir().unwrap());
    ca.install(root.path());
    let pair = ca.issue(&["dns.example", "192.0.2.1"], GOOD);
    std::fs::write(files.path().join("key"), &pair.key_pem).unwrap();
    std::fs::write(files.path().join("crt"), &pair.certificate_pem).unwrap();
    let folder = files.path().display();
    let _unbound = unbound(
        &gateway,
        &format!(
            "interface: 192.0.2.1@853\ntls-service-key: \"{folder}/key\"\ntls-service-pem: \"{folder}/crt\"\nlocal-data: \"dns.example. 60 IN A 192.0.2.1\""
        ),
    );
    pair.serve(&gateway, "192.0.2.1:443", over_https);
    let (told, ended) = asked(
        &device,
        &settings,
        "www.example --udp --tcp --tls=dns.example --https=https://dns.example/dns-query -c 2 -i 0 -W 8",
    );
    assert_eq!(ended, code(0), "{told:#}");
    assert_eq!(told["alike"], true);
    let servers = told["servers"].as_array().unwrap();
    let ways: Vec<_> = servers
        .iter()
        .map(|s| s["transport"].as_str().unwrap())
        .collect();
    assert_eq!(ways, ["udp", "tcp", "tls", "https"]);
    for server in servers {
        assert_eq!(server["answer"]["rcode"], "NOERROR");
        assert_eq!(server["answer"]["records"][0]["data"], "198.51.100.7");
        assert_eq!(server["rtt_us"].as_array().unwrap().len(), 2);
        assert_eq!(server["nonexistent"]["rcode"], "NXDOMAIN");
    }
    assert_eq!(
        (&servers[2]["verified"], &servers[3]["verified"]),
        (&Value::Bool(true), &Value::Bool(true))
    );
    let (told, ended) = asked(&device, &settings, "www.example --tls=other.example -W 8");
    assert_eq!((ended, kinds(&told)), (code(1), vec!["no_answer"]));
    assert!(
        told["differences"][0]["text"]
            .as_str()
            .unwrap()
            .contains("not valid for name"),
        "{told:#}"
    );
}

#[test]
fn a_server_that_speaks_http_2_alone_is_asked_over_https_many_times_over_one_connection() {
    let (device, gateway, root, settings) = device_of("nameserver 192.0.2.1\n");
    let (ca, files) = (Ca::new(), tempfile::tempdir().unwrap());
    ca.install(root.path());
    let pair = ca.issue(&["192.0.2.1"], GOOD);
    std::fs::write(files.path().join("key"), &pair.key_pem).unwrap();
    std::fs::write(files.path().join("crt"), &pair.certificate_pem).unwrap();
    let folder = files.path().display();
    let _unbound = unbound(
        &gateway,
        &format!(
            "interface: 192.0.2.1@443\nhttps-port: 443\nhttp-endpoint: \"/dns-query\"\ntls-service-key: \"{folder}/key\"\ntls-service-pem: \"{folder}/crt\""
        ),
    );
    let words = "www.example --only --https=https://192.0.2.1/dns-query -c 40 -q 2 -i 0 -W 8";
    let (told, ended) = asked(&device, &settings, words);
    assert_eq!(ended, code(0), "{told:#}");
    let server = &told["servers"][0];
    assert_eq!(server["rtt_us"].as_array().unwrap().len(), 40);
    assert_eq!(server["answer"]["records"][0]["data"], "198.51.100.7");
    assert_eq!(server["verified"], true);
    let (told, _) = asked(
        &device,
        &settings,
        "www.example --only --https=https://192.0.2.1/else",
    );
    assert_eq!(told["servers"][0]["answer"]["error"], "HTTP status 404");
}

#[test]
fn what_agrees_to_http_2_and_speaks_something_else_is_told_and_does_not_hang() {
    let (device, gateway, root, settings) = device_of("nameserver 192.0.2.1\n");
    let ca = Ca::new();
    ca.install(root.path());
    let pair = ca.issue(&["192.0.2.1"], GOOD);
    let over = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes";
    pair.serve_as("h2", &gateway, "192.0.2.1:443", |_| {
        over.as_bytes().to_vec()
    });
    pair.serve_as("h2", &gateway, "192.0.2.1:444", |_| Vec::new());
    for port in [443, 444] {
        let words = format!("www.example --only --https=https://192.0.2.1:{port}/ -W 8");
        let (told, ended) = asked(&device, &settings, &words);
        assert_eq!(ended, code(1), "{told:#}");
        assert_eq!(
            told["servers"][0]["answer"]["failure"], "garbage",
            "{told:#}"
        );
    }
}

#[test]
fn servers_that_differ_are_named_in_plain_words() {
    let (device, gateway, _root, settings) = device_of("nameserver 192.0.2.1\n");
    gateway.ip("address add 192.0.2.3/24 dev isp");
    let _unbound = unbound(&gateway, "");
    let _liar = dnsmasq(&gateway, "192.0.2.3", &["--address=/#/203.0.113.66"]);
    let (told, ended) = asked(&device, &settings, "www.example @192.0.2.3");
    assert_eq!(
        (ended, kinds(&told)),
        (code(1), vec!["rewriting", "records"]),
        "{told:#}"
    );
    let (text, _) = typed(&device, settings.clone(), "www.example @192.0.2.3", false);
    assert!(
        text.contains("192.0.2.3 over UDP gives other records than 192.0.2.1 over UDP"),
        "{text}"
    );
    assert!(
        text.contains("a name that can't exist: answers are rewritten"),
        "{text}"
    );
    let (told, _) = asked(&device, &settings, "missing.example @192.0.2.3");
    assert!(kinds(&told).contains(&"code"), "{told:#}");
}

#[test]
fn a_dnssec_fault_is_told_from_a_dead_server_with_the_servers_own_reason() {
    let (device, gateway, _root, settings) = device_of("nameserver 192.0.2.1\n");
    gateway.ip("address add 192.0.2.3/24 dev isp");
    let _unsigned = dnsmasq(
        &gateway,
        "192.0.2.3",
        &["--address=/bogus.test/198.51.100.9"],
    );
    let _unbound = unbound(&gateway, BOGUS);
    let (told, ended) = asked(&device, &settings, "www.bogus.test --dnssec");
    assert_eq!(ended, code(1));
    assert!(kinds(&told).contains(&"validation"), "{told:#}");
    let server = &told["servers"][0];
    assert_eq!(server["answer"]["rcode"], "SERVFAIL");
    assert_eq!(server["unvalidated"]["rcode"], "NOERROR");
    assert!(
        !server["answer"]["errors"].as_array().unwrap().is_empty(),
        "{told:#}"
    );
}

#[test]
fn a_long_answer_comes_whole_over_tcp() {
    let (device, gateway, _root, settings) = device_of("nameserver 192.0.2.1\n");
    let many: String = (1..=120)
        .map(|n| format!("local-data: \"big.example. 60 IN A 198.51.100.{n}\"\n"))
        .collect();
    let _unbound = unbound(&gateway, &many);
    let (told, ended) = asked(&device, &settings, "big.example");
    let server = &told["servers"][0];
    assert_eq!((ended, &server["cut"]), (code(0), &Value::Bool(true)));
    assert_eq!(server["answer"]["records"].as_array().unwrap().len(), 120);
    let (text, _) = typed(&device, settings, "big.example", false);
    assert!(
        text.contains("and 104 more") && text.contains("the answer was cut"),
        "{text}"
    );
}

#[test]
fn dead_silent_and_mad_servers_each_get_their_word_and_delay_nobody() {
    let (device, gateway, _root, settings) = device_of("nameserver 192.0.2.1\n");
    for address in ["192.0.2.3", "192.0.2.4"] {
        gateway.ip(&format!("address add {address}/24 dev isp"));
    }
    let _unbound = unbound(&gateway, "");
    let _mad = gateway.serve("192.0.2.3:53", |_| vec![0xc0; 700]);
    listen(&gateway, "192.0.2.3:53", |mut tcp| {
        std::io::Write::write_all(&mut tcp, &[0xff; 70_000]).ok();
    });
    let (told, ended) = asked(
        &device,
        &settings,
        "www.example @192.0.2.3 @192.0.2.4 @192.0.2.99 --udp --tcp",
    );
    assert_eq!(ended, code(1));
    let failure = |address: &str, way: &str| {
        let servers = told["servers"].as_array().unwrap();
        let found = servers
            .iter()
            .find(|s| s["server"] == address && s["transport"] == way)
            .unwrap();
        found["answer"]["failure"]
            .as_str()
            .unwrap_or("none")
            .to_owned()
    };
    assert_eq!(failure("192.0.2.1", "udp"), "none");
    assert_eq!(
        (failure("192.0.2.3", "udp"), failure("192.0.2.3", "tcp")),
        ("garbage".into(), "garbage".into())
    );
    assert_eq!(
        (failure("192.0.2.4", "udp"), failure("192.0.2.4", "tcp")),
        ("port_unreachable".into(), "port_unreachable".into())
    );
    assert!(["timeout", "unreachable"].contains(&failure("192.0.2.99", "udp").as_str()));
}

#[test]
fn what_answers_no_dns_over_https_is_told_by_its_status_or_as_no_http() {
    let (device, gateway, root, settings) = device_of("");
    let ca = Ca::new();
    ca.install(root.path());
    let pair = ca.issue(&["192.0.2.1"], GOOD);
    pair.serve(&gateway, "192.0.2.1:8443", |_| {
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec()
    });
    pair.serve(&gateway, "192.0.2.1:8444", |_| vec![0xff; 9000]);
    pair.serve(&gateway, "192.0.2.1:8445", |_| {
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhtml".to_vec()
    });
    for (port, text) in [
        (8443, "HTTP status 404"),
        (8444, "no HTTP"),
        (8445, "no answer to the question"),
    ] {
        let words = format!("www.example --only --https=https://192.0.2.1:{port}/dns-query -W 8");
        let (told, ended) = asked(&device, &settings, &words);
        assert_eq!(ended, code(1));
        let error = told["servers"][0]["answer"]["error"].as_str().unwrap();
        assert!(error.contains(text), "{error}");
    }
}

#[test]
fn many_questions_at_once_are_all_asked_and_each_answered_once() {
    let (device, gateway, _root, settings) = device_of("nameserver 192.0.2.1\n");
    let _unbound = unbound(&gateway, "");
    let (told, ended) = asked(
        &device,
        &settings,
        "www.example --udp --tcp -c 101 -q 20 -i 0 -W 20",
    );
    assert_eq!(ended, code(0), "{told:#}");
    for server in told["servers"].as_array().unwrap() {
        assert_eq!(server["asked"], 101, "{server:#}");
        assert_eq!(server["rtt_us"].as_array().unwrap().len(), 101);
        assert_eq!(server["answer"]["records"][0]["data"], "198.51.100.7");
    }
}

#[test]
fn questions_at_once_that_nobody_answers_are_told_like_one() {
    let (device, _gateway, _root, settings) = device_of("nameserver 192.0.2.99\n");
    let (told, ended) = asked(&device, &settings, "www.example -c 6 -q 3 -i 0 -W 0.2");
    assert_eq!(ended, code(1), "{told:#}");
    assert_eq!(told["servers"][0]["asked"], 6);
    assert_eq!(kinds(&told), ["no_answer"]);
}
