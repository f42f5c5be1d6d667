//! Runs the compiled programs in a small machine, so that every number, architecture and argument can be tried.

use super::*;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;
const NOT_PERMITTED: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
const UNKNOWN: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
const X86_64: u32 = 0xC000_003E;
const I386: u32 = 0x4000_0003;

/// `struct seccomp_data` of linux/seccomp.h, as the filter sees it.
struct Call {
    number: u32,
    arch: u32,
    arguments: [u64; 6],
}

impl Call {
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.arch,
            16..64 => {
                let argument = self.arguments[(offset as usize - 16) / 8];
                (if offset.is_multiple_of(8) {
                    argument
                } else {
                    argument >> 32
                }) as u32
            }
            other => panic!("a filter has no business at offset {other}"),
        }
    }
}

/// The classic BPF that seccompiler emits.
fn answer(program: &[sock_filter], call: &Call) -> u32 {
    let (mut at, mut accumulator) = (0, 0u32);
    loop {
        let step = &program[at];
        at += 1;
        let jump = |taken: bool| usize::from(if taken { step.jt } else { step.jf });
        match step.code {
            0x20 => accumulator = call.word(step.k),
            0x54 => accumulator &= step.k,
            0x05 => at += step.k as usize,
            0x15 => at += jump(accumulator == step.k),
            0x25 => at += jump(accumulator > step.k),
            0x35 => at += jump(accumulator >= step.k),
            0x06 => return step.k,
            code => panic!("an instruction that was not expected: {code:#x}"),
        }
    }
}

/// What the kernel does with both answers: the strictest action counts, of two errors the later installed filter's.
fn verdict(call: &Call) -> u32 {
    let programs = compile(TargetArch::x86_64, "x86_64").unwrap();
    let rank = |answer: u32| match answer & 0xFFFF_0000 {
        KILL => 0,
        libc::SECCOMP_RET_ERRNO => 1,
        ALLOW => 2,
        other => panic!("{other:#x}"),
    };
    let answers = programs.iter().rev().map(|program| answer(program, call));
    answers.min_by_key(|answer| rank(*answer)).unwrap()
}

fn x86(number: i64, arguments: &[u64]) -> u32 {
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    verdict(&Call {
        number: number as u32,
        arch: X86_64,
        arguments: all,
    })
}

#[test]
fn the_policy_compiles_for_every_architecture_that_the_compiler_knows() {
    for (arch, name) in [
        (TargetArch::x86_64, "x86_64"),
        (TargetArch::aarch64, "aarch64"),
        (TargetArch::riscv64, "riscv64"),
    ] {
        let programs = compile(arch, name).unwrap_or_else(|error| panic!("{name}: {error}"));
        for program in programs {
            assert!(program.len() < 4096, "{name}: {}", program.len());
        }
    }
}

#[test]
fn instructions_survive_the_way_to_the_child() {
    for program in compile(TargetArch::x86_64, "x86_64").unwrap() {
        assert_eq!(unpack(&pack(&program)), program);
    }
}

#[test]
fn ordinary_calls_pass() {
    for number in [
        libc::SYS_read,
        libc::SYS_openat,
        libc::SYS_execve,
        libc::SYS_futex,
        libc::SYS_sendmsg,
    ] {
        assert_eq!(x86(number, &[]), ALLOW, "{number}");
    }
}

#[test]
fn unknown_numbers_and_clone3_and_x32_do_not_exist() {
    assert_eq!(x86(libc::SYS_clone3, &[]), UNKNOWN);
    for number in [470, 500, 1000, i64::from(u32::MAX)] {
        assert_eq!(x86(number, &[]), UNKNOWN, "{number}");
    }
    const X32: i64 = 0x4000_0000;
    for number in [libc::SYS_read, libc::SYS_ptrace, libc::SYS_socket] {
        assert_eq!(x86(X32 | number, &[]), UNKNOWN, "{number}");
    }
}

#[test]
fn a_foreign_architecture_is_killed() {
    let call = Call {
        number: 3,
        arch: I386,
        arguments: [0; 6],
    };
    assert_eq!(verdict(&call), KILL);
}

#[test]
fn dangerous_calls_are_refused_whatever_their_arguments() {
    let denied: DeniedFile = toml::from_str(include_str!("../../seccomp/denied.toml")).unwrap();
    let outright: Vec<_> = denied
        .denied
        .iter()
        .filter(|entry| entry.argument.is_none())
        .flat_map(|entry| &entry.syscalls)
        .collect();
    assert!(outright.len() > 50);
    for number in [
        libc::SYS_mount,
        libc::SYS_unshare,
        libc::SYS_ptrace,
        libc::SYS_bpf,
        libc::SYS_io_uring_setup,
        libc::SYS_keyctl,
        libc::SYS_reboot,
        libc::SYS_open_by_handle_at,
        libc::SYS_memfd_create,
        libc::SYS_perf_event_open,
    ] {
        assert_eq!(x86(number, &[0; 6]), NOT_PERMITTED, "{number}");
        assert_eq!(x86(number, &[u64::MAX; 6]), NOT_PERMITTED, "{number}");
    }
}

#[test]
fn only_unix_sockets_can_be_made() {
    assert_eq!(x86(libc::SYS_socket, &[libc::AF_UNIX as u64]), ALLOW);
    for family in 0..64 {
        if family != libc::AF_UNIX as u64 {
            assert_eq!(x86(libc::SYS_socket, &[family]), NOT_PERMITTED, "{family}");
            assert_eq!(
                x86(libc::SYS_socketpair, &[family]),
                NOT_PERMITTED,
                "{family}"
            );
        }
    }
    // The kernel looks at the low half alone, so the high half must not let an internet socket look like a unix one.
    let disguised = (libc::AF_UNIX as u64) << 32 | libc::AF_INET as u64;
    assert_eq!(x86(libc::SYS_socket, &[disguised]), NOT_PERMITTED);
}

#[test]
fn clone_makes_processes_and_threads_but_no_namespace() {
    let fork = libc::SIGCHLD as u64;
    assert_eq!(x86(libc::SYS_clone, &[fork]), ALLOW);
    let thread = libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_THREAD;
    assert_eq!(x86(libc::SYS_clone, &[thread as u64]), ALLOW);
    for namespace in [
        libc::CLONE_NEWNS,
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
    ] {
        let flags = fork | u64::from(namespace as u32);
        assert_eq!(
            x86(libc::SYS_clone, &[flags]),
            NOT_PERMITTED,
            "{namespace:#x}"
        );
        let all = flags | 0xFFFF_FFFF_0000_0000;
        assert_eq!(
            x86(libc::SYS_clone, &[all]),
            NOT_PERMITTED,
            "{namespace:#x}"
        );
    }
}

#[test]
fn keystrokes_can_not_be_typed_into_a_terminal_with_or_without_high_bits() {
    for request in [
        libc::TIOCSTI,
        libc::TIOCLINUX,
        libc::TIOCSETD,
        libc::TIOCCONS,
    ] {
        for high in [0, 1 << 32, 0xFFFF_FFFF_0000_0000u64] {
            assert_eq!(x86(libc::SYS_ioctl, &[0, request | high]), NOT_PERMITTED);
        }
    }
    assert_eq!(x86(libc::SYS_ioctl, &[0, libc::TCGETS]), ALLOW);
}

#[test]
fn a_further_filter_may_narrow_but_not_listen() {
    const NEW_LISTENER: u64 = 1 << 3;
    assert_eq!(x86(libc::SYS_seccomp, &[1, 0]), ALLOW);
    assert_eq!(x86(libc::SYS_seccomp, &[1, NEW_LISTENER]), NOT_PERMITTED);
}

#[test]
fn every_rule_of_the_policy_says_why() {
    let denied: toml::Value = toml::from_str(include_str!("../../seccomp/denied.toml")).unwrap();
    for entry in denied["denied"].as_array().unwrap() {
        assert!(entry["reason"].as_str().unwrap().len() > 20, "{entry}");
    }
}
