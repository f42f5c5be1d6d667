//! Files of network configuration, and when each last changed: what a fault began right after is a suspect.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aizen_protocol::id::Digest;
use aizen_protocol::private::Text;
use aizen_protocol::record::ConfigFile;
use jiff::Timestamp;

use super::{Seen, file};

/// Looks at every known place.
pub(crate) fn collect(root: &Path) -> Seen<Vec<ConfigFile>> {
    let mut paths: Vec<PathBuf> = FILES.iter().map(|path| root.join(path)).collect();
    let mut gaps = Vec::new();
    for (folder, depth) in FOLDERS {
        add_files(&root.join(folder), *depth, &mut paths, &mut gaps);
    }
    let mut value = Vec::new();
    let mut beyond = 0;
    for path in paths {
        let Some(file) = look(root, &path) else {
            continue;
        };
        if value.len() < MAX_FILES {
            value.push(file);
        } else {
            beyond += 1;
        }
    }
    if beyond > 0 {
        gaps.push(format!("{beyond} more files were left out"));
    }
    gaps.truncate(MAX_GAPS);
    Seen { value, gaps }
}

fn add_files(folder: &Path, depth: u8, paths: &mut Vec<PathBuf>, gaps: &mut Vec<String>) {
    if let Err(error) = fs::read_dir(folder) {
        if error.kind() == io::ErrorKind::PermissionDenied {
            gaps.push(format!(
                "the folder {} is not ours to read",
                folder.display()
            ));
        }
        return;
    }
    for path in file::entries(folder, MAX_ENTRIES) {
        // A link to a folder may lead in a circle.
        let is_folder = fs::symlink_metadata(&path).is_ok_and(|m| m.is_dir());
        if !is_folder {
            paths.push(path);
        } else if depth > 0 {
            add_files(&path, depth - 1, paths, gaps);
        }
    }
}

/// None for what isn't there or is no file. What isn't ours to read has its time alone.
fn look(root: &Path, path: &Path) -> Option<ConfigFile> {
    let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    let digest = file::bytes(path, MAX_BYTES)
        .map(|bytes| {
            Digest::of(&bytes)
                .to_string()
                .chars()
                .take(DIGITS)
                .collect()
        })
        .unwrap_or_default();
    let shown = Path::new("/").join(path.strip_prefix(root).ok()?);
    Some(ConfigFile {
        path: Text(shown.to_string_lossy().into_owned()),
        modified: Timestamp::try_from(metadata.modified().ok()?).ok()?,
        digest,
    })
}

const FILES: &[&str] = &[
    "etc/network/interfaces",
    "etc/resolv.conf",
    "etc/hosts",
    "etc/dnsmasq.conf",
    "etc/dhcpcd.conf",
    "etc/nftables.conf",
    "etc/sysctl.conf",
    "etc/systemd/resolved.conf",
    "etc/systemd/timesyncd.conf",
    "etc/ipsec.conf",
    "etc/dhcp/dhcpd.conf",
    "etc/dhcp/dhclient.conf",
    "etc/radvd.conf",
];
/// With how many levels of folders below.
const FOLDERS: &[(&str, u8)] = &[
    ("etc/network/interfaces.d", 0),
    ("etc/systemd/network", 1),
    ("etc/netplan", 0),
    ("etc/NetworkManager/system-connections", 0),
    ("etc/config", 0),
    ("etc/wireguard", 0),
    ("etc/ppp/peers", 0),
    ("etc/dnsmasq.d", 0),
    ("etc/unbound", 2),
    ("etc/hostapd", 0),
    ("etc/chrony", 1),
    ("etc/swanctl", 1),
    ("etc/kea", 0),
    ("etc/sysctl.d", 0),
];
const MAX_FILES: usize = 128;
const MAX_ENTRIES: usize = 128;
const MAX_BYTES: u64 = 1 << 20;
const MAX_GAPS: usize = 4;
const DIGITS: usize = 16;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn put(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn a_change_of_content_changes_the_digest_and_the_path_has_no_root() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(collect(root.path()).value, []);
        put(root.path(), "etc/unbound/unbound.conf.d/x.conf", "abc");
        let [before] = &collect(root.path()).value[..] else {
            panic!()
        };
        assert_eq!(before.path.0, "/etc/unbound/unbound.conf.d/x.conf");
        // SHA-256 of "abc" (FIPS 180-4).
        assert_eq!(before.digest, "ba7816bf8f01cfea");
        put(root.path(), "etc/unbound/unbound.conf.d/x.conf", "abd");
        assert_ne!(collect(root.path()).value[0].digest, before.digest);
    }

    #[test]
    fn links_in_a_circle_and_too_many_files_have_an_end() {
        let root = tempfile::tempdir().unwrap();
        for number in 0..100 {
            put(root.path(), &format!("etc/sysctl.d/{number}.conf"), "");
            put(root.path(), &format!("etc/wireguard/{number}.conf"), "");
        }
        symlink("..", root.path().join("etc/wireguard/circle")).unwrap();
        let seen = collect(root.path());
        assert_eq!(seen.value.len(), MAX_FILES);
        assert_eq!(seen.gaps, ["72 more files were left out"]);
    }
}
