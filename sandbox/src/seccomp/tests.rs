//! Runs the compiled programs in a small machine, so that every number, architecture and argument can be tried.

use super::*;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;
const NOT_PERMITTED: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
const UNKNOWN: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
const X86_64: u32 = 0xC000_003E;
const I386: u32 = 0x4000_0003;

const EVERY: Powers = Powers {
    net_admin: true,
    net_raw: true,
    generic_netlink: true,
};

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
fn verdict(call: &Call, powers: Powers) -> u32 {
    let programs = compile(TargetArch::x86_64, "x86_64", powers).unwrap();
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
    x86_with(Powers::default(), number, arguments)
}

fn x86_with(powers: Powers, number: i64, arguments: &[u64]) -> u32 {
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    let call = Call {
        number: number as u32,
        arch: X86_64,
        arguments: all,
    };
    verdict(&call, powers)
}

#[test]
fn the_policy_compiles_for_every_architecture_that_the_compiler_knows() {
    for (arch, name) in [
        (TargetArch::x86_64, "x86_64"),
        (TargetArch::aarch64, "aarch64"),
        (TargetArch::riscv64, "riscv64"),
    ] {
        let programs = compile(arch, name, EVERY).unwrap_or_else(|error| panic!("{name}: {error}"));
        for program in programs {
            assert!(program.len() < 1024, "{name}: {}", program.len());
        }
    }
}

#[test]
fn the_short_programs_answer_as_the_compiled_ones_do() {
    let [eperm, enosys] = [libc::EPERM, libc::ENOSYS].map(|errno| json!({ "errno": errno }));
    let arch = TargetArch::x86_64;
    for powers in [Powers::default(), EVERY] {
        let short = compile(arch, "x86_64", powers).unwrap();
        let [refuses, passes] = policy("x86_64", powers).unwrap();
        let whole = [
            (json!("allow"), eperm.clone(), refuses),
            (enosys.clone(), json!("allow"), passes),
        ];
        let whole = whole.map(|(otherwise, listed, rules)| {
            let rules: Vec<&Value> = rules.iter().collect();
            compiled(arch, &otherwise, &listed, &rules).unwrap()
        });
        let x32 = (0..1100).map(|number| 0x4000_0000 | number);
        let numbers = (0..1100).chain(x32).chain([u32::MAX, i32::MAX as u32]);
        for (number, arguments) in numbers.flat_map(|number| SAMPLES.map(|words| (number, words))) {
            let call = Call {
                number,
                arch: X86_64,
                arguments,
            };
            for (short, whole) in short.iter().zip(&whole) {
                let (short, whole) = (answer(short, &call), answer(whole, &call));
                assert_eq!(short, whole, "{number:#x} {arguments:?}");
            }
        }
    }
}

/// Arguments around those that the policy looks at.
const SAMPLES: [[u64; 6]; 10] = [
    [0; 6],
    [u64::MAX; 6],
    [1, 1, 1, 0, 0, 0],
    [2, 3, 17, 0, 0, 0],
    [16, 3, 12, 0, 0, 0],
    [16, 3, 16, 0, 0, 0],
    [10, 0x8_0002, 0, 0, 0, 0],
    [5, 41, 64, 0, 0, 0],
    [5, 0x5412, 0, 0, 0, 0],
    [0x1002_0011, 0x8946, 0, 0, 0, 0],
];

#[test]
fn instructions_survive_the_way_to_the_child() {
    for program in compile(TargetArch::x86_64, "x86_64", EVERY).unwrap() {
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
    assert_eq!(verdict(&call, EVERY), KILL);
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

#[test]
fn a_power_opens_its_sockets_and_no_other() {
    let admin = Powers {
        net_admin: true,
        ..Powers::default()
    };
    let raw = Powers {
        net_raw: true,
        ..Powers::default()
    };
    let socket = |powers, arguments: &[u64]| x86_with(powers, libc::SYS_socket, arguments);
    let (unix, netlink, inet, inet6, packet) = (1, 16, 2, 10, 17);
    let cloexec = 0o2_000_000;
    for protocol in [0, 12] {
        assert_eq!(socket(admin, &[netlink, 3 | cloexec, protocol]), ALLOW);
        assert_eq!(socket(raw, &[netlink, 3, protocol]), NOT_PERMITTED);
        assert_eq!(
            socket(Powers::default(), &[netlink, 3, protocol]),
            NOT_PERMITTED
        );
    }
    for protocol in (1..32).filter(|protocol| *protocol != 12) {
        assert_eq!(socket(admin, &[netlink, 3, protocol]), NOT_PERMITTED);
    }
    assert_eq!(socket(EVERY, &[netlink, 3, 16]), ALLOW);
    for family in [inet, inet6] {
        assert_eq!(socket(admin, &[family, 2, 0]), NOT_PERMITTED);
        assert_eq!(socket(raw, &[family, 3 | cloexec, 1]), ALLOW);
        for kind in [1, 2, 4, 5, 6, 10] {
            assert_eq!(socket(raw, &[family, kind | cloexec, 0]), NOT_PERMITTED);
        }
    }
    assert_eq!(socket(raw, &[packet, 3, 0x0003]), ALLOW);
    assert_eq!(socket(admin, &[packet, 3, 0x0003]), NOT_PERMITTED);
    for powers in [admin, raw, EVERY] {
        assert_eq!(socket(powers, &[unix, 1, 0]), ALLOW);
        // vsock, alg, bluetooth, xdp, and the high half of the register, which the kernel does not look at.
        for family in [40, 38, 31, 44, 1 << 32 | 40] {
            assert_eq!(socket(powers, &[family, 1, 0]), NOT_PERMITTED, "{family}");
        }
    }
}

#[test]
fn what_no_comparison_would_see_stays_shut_for_every_power() {
    for (level, option) in [(0, 64), (41, 64), (0, 96), (0, 128), (0, 200), (0, 1154)] {
        let call = x86_with(EVERY, libc::SYS_setsockopt, &[5, level, option]);
        assert_eq!(call, NOT_PERMITTED, "{level} {option}");
    }
    // SOL_SOCKET has other options of these numbers.
    assert_eq!(x86_with(EVERY, libc::SYS_setsockopt, &[5, 1, 64]), ALLOW);
    for request in [0x8946, 0x89F0, 0x89FF, 1 << 32 | 0x8946] {
        let call = x86_with(EVERY, libc::SYS_ioctl, &[5, request]);
        assert_eq!(call, NOT_PERMITTED, "{request:#x}");
    }
    // SIOCGIFINDEX.
    assert_eq!(x86_with(EVERY, libc::SYS_ioctl, &[5, 0x8933]), ALLOW);
}

#[test]
fn the_policy_names_no_power_that_there_is_not() {
    let file: DeniedFile = toml::from_str(include_str!("../../seccomp/denied.toml")).unwrap();
    for power in file.denied.iter().flat_map(|entry| entry.opened_by.keys()) {
        assert!(
            opened(&BTreeMap::from([(power.clone(), vec![7])]), EVERY).eq([&7]),
            "{power}"
        );
    }
}
