//! Promises about the repository itself.

#![expect(
    clippy::unwrap_used,
    reason = "where a test can't go on, it has failed"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const MEMBERS: [&str; 8] = [
    "agent",
    "analyst",
    "orchestrator",
    "protocol",
    "sandbox",
    "sanitizer",
    "tests",
    "xtask",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// Every file below a folder with this ending.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.extension().is_some_and(|e| e == ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<(PathBuf, String)> {
    let all = MEMBERS
        .iter()
        .flat_map(|member| files(&root().join(member), "rs"));
    all.map(|path| (path.clone(), fs::read_to_string(path).unwrap()))
        .collect()
}

#[test]
fn crates_depend_downwards_only() {
    let allowed = |member: &str| -> &[&str] {
        match member {
            "protocol" | "sandbox" => &[],
            "sanitizer" => &["protocol"],
            "analyst" => &["protocol", "sanitizer"],
            "agent" => &["analyst", "protocol", "sandbox", "sanitizer"],
            "orchestrator" => &["analyst", "protocol", "sanitizer"],
            // Its pages are made of the programs' own definitions.
            // Its bench speaks to the executor as the daemon does.
            "xtask" => &["agent", "orchestrator", "protocol", "sandbox", "tests"],
            _ => &["analyst", "protocol", "sandbox", "sanitizer", "tests"],
        }
    };
    for member in MEMBERS {
        let manifest: toml::Table =
            toml::from_str(&fs::read_to_string(root().join(member).join("Cargo.toml")).unwrap())
                .unwrap();
        let dependencies = manifest["dependencies"].as_table().unwrap();
        for name in dependencies
            .keys()
            .filter_map(|name| name.strip_prefix("aizen-"))
        {
            assert!(
                allowed(member).contains(&name),
                "{member} must not depend on {name}"
            );
        }
    }
}

#[test]
fn unsafe_code_stands_in_one_file() {
    for (path, text) in sources() {
        let code = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        let found = code
            .filter(|line| {
                line.contains("unsafe {")
                    || line.contains("unsafe fn")
                    || line.contains("unsafe impl")
            })
            .count();
        let exempt =
            path.ends_with("sandbox/src/sys.rs") || path.starts_with(root().join("tests/repo"));
        assert!(found == 0 || exempt, "{} has unsafe code", path.display());
    }
}

#[test]
fn no_file_is_a_drawer() {
    const DRAWERS: [&str; 9] = [
        "util", "utils", "helper", "helpers", "common", "misc", "manager", "types", "models",
    ];
    for (path, _) in sources() {
        let stem = path.file_stem().unwrap().to_str().unwrap();
        assert!(
            !DRAWERS.contains(&stem) && stem != "mod",
            "{} names no subject",
            path.display()
        );
    }
}

#[test]
fn every_promise_of_the_security_page_names_a_test_that_exists() {
    let page = fs::read_to_string(root().join("docs/security.md")).unwrap();
    let tests: BTreeSet<String> = sources()
        .iter()
        .flat_map(|(_, text)| text.lines())
        .filter_map(|line| {
            // Also the names that a macro turns into tests, and those of a harness with a list of its own.
            let line = line.trim_start().trim_start_matches(['(', '"']);
            let named = line
                .strip_prefix("async fn ")
                .or_else(|| line.strip_prefix("fn "))
                .unwrap_or(line);
            named
                .split_once(['(', ':', '"', ','])
                .map(|(name, _)| name.to_owned())
        })
        .collect();
    let promised: Vec<&str> = page
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|w| w.matches('_').count() >= 3 && !w.contains(['/', '.', ' ', '-']))
        .collect();
    assert!(
        promised.len() >= 10,
        "the page names {} tests",
        promised.len()
    );
    for test in promised {
        assert!(
            tests.contains(test),
            "docs/security.md promises '{test}', which is no test"
        );
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    let documents = files(&root().join("docs"), "md").into_iter().chain(
        [
            "README.md",
            "ARCHITECTURE.md",
            "CONTRIBUTING.md",
            "CHANGELOG.md",
        ]
        .iter()
        .map(|name| root().join(name)),
    );
    for document in documents {
        let text = fs::read_to_string(&document).unwrap();
        for target in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            if target.starts_with("http") || target.starts_with('#') {
                continue;
            }
            let path = document
                .parent()
                .unwrap()
                .join(target.split('#').next().unwrap());
            assert!(path.exists(), "{} links to {target}", document.display());
        }
    }
}
