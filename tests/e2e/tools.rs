//! The tools for people, as they are used: on a healthy device, on a broken one, by scripts, and in pipes.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Output, Stdio};
use std::time::Duration;

use harness::device::Device;
use harness::fault::Fault;
use harness::lab::{CLOUD, DNS1, GATEWAY, LAN_HOST, Lab, OTHER_NAME};
use harness::{shell, stand_in, wait};
use jiff::Timestamp;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(40);

fn device() -> (Lab, Device) {
    let lab = Lab::lay_out().unwrap();
    lab.wait_connected().unwrap();
    let device = Device::new(&lab).unwrap();
    (lab, device)
}

fn object(words: &[&str], output: &Output) -> Value {
    let value: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{words:?}: {e}: {output:?}"));
    assert!(value.is_object(), "{words:?}: {value}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("panicked"), "{words:?}: {said}");
    value
}

/// Asks with `--json`: the object must have these keys, and the program must end with this code.
fn told(device: &Device, line: &str, code: i32, keys: &str) -> Value {
    let words: Vec<&str> = line.split(' ').chain(["--json"]).collect();
    let output = device.try_aizen(&words).unwrap();
    let value = object(&words, &output);
    assert_eq!(output.status.code(), Some(code), "{line}: {value:#}");
    for key in keys.split(' ') {
        assert!(value.get(key).is_some(), "{line}: no '{key}' in {value:#}");
    }
    value
}

const VERDICT: &str = "health at findings ruled_out unseen";
const PING: &str = "targets unknown unasked dropped";
const TRACE: &str = "host target method reached hops path_mtu notes";
const PORTS: &str = "host target tried ports";
const DNS: &str = "name servers differences alike";
const LINKS: &str = "links at interval_ms unseen";

/// What has the same shape whatever is broken.
fn looks(device: &Device) -> Value {
    told(device, "routes", 0, "routes rules at unseen");
    told(device, "neighbours", 0, "neighbours tables at unseen");
    let perf = told(
        device,
        "perf",
        0,
        "host cpu cpu_percent pressure softnet conntrack protocols at interval_ms unseen",
    );
    assert!(perf["interval_ms"].as_u64() >= Some(500), "{perf:#}");
    told(device, "links", 0, LINKS)
}

fn link<'a>(links: &'a Value, name: &str) -> &'a Value {
    let mut links = links["links"].as_array().unwrap().iter();
    links.find(|link| link["name"] == name).unwrap()
}

#[test]
fn every_tool_says_that_a_healthy_device_is_well() {
    let (_lab, device) = device();
    let verdict = told(&device, "diagnose --offline", 0, VERDICT);
    assert_eq!(verdict["health"], "healthy", "{verdict:#}");
    let links = looks(&device);
    assert!(link(&links, "wan")["rates"]["rx_bits_per_second"].is_number());
    assert_eq!(link(&links, "lan0")["admin_up"], true);
    let ping = told(
        &device,
        &format!("ping -c 2 -i 0.2 {GATEWAY} {LAN_HOST}"),
        0,
        PING,
    );
    assert_eq!(ping["targets"][1]["received"], 2, "{ping:#}");
    let trace = told(&device, &format!("trace -c 2 {CLOUD}"), 0, TRACE);
    assert_eq!(trace["hops"][0]["addresses"][0], GATEWAY, "{trace:#}");
    let ports = told(&device, &format!("ports -p 1 {CLOUD}"), 0, PORTS);
    assert_eq!(ports["ports"][0]["state"], "closed", "{ports:#}");
    let dns = told(&device, &format!("dns {OTHER_NAME}"), 0, DNS);
    assert_eq!(dns["servers"].as_array().unwrap().len(), 2, "{dns:#}");
}

#[test]
fn every_tool_shows_a_dead_resolver_and_a_link_that_is_down() {
    let (mut lab, device) = device();
    Fault::ResolverDead.inject(&mut lab).unwrap();
    Fault::LinkDown.inject(&mut lab).unwrap();
    let verdict = told(&device, "diagnose --offline", 2, VERDICT);
    for cause in ["resolver_dead", "link_admin_down"] {
        let mut findings = verdict["findings"].as_array().unwrap().iter();
        assert!(findings.any(|f| f["cause"] == cause), "{verdict:#}");
    }
    let links = looks(&device);
    assert_eq!(link(&links, "lan0")["admin_up"], false);
    let ping = told(
        &device,
        &format!("ping -c 1 -W 1 {GATEWAY} {LAN_HOST}"),
        1,
        PING,
    );
    assert_eq!(ping["targets"][0]["received"], 1, "{ping:#}");
    assert_eq!(ping["targets"][1]["received"], 0, "{ping:#}");
    let trace = told(
        &device,
        &format!("trace -c 1 -m 4 -W 0.5 --no-mtu {LAN_HOST}"),
        1,
        TRACE,
    );
    assert_eq!(trace["reached"], false);
    told(&device, &format!("ports -p 1 -W 0.5 {LAN_HOST}"), 1, PORTS);
    let dns = told(&device, &format!("dns -W 0.5 {OTHER_NAME}"), 1, DNS);
    assert!(dns["differences"].to_string().contains(DNS1), "{dns:#}");
}

#[test]
fn an_error_is_json_where_json_was_asked_for_and_names_the_next_step() {
    let (_lab, device) = device();
    for (line, code, hint) in [
        ("ports nobody.test", 2, "aizen dns nobody.test"),
        ("trace nobody.test", 2, "aizen dns nobody.test"),
        ("trace -I nothing0 10.83.7.1", 2, "nothing0"),
        ("dns a..b", 2, "labels of 1 to 63 bytes"),
        ("metrics", 75, "is the service running?"),
        ("top", 1, "aizen links --watch"),
        ("links --wacht", 2, "--watch"),
        ("diagnose --replay /nowhere", 3, "/nowhere"),
    ] {
        let value = told(&device, line, code, "error");
        let error = value["error"].as_str().unwrap();
        assert!(error.contains(hint), "{line}: no '{hint}' in {error}");
        let twice = error.matches("os error").count();
        assert!(twice <= 1, "{line}: told twice: {error}");
    }
    let status = told(&device, "status", 1, "daemon executor");
    assert!(status["daemon"]["error"].is_string(), "{status:#}");
    let ping = told(&device, "ping nobody.test", 2, PING);
    assert_eq!(ping["unknown"][0]["host"], "nobody.test");
}

#[test]
fn who_may_see_less_gets_json_and_is_told_so() {
    let (_lab, device) = device();
    for words in [
        &["diagnose", "--offline", "--json"][..],
        &["links", "--json"],
        &["routes", "--json"],
        &["neighbours", "--json"],
        &["ping", "--json", "-c", "1", GATEWAY],
        &["dns", "--json", OTHER_NAME],
    ] {
        let output = device.try_aizen_as("nobody", words).unwrap();
        object(words, &output);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    let output = device.try_aizen_as("nobody", &["diagnose"]).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    // One line for all that only the executor may see.
    assert_eq!(text.matches("only the executor may").count(), 1, "{text}");
}

#[test]
fn a_reader_that_leaves_hears_nothing() {
    let (_lab, device) = device();
    for (line, code) in [
        ("links", 141),
        ("routes --watch 1", 141),
        ("perf --json", 141),
        ("ping -i 0.2 10.83.7.1", 141),
        ("dns www.example.test", 141),
        ("status", 141),
        ("diagnose --offline", 3),
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        let mut child = device
            .aizen(&words)
            .unwrap()
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        if line.starts_with("ping") || line.contains("--watch") {
            // `| head -1`
            out.read_line(&mut String::new()).unwrap();
        }
        drop(out);
        let mut said = String::new();
        let mut err = child.stderr.take().unwrap();
        err.read_to_string(&mut said).unwrap();
        assert_eq!(said, "", "{line}");
        assert_eq!(child.wait().unwrap().code(), Some(code), "{line}");
    }
}

#[test]
fn a_recording_is_judged_alike_every_time() {
    let (mut lab, device) = device();
    Fault::ResolverDead.inject(&mut lab).unwrap();
    let file = lab.folder().join("recording");
    let file = file.to_str().unwrap();
    let recorded = device
        .try_aizen(&["diagnose", "--json", "--record", file])
        .unwrap();
    let live = object(&["diagnose", "--record"], &recorded);
    for form in [&[][..], &["--json"]] {
        let words = [&["diagnose", "--replay", file][..], form].concat();
        let (first, again) = (
            device.try_aizen(&words).unwrap(),
            device.try_aizen(&words).unwrap(),
        );
        assert_eq!(first.stdout, again.stdout);
        assert_eq!(first.status.code(), recorded.status.code());
    }
    let replayed = told(&device, &format!("diagnose --replay {file}"), 2, VERDICT);
    assert_eq!(
        live["findings"][0]["cause"],
        replayed["findings"][0]["cause"]
    );
    // What it says of this network, it says by other names.
    assert!(!replayed.to_string().contains(DNS1), "{replayed:#}");
}

#[test]
fn a_running_daemon_gives_its_numbers_and_what_it_remembers() {
    let (mut lab, mut device) = device();
    device
        .write_config("[metrics]\nlisten = \"127.0.0.1:9751\"\n")
        .unwrap();
    device.start().unwrap();
    device.wait_rounds().unwrap();
    let text = shell::run(&mut device.aizen(&["metrics"]).unwrap()).unwrap();
    assert!(text.contains("aizen_link_up{link=\"wan\"} 1\n"), "{text}");
    let fetch = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9751/metrics').read().decode())";
    let scraped = shell::run(device.command("python3").args(["-c", fetch])).unwrap();
    assert!(
        scraped.contains("aizen_link_up{link=\"wan\"} 1\n"),
        "{scraped}"
    );
    let metrics = told(&device, "metrics", 0, "metrics");
    let families = metrics["metrics"].as_array().unwrap();
    let names = |text: &str| text.lines().filter(|l| l.starts_with("# TYPE")).count();
    assert!(families.len() >= names(&text), "{metrics:#}");
    told(&device, "status", 0, "daemon executor");

    Fault::LinkDown.inject(&mut lab).unwrap();
    wait::until("the daemon to notice", SOON, || {
        let status = device.ask(&["status"]).ok()?;
        let findings = status["daemon"]["findings"].to_string();
        findings.contains("lan0").then_some(())
    })
    .unwrap_or_else(|e| panic!("{e:#}\n{}", device.said()));
    let began = Timestamp::now();
    let output = device.try_aizen(&["diagnose", "--json"]).unwrap();
    let verdict = object(&["diagnose"], &output);
    let finding = &verdict["findings"][0];
    assert_eq!(finding["cause"], "link_admin_down", "{verdict:#}");
    let since: Timestamp = finding["since"].as_str().unwrap().parse().unwrap();
    assert!(since < began, "since {since}, asked at {began}");
}

/// Lets 20 Mb/s leave by a link of the provider's router, behind a queue of so many bytes.
fn narrow(lab: &Lab, link: &str, queue: u32) {
    let line = format!(
        "tc -n {} qdisc replace dev {link} root tbf rate 20mbit burst 20k limit {queue}",
        lab.isp.name()
    );
    shell::line(&line).unwrap();
}

#[test]
fn a_queue_that_is_too_long_is_found_in_its_direction_and_a_short_one_is_not() {
    let (lab, device) = device();
    let _server = stand_in::web_server(&lab.cloud, CLOUD, lab.folder()).unwrap();
    let line = format!("perf --load --to http://{CLOUD}:8080/ --seconds 7 --streams 16");
    let keys = "host address by at idle_ms directions grade bloats findings";
    // At that rate 1 MB waits 400 ms, and 40 kB wait 16 ms.
    let (long, short) = (1_000_000, 40_000);
    for (down, up, bloats) in [(short, long, "up"), (long, short, "down")] {
        narrow(&lab, "cpe", down);
        narrow(&lab, "cloud", up);
        let report = told(&device, &line, 0, keys);
        assert_eq!(report["bloats"], serde_json::json!([bloats]), "{report:#}");
        let findings = report["findings"].as_array().unwrap();
        assert_eq!(findings.len(), 1, "{report:#}");
        let summary = findings[0]["summary"].as_str().unwrap();
        assert!(
            summary.contains(&format!("{bloats}load on wan")),
            "{summary}"
        );
        for direction in report["directions"].as_array().unwrap() {
            let rate = direction["bits_per_second"].as_u64().unwrap();
            assert!(rate > 1_000_000 && rate < 30_000_000, "{report:#}");
            // Seven seconds of 20 Mb/s, and what the sockets hold.
            assert!(direction["bytes"].as_u64() < Some(40_000_000), "{report:#}");
        }
    }
    let refused = told(&device, "perf --load", 2, "error");
    assert!(refused["error"].to_string().contains("--to"), "{refused:#}");
    let closed = format!("perf --load --to http://{CLOUD}:81/ --seconds 3 --direction down");
    let report = told(&device, &closed, 1, keys);
    let error = report["directions"][0]["error"].as_str().unwrap();
    assert!(error.contains("no connection"), "{report:#}");
}
