//! Rows of place 4 as text: disks, who asked, slow requests.

use crate::model::{Model, Process};
use crate::tick::{DiskOp, DiskTick, Grade, Hist, ProcessKey, SignalKind, SlowRequest, signal};
use crate::ui::format;
use crate::ui::table::Column;

/// Columns of the disks.
pub const COLUMNS: [Column; 15] = [
    Column { head: "disk", width: 9, extra: 3, drop: 0, right: false },
    Column { head: "r/s", width: 5, extra: 0, drop: 1, right: true },
    Column { head: "w/s", width: 5, extra: 0, drop: 1, right: true },
    Column { head: "f/s", width: 5, extra: 0, drop: 6, right: true },
    Column { head: "d/s", width: 5, extra: 0, drop: 8, right: true },
    Column { head: "read/s", width: 6, extra: 0, drop: 2, right: true },
    Column { head: "write/s", width: 7, extra: 0, drop: 2, right: true },
    Column { head: "queue p99", width: 9, extra: 0, drop: 3, right: true },
    Column { head: "device p50", width: 10, extra: 0, drop: 5, right: true },
    Column { head: "p99", width: 6, extra: 0, drop: 3, right: true },
    Column { head: "max", width: 6, extra: 0, drop: 4, right: true },
    Column { head: "in flight", width: 9, extra: 0, drop: 4, right: true },
    Column { head: "oldest", width: 6, extra: 0, drop: 4, right: true },
    Column { head: "size p50", width: 8, extra: 0, drop: 9, right: true },
    Column { head: "errors/s", width: 8, extra: 0, drop: 7, right: true },
];

/// What the kernel's own counters do not tell.
const UNCOUNTED: [&str; 7] = ["queue p99", "device p50", "p99", "max", "oldest", "size p50", "errors/s"];

/// Requests are counted, not timed.
fn has_counts_only(model: &Model) -> bool {
    let disks = signal(&model.session().signals, SignalKind::DiskLatency);
    disks.is_some_and(|disks| disks.grade() == Grade::Reduced)
}

/// Text of a cell.
pub fn disk_text(disk: &DiskTick, column: usize, model: &Model) -> String {
    let per_s = |count: u64| count as f64 / seconds(model);
    let op = |op: DiskOp| &disk.ops[op as usize];
    let some = |value: Option<u64>| value.map_or_else(|| format::NONE.to_owned(), format::duration);
    let merged = |of: fn(&crate::tick::DiskOpTick) -> &Hist| {
        let mut all = Hist::default();
        disk.ops.iter().for_each(|op| all.merge(of(op)));
        all
    };
    let head = COLUMNS[column].head;
    if UNCOUNTED.contains(&head) && has_counts_only(model) {
        return format::OFF.into();
    }
    match head {
        "disk" => disk.name.clone(),
        "r/s" => format::rate(per_s(op(DiskOp::Read).requests)),
        "w/s" => format::rate(per_s(op(DiskOp::Write).requests)),
        "f/s" => format::rate(per_s(op(DiskOp::Flush).requests)),
        "d/s" => format::rate(per_s(op(DiskOp::Discard).requests)),
        "read/s" => format::bytes(per_s(op(DiskOp::Read).bytes) as u64),
        "write/s" => format::bytes(per_s(op(DiskOp::Write).bytes) as u64),
        "queue p99" => some(merged(|op| &op.queued).quantile(0.99)),
        "device p50" => some(merged(|op| &op.device).quantile(0.5)),
        "p99" => some(merged(|op| &op.device).quantile(0.99)),
        "max" => {
            let device = merged(|op| &op.device);
            some((!device.is_empty()).then_some(device.max))
        }
        "in flight" => format::grouped(disk.in_flight),
        "oldest" if disk.in_flight == 0 => format::NONE.into(),
        "oldest" => format::duration(disk.oldest_ns),
        "size p50" => merged(|op| &op.size).quantile(0.5).map_or_else(|| format::NONE.to_owned(), format::bytes),
        "errors/s" => format::rate(per_s(disk.ops.iter().map(|op| op.errors).sum())),
        _ => String::new(),
    }
}

fn seconds(model: &Model) -> f64 {
    model.span().map_or(1.0, |span| span.len_ns().max(1) as f64 / 1e9)
}

/// Head of [`asker_line`].
pub const ASKERS_HEAD: &str = "  who asked (any disk)    r/s   w/s  read/s write/s    p99";

/// Processes that asked for most requests in the newest tick, `most` at most, the greatest rate of bytes first.
pub fn askers(model: &Model, most: usize) -> Vec<ProcessKey> {
    let asked = model.processes().filter(|process| process.tick_io.all_requests() > 0);
    let mut askers: Vec<(u64, u64, ProcessKey)> =
        asked.map(|process| (process.tick_io.moved_bytes(), process.tick_io.all_requests(), process.key)).collect();
    askers.sort_unstable_by(|a, b| b.cmp(a));
    askers.into_iter().take(most).map(|(_, _, key)| key).collect()
}

/// `4711 postgres   12   840   0   38.2M   12ms`.
pub fn asker_line(process: &Process, model: &Model) -> String {
    let io = &process.tick_io;
    let rate = |op: DiskOp| format::rate(io.requests[op as usize] as f64 / seconds(model));
    let bytes = |op: DiskOp| format::bytes((io.bytes[op as usize] as f64 / seconds(model)) as u64);
    let p99 = io.latency.quantile(0.99).map_or_else(|| format::NONE.to_owned(), format::duration);
    let who = format::left(&format!("{} {}", process.key.tgid, process.facts.comm), 18);
    let (reads, writes) = (rate(DiskOp::Read), rate(DiskOp::Write));
    let (read, written) = (bytes(DiskOp::Read), bytes(DiskOp::Write));
    format!("  {who} {reads:>8} {writes:>5} {read:>7} {written:>7} {p99:>6}")
}

/// Head of [`slow_line`].
pub const SLOW_HEAD: &str = "  slowest   ago op      bytes queued device  who              sector";

/// `190ms  12s write 4.1k …`: when, what, how long where, who.
pub fn slow_line(request: &SlowRequest, model: &Model) -> String {
    let end_ns = model.span().map_or(0, |span| span.end_ns);
    let total = format::duration(request.queued_ns.saturating_add(request.device_ns));
    let ago = format::age(end_ns.saturating_sub(request.end_ns));
    let (queued, device) = (format::duration(request.queued_ns), format::duration(request.device_ns));
    let who = format::left(&format!("{} {}", request.process.tgid, request.comm), 16);
    let (op, bytes, sector) = (request.op.name(), format::bytes(request.bytes), request.sector);
    format!("  {total:>7} {ago:>5} {op:<7} {bytes:>5} {queued:>6} {device:>6}  {who} {sector}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::invented::Invention;
    use crate::tick::DiskOpTick;
    use crate::ui::testing::model;

    #[test]
    fn cells_say_what_was_counted() {
        let model = model(Invention::default(), 1);
        let mut disk = DiskTick { name: "vda".into(), in_flight: 7, oldest_ns: 42_000_000, ..DiskTick::default() };
        disk.ops[DiskOp::Write as usize] = DiskOpTick {
            requests: 840,
            bytes: 38_200_000,
            errors: 2,
            queued: Hist::of([3_000_000]),
            device: Hist::of([1_000_000, 190_000_000]),
            size: Hist::of([4096]),
        };
        let row: Vec<String> = (0..COLUMNS.len()).map(|column| disk_text(&disk, column, &model)).collect();
        assert_eq!(row[..7], ["vda", "0", "840", "0", "0", "0", "38.2M"]);
        assert_eq!(row[7..], ["3.0ms", "1.0ms", "190ms", "190ms", "7", "42.0ms", "4.1k", "2.0"].map(String::from));
        let idle = DiskTick::default();
        assert_eq!(disk_text(&idle, 12, &model), "–");
        assert_eq!(disk_text(&idle, 8, &model), "–");
    }

    #[test]
    fn who_asked_most_comes_first() {
        let model = model(Invention::default(), 10);
        let keys = askers(&model, 3);
        assert!(!keys.is_empty() && keys.len() <= 3);
        let bytes: Vec<u64> = keys.iter().map(|&key| model.process(key).unwrap().tick_io.moved_bytes()).collect();
        assert!(bytes.windows(2).all(|pair| pair[0] >= pair[1]), "{bytes:?}");
    }
}
