//! Folded files that wait for what is asked for them: inlined functions are frames of theirs.

use std::time::{Duration, Instant};

use sberf::model::{Model, TreeQuery};
use sberf::tick::{Frame, FrameId};

use crate::export;

/// Longest wait; what has not come by then is not in the file.
const PATIENCE: Duration = Duration::from_secs(10);

/// Files to be written.
#[derive(Default)]
pub struct Exports {
    waiting: Vec<Waiting>,
}

struct Waiting {
    query: TreeQuery,
    file: String,
    asked: Vec<FrameId>,
    until: Instant,
}

impl Exports {
    /// Begins with one; yields what must be asked for, and is ready at once if that is nothing.
    pub fn begin(&mut self, model: &Model, query: TreeQuery, file: String) -> Vec<(FrameId, Frame)> {
        let tree = model.tree(&query);
        let frames = model.plain_frames(tree.nodes.iter().map(|node| node.code));
        let asked = frames.iter().map(|(id, _)| *id).collect();
        self.waiting.push(Waiting { query, file, asked, until: Instant::now() + PATIENCE });
        frames
    }

    /// Writes those that wait for nothing any more (or, with `all`, every one); yields what to tell the person.
    pub fn write(&mut self, model: &Model, all: bool) -> Vec<String> {
        let now = Instant::now();
        let is_ready =
            |waiting: &Waiting| all || now >= waiting.until || !waiting.asked.iter().any(|id| model.is_plain(*id));
        let ready: Vec<Waiting> = self.waiting.extract_if(.., |waiting| is_ready(waiting)).collect();
        ready.into_iter().map(|waiting| export::folded_file(model, &waiting.query, &waiting.file)).collect()
    }

    /// How long the one that waits longest may still wait; `None` if none does.
    pub fn patience(&self) -> Option<Duration> {
        let until = self.waiting.iter().map(|waiting| waiting.until).min()?;
        Some(until.saturating_duration_since(Instant::now()))
    }
}
