//! Sources without a screen: `sberf record`, and the loop that it shares with the exports.

use std::io::{self, Write};
use std::time::Duration;

use crossbeam_channel::{Receiver, after, bounded, never, select};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use sberf::tick::{Batch, Session};

use crate::cli::Record;
use crate::feed::{Feed, News};
use crate::{Failure, look, source};

/// Names of what the last tick saw for the first time are found by then, as a rule.
pub const NAMES_LATE: Duration = Duration::from_millis(700);

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
}

/// Feeds `sink` until it has enough, the source ends, or a signal asks to end. Fails with what the source said at the
/// end, after everything before it was taken in.
pub fn drive(feed: Feed, sink: &mut impl Sink) -> Result<(), Failure> {
    let mut drive = Drive { sink, error: None };
    let enough = drive.until_enough(&feed, &signals()?);
    // Whatever became of it: the source ends in order, and with it the capture.
    let rest = feed.finish();
    let names_only = enough?;
    for news in rest {
        if !names_only || !matches!(news, News::Batch(Batch::Tick(_))) {
            drive.news(news)?;
        }
    }
    drive.error.map_or(Ok(()), |error| Err(Failure::Line(error)))
}

struct Drive<'a, S> {
    sink: &'a mut S,
    error: Option<String>,
}

impl<S: Sink> Drive<'_, S> {
    /// Yields true if the sink wants no more ticks, not even those under way.
    fn until_enough(&mut self, feed: &Feed, signals: &Receiver<i32>) -> Result<bool, Failure> {
        let mut lingered = never();
        let mut enough = false;
        loop {
            let news = select! {
                recv(feed.news) -> news => news,
                recv(signals) -> _ => return Ok(enough),
                recv(lingered) -> _ => return Ok(enough),
            };
            match news {
                Err(_) => return Ok(enough),
                Ok(News::Batch(Batch::Tick(_))) if enough => {}
                Ok(news) => {
                    let wants_more = self.news(news)?;
                    if !wants_more && !enough {
                        enough = true;
                        lingered = after(self.sink.linger());
                    }
                }
            }
        }
    }

    /// Yields false if the sink has enough.
    fn news(&mut self, news: News) -> Result<bool, Failure> {
        match news {
            News::Loaded(session) => self.sink.session(*session)?,
            News::Batch(batch) => return self.sink.batch(batch),
            News::Said(text) | News::Ended(Err(text)) => self.error = Some(text),
            News::Ended(Ok(())) => {}
        }
        Ok(true)
    }
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
    let open = source::live(&args.observe)?;
    let feed = Feed::start(open, Some(args.output.clone()))?;
    let mut count = Count { ticks: 0, forever: args.duration.is_none(), cut: Cut::new(args.duration), linger };
    let result = drive(feed, &mut count);
    if look::is_watched() && count.ticks > 0 {
        let bytes = args.output.metadata().map_or(0, |meta| meta.len());
        let text = format!("{} ticks, {bytes} bytes in {}", count.ticks, args.output.display());
        let _ = writeln!(io::stderr(), "sberf: {}", crate::one_line(&text));
    }
    result
}

struct Count {
    ticks: u64,
    forever: bool,
    cut: Cut,
    linger: Duration,
}

impl Sink for Count {
    fn session(&mut self, _: Session) -> Result<(), Failure> {
        if self.forever && look::is_watched() {
            let _ = writeln!(io::stderr(), "sberf: recording; Ctrl-C ends it");
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
