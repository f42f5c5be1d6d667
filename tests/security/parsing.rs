//! The one door for foreign JSON answers the JSON test suite: never a panic, never a lenient answer.

use std::path::Path;
use std::process::Command;

use aizen_protocol::{limit, strict};
use harness::shell;
use serde_json::Value;

/// Valid JSON that a signed message may not be: two readers could disagree about it.
const REFUSED_ON_PURPOSE: [&str; 2] = [
    "y_object_duplicated_key.json",
    "y_object_duplicated_key_and_value.json",
];

#[test]
fn the_json_test_suite_is_answered_as_a_strict_reader_must() {
    let archive =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/json-testsuite/test_parsing.tar.gz");
    let folder = tempfile::tempdir().unwrap();
    shell::run(
        Command::new("tar")
            .arg("-xzf")
            .arg(archive)
            .arg("-C")
            .arg(folder.path()),
    )
    .unwrap();
    let (mut taken, mut refused, mut either) = (0, 0, 0);
    for entry in std::fs::read_dir(folder.path().join("test_parsing")).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let answer =
            strict::from_slice::<Value>(&std::fs::read(entry.path()).unwrap(), limit::FRAME);
        match name.as_bytes()[0] {
            b'y' if REFUSED_ON_PURPOSE.contains(&name.as_str()) => {
                assert!(answer.is_err(), "{name} was taken")
            }
            b'y' => {
                assert!(answer.is_ok(), "{name}: {answer:?}");
                taken += 1;
            }
            b'n' => {
                assert!(answer.is_err(), "{name} was taken");
                refused += 1;
            }
            _ => either += 1,
        }
    }
    assert_eq!((taken, refused, either), (93, 188, 35));
}
