//! The programs that run on the invented machine: a table to read and to add to.
//!
//! A stack is written root first, `module!function` by `module!function`: `k!` is the kernel, `j!` code made at run
//! time, `i!` inlined into the one before; no function means that its name is not known; `\x02` stands for a `;`.

use crate::tick::{StackEnd, State};

/// How long a thread waits in a state: state, share of its off-CPU time, typical length in µs, stack.
pub type Wait = (State, f64, f64, &'static str);

/// Some threads of a program that behave alike.
pub struct Role {
    /// Name of the threads; empty: that of the program.
    pub comm: &'static str,
    /// How many.
    pub threads: u32,
    /// Share of one CPU that each wants.
    pub busy: f64,
    /// Share of that inside the kernel.
    pub kernel: f64,
    /// What it waits for in between.
    pub waits: &'static [Wait],
}

/// One program.
pub struct Program {
    /// Name.
    pub comm: &'static str,
    /// Arguments; none for a thread of the kernel.
    pub cmdline: &'static [&'static str],
    /// Whose.
    pub uid: u32,
    /// Resident memory, MiB.
    pub rss_mib: u64,
    /// Its threads; the first is the leader.
    pub roles: &'static [Role],
    /// Where it runs: weight and stack.
    pub on_cpu: &'static [(u64, &'static str)],
    /// How well its stacks can be walked.
    pub end: StackEnd,
    /// How many of the short-lived compilers it starts per tick.
    pub spawns: f64,
}

const NOTHING: Program = Program {
    comm: "",
    cmdline: &[],
    uid: 0,
    rss_mib: 0,
    roles: &[],
    on_cpu: &[],
    end: StackEnd::Complete,
    spawns: 0.0,
};

const EPOLL: &str = "k!entry_SYSCALL_64;k!do_epoll_wait;k!schedule";
const NANOSLEEP: &str = "libc.so.6!clock_nanosleep;k!entry_SYSCALL_64;k!hrtimer_nanosleep;k!schedule";
const FUTEX: &str = "libc.so.6!pthread_cond_wait;k!entry_SYSCALL_64;k!do_futex;k!futex_wait_queue;k!schedule";
const KTHREAD: &str = "k!ret_from_fork;k!kthread;k!worker_thread;k!schedule";

/// What the compilers are that others start.
pub const COMPILER: Program = Program {
    comm: "cc1",
    cmdline: &["/usr/libexec/gcc/x86_64-linux-gnu/14/cc1", "-quiet", "-O2", "parse.c", "-o", "/tmp/ccX81q.s"],
    uid: 1001,
    rss_mib: 90,
    roles: &[Role {
        comm: "",
        threads: 1,
        busy: 0.9,
        kernel: 0.12,
        waits: &[
            (State::Disk, 0.8, 900.0, "cc1!main;cc1!c_common_read_pch;k!vfs_read;k!folio_wait_bit;k!io_schedule"),
            (State::Fault, 0.2, 300.0, "cc1!main;cc1!toplev::main;k!exc_page_fault;k!filemap_fault;k!io_schedule"),
        ],
    }],
    on_cpu: &[
        (30, "cc1!_start;cc1!main;cc1!toplev::main;cc1!compile_file;cc1!c_parse_file;cc1!c_parser_statement"),
        (22, "cc1!_start;cc1!main;cc1!toplev::main;cc1!compile_file;cc1!execute_pass_list;cc1!cse_main"),
        (14, "cc1!_start;cc1!main;cc1!toplev::main;cc1!compile_file;cc1!execute_pass_list;cc1!ira;i!assign_hard_reg"),
        (9, "cc1!_start;cc1!main;cc1!toplev::main;cc1!ggc_collect;cc1!gt_ggc_mx_tree_node"),
        (6, "cc1!_start;cc1!main;cc1!;k!exc_page_fault;k!handle_mm_fault;k!clear_page_erms"),
    ],
    ..NOTHING
};

/// Everything else, in the order in which it is started.
pub const PROGRAMS: &[Program] = &[
    Program {
        comm: "systemd",
        cmdline: &["/sbin/init"],
        rss_mib: 13,
        roles: &[Role {
            comm: "",
            threads: 1,
            busy: 0.001,
            kernel: 0.5,
            waits: &[(State::Poll, 1.0, 800_000.0, "systemd!main;systemd!sd_event_wait;k!do_epoll_wait;k!schedule")],
        }],
        on_cpu: &[(1, "systemd!_start;systemd!main;systemd!manager_loop;systemd!sd_event_dispatch")],
        ..NOTHING
    },
    Program {
        comm: "postgres",
        cmdline: &["postgres: writer", "shop", "10.0.0.7(51884)", "UPDATE"],
        uid: 26,
        rss_mib: 412,
        roles: &[
            Role {
                comm: "",
                threads: 1,
                busy: 0.55,
                kernel: 0.25,
                waits: &[
                    (
                        State::Disk,
                        0.55,
                        1_400.0,
                        "postgres!_start;postgres!main;postgres!BackendRun;postgres!CommitTransaction;postgres!XLogFlush;\
                         libc.so.6!fdatasync;k!entry_SYSCALL_64;k!do_fsync;k!jbd2_log_wait_commit;k!io_schedule",
                    ),
                    (
                        State::Lock,
                        0.25,
                        600.0,
                        "postgres!_start;postgres!main;postgres!BackendRun;postgres!LWLockAcquire;libc.so.6!do_futex_wait;\
                         k!entry_SYSCALL_64;k!futex_wait_queue;k!schedule",
                    ),
                    (
                        State::Net,
                        0.2,
                        3_000.0,
                        "postgres!_start;postgres!main;postgres!BackendRun;postgres!secure_read;libc.so.6!recv;\
                         k!entry_SYSCALL_64;k!tcp_recvmsg;k!sk_wait_data;k!schedule",
                    ),
                ],
            },
            Role {
                comm: "pg-parallel",
                threads: 3,
                busy: 0.25,
                kernel: 0.15,
                waits: &[(State::Disk, 0.4, 900.0, "k!io_schedule"), (State::Poll, 0.6, 9_000.0, EPOLL)],
            },
        ],
        on_cpu: &[
            (
                34,
                "postgres!_start;postgres!main;postgres!PostmasterMain;postgres!BackendRun;postgres!exec_simple_query;\
                 postgres!ExecutorRun;postgres!ExecScan;i!ExecScanFetch;postgres!heap_getnextslot;postgres!heapgettup",
            ),
            (
                21,
                "postgres!_start;postgres!main;postgres!PostmasterMain;postgres!BackendRun;postgres!exec_simple_query;\
                 postgres!ExecutorRun;postgres!ExecSort;postgres!tuplesort_performsort;postgres!tuplesort_gettuple",
            ),
            (
                11,
                "postgres!_start;postgres!main;postgres!PostmasterMain;postgres!BackendRun;postgres!exec_simple_query;\
                 postgres!pg_parse_query;postgres!base_yyparse",
            ),
            (
                9,
                "postgres!_start;postgres!main;postgres!PostmasterMain;postgres!BackendRun;postgres!FlushBuffer;\
                 libc.so.6!pwrite64;k!entry_SYSCALL_64;k!vfs_write;k!ext4_buffered_write_iter",
            ),
            (4, "postgres!_start;postgres!main;postgres!;libc.so.6!;k!entry_SYSCALL_64;k!schedule"),
        ],
        ..NOTHING
    },
    Program {
        comm: "nginx",
        cmdline: &["nginx: worker process"],
        uid: 33,
        rss_mib: 24,
        roles: &[Role {
            comm: "",
            threads: 2,
            busy: 0.18,
            kernel: 0.6,
            waits: &[
                (
                    State::Poll,
                    0.9,
                    2_000.0,
                    "nginx!main;nginx!ngx_worker_process_cycle;nginx!ngx_epoll_process_events;\
                                             k!do_epoll_wait;k!schedule",
                ),
                (State::Disk, 0.1, 500.0, "nginx!main;nginx!ngx_linux_sendfile;k!filemap_splice_read;k!io_schedule"),
            ],
        }],
        on_cpu: &[
            (10, "nginx!main;nginx!ngx_worker_process_cycle;nginx!ngx_http_process_request_line"),
            (
                14,
                "nginx!main;nginx!ngx_worker_process_cycle;libc.so.6!writev;k!entry_SYSCALL_64;k!tcp_sendmsg;k!tcp_write_xmit",
            ),
            (7, "nginx!main;nginx!ngx_worker_process_cycle;libssl.so.3!SSL_read;libcrypto.so.3!aes_gcm_dec_256"),
        ],
        ..NOTHING
    },
    Program {
        comm: "make",
        cmdline: &["make", "-j2", "all"],
        uid: 1001,
        rss_mib: 9,
        roles: &[Role {
            comm: "",
            threads: 1,
            busy: 0.02,
            kernel: 0.7,
            waits: &[(
                State::Other,
                1.0,
                150_000.0,
                "make!main;make!reap_children;libc.so.6!wait4;k!do_wait;k!schedule",
            )],
        }],
        on_cpu: &[(1, "make!_start;make!main;make!update_goal_chain;libc.so.6!vfork;k!kernel_clone;k!copy_process")],
        spawns: 1.2,
        ..NOTHING
    },
    Program {
        comm: "java",
        cmdline: &["/usr/lib/jvm/21/bin/java", "-Xmx2g", "-jar", "/srv/search/search.jar"],
        uid: 1002,
        rss_mib: 1900,
        roles: &[
            Role { comm: "", threads: 1, busy: 0.0, kernel: 0.5, waits: &[(State::Lock, 1.0, 60_000_000.0, FUTEX)] },
            Role {
                comm: "http-worker",
                threads: 6,
                busy: 0.12,
                kernel: 0.1,
                waits: &[
                    (State::Net, 0.7, 4_000.0, "libc.so.6!recv;k!tcp_recvmsg;k!schedule"),
                    (State::Lock, 0.3, 800.0, FUTEX),
                ],
            },
            Role {
                comm: "G1 Conc#0",
                threads: 2,
                busy: 0.08,
                kernel: 0.02,
                waits: &[(State::Lock, 1.0, 30_000.0, FUTEX)],
            },
        ],
        on_cpu: &[
            (
                18,
                "java!_start;libjvm.so!JavaMain;j!Interpreter;j!com.shop.search.Query::score;j!java.util.HashMap::get",
            ),
            (
                12,
                "java!_start;libjvm.so!JavaMain;j!Interpreter;j!com.shop.search.Query::score;j!com.shop.search.Bm25::rank",
            ),
            (
                9,
                "libjvm.so!thread_native_entry;libjvm.so!GangWorker::run;libjvm.so!G1ScanRSForRegionClosure::do_heap_region",
            ),
            (3, "java!_start;libjvm.so!JavaMain;j!"),
        ],
        ..NOTHING
    },
    Program {
        comm: "python3",
        cmdline: &["python3", "-m", "train", "--epochs", "40"],
        uid: 1001,
        rss_mib: 610,
        roles: &[Role {
            comm: "",
            threads: 2,
            busy: 0.35,
            kernel: 0.08,
            waits: &[(State::Pipe, 0.6, 5_000.0, "k!pipe_read;k!schedule"), (State::Timer, 0.4, 10_000.0, NANOSLEEP)],
        }],
        on_cpu: &[
            (20, "python3!_PyEval_EvalFrameDefault;python3!PyObject_Vectorcall;python3!list_append"),
            (15, "libopenblas.so.0!dgemm_kernel_HASWELL"),
            (5, "python3!"),
        ],
        end: StackEnd::Broken,
        ..NOTHING
    },
    Program {
        comm: "ffmpeg",
        cmdline: &["ffmpeg", "-i", "in.mkv", "-c:v", "libx264", "out.mp4"],
        uid: 1003,
        rss_mib: 230,
        roles: &[Role {
            comm: "av:h264:df0",
            threads: 2,
            busy: 0.6,
            kernel: 0.03,
            waits: &[(State::Lock, 0.8, 1_500.0, FUTEX), (State::Fault, 0.2, 700.0, "k!exc_page_fault;k!io_schedule")],
        }],
        on_cpu: &[
            (
                25,
                "ffmpeg!main;libavcodec.so.61!encode_frame;libx264.so.164!x264_slice_write;libx264.so.164!x264_me_search",
            ),
            (
                13,
                "ffmpeg!main;libavcodec.so.61!encode_frame;libx264.so.164!x264_slice_write;libx264.so.164!x264_pixel_satd_16x16_avx2",
            ),
        ],
        ..NOTHING
    },
    Program {
        comm: "rsync",
        cmdline: &["rsync", "-a", "/srv/", "backup:/srv/"],
        rss_mib: 17,
        roles: &[Role {
            comm: "",
            threads: 1,
            busy: 0.15,
            kernel: 0.75,
            waits: &[
                (
                    State::Disk,
                    0.7,
                    6_000.0,
                    "rsync!main;rsync!send_files;libc.so.6!read;k!vfs_read;k!folio_wait_bit;k!io_schedule",
                ),
                (State::Pipe, 0.3, 2_000.0, "rsync!main;rsync!io_flush;libc.so.6!write;k!pipe_write;k!schedule"),
            ],
        }],
        on_cpu: &[
            (4, "rsync!main;rsync!send_files;rsync!match_sums;rsync!get_checksum1"),
            (5, "rsync!main;rsync!send_files;libc.so.6!read;k!entry_SYSCALL_64;k!vfs_read;k!copy_page_to_iter"),
        ],
        ..NOTHING
    },
    Program {
        comm: "redis-server",
        cmdline: &["/usr/bin/redis-server", "127.0.0.1:6379"],
        uid: 110,
        rss_mib: 77,
        roles: &[Role { comm: "", threads: 1, busy: 0.07, kernel: 0.55, waits: &[(State::Poll, 1.0, 900.0, EPOLL)] }],
        on_cpu: &[(3, "redis-server!main;redis-server!aeMain;redis-server!processCommand;redis-server!dictFind")],
        ..NOTHING
    },
    Program {
        comm: "cron",
        cmdline: &["/usr/sbin/cron", "-f"],
        rss_mib: 3,
        roles: &[Role {
            comm: "",
            threads: 1,
            busy: 0.0,
            kernel: 0.5,
            waits: &[(State::Timer, 1.0, 60_000_000.0, NANOSLEEP)],
        }],
        on_cpu: &[],
        ..NOTHING
    },
    Program {
        comm: "sshd",
        cmdline: &["sshd: ann [priv]"],
        rss_mib: 11,
        roles: &[Role {
            comm: "",
            threads: 1,
            busy: 0.002,
            kernel: 0.7,
            waits: &[(State::Poll, 1.0, 400_000.0, EPOLL)],
        }],
        on_cpu: &[(1, "sshd!main;sshd!server_loop2;libcrypto.so.3!chacha20_poly1305_cipher")],
        ..NOTHING
    },
    Program {
        comm: "vim",
        cmdline: &["vim", "notes.txt"],
        uid: 1001,
        rss_mib: 21,
        roles: &[Role {
            comm: "",
            threads: 1,
            busy: 0.0,
            kernel: 0.5,
            waits: &[(State::Stopped, 1.0, 900_000_000.0, "vim!main;k!do_signal_stop;k!schedule")],
        }],
        on_cpu: &[],
        ..NOTHING
    },
    Program {
        comm: "kworker/0:1",
        roles: &[Role {
            comm: "",
            threads: 1,
            busy: 0.01,
            kernel: 1.0,
            waits: &[(State::Other, 1.0, 8_000.0, KTHREAD)],
        }],
        on_cpu: &[(1, "k!ret_from_fork;k!kthread;k!worker_thread;k!process_one_work;k!wb_workfn")],
        end: StackEnd::KernelOnly,
        ..NOTHING
    },
    Program {
        comm: "jbd2/vda1-8",
        roles: &[Role {
            comm: "",
            threads: 1,
            busy: 0.01,
            kernel: 1.0,
            waits: &[
                (
                    State::Disk,
                    0.3,
                    2_500.0,
                    "k!ret_from_fork;k!kthread;k!kjournald2;k!jbd2_journal_commit_transaction;k!io_schedule",
                ),
                (State::Other, 0.7, 90_000.0, "k!ret_from_fork;k!kthread;k!kjournald2;k!schedule"),
            ],
        }],
        on_cpu: &[(1, "k!ret_from_fork;k!kthread;k!kjournald2;k!jbd2_journal_commit_transaction")],
        end: StackEnd::KernelOnly,
        ..NOTHING
    },
    Program {
        comm: "ksoftirqd/0",
        roles: &[Role {
            comm: "",
            threads: 1,
            busy: 0.004,
            kernel: 1.0,
            waits: &[(State::Other, 1.0, 20_000.0, "k!smpboot_thread_fn;k!schedule")],
        }],
        on_cpu: &[(1, "k!ret_from_fork;k!kthread;k!run_ksoftirqd;k!net_rx_action")],
        end: StackEnd::KernelOnly,
        ..NOTHING
    },
];

/// Sleeps, and does so in great numbers.
pub const SLEEPER: Program = Program {
    comm: "sleeper",
    cmdline: &["sleeper", "--pool"],
    uid: 1004,
    rss_mib: 2,
    roles: &[Role { comm: "", threads: 1, busy: 0.0, kernel: 0.5, waits: &[(State::Poll, 1.0, 10_000_000.0, EPOLL)] }],
    on_cpu: &[],
    ..NOTHING
};

/// Tries to do harm with its names.
pub const HOSTILE: Program = Program {
    comm: "\x1b[2J\x1b]0;x\x07a;b",
    cmdline: &[
        "evil\x1b[31m\nred",
        "--title=\x1b]0;owned\x07",
        "界面サーバー👩‍👩‍👧",
        "e\u{301}\u{301}\u{301}",
        "\u{202e}fdp.exe",
    ],
    uid: 1666,
    rss_mib: 5,
    roles: &[
        Role {
            comm: "",
            threads: 1,
            busy: 0.2,
            kernel: 0.3,
            waits: &[(State::Net, 1.0, 1_000.0, "evil\n!ma\x1b[1min;k!sock_wait 12;k!schedule")],
        },
        Role {
            comm: "界面サーバ\r\n",
            threads: 1,
            busy: 0.1,
            kernel: 0.3,
            waits: &[(State::Timer, 1.0, 1_000.0, NANOSLEEP)],
        },
    ],
    on_cpu: &[
        (
            5,
            "evil\n!_start;evil\n!ma\x1b[1min;evil\n!oper\x02ator 1\x02 ;evil\n!std::map<int, 界面>::find(int const&)\t 99",
        ),
        (2, "evil\n!_start;evil\n!\x07;evil\n!\u{202e}drawkcab\u{9b}31m"),
        (2, "/tmp/\x1b[0m x!"),
    ],
    ..NOTHING
};
