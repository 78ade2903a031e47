//! What the screen does about time: the length of a tick, holding the picture, and which second it shows.

use std::time::Duration;

use super::App;
use crate::model::{Model, json};
use crate::ui::{Action, format};

/// What `+` and `-` step through.
const INTERVALS_MS: [u64; 9] = [100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000];

impl App {
    pub(super) fn pause(&mut self) -> Vec<Action> {
        self.paused = true;
        self.behind = 0;
        vec![Action::Hold(true)]
    }

    pub(super) fn go_live(&mut self) -> Vec<Action> {
        (self.paused, self.position) = (false, None);
        self.behind = 0;
        vec![Action::Look(None), Action::Hold(false)]
    }

    pub(super) fn earlier(&mut self, model: &Model) -> Vec<Action> {
        let Some(kept) = model.kept() else { return Vec::new() };
        let at = self.position.unwrap_or(*kept.end());
        if at <= *kept.start() {
            self.message = Some(format!("nothing before this is kept; {}", kept_words(model)));
            return Vec::new();
        }
        self.position = Some(at - 1);
        self.message = Some(format!("{}   ] later   Home live", kept_words(model)));
        let mut actions = if self.paused { Vec::new() } else { self.pause() };
        actions.push(Action::Look(self.position));
        actions
    }

    pub(super) fn later(&mut self, model: &Model) -> Vec<Action> {
        match self.position {
            Some(at) => {
                self.position = Some(at + 1).filter(|at| model.kept().is_some_and(|kept| at < kept.end()));
                vec![Action::Look(self.position)]
            }
            None if self.paused => vec![Action::Step],
            None => {
                self.message = Some("this is the newest tick; [ goes back".into());
                Vec::new()
            }
        }
    }

    pub(super) fn step_interval(&mut self, model: &Model, slower: bool) -> Vec<Action> {
        if self.options.replay {
            self.message = Some("a replay keeps the interval it was recorded with".into());
            return Vec::new();
        }
        let now = self.interval(model).as_millis() as u64;
        let next = match slower {
            true => INTERVALS_MS.iter().find(|&&ms| ms > now),
            false => INTERVALS_MS.iter().rev().find(|&&ms| ms < now),
        };
        match next.map(|&ms| Duration::from_millis(ms)) {
            Some(next) => {
                self.interval = Some(next);
                vec![Action::Interval(next)]
            }
            None => Vec::new(),
        }
    }

    pub(super) fn interval(&self, model: &Model) -> Duration {
        self.interval.unwrap_or(Duration::from_nanos(model.session().interval_ns))
    }

    /// `sberf-web-17-20261121-140322.sberf`: where, and when by the clock on the wall.
    pub(super) fn capture_name(&self, model: &Model) -> String {
        let host = format::file_part(&model.session().hostname).unwrap_or_else(|| "machine".into());
        // Of the newest tick, whichever is looked at.
        let wall_ns =
            model.span().map_or(0, |span| span.wall_ns.saturating_add(model.newest_ns().saturating_sub(span.start_ns)));
        let local = (wall_ns as i64).saturating_add(i64::from(self.options.utc_offset_s) * 1_000_000_000);
        let digits: String = json::rfc3339(local.max(0) as u64).chars().filter(char::is_ascii_digit).collect();
        let (day, time) = digits.split_at(8.min(digits.len()));
        format!("sberf-{host}-{day}-{}.sberf", time.get(..6).unwrap_or(time))
    }
}

/// How much of the past there is.
fn kept_words(model: &Model) -> String {
    let ticks = model.kept().map_or(0, |kept| kept.end() + 1 - kept.start());
    let word = if ticks == 1 { "tick is" } else { "ticks are" };
    format!("{} {word} kept", format::grouped(ticks))
}
