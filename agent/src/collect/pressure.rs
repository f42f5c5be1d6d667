//! Pressure stall information: `/proc/pressure` (Documentation/accounting/psi.rst).

use std::path::Path;

use aizen_protocol::record::{Pressure, Stall};

use super::{Seen, file};

/// Reads the three files.
pub(crate) fn collect(root: &Path) -> Seen<Pressure> {
    let folder = root.join("proc/pressure");
    let mut gaps = Vec::new();
    if !folder.exists() {
        gaps.push("this kernel tells no pressure (CONFIG_PSI)".to_owned());
        return Seen {
            value: Pressure::default(),
            gaps,
        };
    }
    let mut read = |name: &str| {
        file::text(&folder.join(name), file::MAX_KERNEL_FILE).unwrap_or_else(|error| {
            gaps.push(match error.raw_os_error() {
                Some(libc::EOPNOTSUPP) => {
                    format!(
                        "pressure of {name} is switched off (psi=1 on the kernel's command line)"
                    )
                }
                _ => format!("/proc/pressure/{name} can't be read: {error}"),
            });
            String::new()
        })
    };
    let (cpu, memory, io) = (read("cpu"), read("memory"), read("io"));
    let value = Pressure {
        cpu: stall(&cpu, "some"),
        memory_some: stall(&memory, "some"),
        memory_full: stall(&memory, "full"),
        io_some: stall(&io, "some"),
        io_full: stall(&io, "full"),
    };
    // Switched off is off for all three.
    gaps.truncate(1);
    Seen { value, gaps }
}

pub(crate) fn stall(text: &str, kind: &str) -> Option<Stall> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '))?;
    let field = |name: &str| {
        line.split_ascii_whitespace()
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    };
    let percent = |name: &str| {
        let percent: f32 = field(name)?.parse().ok()?;
        (0.0..=100.0).contains(&percent).then_some(percent)
    };
    Some(Stall {
        avg10: percent("avg10")?,
        avg60: percent("avg60")?,
        total_us: field("total")?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_lines_of_a_file_are_read() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(collect(root.path()).gaps.len(), 1);
        let folder = root.path().join("proc/pressure");
        fs::create_dir_all(&folder).unwrap();
        fs::write(
            folder.join("memory"),
            "some avg10=0.63 avg60=1.36 avg300=0.84 total=147277737\nfull avg10=0.46 avg60=0.78 avg300=0.51 total=82240561\n",
        )
        .unwrap();
        let seen = collect(root.path());
        let full = seen.value.memory_full.unwrap();
        assert_eq!(
            (full.avg10, full.avg60, full.total_us),
            (0.46, 0.78, 82_240_561)
        );
        assert_eq!(seen.value.memory_some.unwrap().total_us, 147_277_737);
        assert_eq!((seen.value.cpu, seen.gaps.len()), (None, 1));
    }

    #[test]
    fn what_is_no_percentage_is_not_told() {
        assert_eq!(stall("some avg10=NaN avg60=0.00 total=1", "some"), None);
        assert_eq!(stall("some avg10=101.0 avg60=0.00 total=1", "some"), None);
        assert_eq!(
            stall("something avg10=1.0 avg60=0.00 total=1", "some"),
            None
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in ".{0,200}") {
            stall(&text, "some");
            stall(&format!("some {text}"), "some");
        }
    }
}
