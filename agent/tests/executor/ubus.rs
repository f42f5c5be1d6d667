//! A stand-in for ubusd and the objects `rc` and `service` of OpenWrt, from the headers of ubus and libubox: enough for
//! services that start, stop and are told of their configuration.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// Which services run, by name.
pub(crate) type Services = Arc<Mutex<BTreeMap<String, bool>>>;

const HELLO: u8 = 0;
const STATUS: u8 = 1;
const DATA: u8 = 2;
const LOOKUP: u8 = 4;
const OBJECT_PATH: u8 = 2;
const OBJECT_ID: u8 = 3;
const METHOD: u8 = 4;
const PAYLOAD: u8 = 7;
const NOT_FOUND: u32 = 4;

/// Listens below `root` until the test ends.
pub(crate) fn start(root: &Path, services: &[(&str, bool)]) -> Services {
    let folder = root.join("var/run/ubus");
    std::fs::create_dir_all(&folder).unwrap();
    let listener = UnixListener::bind(folder.join("ubus.sock")).unwrap();
    let pairs = services
        .iter()
        .map(|(name, runs)| ((*name).to_owned(), *runs));
    let services: Services = Arc::new(Mutex::new(pairs.collect()));
    let state = Arc::clone(&services);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, state) = (stream.unwrap(), Arc::clone(&state));
            std::thread::spawn(move || converse(stream, &state));
        }
    });
    services
}

fn blob(id: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len() + 4).unwrap();
    let mut bytes = ((u32::from(id) << 24) | length).to_be_bytes().to_vec();
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn named(kind: u8, name: &str, value: &[u8]) -> Vec<u8> {
    let mut payload = u16::try_from(name.len()).unwrap().to_be_bytes().to_vec();
    payload.extend(name.bytes().chain([0]));
    payload.resize(payload.len().next_multiple_of(4), 0);
    payload.extend(value);
    blob(0x80 | kind, &payload)
}

fn blobs(mut bytes: &[u8]) -> Vec<(u8, &[u8])> {
    let mut found = Vec::new();
    while let Some(head) = bytes.first_chunk() {
        let head = u32::from_be_bytes(*head);
        let length = (head & 0x00ff_ffff) as usize;
        found.push((
            u8::try_from((head >> 24) & 0x7f).unwrap(),
            &bytes[4..length],
        ));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// The texts of a message, tables walked through.
fn texts(bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for (kind, payload) in blobs(bytes) {
        let name = usize::from(u16::from_be_bytes(*payload.first_chunk().unwrap()));
        let value = &payload[(name + 3).next_multiple_of(4)..];
        match kind {
            2 => found.extend(texts(value)),
            _ => found.push(
                String::from_utf8_lossy(value)
                    .trim_end_matches('\0')
                    .to_owned(),
            ),
        }
    }
    found
}

fn send(stream: &mut UnixStream, kind: u8, sequence: &[u8], body: &[u8]) {
    let mut message = vec![0, kind];
    message.extend(sequence);
    message.extend([0, 0, 0, 1]);
    message.extend(blob(0, body));
    // A killed executor does not read on.
    stream.write_all(&message).ok();
}

fn converse(mut stream: UnixStream, services: &Services) {
    send(&mut stream, HELLO, &[0, 0], &[]);
    let mut head = [0; 12];
    while stream.read_exact(&mut head).is_ok() {
        let length = u32::from_be_bytes(head[8..].try_into().unwrap()) & 0x00ff_ffff;
        let mut body = vec![0; (length as usize).next_multiple_of(4) - 4];
        if stream.read_exact(&mut body).is_err() {
            return;
        }
        let (kind, sequence) = (head[1], [head[2], head[3]]);
        let parts = blobs(&body);
        let part = |id| {
            parts
                .iter()
                .find(|(i, _)| *i == id)
                .map_or(&[][..], |(_, p)| *p)
        };
        let status = if kind == LOOKUP {
            let known = matches!(part(OBJECT_PATH), b"rc\0" | b"service\0");
            if known {
                send(
                    &mut stream,
                    DATA,
                    &sequence,
                    &blob(OBJECT_ID, &[0, 0, 0, 7]),
                );
            }
            if known { 0 } else { NOT_FOUND }
        } else {
            let method = String::from_utf8_lossy(part(METHOD))
                .trim_end_matches('\0')
                .to_owned();
            let words = texts(part(PAYLOAD));
            called(&mut stream, &sequence, services, &method, &words)
        };
        send(
            &mut stream,
            STATUS,
            &sequence,
            &blob(1, &status.to_be_bytes()),
        );
    }
}

fn called(
    stream: &mut UnixStream,
    sequence: &[u8],
    services: &Services,
    method: &str,
    words: &[String],
) -> u32 {
    let mut services = services.lock().unwrap();
    match (method, words) {
        ("list", [name]) => {
            if let Some(runs) = services.get(name) {
                let state = [
                    named(5, "start", &[0, 0, 0, 19]),
                    named(7, "enabled", &[1]),
                    named(7, "running", &[u8::from(*runs)]),
                ];
                let answer = blob(PAYLOAD, &named(2, name, &state.concat()));
                send(stream, DATA, sequence, &answer);
            }
            0
        }
        ("init", [name, deed]) => match services.get_mut(name) {
            Some(runs) => {
                *runs = deed != "stop";
                0
            }
            None => NOT_FOUND,
        },
        ("event", _) => 0,
        _ => 3,
    }
}
