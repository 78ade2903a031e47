//! What each system call waits for, by number: the table that the scheduler programs look into.
//!
//! Numbers from `asm/unistd_64.h` and `asm-generic/unistd.h`; calls that can wait for anything (`read`, `write`) are
//! classed by what their descriptor is. Waits for an event that comes when it comes (a connection, a child, a signal) are of
//! the class of poll.

/// As `enum state` in `src/bpf/sberf.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Class {
    Lock = 4,
    Net = 5,
    Pipe = 6,
    Timer = 7,
    Poll = 8,
    ByDescriptor = 13,
}

#[cfg(target_arch = "x86_64")]
const CLASSES: &[(u16, Class)] = {
    use Class::*;
    &[
        (0, ByDescriptor),   // read
        (1, ByDescriptor),   // write
        (7, Poll),           // poll
        (17, ByDescriptor),  // pread64
        (18, ByDescriptor),  // pwrite64
        (19, ByDescriptor),  // readv
        (20, ByDescriptor),  // writev
        (23, Poll),          // select
        (34, Poll),          // pause
        (35, Timer),         // nanosleep
        (40, ByDescriptor),  // sendfile
        (42, Net),           // connect
        (43, Poll),          // accept
        (44, Net),           // sendto
        (45, Net),           // recvfrom
        (46, Net),           // sendmsg
        (47, Net),           // recvmsg
        (61, Poll),          // wait4
        (65, Lock),          // semop
        (72, Lock),          // fcntl: only F_SETLKW waits
        (73, Lock),          // flock
        (128, Poll),         // rt_sigtimedwait
        (130, Poll),         // rt_sigsuspend
        (202, Lock),         // futex
        (208, Poll),         // io_getevents
        (219, Timer),        // restart_syscall: mostly a sleep; what it was is known only if seen before
        (220, Lock),         // semtimedop
        (230, Timer),        // clock_nanosleep
        (232, Poll),         // epoll_wait
        (247, Poll),         // waitid
        (270, Poll),         // pselect6
        (271, Poll),         // ppoll
        (275, Pipe),         // splice
        (276, Pipe),         // tee
        (278, Pipe),         // vmsplice
        (281, Poll),         // epoll_pwait
        (288, Poll),         // accept4
        (299, Net),          // recvmmsg
        (307, Net),          // sendmmsg
        (327, ByDescriptor), // preadv2
        (328, ByDescriptor), // pwritev2
        (333, Poll),         // io_pgetevents
        (426, Poll),         // io_uring_enter
        (441, Poll),         // epoll_pwait2
        (449, Lock),         // futex_waitv
        (455, Lock),         // futex_wait
        (456, Lock),         // futex_requeue
    ]
};

#[cfg(not(target_arch = "x86_64"))]
const CLASSES: &[(u16, Class)] = {
    use Class::*;
    &[
        (4, Poll),           // io_getevents
        (22, Poll),          // epoll_pwait
        (25, Lock),          // fcntl: only F_SETLKW waits
        (32, Lock),          // flock
        (63, ByDescriptor),  // read
        (64, ByDescriptor),  // write
        (65, ByDescriptor),  // readv
        (66, ByDescriptor),  // writev
        (67, ByDescriptor),  // pread64
        (68, ByDescriptor),  // pwrite64
        (71, ByDescriptor),  // sendfile
        (72, Poll),          // pselect6
        (73, Poll),          // ppoll
        (75, Pipe),          // vmsplice
        (76, Pipe),          // splice
        (77, Pipe),          // tee
        (95, Poll),          // waitid
        (98, Lock),          // futex
        (101, Timer),        // nanosleep
        (115, Timer),        // clock_nanosleep
        (128, Timer),        // restart_syscall: mostly a sleep; what it was is known only if seen before
        (133, Poll),         // rt_sigsuspend
        (137, Poll),         // rt_sigtimedwait
        (192, Lock),         // semtimedop
        (193, Lock),         // semop
        (202, Poll),         // accept
        (203, Net),          // connect
        (206, Net),          // sendto
        (207, Net),          // recvfrom
        (211, Net),          // sendmsg
        (212, Net),          // recvmsg
        (242, Poll),         // accept4
        (243, Net),          // recvmmsg
        (260, Poll),         // wait4
        (269, Net),          // sendmmsg
        (286, ByDescriptor), // preadv2
        (287, ByDescriptor), // pwritev2
        (292, Poll),         // io_pgetevents
        (426, Poll),         // io_uring_enter
        (441, Poll),         // epoll_pwait2
        (449, Lock),         // futex_waitv
        (455, Lock),         // futex_wait
        (456, Lock),         // futex_requeue
    ]
};

/// The table for `syscall_class`: 0 where a call has no class.
pub fn table() -> [u8; 512] {
    let mut table = [0; 512];
    for &(number, class) in CLASSES {
        table[usize::from(number)] = class as u8;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_agree_with_libc() {
        let table = table();
        for (number, class) in [
            (libc::SYS_read, Class::ByDescriptor),
            (libc::SYS_futex, Class::Lock),
            (libc::SYS_clock_nanosleep, Class::Timer),
            (libc::SYS_ppoll, Class::Poll),
            (libc::SYS_epoll_pwait, Class::Poll),
            (libc::SYS_recvfrom, Class::Net),
            (libc::SYS_splice, Class::Pipe),
            (libc::SYS_flock, Class::Lock),
            (libc::SYS_io_uring_enter, Class::Poll),
            (libc::SYS_futex_waitv, Class::Lock),
            (libc::SYS_wait4, Class::Poll),
            (libc::SYS_waitid, Class::Poll),
            (libc::SYS_rt_sigsuspend, Class::Poll),
            (libc::SYS_rt_sigtimedwait, Class::Poll),
            (libc::SYS_accept, Class::Poll),
            (libc::SYS_accept4, Class::Poll),
            (libc::SYS_connect, Class::Net),
        ] {
            assert_eq!(table[number as usize], class as u8, "{number}");
        }
        #[cfg(target_arch = "x86_64")]
        assert_eq!(table[libc::SYS_pause as usize], Class::Poll as u8);
    }
}
