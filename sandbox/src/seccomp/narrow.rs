//! Shorter programs with the same answers. The compiler makes one comparison for each call of a list; the kernel
//! translates them at every start, and a call that stands last is compared with all others. Here, calls next to each
//! other that are answered alike without a look at their arguments become one range.

use std::ops::Range;

use seccompiler::{BpfProgram, sock_filter};

/// Above every number of a system call that a list can name; what lies above is answered by the tail.
const NUMBERS: u32 = 1024;

/// Offsets in `struct seccomp_data` (linux/seccomp.h).
const NUMBER: u32 = 0;
const ARCH: u32 = 4;

/// Classic BPF (linux/bpf_common.h): load a word, `&`, jump, jump if equal, greater, or not less, return.
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const EQUAL: u16 = 0x15;
const GREATER: u16 = 0x25;
const NOT_LESS: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Calls in a row with one answer; none where it depends on arguments.
type Run = (Range<u32>, Option<u32>);

/// The answers of `whole`, by ranges where they depend on the number alone, and elsewhere by `tail`: the program of the
/// same rules without those that need no argument. `whole` itself if it has a form that is not known here.
pub(super) fn narrow(whole: BpfProgram, tail: BpfProgram) -> BpfProgram {
    let Some((arch, foreign)) = arch(&whole) else {
        return whole;
    };
    let Some(runs) = runs(&whole, arch) else {
        return whole;
    };
    let step = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    let mut program = vec![
        step(LOAD, 0, 0, ARCH),
        step(EQUAL, 1, 0, arch),
        step(RETURN, 0, 0, foreign),
        step(LOAD, 0, 0, NUMBER),
    ];
    // For each run: behind it, go on with the next one; in it, answer.
    let mut left = 2 * runs.len();
    for (numbers, answer) in runs {
        left -= 2;
        program.push(step(NOT_LESS, 1, 0, numbers.end));
        program.push(match answer {
            Some(answer) => step(RETURN, 0, 0, answer),
            // No list of runs is that long.
            None => step(JUMP, 0, 0, u32::try_from(left).unwrap_or(u32::MAX)),
        });
    }
    program.extend(tail);
    program
}

/// The architecture that a program is for, and its answer for every other.
fn arch(program: &[sock_filter]) -> Option<(u32, u32)> {
    match program {
        [load, equal, foreign, ..]
            if (load.code, load.k) == (LOAD, ARCH)
                && (equal.code, equal.jt, equal.jf) == (EQUAL, 1, 0)
                && foreign.code == RETURN =>
        {
            Some((equal.k, foreign.k))
        }
        _ => None,
    }
}

fn runs(program: &[sock_filter], arch: u32) -> Option<Vec<Run>> {
    let mut runs: Vec<Run> = Vec::new();
    for number in 0..NUMBERS {
        let answer = answer(program, arch, number)?;
        match runs.last_mut() {
            Some((numbers, same)) if *same == answer => numbers.end = number + 1,
            _ => runs.push((number..number + 1, answer)),
        }
    }
    Some(runs)
}

/// The answer for a number, `Some(None)` if arguments decide, none for a program that is not understood.
fn answer(program: &[sock_filter], arch: u32, number: u32) -> Option<Option<u32>> {
    let (mut at, mut word) = (0_usize, 0_u32);
    loop {
        let step = program.get(at)?;
        let jump = |taken: bool| usize::from(if taken { step.jt } else { step.jf });
        at += 1 + match step.code {
            LOAD if step.k == NUMBER => {
                word = number;
                0
            }
            LOAD if step.k == ARCH => {
                word = arch;
                0
            }
            LOAD => return Some(None),
            AND => {
                word &= step.k;
                0
            }
            JUMP => usize::try_from(step.k).ok()?,
            EQUAL => jump(word == step.k),
            GREATER => jump(word > step.k),
            NOT_LESS => jump(word >= step.k),
            RETURN => return Some(Some(step.k)),
            _ => return None,
        };
    }
}
