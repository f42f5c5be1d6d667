//! Questions to unbound on loopback, one after the other and a hundred at once: `aizen dns`, a bare connected socket,
//! dnsperf and dig, taking turns. CPU is that of the client alone.

use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::cost;

/// Questions of each turn.
const QUESTIONS: u32 = 20_000;
/// dig is a process each.
const DIGS: u32 = 50;
/// Under way at once, where many are.
const AT_ONCE: &str = "100";
const TURNS: usize = 5;
const SERVER: &str = "127.0.0.1";
const PORT: u16 = 53_053;
const NAME: &str = "www.bench.example";

/// What one question cost.
#[derive(Clone, Copy)]
struct Cost {
    cpu_us: f64,
    latency_us: f64,
}

pub(super) fn rows(device: &Path) -> Result<String> {
    let folder = std::env::temp_dir().join(format!("aizen-bench-dns-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let mut unbound = unbound(&folder)?;
    let rows = measured(device, &folder);
    unbound.kill()?;
    unbound.wait()?;
    fs::remove_dir_all(&folder)?;
    rows
}

fn measured(device: &Path, folder: &Path) -> Result<String> {
    let (mut ours, mut bare, mut dnsperf, mut dig) = (vec![], vec![], vec![], vec![]);
    let mut many = vec![];
    for _ in 0..TURNS {
        ours.push(by_aizen(device, "1")?);
        many.push(by_aizen(device, AT_ONCE)?.cpu_us);
        bare.push(by_socket()?);
        dnsperf.push(by_dnsperf(folder)?);
        dig.push(by_dig()?);
    }
    let [ours, bare] = [ours, bare].map(|turns| median(&turns));
    let [many, dnsperf, dig] = [many, dnsperf, dig].map(middle);
    let mut rows = String::new();
    for (what, own, name, peer) in [
        (
            "one after the other",
            ours.cpu_us,
            "a bare connected socket",
            bare.cpu_us,
        ),
        ("100 at once", many, "`dnsperf -q 100`", dnsperf),
        ("one after the other", ours.cpu_us, "`dig`", dig),
    ] {
        rows.push_str(&format!(
            "| CPU of a DNS question over UDP, {what}, beside {name} | {own:.1} µs | {peer:.1} µs | {:.3} |\n",
            own / peer
        ));
    }
    rows.push_str(&format!(
        "| latency of a DNS question over UDP, beside a bare connected socket | {:.1} µs | {:.1} µs | {:.3} |\n",
        ours.latency_us,
        bare.latency_us,
        ours.latency_us / bare.latency_us
    ));
    Ok(rows)
}

fn unbound(folder: &Path) -> Result<Child> {
    let config = folder.join("unbound.conf");
    let text = format!(
        "server:\n directory: \"{}\"\n chroot: \"\"\n username: \"\"\n pidfile: \"\"\n use-syslog: no\n do-daemonize: no\n \
         interface: {SERVER}@{PORT}\n num-threads: 1\n local-zone: \"example.\" static\n local-zone: \"example.com.\" static\n \
         local-data: \"{NAME}. 60 IN A 198.51.100.7\"\n",
        folder.display()
    );
    fs::write(&config, text)?;
    let child = Command::new("unbound")
        .args(["-d", "-c"])
        .arg(&config)
        .stderr(Stdio::null())
        .spawn()
        .context("unbound does not start")?;
    let socket = socket()?;
    for _ in 0..200 {
        socket.send(&question(0)).ok();
        if socket.recv(&mut [0; 512]).is_ok() {
            return Ok(child);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("unbound answers nothing")
}

fn socket() -> Result<UdpSocket> {
    let socket = UdpSocket::bind((SERVER, 0))?;
    socket.connect((SERVER, PORT))?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    Ok(socket)
}

fn question(id: u16) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend(b"\x01\x20\0\x01\0\0\0\0\0\0\x03www\x05bench\x07example\0\0\x01\0\x01");
    bytes
}

/// The limit: send and receive, nothing read of the answer but its number.
fn by_socket() -> Result<Cost> {
    let socket = socket()?;
    let mut latencies = Vec::new();
    let before = cost::own()?;
    for n in 0..QUESTIONS {
        let id = u16::try_from(n % 65_536)?;
        let began = Instant::now();
        socket.send(&question(id))?;
        let mut answer = [0; 512];
        while socket.recv(&mut answer).is_ok() && answer[..2] != id.to_be_bytes() {}
        latencies.push(began.elapsed().as_secs_f64() * 1e6);
    }
    Ok(Cost {
        cpu_us: cost::us(cost::own()? - before) / f64::from(QUESTIONS),
        latency_us: middle(latencies),
    })
}

fn by_aizen(device: &Path, at_once: &str) -> Result<Cost> {
    let before = cost::children()?;
    let output = Command::new(device)
        .args([
            "dns",
            NAME,
            "--only",
            "--json",
            "-i",
            "0",
            "-q",
            at_once,
            "-c",
            &QUESTIONS.to_string(),
        ])
        .arg(format!("@{SERVER}:{PORT}"))
        .output()?;
    let told: serde_json::Value = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let rtts = told["servers"][0]["rtt_us"]
        .as_array()
        .context("no times")?;
    Ok(Cost {
        cpu_us: cost::us(cost::children()? - before) / f64::from(QUESTIONS),
        latency_us: middle(rtts.iter().filter_map(serde_json::Value::as_f64).collect()),
    })
}

/// Processor time alone: with one question at a time dnsperf 2.10 waits for ever, and with many under way its latency
/// is that of the queue.
fn by_dnsperf(folder: &Path) -> Result<f64> {
    let names = folder.join("names");
    fs::write(&names, format!("{NAME} A\n"))?;
    let mut command = Command::new("dnsperf");
    command.args(["-s", SERVER, "-p", &PORT.to_string()]);
    command.args(["-c", "1", "-T", "1", "-q", AT_ONCE]);
    command.args(["-n", &QUESTIONS.to_string(), "-d"]);
    let (cost, _) = cost::of(command.arg(&names))?;
    Ok(cost::us(cost.processor) / f64::from(QUESTIONS))
}

fn by_dig() -> Result<f64> {
    let before = cost::children()?;
    for _ in 0..DIGS {
        Command::new("dig")
            .args([&format!("@{SERVER}"), "-p", &PORT.to_string(), NAME])
            .stdout(Stdio::null())
            .status()?;
    }
    Ok(cost::us(cost::children()? - before) / f64::from(DIGS))
}

fn median(turns: &[Cost]) -> Cost {
    Cost {
        cpu_us: middle(turns.iter().map(|c| c.cpu_us).collect()),
        latency_us: middle(turns.iter().map(|c| c.latency_us).collect()),
    }
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
