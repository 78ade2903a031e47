//! `/proc/PID/task/TID/stat` and `schedstat`, which anybody may read, as numbers.

/// One thread, from `stat` (`proc_pid_stat(5)`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stat {
    /// Its name; may hold anything.
    pub comm: String,
    /// `R`, `S`, `D`, …
    pub state: u8,
    /// Parent's PID.
    pub ppid: u32,
    /// A thread of the kernel.
    pub kernel: bool,
    /// Page faults without and with I/O.
    pub minor_faults: u64,
    pub major_faults: u64,
    /// CPU time, clock ticks.
    pub user_ticks: u64,
    pub kernel_ticks: u64,
    /// Threads of its process.
    pub threads: u64,
    /// Start, clock ticks since boot.
    pub start_ticks: u64,
    /// Memory of its process.
    pub virtual_bytes: u64,
    pub rss_pages: u64,
    /// CPU on which it runs or ran last.
    pub cpu: u32,
}

/// `PF_KTHREAD` of the kernel's `sched.h`.
const PF_KTHREAD: u64 = 0x0020_0000;
/// `TASK_COMM_LEN` less its end; of a thread of the kernel `stat` shows more.
const COMM_BYTES: usize = 15;

/// `None` if it is not such a line.
pub fn parse_stat(bytes: &[u8]) -> Option<Stat> {
    let open = bytes.iter().position(|&byte| byte == b'(')?;
    let close = bytes.iter().rposition(|&byte| byte == b')')?;
    let comm = bytes.get(open + 1..close)?;
    let rest = std::str::from_utf8(bytes.get(close + 1..)?).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().take(40).collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(Stat {
        comm: String::from_utf8_lossy(comm.get(..COMM_BYTES).unwrap_or(comm)).into_owned(),
        state: *fields.first()?.as_bytes().first()?,
        ppid: u32::try_from(number(1)?).ok()?,
        kernel: number(6)? & PF_KTHREAD != 0,
        minor_faults: number(7)?,
        major_faults: number(9)?,
        user_ticks: number(11)?,
        kernel_ticks: number(12)?,
        threads: number(17)?,
        start_ticks: number(19)?,
        virtual_bytes: number(20)?,
        rss_pages: number(21)?,
        cpu: u32::try_from(number(36)?).ok()?,
    })
}

/// What the scheduler counts of a thread, from `schedstat`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedStat {
    /// Time on a CPU, brought up to date at the kernel's tick.
    pub cpu_ns: u64,
    /// Time it waited for a CPU, charged when the wait ends.
    pub delay_ns: u64,
    /// Times it got a CPU.
    pub runs: u64,
}

/// `None` if it is not such a line.
pub fn parse_schedstat(bytes: &[u8]) -> Option<SchedStat> {
    let mut fields = std::str::from_utf8(bytes).ok()?.split_ascii_whitespace().map(|field| field.parse().ok());
    Some(SchedStat { cpu_ns: fields.next()??, delay_ns: fields.next()??, runs: fields.next()?? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "4711 (a) b) S 1 4711 4711 0 -1 4194560 100 200 3 4 55 66 7 8 20 0 14 0 12345 1048576 256 \
        18446744073709551615 1 1 0 0 0 0 0 4096 0 0 0 0 17 5 0 0 0 0 0 0 0 0 0 0 0 0 0\n";

    #[test]
    fn a_line_of_stat() {
        let stat = parse_stat(LINE.as_bytes()).unwrap();
        let expected = Stat {
            comm: "a) b".into(),
            state: b'S',
            ppid: 1,
            kernel: false,
            minor_faults: 100,
            major_faults: 3,
            user_ticks: 55,
            kernel_ticks: 66,
            threads: 14,
            start_ticks: 12345,
            virtual_bytes: 1 << 20,
            rss_pages: 256,
            cpu: 5,
        };
        assert_eq!(stat, expected);
        let kernel = "2 (kworker/0:1-events_power_efficient) I 2 0 0 0 -1 69238880 0 0 0 0 0 0 0 0 20 0 1 0 9 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 1 0";
        let stat = parse_stat(kernel.as_bytes()).unwrap();
        assert!(stat.kernel && stat.comm == "kworker/0:1-eve", "{stat:?}");
    }

    #[test]
    fn hostile_and_torn_lines() {
        for cut in 0..LINE.len() - 60 {
            assert!(parse_stat(&LINE.as_bytes()[..cut]).is_none() || cut > 140, "{cut}");
        }
        assert!(parse_stat(b"1 )( S 1").is_none());
        assert!(parse_stat(b"1 (\xff\x1b[2J) S x").is_none());
        assert_eq!(parse_schedstat(b"1 2 3\n"), Some(SchedStat { cpu_ns: 1, delay_ns: 2, runs: 3 }));
        assert_eq!((parse_schedstat(b"1 2"), parse_schedstat(b"-1 2 3"), parse_schedstat(b"")), (None, None, None));
    }

    #[test]
    fn of_this_thread() {
        let tid = rustix::thread::gettid().as_raw_nonzero().get();
        let stat = parse_stat(&std::fs::read(format!("/proc/self/task/{tid}/stat")).unwrap()).unwrap();
        assert!(stat.state == b'R' && stat.threads >= 1 && stat.rss_pages > 0 && !stat.kernel);
    }
}
