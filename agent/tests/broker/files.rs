//! Files: what belongs to them comes back, and no path leads where it should not.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::Path;

use aizen_agent::broker::{Answer, World};
use aizen_agent::rollback::{Checkpoint, restore};
use aizen_protocol::package::manifest::{FileOperation, Operation};
use tempfile::TempDir;

use crate::lab::{Run, assert_same, run, run_with, take};

fn write(path: &str) -> Operation {
    Operation::File(FileOperation::Write(path.into()))
}

fn delete(path: &str) -> Operation {
    Operation::File(FileOperation::Delete(path.into()))
}

fn root() -> (TempDir, World) {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("etc")).unwrap();
    let world = World::at(folder.path());
    (folder, world)
}

/// `user.*` attributes are refused by some file systems; `trusted.*` is taken by all of root's.
fn tag(path: &Path, value: &str) {
    rustix::fs::setxattr(
        path,
        "trusted.aizen",
        value.as_bytes(),
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
}

fn everything(path: &Path) -> (Vec<u8>, u32, u32, u32, i64, i64, Vec<u8>) {
    let meta = fs::metadata(path).unwrap();
    let mut tag = vec![0; 100];
    let length = rustix::fs::getxattr(path, "trusted.aizen", &mut tag[..]).unwrap_or(0);
    tag.truncate(length);
    (
        fs::read(path).unwrap(),
        meta.mode(),
        meta.uid(),
        meta.gid(),
        meta.mtime(),
        meta.mtime_nsec(),
        tag,
    )
}

async fn undone(world: &World, checkpoint: &Checkpoint, run: &Run) {
    for _ in 0..2 {
        let restored = restore(world, checkpoint, &run.inverses).await;
        assert!(
            restored.not_restored.is_empty() && restored.drift.is_empty(),
            "{restored:#?}"
        );
        assert_same(checkpoint, &restored.after.unwrap());
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_changed_file_keeps_all_that_belongs_to_it_and_comes_back_with_it() {
    let (folder, world) = root();
    let path = folder.path().join("etc/resolv.conf");
    fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
    chown(&path, Some(1234), Some(4321)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o2640)).unwrap();
    tag(&path, "kept");
    let before = everything(&path);
    let grants = [write("/etc/resolv.conf")];
    let checkpoint = take(&world, &grants).await;
    let run = run(
        &world,
        &grants,
        &[(grants[0].clone(), b"nameserver 192.0.2.2\n")],
    )
    .await
    .all_done();
    let now = everything(&path);
    assert_eq!(now.0, b"nameserver 192.0.2.2\n");
    assert_eq!(
        (now.1, now.2, now.3, &now.6),
        (before.1, before.2, before.3, &before.6)
    );
    let change = &run.served.changes[0];
    assert_eq!(change.object.0, "/etc/resolv.conf");
    assert!(
        change
            .diff
            .0
            .ends_with("-nameserver 192.0.2.1\n+nameserver 192.0.2.2\n"),
        "{}",
        change.diff
    );
    undone(&world, &checkpoint, &run).await;
    assert_eq!(everything(&path), before);
    assert_eq!(names(&folder.path().join("etc")), ["resolv.conf"]);
}

#[tokio::test]
async fn a_created_file_is_absent_again_and_a_removed_one_is_back() {
    let (folder, world) = root();
    let gone = folder.path().join("etc/gone");
    fs::write(&gone, "still wanted\n").unwrap();
    fs::set_permissions(&gone, fs::Permissions::from_mode(0o600)).unwrap();
    let before = everything(&gone);
    let grants = [write("/etc/fresh"), delete("/etc/gone")];
    let checkpoint = take(&world, &grants).await;
    let run = run(
        &world,
        &grants,
        &[(grants[0].clone(), b"a\n"), (grants[1].clone(), b"")],
    )
    .await
    .all_done();
    assert_eq!(names(&folder.path().join("etc")), ["fresh"]);
    assert_eq!(
        fs::metadata(folder.path().join("etc/fresh"))
            .unwrap()
            .mode()
            & 0o7777,
        0o644
    );
    undone(&world, &checkpoint, &run).await;
    assert_eq!(names(&folder.path().join("etc")), ["gone"]);
    assert_eq!(everything(&gone), before);
}

#[tokio::test]
async fn several_writes_to_one_file_are_one_step_back() {
    let (folder, world) = root();
    let path = folder.path().join("etc/x");
    fs::write(&path, "first\n").unwrap();
    let before = everything(&path);
    let grants = [write("/etc/x"), delete("/etc/x")];
    let checkpoint = take(&world, &grants).await;
    let requests = [
        (grants[0].clone(), &b"second\n"[..]),
        (grants[1].clone(), b""),
        (grants[0].clone(), b"third\n"),
    ];
    let run = run(&world, &grants, &requests).await.all_done();
    assert_eq!(run.inverses.len(), 3);
    for kept in 0..=3 {
        let restored = restore(&world, &checkpoint, &run.inverses[..kept.max(1)]).await;
        assert_same(&checkpoint, &restored.after.unwrap());
    }
    assert_eq!(everything(&path), before);
}

#[tokio::test]
async fn a_file_that_somebody_else_changed_meanwhile_is_put_back_only_if_it_is_ours() {
    let (folder, world) = root();
    for name in ["ours", "theirs"] {
        fs::write(folder.path().join("etc").join(name), "before\n").unwrap();
    }
    let grants = [write("/etc/ours"), write("/etc/theirs")];
    let checkpoint = take(&world, &grants).await;
    let run = run(&world, &grants, &[(grants[0].clone(), b"after\n")])
        .await
        .all_done();
    fs::write(folder.path().join("etc/ours"), "stranger\n").unwrap();
    fs::write(folder.path().join("etc/theirs"), "stranger\n").unwrap();
    let restored = restore(&world, &checkpoint, &run.inverses).await;
    assert!(restored.not_restored.is_empty());
    assert_eq!(restored.drift.len(), 2, "{:?}", restored.drift);
    assert_eq!(
        fs::read(folder.path().join("etc/ours")).unwrap(),
        b"before\n"
    );
    assert_eq!(
        fs::read(folder.path().join("etc/theirs")).unwrap(),
        b"stranger\n"
    );
}

#[tokio::test]
async fn what_a_power_cut_left_beside_a_file_is_cleaned_up() {
    let (folder, world) = root();
    fs::write(folder.path().join("etc/x"), "before\n").unwrap();
    let grants = [write("/etc/x")];
    let checkpoint = take(&world, &grants).await;
    let run = run(&world, &grants, &[(grants[0].clone(), b"after\n")])
        .await
        .all_done();
    fs::write(folder.path().join("etc/.x.aizen-change"), "half").unwrap();
    undone(&world, &checkpoint, &run).await;
    assert_eq!(names(&folder.path().join("etc")), ["x"]);
}

#[tokio::test]
async fn a_journal_that_fails_leaves_the_file_untouched() {
    let (folder, world) = root();
    fs::write(folder.path().join("etc/x"), "before\n").unwrap();
    let before = everything(&folder.path().join("etc/x"));
    let grants = [write("/etc/x")];
    let run = run_with(&world, &grants, &[(grants[0].clone(), b"after\n")], |_| {
        Err(std::io::ErrorKind::StorageFull.into())
    })
    .await;
    assert!(matches!(run.answers[0], Answer::Failed(_)));
    assert_eq!(everything(&folder.path().join("etc/x")), before);
    assert_eq!(names(&folder.path().join("etc")), ["x"]);
}

async fn refused(world: &World, path: &str, says: &str) {
    let grants = [write(path)];
    let run = run(world, &grants, &[(grants[0].clone(), b"owned\n")]).await;
    let why = match run.answers.as_slice() {
        [Answer::Failed(why) | Answer::Refused(why)] => why.clone(),
        [] => run.served.denied[0].0.clone(),
        other => panic!("{path}: {other:?}"),
    };
    assert!(why.contains(says), "{path}: {why}");
    assert!(run.inverses.is_empty(), "{path}");
}

#[tokio::test]
async fn links_that_lead_away_are_refused_and_their_targets_stay() {
    let (folder, world) = root();
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    fs::write(&victim, "safe").unwrap();
    let etc = folder.path().join("etc");
    fs::write(etc.join("shadow"), "safe").unwrap();
    symlink(&victim, etc.join("absolute")).unwrap();
    symlink("shadow", etc.join("relative")).unwrap();
    symlink("../../../../../../etc/passwd", etc.join("climbs")).unwrap();
    symlink("nothing", etc.join("dangling")).unwrap();
    symlink("circle", etc.join("circle")).unwrap();
    symlink(outside.path(), etc.join("folder")).unwrap();
    symlink("/etc", folder.path().join("same")).unwrap();
    refused(&world, "/etc/absolute", "a symbolic link to nothing").await;
    refused(
        &world,
        "/etc/relative",
        "/etc/relative leads to /etc/shadow, which the manifest does not grant",
    )
    .await;
    refused(&world, "/etc/climbs", "a symbolic link to nothing").await;
    refused(&world, "/etc/dangling", "a symbolic link to nothing").await;
    refused(&world, "/etc/circle", "a symbolic link in a circle").await;
    refused(&world, "/etc/folder/victim", "its folder does not exist").await;
    refused(&world, "/same/shadow", "/same/shadow leads to /etc/shadow").await;
    assert_eq!(fs::read(&victim).unwrap(), b"safe");
    assert_eq!(fs::read(etc.join("shadow")).unwrap(), b"safe");
}

#[tokio::test]
async fn a_link_whose_end_is_granted_too_is_followed_and_stays_a_link() {
    let (folder, world) = root();
    fs::create_dir(folder.path().join("run")).unwrap();
    fs::write(folder.path().join("run/resolv.conf"), "a\n").unwrap();
    symlink("../run/resolv.conf", folder.path().join("etc/resolv.conf")).unwrap();
    let grants = [write("/etc/resolv.conf"), write("/run/resolv.conf")];
    let checkpoint = take(&world, &grants).await;
    let run = run(&world, &grants, &[(grants[0].clone(), b"b\n")])
        .await
        .all_done();
    assert_eq!(
        fs::read(folder.path().join("run/resolv.conf")).unwrap(),
        b"b\n"
    );
    undone(&world, &checkpoint, &run).await;
    assert_eq!(
        fs::read(folder.path().join("run/resolv.conf")).unwrap(),
        b"a\n"
    );
    assert!(
        fs::symlink_metadata(folder.path().join("etc/resolv.conf"))
            .unwrap()
            .is_symlink()
    );
}

#[tokio::test]
async fn what_is_no_plain_file_is_refused() {
    let (folder, world) = root();
    let etc = folder.path().join("etc");
    nix::unistd::mkfifo(&etc.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::create_dir(etc.join("folder")).unwrap();
    fs::write(etc.join("one"), "safe").unwrap();
    fs::hard_link(etc.join("one"), etc.join("other")).unwrap();
    fs::write(etc.join("large"), vec![b'x'; (256 << 10) + 1]).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(etc.join("socket")).unwrap();
    refused(&world, "/etc/pipe", "is a pipe, not a regular file").await;
    refused(&world, "/etc/socket", "is a socket, not a regular file").await;
    refused(&world, "/etc/folder", "is a folder, not a regular file").await;
    refused(&world, "/etc/one", "has 2 names (hard links)").await;
    refused(
        &world,
        "/etc/large",
        "more than the 262144 that can be put back",
    )
    .await;
    for path in [
        "/etc/../etc/x",
        "/etc/./x",
        "etc/x",
        "//etc/x",
        "/etc/x/",
        "/",
        "/etc/\nx",
    ] {
        refused(&world, path, "is not a plain absolute path").await;
    }
    assert_eq!(fs::read(etc.join("other")).unwrap(), b"safe");
    drop(socket);
    let host = World::at("/");
    refused(
        &host,
        "/proc/sys/kernel/core_pattern",
        "is not on a file system that holds files",
    )
    .await;
    refused(
        &host,
        "/sys/kernel/mm/ksm/run",
        "is not on a file system that holds files",
    )
    .await;
    refused(&host, "/dev/null", "is a device").await;
}

#[tokio::test]
async fn a_mount_point_is_refused() {
    let (folder, world) = root();
    let etc = folder.path().join("etc");
    fs::write(etc.join("resolv.conf"), "mounted over\n").unwrap();
    fs::write(folder.path().join("other"), "safe\n").unwrap();
    let (target, source) = (etc.join("resolv.conf"), folder.path().join("other"));
    // In a thread with mounts of its own, so that the machine's stay as they are.
    let result = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        let none: Option<&str> = None;
        nix::mount::mount(
            none,
            "/",
            none,
            nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE,
            none,
        )
        .unwrap();
        nix::mount::mount(
            Some(&source),
            &target,
            none,
            nix::mount::MsFlags::MS_BIND,
            none,
        )
        .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(refused(&world, "/etc/resolv.conf", "is a mount point"));
        fs::read(&source).unwrap()
    });
    assert_eq!(result.join().unwrap(), b"safe\n");
}

#[tokio::test]
async fn a_folder_that_is_swapped_for_a_link_all_the_time_never_leads_a_write_away() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    let (folder, world) = root();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("x"), "safe").unwrap();
    fs::create_dir_all(folder.path().join("elsewhere")).unwrap();
    fs::write(folder.path().join("elsewhere/x"), "safe").unwrap();
    symlink("/elsewhere", folder.path().join("link")).unwrap();
    fs::write(folder.path().join("etc/x"), "0").unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let (seen, base) = (stop.clone(), folder.path().to_owned());
    let racer = std::thread::spawn(move || {
        let both = |a: &str, b: &str| {
            let (a, b) = (base.join(a), base.join(b));
            nix::fcntl::renameat2(
                nix::fcntl::AT_FDCWD,
                &a,
                nix::fcntl::AT_FDCWD,
                &b,
                nix::fcntl::RenameFlags::RENAME_EXCHANGE,
            )
        };
        while !seen.load(Ordering::Relaxed) {
            both("etc", "link").unwrap();
            both("etc", "link").unwrap();
        }
    });
    let grants = [write("/etc/x")];
    let mut done = 0;
    for n in 1..300 {
        let content = n.to_string();
        let run = run(&world, &grants, &[(grants[0].clone(), content.as_bytes())]).await;
        done += usize::from(matches!(run.answers[0], Answer::Done(_)));
    }
    stop.store(true, Ordering::Relaxed);
    racer.join().unwrap();
    assert!(done > 0, "the race was always lost, so it shows nothing");
    assert_eq!(
        fs::read(folder.path().join("elsewhere/x")).unwrap(),
        b"safe"
    );
    assert_eq!(fs::read(outside.path().join("x")).unwrap(), b"safe");
}
