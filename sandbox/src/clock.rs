//! The kernel's own word on its clock (adjtimex(2)).

use std::io;

use crate::sys;

/// True if a daemon disciplines the clock: it said so, and not too long ago.
///
/// # Errors
/// Where a filter of system calls stands in the way, or the kernel knows no such call.
pub fn is_synchronised() -> io::Result<bool> {
    sys::clock_status().map(|(state, status)| judge(state, status))
}

/// The kernel sets `STA_UNSYNC` at boot and whenever its estimate of the error has grown beyond 16 s.
fn judge(state: i32, status: i32) -> bool {
    state != libc::TIME_ERROR && status & libc::STA_UNSYNC == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_synchronised_unless_the_kernel_says_otherwise() {
        assert!(judge(libc::TIME_OK, libc::STA_PLL));
        assert!(judge(libc::TIME_INS, libc::STA_PLL | libc::STA_INS));
        assert!(!judge(libc::TIME_ERROR, libc::STA_UNSYNC));
        assert!(!judge(libc::TIME_OK, libc::STA_UNSYNC));
        assert!(!judge(libc::TIME_ERROR, libc::STA_CLOCKERR));
    }

    #[test]
    fn this_kernel_tells_without_any_privilege() {
        let (state, status) = sys::clock_status().unwrap();
        assert!(
            (libc::TIME_OK..=libc::TIME_ERROR).contains(&state),
            "{state}"
        );
        // Without a daemon both words say so.
        assert!(
            status & libc::STA_UNSYNC == 0 || state == libc::TIME_ERROR,
            "{status}"
        );
    }
}
