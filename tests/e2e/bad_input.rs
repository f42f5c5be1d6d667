//! What people, disks and strangers do wrong: each has a clear error, the daemon keeps running, nothing is lost.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use aizen_protocol::limit;
use harness::cloud::{Cloud, PORT};
use harness::device::{Device, USER};
use harness::disk::{SmallDisk, own_mounts};
use harness::fault::Fault;
use harness::lab::{CLOUD, CLOUD_NAME, Lab};
use harness::program::Program;
use harness::world::World;
use harness::{shell, wait};
use jiff::Timestamp;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(40);
const STRANGER: &str = "nobody";

/// The standard error of a command that had to fail with this code.
fn complaint(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    // With --json the error is an object on standard output as well.
    if !output.stdout.is_empty() {
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(told["error"].is_string(), "{told}");
    }
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(!said.contains("panicked"), "{said}");
    said
}

/// Every file and folder below, with mode and content.
fn tree(folder: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let mode = path.metadata().unwrap().permissions().mode();
        if path.is_dir() {
            all.extend(tree(&path));
            all.insert(path, (mode, Vec::new()));
        } else {
            let content = fs::read(&path).unwrap();
            all.insert(path, (mode, content));
        }
    }
    all
}

fn number(device: &Device, key: &str) -> Option<u64> {
    device.ask(&["status"]).ok()?["daemon"][key].as_u64()
}

/// Waits until one of the daemon's numbers is above this, and gives it.
fn above(world: &World, key: &str, least: u64) -> u64 {
    let what = format!("'{key}' to be above {least}");
    wait::until(&what, SOON, || {
        number(&world.device, key).filter(|n| *n > least)
    })
    .unwrap_or_else(|e| panic!("{e:#}\n{:?}\n{}", status(&world.device), world.said()))
}

fn status(device: &Device) -> Value {
    device.ask(&["status"]).unwrap()
}

fn lives(device: &mut Device) {
    assert!(
        device.daemon().unwrap().ended().is_none(),
        "{}",
        device.said()
    );
    assert!(
        device.executor().unwrap().ended().is_none(),
        "{}",
        device.said()
    );
}

#[test]
fn a_wrong_configuration_is_named_with_file_line_and_key_and_a_running_daemon_stays() {
    let lab = Lab::lay_out().unwrap();
    let mut device = Device::new(&lab).unwrap();
    device.start().unwrap();
    for (wrong, key, hint) in [
        ("[spool]\nmibs = 3\n", "mibs", "unknown key, expected 'mib'"),
        ("[spool]\nmib = 0\n", "mib", "1 to 4096"),
        ("[spool]\nmib = \"much\"\n", "mib", "invalid type"),
        ("[spool\n", "", "unclosed table"),
    ] {
        device.write_config(wrong).unwrap();
        let file = fs::read_to_string(device.etc().join("aizen/aizen.toml")).unwrap();
        let place = format!("/etc/aizen/aizen.toml:{}: ", file.lines().count());
        for (words, code) in [
            (&["daemon"][..], 1),
            (&["executor", "--listen"], 1),
            (&["status"], 1),
            (&["diagnose", "--offline"], 3),
            (&["diagnose", "--json"], 3),
        ] {
            // A program that takes the configuration would stay.
            let mut command = device.command("timeout");
            command.arg("10").arg(harness::binaries::aizen().unwrap());
            let said = complaint(&command.args(words).output().unwrap(), code);
            assert!(said.contains(&place), "{words:?}: no '{place}' in {said}");
            assert!(
                said.contains(key) && said.contains(hint),
                "{words:?}: no '{key}' or no '{hint}' in {said}"
            );
        }
    }
    device.write_config("").unwrap();
    lives(&mut device);
    status(&device);
}

#[test]
fn a_server_that_cant_be_reached_is_named_at_enrollment_and_nothing_is_written() {
    let lab = Lab::lay_out().unwrap();
    let mut cloud = Cloud::start(&lab).unwrap();
    let device = Device::new(&lab).unwrap();
    let token = cloud.token().unwrap();
    cloud.stop().unwrap();
    let mut other = lab.cloud.command("python3");
    other.args(["-m", "http.server", "9000", "--directory", "/var/empty"]);
    let log = lab.folder().join("http.log");
    let mut other = Program::start("http.server", &mut other, &log).unwrap();
    // Port 9000 is 2328 in /proc/net/tcp.
    let listens = || {
        let table = lab.cloud.command("cat").arg("/proc/net/tcp").output();
        table.is_ok_and(|t| String::from_utf8_lossy(&t.stdout).contains(":2328 "))
    };
    other.wait_ready(SOON, listens).unwrap();
    let before = tree(&device.state());
    for (server, why) in [
        (format!("{CLOUD_NAME}:{PORT}"), "refused"),
        (format!("nobody.aizen.test:{PORT}"), "can't be resolved"),
        // A documentation prefix (RFC 5737) that the provider has no route to.
        (format!("192.0.2.1:{PORT}"), "192.0.2.1:8443"),
        (format!("{CLOUD}:9000"), "TLS"),
    ] {
        let url = format!("https://{server}");
        let output = device
            .try_aizen(&["enroll", "--server", &url, "--token", &token])
            .unwrap();
        let said = complaint(&output, 1);
        assert!(
            said.contains(&format!("{server} can't be reached")) && said.contains(why),
            "no '{server}' or no '{why}' in {said}"
        );
        assert!(!said.contains(&token), "the token is shown: {said}");
        assert_eq!(tree(&device.state()), before, "{server}");
    }
    // None of it used the token up.
    cloud.serve(&lab.cloud).unwrap();
    let url = format!("https://{CLOUD_NAME}:{PORT}");
    let enrolled = device
        .try_aizen(&["enroll", "--server", &url, "--token", &token])
        .unwrap();
    assert!(enrolled.status.success(), "{enrolled:?}");
}

/// The token with the last digit of a digest in it changed.
fn altered(token: &str, key: &str) -> String {
    let script = "import base64, json, sys\n\
        token = json.loads(base64.urlsafe_b64decode(sys.argv[1] + '=='))\n\
        value = token[sys.argv[2]]\n\
        token[sys.argv[2]] = value[:-1] + ('1' if value[-1] == '0' else '0')\n\
        print(base64.urlsafe_b64encode(json.dumps(token).encode()).decode().rstrip('='))";
    let mut command = Command::new("python3");
    let altered = shell::run(command.args(["-c", script, token, key])).unwrap();
    altered.trim().to_owned()
}

fn try_enroll(device: &Device, token: &str, more: &[&str]) -> Output {
    let url = format!("https://{CLOUD_NAME}:{PORT}");
    let words = ["enroll", "--server", &url, "--token", token];
    device.try_aizen(&[&words[..], more].concat()).unwrap()
}

#[test]
fn a_bad_token_enrols_nothing_and_says_what_is_wrong_with_it() {
    let lab = Lab::lay_out().unwrap();
    let cloud = Cloud::start(&lab).unwrap();
    let device = Device::new(&lab).unwrap();
    let good = cloud.token().unwrap();
    let short = cloud.ask(&["token", "create", "--ttl", "1s"]).unwrap();
    let expired = short["token"].as_str().unwrap();
    let end: Timestamp = short["expires_at"].as_str().unwrap().parse().unwrap();
    wait::until("a token to expire", SOON, || {
        (Timestamp::now() > end).then_some(())
    })
    .unwrap();
    let before = tree(&device.state());
    for (token, why) in [
        ("", "no enrollment token"),
        ("what the boss said", "no enrollment token"),
        (&good[..good.len() / 2], "no enrollment token"),
        // An empty object.
        ("e30", "no enrollment token"),
        (&altered(&good, "secret"), "token is unknown"),
        (
            &altered(&good, "ca"),
            "is not the orchestrator that the token is for",
        ),
        (expired, "expired"),
    ] {
        let said = complaint(&try_enroll(&device, token, &[]), 1);
        assert!(said.contains(why), "no '{why}' in {said}");
        assert!(
            token.is_empty() || !said.contains(token),
            "the token is shown: {said}"
        );
        assert_eq!(tree(&device.state()), before, "{why}");
    }
    let enrolled = try_enroll(&device, &good, &[]);
    assert!(enrolled.status.success(), "{enrolled:?}");
}

#[test]
fn a_used_token_enrols_nothing_and_leaves_an_enrollment_as_it_is() {
    let lab = Lab::lay_out().unwrap();
    let cloud = Cloud::start(&lab).unwrap();
    let mut device = Device::new(&lab).unwrap();
    let token = cloud.token().unwrap();
    assert!(try_enroll(&device, &token, &[]).status.success());
    let before = tree(&device.state());
    let said = complaint(&try_enroll(&device, &token, &[]), 1);
    assert!(said.contains("enrolled already"), "{said}");
    let said = complaint(&try_enroll(&device, &token, &["--force"]), 1);
    assert!(said.contains("token was used already"), "{said}");
    assert_eq!(tree(&device.state()), before);
    device.start().unwrap();
    device
        .wait_connected(SOON)
        .unwrap_or_else(|e| panic!("{e:#}\n{}", device.said()));
    // On another device of the same owner: nothing at all.
    let other = lab.folder().join("other");
    fs::create_dir(&other).unwrap();
    let config = lab.folder().join("other.toml");
    fs::write(
        &config,
        format!("[paths]\nstate = \"{}\"\n", other.display()),
    )
    .unwrap();
    let elsewhere = ["--config", config.to_str().unwrap()];
    let said = complaint(&try_enroll(&device, &token, &elsewhere), 1);
    assert!(said.contains("token was used already"), "{said}");
    assert!(tree(&other).is_empty());
}

#[test]
fn a_device_that_is_not_enrolled_says_so_and_keeps_diagnosing() {
    let mut lab = Lab::lay_out().unwrap();
    let mut device = Device::new(&lab).unwrap();
    device.start().unwrap();
    let health = |device: &Device, wanted: &str| {
        wait::until(&format!("the verdict '{wanted}'"), SOON, || {
            (status(device)["daemon"]["health"] == wanted).then_some(())
        })
        .unwrap_or_else(|e| panic!("{e:#}\n{}\n{}", status(device), device.said()))
    };
    health(&device, "healthy");
    let told = status(&device);
    assert_eq!(told["daemon"]["uplink"]["state"], "not_enrolled", "{told}");
    assert_eq!(told["executor"]["trust"], "not_enrolled", "{told}");
    let shown = device.try_aizen(&["status"]).unwrap();
    assert!(shown.status.success(), "{shown:?}");
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(
        shown.contains("not enrolled: see 'aizen enroll --help'"),
        "{shown}"
    );
    let said = complaint(&device.try_aizen(&["uplink", "connect"]).unwrap(), 1);
    assert!(said.contains("not enrolled"), "{said}");
    Fault::NoDefaultRoute.inject(&mut lab).unwrap();
    health(&device, "critical");
    lives(&mut device);
    assert!(tree(&device.state()).keys().all(|p| !p.ends_with("spool")));
}

#[test]
fn an_orchestrator_that_is_away_from_the_start_gets_every_record_once_it_is_there() {
    let mut world = World::enrolled().unwrap();
    world.cloud.stop().unwrap();
    world.device.start().unwrap();
    let waiting = above(&world, "newest", 30);
    assert_eq!(number(&world.device, "acknowledged"), Some(0));
    let why = wait::until("the reason to be told", SOON, || {
        let uplink = status(&world.device)["daemon"]["uplink"].take();
        (uplink["state"] == "waiting").then(|| uplink["last_error"].to_string())
    })
    .unwrap();
    assert!(why.contains(CLOUD_NAME) && why.contains("refused"), "{why}");
    // Over a restart as well.
    world.device.daemon().unwrap().stop().unwrap();
    world.device.start_daemon().unwrap();
    let made = above(&world, "newest", waiting);
    assert!(above(&world, "spooled", 0) >= made);
    lives(&mut world.device);
    world.cloud.serve(&world.lab.cloud).unwrap();
    above(&world, "acknowledged", made);
    without_gap_or_double(&world, made);
    assert_eq!(number(&world.device, "dropped"), Some(0));
}

/// The store has every number from 1 to at least this one, once.
fn without_gap_or_double(world: &World, least: u64) {
    let numbers = world.cloud.stored_numbers().unwrap();
    let last = *numbers.last().unwrap();
    assert!(last >= least, "{last} of {least}");
    assert_eq!(numbers, (1..=last).collect::<Vec<_>>());
}

fn small_spool(world: &World) -> SmallDisk {
    SmallDisk::over(&world.device.state().join("daemon/spool"), 2, USER).unwrap()
}

#[test]
fn on_a_disk_that_is_full_from_the_start_drops_are_told_and_records_flow_once_there_is_space() {
    own_mounts().unwrap();
    let mut world = World::enrolled().unwrap();
    let disk = small_spool(&world);
    disk.fill().unwrap();
    world.device.start().unwrap();
    world.device.wait_connected(SOON).unwrap();
    above(&world, "dropped", 10);
    lives(&mut world.device);
    let shown = world.device.try_aizen(&["status"]).unwrap();
    assert!(shown.status.success(), "{shown:?}");
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(
        shown.contains(" dropped") && !shown.contains(" 0 dropped"),
        "{shown}"
    );
    let log = world.device.said();
    assert!(log.contains("No space left on device"), "{log}");
    disk.free().unwrap();
    let flowing = above(&world, "acknowledged", 30);
    without_gap_or_double(&world, flowing);
    // What was lost stays told.
    let dropped = number(&world.device, "dropped").unwrap();
    world.device.daemon().unwrap().stop().unwrap();
    world.device.start_daemon().unwrap();
    world.device.wait_connected(SOON).unwrap();
    assert_eq!(number(&world.device, "dropped"), Some(dropped));
    above(&world, "acknowledged", flowing);
}

#[test]
fn a_disk_that_fills_up_while_the_orchestrator_is_away_takes_nothing_that_waits() {
    own_mounts().unwrap();
    let mut world = World::enrolled().unwrap();
    let disk = small_spool(&world);
    world.device.start().unwrap();
    world.device.wait_connected(SOON).unwrap();
    above(&world, "acknowledged", 0);
    world.cloud.stop().unwrap();
    above(&world, "spooled", 20);
    disk.fill().unwrap();
    above(&world, "dropped", 5);
    let made = number(&world.device, "newest").unwrap();
    lives(&mut world.device);
    disk.free().unwrap();
    above(&world, "newest", made);
    world.cloud.serve(&world.lab.cloud).unwrap();
    above(&world, "acknowledged", made);
    without_gap_or_double(&world, made);
}

/// Says this and gives what came back until the other side closed.
fn heckle(socket: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(SOON / 4)).unwrap();
    stream.set_write_timeout(Some(SOON / 4)).unwrap();
    let gone = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
    let name = socket.display();
    let said = stream.write_all(bytes);
    assert!(
        said.as_ref().err().is_none_or(|e| gone.contains(&e.kind())),
        "{name} took {} bytes and then: {said:?}",
        bytes.len()
    );
    let mut answer = Vec::new();
    let ended = stream.read_to_end(&mut answer);
    assert!(
        ended
            .as_ref()
            .err()
            .is_none_or(|e| gone.contains(&e.kind())),
        "{name} is still open: {ended:?}"
    );
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn garbage_and_an_endless_line_close_their_local_connection_and_both_programs_still_answer() {
    let lab = Lab::lay_out().unwrap();
    let mut device = Device::new(&lab).unwrap();
    device.start().unwrap();
    let endless = vec![b'x'; 4 * limit::FRAME];
    for garbage in [
        &b"\0\xff\xfe\n"[..],
        b"\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"{\"request\":\"please\"}\n",
        b"{\"request\":\"status\",\"request\":\"status\"}\n",
        &[&b"[".repeat(100_000)[..], b"\n"].concat(),
        &endless[..limit::FRAME + 2],
        &endless,
    ] {
        for socket in [device.daemon_socket(), device.executor_socket()] {
            let answer = heckle(&socket, garbage);
            assert!(!answer.contains("\"status\""), "{answer}");
            let told = status(&device);
            assert!(
                told["daemon"]["agent"].is_string() && told["executor"]["trust"].is_string(),
                "{told}"
            );
        }
    }
    lives(&mut device);
}

#[test]
fn a_user_without_privileges_may_look_but_not_pause_dial_or_enrol() {
    let world = World::start(&mut |_, _| {}).unwrap();
    let device = &world.device;
    let looked = device.try_aizen_as(STRANGER, &["status"]).unwrap();
    assert!(looked.status.success(), "{looked:?}");
    let looked = String::from_utf8(looked.stdout).unwrap();
    assert!(looked.contains(&world.id), "{looked}");
    let before = tree(&device.state().join("executor"));
    for words in [&["pause"][..], &["resume"], &["uplink", "connect"]] {
        let output = device.try_aizen_as(STRANGER, words).unwrap();
        let said = complaint(&output, 1);
        assert!(
            said.contains("root") && said.contains("aizen-operators"),
            "{words:?}: {said}"
        );
    }
    let token = world.cloud.token().unwrap();
    let url = format!("https://{CLOUD_NAME}:{PORT}");
    let words = ["enroll", "--force", "--server", &url, "--token", &token];
    let said = complaint(&device.try_aizen_as(STRANGER, &words).unwrap(), 1);
    assert!(said.contains("root"), "{said}");
    assert_eq!(tree(&device.state().join("executor")), before);
    assert_eq!(status(device)["executor"]["paused"], false);
}

#[test]
fn a_user_who_takes_every_connection_it_gets_keeps_nobody_from_asking() {
    let world = World::start(&mut |_, _| {}).unwrap();
    let hold = "import socket, sys, time\nheld = []\nfor path in sys.argv[1:]:\n for _ in range(40):\n  s = socket.socket(socket.AF_UNIX); s.connect(path); held.append(s)\nprint('held', flush=True)\ntime.sleep(60)\n";
    let mut command = Command::new("setpriv");
    command
        .args([
            "--reuid",
            "nobody",
            "--regid",
            "nogroup",
            "--clear-groups",
            "/usr/bin/python3",
            "-c",
            hold,
        ])
        .args([world.device.daemon_socket(), world.device.executor_socket()]);
    let mut holder = Program::start(
        "the holder",
        &mut command,
        &world.lab.folder().join("holder.log"),
    )
    .unwrap();
    let log = world.lab.folder().join("holder.log");
    let ready = || std::fs::read_to_string(&log).is_ok_and(|said| said.contains("held"));
    holder.wait_ready(Duration::from_secs(10), ready).unwrap();
    let began = std::time::Instant::now();
    world.device.ask(&["status"]).unwrap();
    assert!(world.device.try_aizen(&["pause"]).unwrap().status.success());
    // Thirty seconds is what one silent connection is given.
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "{:?}",
        began.elapsed()
    );
}
