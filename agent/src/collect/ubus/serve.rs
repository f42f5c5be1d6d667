//! A bus of a test's own: what ubusd and the services behind it would answer, by the wire format alone.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;

use serde_json::Value;

use super::wire::{self, ARRAY, HEAD, INT8, INT32, STRING, TABLE, put, put_named};

/// Answers each call of `OBJECT METHOD ARGUMENTS` with what `answer` gives for it. A method without a name asks whether
/// the object is there; those that `answer` knows nothing of are not shown.
pub(crate) fn serve(
    root: &Path,
    answer: impl Fn(&str, &str, &Value) -> Option<Value> + Send + 'static,
) {
    let socket = root.join("var/run/ubus/ubus.sock");
    std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
    let listener = UnixListener::bind(socket).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Whoever hangs up early is no failure.
            talk(stream, &answer);
        }
    });
}

fn talk(
    mut stream: UnixStream,
    answer: &impl Fn(&str, &str, &Value) -> Option<Value>,
) -> Option<()> {
    stream.write_all(&wire::message(HELLO, 0, 77, &[])).ok()?;
    let mut object = String::new();
    loop {
        let mut head = [0; HEAD];
        stream.read_exact(&mut head).ok()?;
        let mut body = vec![0; wire::length(&head)?];
        stream.read_exact(&mut body).ok()?;
        let asked = wire::Message::new(&head, body);
        let text = |kind| {
            let value = asked.attribute(kind)?;
            Some(
                String::from_utf8_lossy(value)
                    .trim_end_matches('\0')
                    .to_owned(),
            )
        };
        let mut told = Vec::new();
        let mut status = 0_u32;
        if let Some(path) = text(wire::PATH) {
            object = path;
            if answer(&object, "", &Value::Null).is_some() {
                put(&mut told, wire::OBJECT, &9_u32.to_be_bytes());
            } else {
                status = 4;
            }
        } else if let Some(table) = answer(
            &object,
            &text(wire::METHOD)?,
            &wire::table(asked.attribute(wire::DATA)?)?,
        ) {
            put(&mut told, wire::OBJECT, &9_u32.to_be_bytes());
            put(&mut told, wire::DATA, &encode(&table));
        } else {
            status = 3;
        }
        if !told.is_empty() {
            let data = wire::message(DATA, asked.sequence, 9, &told);
            stream.write_all(&data).ok()?;
        }
        let mut end = Vec::new();
        put(&mut end, wire::STATUS, &status.to_be_bytes());
        let end = wire::message(STATUS, asked.sequence, 9, &end);
        stream.write_all(&end).ok()?;
    }
}

/// The members of a table, as blobmsg has them.
pub(crate) fn encode(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in value.as_object().unwrap() {
        member(&mut bytes, name, value);
    }
    bytes
}

fn member(bytes: &mut Vec<u8>, name: &str, value: &Value) {
    let (kind, data) = match value {
        Value::Bool(yes) => (INT8, vec![u8::from(*yes)]),
        Value::Number(number) => {
            let number = i32::try_from(number.as_i64().unwrap()).unwrap();
            (INT32, number.to_be_bytes().to_vec())
        }
        Value::String(text) => (STRING, [text.as_bytes(), b"\0"].concat()),
        Value::Array(all) => {
            let mut inner = Vec::new();
            all.iter().for_each(|value| member(&mut inner, "", value));
            (ARRAY, inner)
        }
        Value::Object(_) => (TABLE, encode(value)),
        Value::Null => panic!("the format has no null"),
    };
    put_named(bytes, kind, name, &data);
}

const HELLO: u8 = 0;
const STATUS: u8 = 1;
const DATA: u8 = 2;
