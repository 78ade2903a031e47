//! Block requests, on a loop device whose speed is ours to choose.

use std::path::PathBuf;

use sberf::tick::{DiskOp, Hist, Loss, State, bucket_mid};

use crate::machine::{machine, now_ns, scratch, skipped};
use crate::recording::{Recorded, Recording, merged};
use crate::workload::Workload;

/// A loop device over a FUSE file that takes its time. Dropped, the device is detached and the file system unmounted; the server does
/// the same when this process dies.
pub struct SlowDisk {
    server: Workload,
    directory: PathBuf,
    pub device: String,
    /// As in ticks: `major << 20 | minor`.
    pub dev: u32,
}

impl SlowDisk {
    /// A disk of 16 MiB that takes `delay_us` for each request; `None`, having said why, where there can be none.
    pub fn start(delay_us: u32) -> Option<SlowDisk> {
        let directory = scratch("slow-disk");
        std::fs::create_dir_all(&directory).expect("a directory");
        let path = directory.display().to_string();
        let bytes = (16 << 20).to_string();
        let mut server = match Workload::try_prepare("slow_disk", &[&path, &bytes, &delay_us.to_string()]) {
            Ok(server) => server,
            Err(why) if why.contains("Some(77)") => {
                skipped(why);
                return None;
            }
            Err(why) => panic!("{why}"),
        };
        let device = server.told("device")[0][0].to_owned();
        server.run();
        let rdev = rustix::fs::stat(device.as_str()).expect("the device").st_rdev;
        let dev = rustix::fs::major(rdev) << 20 | rustix::fs::minor(rdev);
        Some(SlowDisk { server, directory, device, dev })
    }

    /// Its name in `/sys/block`.
    pub fn name(&self) -> &str {
        self.device.trim_start_matches("/dev/")
    }
}

impl Drop for SlowDisk {
    fn drop(&mut self) {
        let tidied = self.server.finish();
        let removed = std::fs::remove_dir(&self.directory);
        if !std::thread::panicking() {
            assert!(tidied && removed.is_ok(), "loop device or mount left behind: {removed:?}");
        }
    }
}

/// Requests and bytes of one operation on one disk over the whole recording.
fn on_disk(seen: &Recorded, dev: u32, op: DiskOp) -> (u64, u64) {
    let ops =
        || seen.ticks().flat_map(|tick| &tick.disks).filter(|disk| disk.dev == dev).map(|disk| &disk.ops[op as usize]);
    (ops().map(|op| op.requests).sum(), ops().map(|op| op.bytes).sum())
}

fn exact_writes(count: u64, bytes: u64) {
    let Some(_machine) = machine() else { return };
    let Some(disk) = SlowDisk::start(0) else { return };
    let mut writes = Workload::prepare("writes", &[&disk.device, &count.to_string(), &bytes.to_string()]);
    let recording = Recording::start();
    writes.run();
    recording.wait_past(writes.number("end_ns"));
    let seen = recording.stop();

    let (requests, moved, latency) = seen.io(writes.pid(), DiskOp::Write);
    assert_eq!((requests, moved), (count, count * bytes), "asked for by the writer");
    assert_eq!(latency.count(), count, "each has a latency");
    assert_eq!(on_disk(&seen, disk.dev, DiskOp::Write), (count, count * bytes), "on {}", disk.device);
    let size = merged(disk_hists(&seen, disk.dev, |op| &op.size));
    assert_eq!((size.count(), size.max), (count, bytes), "sizes");
    assert!(seen.io(writes.pid(), DiskOp::Read).0 == 0, "it reads nothing");
    let failed: u64 = seen.ticks().flat_map(|tick| &tick.disks).flat_map(|disk| &disk.ops).map(|op| op.errors).sum();
    assert_eq!(failed, 0, "errors");
}

fn disk_hists(
    seen: &Recorded,
    dev: u32,
    which: impl Fn(&sberf::tick::DiskOpTick) -> &Hist + Copy,
) -> impl Iterator<Item = &Hist> {
    let disks = seen.ticks().flat_map(|tick| &tick.disks).filter(move |disk| disk.dev == dev);
    disks.map(move |disk| which(&disk.ops[DiskOp::Write as usize]))
}

/// The driver of virtio disks asks them for their serial number each time that somebody does: a request, but none that moves data.
#[test]
fn requests_of_other_kinds_are_not_lost_silently() {
    let Some(_machine) = machine() else { return };
    let disks = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let asks = |disk: &PathBuf| disk.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vd"));
    let Some(serial) = disks.map(|disk| disk.path()).find(asks).map(|disk| disk.join("serial")) else {
        return skipped("no virtio disk here");
    };
    let recording = Recording::start();
    recording.wait_ticks(1);
    for _ in 0..20 {
        if let Err(error) = std::fs::read(&serial) {
            return skipped(format!("{}: {error}", serial.display()));
        }
    }
    recording.wait_past(now_ns());
    let seen = recording.stop();
    assert_eq!(seen.lost(Loss::OtherRequest), 20, "{:?}", seen.losses());
}

#[test]
fn small_writes_are_counted_exactly() {
    exact_writes(1000, 4096);
}

#[test]
fn larger_writes_are_counted_exactly() {
    exact_writes(77, 65536);
}

#[test]
fn writes_to_a_slow_disk_take_what_the_writer_measures() {
    let Some(_machine) = machine() else { return };
    let Some(disk) = SlowDisk::start(10_000) else { return };
    let mut writes = Workload::prepare("writes", &[&disk.device, "200", "4096"]);
    let recording = Recording::start();
    writes.run();
    recording.wait_past(writes.number("end_ns"));
    let seen = recording.stop();

    let mut measured = writes.numbers("took_ns");
    measured.sort_unstable();
    let (requests, _, of_writer) = seen.io(writes.pid(), DiskOp::Write);
    assert_eq!(requests, 200);
    let device = merged(disk_hists(&seen, disk.dev, |op| &op.device));
    for (whose, hist) in [("the writer's", of_writer), ("the disk's", device)] {
        let ours = values(&hist);
        assert_eq!(ours.len(), measured.len(), "{whose}");
        let near = |&(&ours, &theirs): &(&u64, &u64)| (ours as f64 / theirs as f64 - 1.0).abs() <= 0.0625;
        let right = ours.iter().zip(&measured).filter(near).count();
        assert!(right * 100 >= measured.len() * 95, "{whose}: {right} of 200 right: {ours:?} {measured:?}");
    }
    let queued = merged(disk_hists(&seen, disk.dev, |op| &op.queued));
    assert_eq!(queued.count(), 200, "each went through the queue");
    assert!(queued.quantile(0.5).is_some_and(|p50| p50 < 5_000_000), "and did not stay there: {queued:?}");
    check_blocked(&seen, &writes);
    check_slowest(&seen, &disk, &writes, &measured);
}

/// The middles of the buckets, rising, each as often as it was counted.
fn values(hist: &Hist) -> Vec<u64> {
    let mut counts = hist.counts.clone();
    counts.sort_unstable();
    counts.iter().flat_map(|&(bucket, count)| std::iter::repeat_n(bucket_mid(bucket), count as usize)).collect()
}

/// The writer waited for the disk, nearly all of its life at work.
fn check_blocked(seen: &Recorded, writes: &Workload) {
    let ns = seen.thread_ns(writes.pid());
    let told: u64 = writes.numbers("took_ns").iter().sum();
    let share = ns[State::Disk] as f64 / told as f64;
    assert!((0.95..=1.0).contains(&share), "disk is {share:.3} of the time in write: {ns:?}");
}

/// The slowest requests: exact latencies, so each is within what the writer measured at most.
fn check_slowest(seen: &Recorded, disk: &SlowDisk, writes: &Workload, measured: &[u64]) {
    let slow =
        seen.ticks().flat_map(|tick| &tick.slow_requests).filter(|slow| slow.dev == disk.dev).collect::<Vec<_>>();
    assert!(!slow.is_empty(), "10 ms is slow");
    for request in &slow {
        let ns = request.queued_ns + request.device_ns;
        assert_eq!((request.op, request.bytes), (DiskOp::Write, 4096));
        assert_eq!((request.process.tgid, request.comm.as_str()), (writes.pid(), "writes"));
        assert!(request.sector < 64 * 8, "sector {}", request.sector);
        assert!(ns >= 10_000_000 && ns <= measured[measured.len() - 1], "{ns} ns");
    }
}
