//! Whole captures: written, read back, cut anywhere, damaged anywhere.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use super::*;
use crate::collect::{Request, Source, SourceError};
use crate::tick::{
    Batch, Detail, Frame, FrameId, FrameKind, Hist, Lens, Line, Module, ModuleId, Names, ProcessKey, Sampler, Session,
    Span, Stack, StackEnd, StackId, StackWeight, State, Symbol, ThreadKey, ThreadTick, Tick,
};

fn session() -> Session {
    let sampler = Sampler::CpuClock(99);
    Session { version: "0.1.0".into(), hostname: "desk".into(), cpus: vec![0, 1], sampler, ..Session::default() }
}

fn tick(at: u64) -> Tick {
    let process = ProcessKey { tgid: 40, start_ns: 7 };
    let span = Span { start_ns: at * 1_000_000, end_ns: (at + 1) * 1_000_000, wall_ns: at };
    let mut thread = ThreadTick { key: ThreadKey { tid: 41, start_ns: 8 }, process, ..ThreadTick::default() };
    thread.ns[State::Pipe] = 1_000_000;
    thread.runq = Hist::of([10, 2000, at]);
    let stack = StackWeight { process, lens: Lens::Blocked(State::Pipe), stack: StackId(0), weight: at, count: 1 };
    Tick { span, threads: vec![thread], stacks: vec![stack], ..Tick::default() }
}

fn names() -> Names {
    let frame = Frame { module: ModuleId(0), offset: 0x1234, kind: FrameKind::User };
    Names {
        modules: vec![(ModuleId(0), Module { path: "/bin/cat".into(), ..Module::default() })],
        frames: vec![(FrameId(0), frame)],
        symbols: vec![(FrameId(0), Symbol { function: "main".into(), ..Symbol::default() })],
        details: vec![(
            FrameId(0),
            Detail { line: Some(Line { file: "cat.c".into(), number: 7 }), ..Detail::default() },
        )],
        stacks: vec![(StackId(0), Stack { frames: vec![FrameId(0)], end: StackEnd::Complete, ..Stack::default() })],
        ..Names::default()
    }
}

fn batches() -> Vec<Batch> {
    let named = Batch::Names(Box::new(names()));
    vec![Batch::Tick(Box::new(tick(1))), named, Batch::Tick(Box::new(tick(2))), Batch::Tick(Box::new(tick(3)))]
}

fn capture() -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), &session()).unwrap();
    batches().iter().for_each(|batch| writer.write(batch).unwrap());
    assert_eq!(writer.ticks(), 3);
    writer.finish().unwrap()
}

/// Everything that can be read, and why it ended.
fn read(bytes: &[u8]) -> (Option<Session>, Vec<Batch>, Result<(), CaptureError>) {
    let mut reader = match Reader::new(bytes) {
        Ok(reader) => reader,
        Err(error) => return (None, vec![], Err(error)),
    };
    let mut read = Vec::new();
    let end = loop {
        match reader.next_batch() {
            Ok(Some(batch)) => read.push(batch),
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    assert!(matches!(reader.next_batch(), Ok(None)), "nothing comes after the end");
    (Some(reader.session().clone()), read, end)
}

/// Batches as text: equal text, equal batches.
fn text(batches: &[Batch]) -> Vec<String> {
    batches.iter().map(|batch| format!("{batch:?}")).collect()
}

#[test]
fn what_was_written_is_read() {
    let (have, read, end) = read(&capture());
    assert!(end.is_ok());
    assert_eq!(have, Some(session()));
    assert_eq!(text(&read), text(&batches()));
}

#[test]
fn every_truncation_is_said_and_loses_only_what_is_cut_off() {
    let whole = capture();
    let expected = text(&batches());
    let mut most = 0;
    for len in 0..whole.len() {
        let (_, read, end) = read(&whole[..len]);
        let message = end.expect_err("a cut file is not whole").to_string();
        assert!(["torn", "empty", "without an end mark", "not a sberf"].iter().any(|word| message.contains(word)));
        assert!(read.len() >= most, "a longer file holds no less");
        most = read.len();
        assert_eq!(text(&read), expected[..most]);
    }
    assert_eq!(most, expected.len());
}

#[test]
fn a_truncation_names_its_offset() {
    let whole = capture();
    let end_mark = whole.len() - (16 + 9);
    let message = |len: usize| read(&whole[..len]).2.unwrap_err().to_string();
    assert_eq!(message(0), "the file is empty; a capture is made by `sberf record -o FILE`");
    assert_eq!(message(13), "torn at byte 0: the header is cut off after 13 bytes");
    assert!(message(end_mark).starts_with(&format!("ends at byte {end_mark} without an end mark")));
    let cut = message(end_mark + 5);
    assert_eq!(cut, format!("torn at byte {end_mark}: the frame's header is cut off after 5 of 16 bytes"));
    let cut = message(end_mark + 20);
    assert_eq!(cut, format!("torn at byte {end_mark}: the frame is cut off after 4 of 9 bytes"));
}

#[test]
fn every_flipped_bit_is_noticed() {
    let whole = capture();
    let expected = text(&batches());
    for at in 0..whole.len() {
        for bit in [0, 3, 7] {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            let (_, read, end) = read(&bytes);
            assert!(end.is_err(), "bit {bit} of byte {at}");
            assert_eq!(text(&read), expected[..read.len()]);
        }
    }
}

#[test]
fn frames_cannot_be_lost_doubled_or_moved() {
    let whole = capture();
    let mut starts: Vec<usize> = (0..whole.len()).filter(|&at| whole[at..].starts_with(b"TICK")).collect();
    starts.retain(|&at| whole.len() - at > 16);
    let (first, second) = (starts[1], starts[2]);
    let lost = [&whole[..first], &whole[second..]].concat();
    let doubled = [&whole[..second], &whole[first..]].concat();
    for bytes in [lost, doubled] {
        assert!(matches!(read(&bytes).2, Err(CaptureError::Damaged { .. })));
    }
    let more = [&whole[..], b"x"].concat();
    assert!(read(&more).2.is_err_and(|error| error.to_string().contains("more after the end mark")));
}

#[test]
fn foreign_and_future_files_are_told_apart() {
    let message = |bytes: &[u8]| read(bytes).2.unwrap_err().to_string();
    assert!(message(b"\x7fELF\x02\x01\x01\0 and so on").contains(r#"starts with "\x7fELF\x02\x01\x01\x00""#));
    assert!(message(b"PERFILE2").starts_with("not a sberf capture"));
    let mut future = b"\x89sberf\r\n\x09\0\x09\0sberf 9.9".to_vec();
    future.extend(crc32fast::hash(&future).to_le_bytes());
    let expected = "capture format 9, written by sberf 9.9; this sberf reads format 1: use that version";
    assert_eq!(message(&future), expected);
}

#[test]
fn a_frame_that_claims_too_much_is_refused_before_memory_is_taken() {
    let whole = capture();
    let at = (0..whole.len()).find(|&at| whole[at..].starts_with(b"TICK")).unwrap();
    for field in [4, 8] {
        let mut bytes = whole.clone();
        bytes[at + field..at + field + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        let (_, read, end) = read(&bytes);
        assert!(read.is_empty());
        let bytes = u64::from(u32::MAX);
        assert!(matches!(end, Err(CaptureError::TooLarge { offset, bytes: b }) if offset == at as u64 && b == bytes));
    }
}

/// Takes so many bytes and no more, like a disk.
struct SmallDisk {
    bytes: Vec<u8>,
    room: usize,
}

impl Write for SmallDisk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.room - self.bytes.len() {
            0 => Err(io::ErrorKind::StorageFull.into()),
            room => self.bytes.write(&bytes[..bytes.len().min(room)]),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for &mut SmallDisk {
    fn cut(&mut self, len: u64) -> io::Result<()> {
        self.bytes.cut(len)
    }
}

#[test]
fn a_full_disk_leaves_whole_frames() {
    let whole = capture();
    let expected = text(&batches());
    for room in 0..whole.len() {
        let mut disk = SmallDisk { bytes: vec![], room };
        let Ok(mut writer) = Writer::new(&mut disk, &session()) else { continue };
        let failed = batches().iter().find_map(|batch| writer.write(batch).err());
        let failed = failed.or_else(|| writer.finish().err()).expect("no room for all of it").to_string();
        assert!(failed.starts_with("recording stopped: "), "{failed}");
        assert!(failed.contains(&format!("{} bytes", disk.bytes.len())), "{failed} of {}", disk.bytes.len());
        let (_, read, end) = read(&disk.bytes);
        assert!(matches!(end, Ok(()) | Err(CaptureError::Unended { .. })), "whole frames only: {end:?}");
        assert_eq!(text(&read), expected[..read.len()]);
    }
}

/// A source that yields a list.
struct Listed(std::vec::IntoIter<Batch>);

impl Source for Listed {
    fn session(&self) -> Session {
        session()
    }
    fn next(&mut self, _: &crossbeam_channel::Receiver<Request>) -> Result<Option<Batch>, SourceError> {
        Ok(self.0.next())
    }
}

#[test]
fn a_tee_writes_what_it_yields_and_outlives_its_writer() {
    let (_requests, requested) = crossbeam_channel::bounded(1);
    let (stopped, stops) = crossbeam_channel::bounded(1);
    for room in [usize::MAX, capture().len() - 100] {
        // Leaked: a tee owns its writer, a test wants to look at the disk. A few KiB.
        let disk: &'static mut SmallDisk = Box::leak(Box::new(SmallDisk { bytes: vec![], room }));
        let writer = Writer::new(disk, &session()).unwrap();
        let stopped = stopped.clone();
        let mut tee = Tee::new(Listed(batches().into_iter()), writer, move |error| stopped.send(error).unwrap());
        let mut yielded = Vec::new();
        while let Some(batch) = tee.next(&requested).unwrap() {
            yielded.push(batch);
        }
        assert_eq!(text(&yielded), text(&batches()));
        assert_eq!(stops.try_recv().is_ok(), room != usize::MAX);
    }
}

fn replay(pace: Pace) -> CaptureSource<io::Cursor<Vec<u8>>> {
    CaptureSource::new(Reader::new(io::Cursor::new(capture())).unwrap(), "test".into(), pace)
}

#[test]
fn replay_keeps_time_unless_it_need_not() {
    let (_keep, requests) = crossbeam_channel::unbounded();
    for (pace, least) in [(Pace::Fast, 0), (Pace::RealTime, 2)] {
        let mut source = replay(pace);
        let start = Instant::now();
        let count = std::iter::from_fn(|| source.next(&requests).unwrap()).count();
        assert_eq!(count, 4);
        assert!(start.elapsed() >= Duration::from_millis(least));
    }
}

#[test]
fn replay_holds_and_ends_when_nobody_listens() {
    let (send, requests) = crossbeam_channel::unbounded();
    let mut source = replay(Pace::RealTime);
    send.send(Request::Hold(true)).unwrap();
    let release = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(30));
        send.send(Request::Hold(false)).unwrap();
        send
    });
    let start = Instant::now();
    assert!(source.next(&requests).unwrap().is_some());
    assert!(start.elapsed() >= Duration::from_millis(30));
    drop(release.join());
    assert!(matches!(source.next(&requests), Ok(Some(Batch::Names(_)))));
    assert!(matches!(source.next(&requests), Ok(None)));
}

#[test]
fn errors_of_a_replay_name_the_file() {
    let error = CaptureSource::open("/nonexistent/x.sberf".as_ref(), Pace::Fast).err().unwrap();
    assert_eq!(error.0, "/nonexistent/x.sberf: cannot open: No such file or directory (os error 2)");
}

#[test]
fn a_foreign_file_is_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    std::fs::write(&path, "my thesis").unwrap();
    assert!(matches!(Writer::create(&path, &session()), Err(CaptureError::NotOurs)));
    assert_eq!(std::fs::read(&path).unwrap(), b"my thesis");
    std::fs::write(&path, capture()).unwrap();
    Writer::create(&path, &session()).unwrap().finish().unwrap();
    assert_eq!(read(&std::fs::read(&path).unwrap()).1.len(), 0);
}
