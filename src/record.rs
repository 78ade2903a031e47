//! Sources without a screen: `sberf record`, and the loop that it shares with the exports.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use crossbeam_channel::{Receiver, after, bounded, never, select};
use rustix::process::Signal;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use sberf::collect::Request;
use sberf::tick::{Basis, Batch, Frame, FrameId, Session};

use crate::cli::Record;
use crate::command::{self, Ended, Running};
use crate::feed::{Feed, News};
use crate::{Failure, look, source};

/// Names of what the last tick saw for the first time are found by then, as a rule.
pub const NAMES_LATE: Duration = Duration::from_millis(700);
/// Details are waited for so long: debug information of large programs takes a second or two.
const DETAILS_LATE: Duration = Duration::from_secs(15);

/// Whoever takes in what a source yields, without a screen.
pub trait Sink {
    /// The source runs.
    fn session(&mut self, session: Session) -> Result<(), Failure>;
    /// The next batch; false for enough.
    fn batch(&mut self, batch: Batch) -> Result<bool, Failure>;
    /// For how long names may still arrive once there are ticks enough.
    fn linger(&self) -> Duration {
        Duration::ZERO
    }
    /// Frames whose details it wants then, which takes longer.
    fn asks(&mut self) -> Vec<(FrameId, Frame)> {
        Vec::new()
    }
    /// Everything that was asked for has come.
    fn is_answered(&self) -> bool {
        true
    }
}

/// Feeds `sink` until it has enough, the source ends, a signal asks to end, or the command has ended and the tick in which
/// it did is taken in; yields how it ended, if it did by itself. Fails with what the source said at the end, after
/// everything before it was taken in.
pub fn drive(feed: Feed, sink: &mut impl Sink, command: Option<&mut Running>) -> Result<Option<ExitStatus>, Failure> {
    let mut drive = Drive { sink, command, status: None, ended_ns: None, interrupted: false, error: None };
    let enough = drive.until_enough(&feed, &signals()?);
    // Whatever became of it: the source ends in order, and with it the capture.
    let rest = feed.finish();
    let names_only = enough?;
    for news in rest {
        if !names_only || !matches!(news, News::Batch(Batch::Tick(_))) {
            drive.news(news)?;
        }
    }
    drive.error.map_or(Ok(drive.status), |error| Err(Failure::Line(error)))
}

struct Drive<'a, S> {
    sink: &'a mut S,
    command: Option<&'a mut Running>,
    /// How the command ended.
    status: Option<ExitStatus>,
    /// When, CLOCK_MONOTONIC ns.
    ended_ns: Option<u64>,
    /// A signal was passed on to it.
    interrupted: bool,
    error: Option<String>,
}

impl<S: Sink> Drive<'_, S> {
    /// Yields true if the sink wants no more ticks, not even those under way.
    fn until_enough(&mut self, feed: &Feed, signals: &Receiver<i32>) -> Result<bool, Failure> {
        let (mut lingered, mut patience) = (never(), never());
        let (mut enough, mut asked) = (false, false);
        loop {
            let command_ended = self.running().map_or_else(never, |command| command.ended().clone());
            let news = select! {
                recv(feed.news) -> news => news,
                recv(signals) -> signal => match self.pass_on(signal.unwrap_or(SIGTERM)) {
                    Some(time) => {
                        patience = time.map_or_else(never, after);
                        continue;
                    }
                    None => return Ok(enough),
                },
                recv(command_ended) -> end => {
                    self.command_ended(end.ok())?;
                    feed.request(Request::EndTick);
                    continue;
                }
                recv(lingered) -> _ => {
                    let asks = if asked { Vec::new() } else { self.sink.asks() };
                    if asks.is_empty() {
                        return Ok(enough);
                    }
                    asked = true;
                    feed.request(Request::Detail(asks));
                    lingered = after(DETAILS_LATE);
                    continue;
                }
                recv(patience) -> _ => return Ok(enough),
            };
            match news {
                Err(_) => return Ok(enough),
                // What it counts belongs to nobody; what it names may have been asked for.
                Ok(News::Batch(Batch::Tick(tick))) if enough => {
                    let names = Box::new(tick.names);
                    self.news(News::Batch(Batch::Names(names)))?;
                }
                Ok(news) => {
                    let wants_more = self.news(news)?;
                    if !wants_more && !enough {
                        enough = true;
                        lingered = after(self.sink.linger());
                    }
                }
            }
            if asked && self.sink.is_answered() {
                return Ok(enough);
            }
        }
    }

    /// The command, until it has ended.
    fn running(&self) -> Option<&Running> {
        self.command.as_deref().filter(|_| self.ended_ns.is_none())
    }

    /// Makes a signal that is to end us one for the command, whose end is then waited for: so long, or for ever. `None` if
    /// nothing is left to wait for.
    fn pass_on(&mut self, signal: i32) -> Option<Option<Duration>> {
        let command = self.running().filter(|_| !self.interrupted)?;
        let patience = match signal {
            // What a key sends, the command was sent as well, and it need not end by it.
            SIGINT if is_in_foreground() => None,
            SIGINT => {
                command.signal(Signal::INT);
                None
            }
            _ => {
                command.signal(Signal::TERM);
                Some(command::GRACE)
            }
        };
        self.interrupted = true;
        Some(patience)
    }

    fn command_ended(&mut self, end: Option<Ended>) -> Result<(), Failure> {
        match end {
            Some(Ended::Exited(status)) => self.status = Some(status),
            Some(Ended::NotRun(why)) => return Err(why),
            None => {}
        }
        self.ended_ns = Some(now_ns());
        Ok(())
    }

    /// Yields false if the sink has enough.
    fn news(&mut self, news: News) -> Result<bool, Failure> {
        match news {
            News::Loaded(session) => {
                self.sink.session(*session)?;
                if let Some(command) = &mut self.command {
                    command.release();
                }
            }
            News::Batch(batch) => {
                let is_last =
                    matches!(&batch, Batch::Tick(tick) if self.ended_ns.is_some_and(|at| tick.span.end_ns >= at));
                return Ok(self.sink.batch(batch)? && !is_last);
            }
            News::Said(text) | News::Ended(Err(text)) => self.error = Some(text),
            News::Ended(Ok(())) | News::Noted(_) => {}
        }
        Ok(true)
    }
}

/// Keys of the terminal send signals to us, and so to a command that shares it.
fn is_in_foreground() -> bool {
    let terminal = std::fs::File::open("/dev/tty").ok();
    let foreground = terminal.and_then(|terminal| rustix::termios::tcgetpgrp(terminal).ok());
    foreground == Some(rustix::process::getpgrp())
}

/// CLOCK_MONOTONIC, as ticks have it.
fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// So much time, by the ticks' own clock.
pub struct Cut {
    length: Option<Duration>,
    start_ns: Option<u64>,
}

impl Cut {
    /// No end without a length.
    pub fn new(length: Option<Duration>) -> Self {
        Cut { length, start_ns: None }
    }

    /// The batch begins within.
    pub fn takes(&mut self, batch: &Batch) -> bool {
        let (Some(length), Batch::Tick(tick)) = (self.length, batch) else { return true };
        let start_ns = *self.start_ns.get_or_insert(tick.span.start_ns);
        u128::from(tick.span.start_ns.saturating_sub(start_ns)) < length.as_nanos()
    }

    /// The batch reaches to the end, give or take a hundredth: the next one would begin after it.
    pub fn is_last(&self, batch: &Batch) -> bool {
        let (Some(length), Some(start_ns), Batch::Tick(tick)) = (self.length, self.start_ns, batch) else {
            return false;
        };
        u128::from(tick.span.end_ns.saturating_sub(start_ns)) * 100 >= length.as_nanos() * 99
    }
}

/// Ctrl-C and its kin, from a thread.
fn signals() -> io::Result<Receiver<i32>> {
    let (send, signals) = bounded(4);
    let mut wanted = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in wanted.forever() {
            // Full: the program has been asked to end already.
            let _ = send.try_send(signal);
        }
    })?;
    Ok(signals)
}

/// Records until Ctrl-C or for `--duration`.
pub fn run(mut args: Record) -> Result<(), Failure> {
    let duration = args.duration.unwrap_or(Duration::MAX);
    args.observe.interval = args.observe.interval.min(duration);
    // Not so long that another tick would come.
    let linger = NAMES_LATE.min(args.observe.interval.mul_f64(0.7));
    let mut command = command::start(&args.command, command::Output::Ours)?;
    let open = source::live(&args.observe, command.as_ref().map(Running::pid), false, false)?;
    let feed = Feed::start(open, Some(args.output.clone()))?;
    let forever = args.duration.is_none() && command.is_none();
    let mut count = Count { ticks: 0, forever, cut: Cut::new(args.duration), linger };
    let result = drive(feed, &mut count, command.as_mut());
    if look::is_watched() {
        if let (Ok(Some(status)), Some(command)) = (&result, &command) {
            crate::say(&format!("{} {}", command.name(), command::words(*status)));
        }
        if count.ticks > 0 {
            let bytes = args.output.metadata().map_or(0, |meta| meta.len());
            crate::say(&format!("{} ticks, {bytes} bytes in {}", count.ticks, args.output.display()));
        }
    }
    // What still runs is ended here.
    drop(command);
    result?.map_or(Ok(()), |status| Err(Failure::Status(command::code(status))))
}

struct Count {
    ticks: u64,
    forever: bool,
    cut: Cut,
    linger: Duration,
}

impl Sink for Count {
    fn session(&mut self, session: Session) -> Result<(), Failure> {
        if session.basis == Basis::Procfs {
            crate::say(
                "nothing of BPF can run here: this records what procfs says, without stacks; see `sberf doctor`",
            );
        }
        if self.forever && look::is_watched() {
            crate::say("recording; Ctrl-C ends it");
        }
        Ok(())
    }

    fn batch(&mut self, batch: Batch) -> Result<bool, Failure> {
        self.ticks += u64::from(matches!(batch, Batch::Tick(_)));
        Ok(self.cut.takes(&batch) && !self.cut.is_last(&batch))
    }

    fn linger(&self) -> Duration {
        self.linger
    }
}
