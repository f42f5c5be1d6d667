//! The verifier answers other people's Ed25519 vectors as a strict one must (`tests/vectors/README.md`).

use std::path::{Path, PathBuf};

use aizen_protocol::key::PublicKey;
use serde_json::Value;

fn vectors(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("vectors")
        .join(path)
}

fn cases(path: &str) -> Vec<Value> {
    serde_json::from_slice(&std::fs::read(vectors(path)).unwrap()).unwrap()
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn accepts(key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let Ok(bytes) = key.try_into() else {
        return false;
    };
    PublicKey::from_bytes(bytes).is_ok_and(|key| key.verifies(message, signature))
}

#[test]
fn of_the_speccheck_cases_only_number_three_is_accepted() {
    let accepted: Vec<usize> = cases("ed25519-speccheck/cases.json")
        .iter()
        .enumerate()
        .filter(|(_, case)| {
            let field = |name: &str| hex(case[name].as_str().unwrap());
            accepts(&field("pub_key"), &field("message"), &field("signature"))
        })
        .map(|(number, _)| number)
        .collect();
    assert_eq!(accepted, [3]);
}

#[test]
fn of_the_cctv_cases_exactly_those_without_a_weakness_are_accepted() {
    const WEAK: [&str; 5] = [
        "low_order_A",
        "low_order_R",
        "low_order_residue",
        "non_canonical_A",
        "non_canonical_R",
    ];
    let mut accepted = 0;
    for case in cases("cctv-ed25519/ed25519vectors.json") {
        let field = |name: &str| case[name].as_str().unwrap();
        let flags = case["flags"].as_array();
        let weak =
            flags.is_some_and(|f| f.iter().any(|flag| WEAK.contains(&flag.as_str().unwrap())));
        let answer = accepts(
            &hex(field("key")),
            field("msg").as_bytes(),
            &hex(field("sig")),
        );
        assert_eq!(answer, !weak, "case {}", case["number"]);
        accepted += u32::from(answer);
    }
    assert_eq!(accepted, 43);
}

#[test]
fn every_line_of_the_reference_vectors_is_accepted_and_no_flipped_bit_is() {
    let text = std::fs::read_to_string(vectors("dalek/TESTVECTORS")).unwrap();
    let mut lines = 0;
    for line in text.lines() {
        let mut fields = line.split(':').map(hex).skip(1);
        let mut next = || fields.next().unwrap();
        let (mut key, mut message, mut signature) = (next(), next(), next());
        signature.truncate(64);
        assert!(accepts(&key, &message, &signature), "{line}");
        for bytes in [&mut key, &mut message, &mut signature] {
            if let Some(first) = bytes.first_mut() {
                *first ^= 1;
            }
        }
        // One at a time: flip back all but one.
        for flipped in 0..3 {
            let (mut k, mut m, mut s) = (key.clone(), message.clone(), signature.clone());
            for (number, bytes) in [&mut k, &mut m, &mut s].into_iter().enumerate() {
                if number != flipped && !bytes.is_empty() {
                    bytes[0] ^= 1;
                }
            }
            let changed = flipped != 1 || !message.is_empty();
            assert!(!changed || !accepts(&k, &m, &s), "flip {flipped} of {line}");
        }
        lines += 1;
    }
    assert_eq!(lines, 128);
}
