//! One boot in QEMU, processors emulated (TCG): a usable KVM cannot be told from the existence of its device.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::bounded::{output, wait};
use crate::initramfs;
use crate::kernel::Kernel;

const QEMU: &str = "qemu-system-x86_64";
/// Where the guest finds the directory it shares with us.
pub const SHARE: &str = "/.share";
/// From this version on a page of code is locked while it is translated. Before, a CPU may keep for good what another is just replacing, and
/// a kernel dies of a breakpoint that it took back long ago: tracepoints that are switched on and off are enough.
const TRANSLATES_LOCKED: (u32, u32) = (8, 1);

/// A machine to boot.
pub struct Machine<'a> {
    pub kernel: &'a Kernel,
    pub cpus: u32,
    pub nodes: u32,
    pub memory_mib: u32,
    pub limit: Duration,
    /// What the kernel is told beside what all are.
    pub parameters: &'a str,
    /// What this test program is told to do inside.
    pub role: &'a str,
}

/// How a boot went.
pub enum Boot {
    /// Nothing of ours ran: why, as far as that is known.
    Never(String),
    /// The guest began.
    Ran { told: String, errors: String, log: Log, end: End, seconds: f64 },
}

/// How a guest ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// As it should.
    Reached,
    /// Not in time; it was killed.
    Late,
    /// The machine was gone before.
    Fell,
}

/// What the kernel and QEMU said, and where that is kept.
pub struct Log {
    pub text: String,
    pub kept: PathBuf,
}

/// Whether machines can be booted here.
///
/// # Errors
/// What is missing.
pub fn available() -> Result<(), String> {
    version().map(drop).ok_or_else(|| format!("no {QEMU} here (Debian: qemu-system-x86)"))
}

/// Major and minor.
fn version() -> Option<(u32, u32)> {
    let mut command = Command::new(QEMU);
    command.arg("-version");
    let said = output(command, Duration::from_secs(30)).ok()?;
    let mut numbers = said.split_once(" version ")?.1.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

impl Machine<'_> {
    /// Boots it and waits for its end, `share` being what both see.
    ///
    /// # Errors
    /// What is missing here.
    pub fn boot(&self, share: &Path) -> Result<Boot, String> {
        let io = |error: std::io::Error| format!("{}: {error}", share.display());
        let started = Instant::now();
        let files = tempfile::tempdir().map_err(io)?;
        let (initrd, log) = (files.path().join("initrd"), files.path().join("log"));
        fs::write(&initrd, initramfs::make(&self.kernel.dir)?).map_err(io)?;
        fs::write(share.join("run"), self.script()).map_err(io)?;
        let qemu_log = fs::File::create(files.path().join("qemu")).map_err(io)?;
        let mut qemu = Command::new(QEMU)
            .args(self.arguments(&initrd, &log, share))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(qemu_log)
            .spawn()
            .map_err(|error| format!("{QEMU}: {error}"))?;
        let in_time = wait(&mut qemu, self.limit).is_some();
        let read =
            |path: PathBuf| fs::read(path).map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default();
        let log = Log { text: read(log) + &read(files.path().join("qemu")), kept: self.kept_log() };
        fs::write(&log.kept, &log.text).map_err(io)?;
        if !share.join("started").exists() {
            let last = log.text.trim().lines().last().unwrap_or("it said nothing").to_owned();
            return Ok(Boot::Never(if in_time {
                last
            } else {
                format!("not up after {} s; {last}", self.limit.as_secs())
            }));
        }
        Ok(Boot::Ran {
            told: read(share.join("out")),
            errors: read(share.join("err")),
            log,
            end: match share.join("ended").exists() {
                true => End::Reached,
                false if in_time => End::Fell,
                false => End::Late,
            },
            seconds: started.elapsed().as_secs_f64(),
        })
    }

    /// Beside the kernel.
    fn kept_log(&self) -> PathBuf {
        self.kernel.dir.with_file_name(format!("{}-{}-cpus.log", self.kernel.release, self.cpus))
    }

    /// What the guest runs: this very program, from the same place.
    fn script(&self) -> String {
        let program = std::env::current_exe().map(|path| path.display().to_string()).unwrap_or_default();
        let path = std::env::var("PATH").unwrap_or_default();
        format!(
            "export PATH='{path}' HOME=/root TMPDIR=/run\ncut -d' ' -f1 /proc/uptime >{SHARE}/started\ncd '{}'\n\
             '{program}' --guest {} >{SHARE}/out 2>{SHARE}/err\necho $? >{SHARE}/ended\nsync\n/bin/busybox poweroff -f\n",
            env!("CARGO_MANIFEST_DIR"),
            self.role
        )
    }

    fn arguments(&self, initrd: &Path, log: &Path, share: &Path) -> Vec<String> {
        let host_cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u32);
        // One host thread per guest CPU, only while they are few: more than that spin against each other.
        let few = self.cpus <= 4 * host_cpus;
        let thread = if few && version() >= Some(TRANSLATES_LOCKED) { "multi" } else { "single" };
        let mut all: Vec<String> = format!(
            "-nodefaults -display none -no-reboot -no-user-config -monitor none -M q35 -accel tcg,thread={thread},tb-size=512 \
             -cpu max,la57=off -smp {} -m {}",
            self.cpus, self.memory_mib
        )
        .split(' ')
        .map(str::to_owned)
        .collect();
        let mut add = |option: &str, value: String| all.extend([option.to_owned(), value]);
        add("-kernel", self.kernel.dir.join("vmlinux").display().to_string());
        add("-initrd", initrd.display().to_string());
        add("-serial", format!("file:{}", log.display()));
        add("-append", format!("{COMMAND_LINE} {}", self.parameters));
        for node in 0..if self.nodes > 1 { self.nodes } else { 0 } {
            let per_node = self.cpus / self.nodes;
            let (first, last) = (node * per_node, (node + 1) * per_node - 1);
            add("-object", format!("memory-backend-ram,id=m{node},size={}M", self.memory_mib / self.nodes));
            add("-numa", format!("node,nodeid={node},cpus={first}-{last},memdev=m{node}"));
        }
        let directories =
            [("root", "/".to_owned(), ",readonly=on,multidevs=remap"), ("share", share.display().to_string(), "")];
        for (tag, path, more) in directories {
            add("-fsdev", format!("local,id={tag},path={path},security_model=none{more}"));
            add("-device", format!("virtio-9p-pci,fsdev={tag},mount_tag={tag}"));
        }
        all
    }
}

const COMMAND_LINE: &str = "console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off cryptomgr.notests no_timer_check \
     rcupdate.rcu_expedited=1 random.trust_cpu=on tsc=reliable";
