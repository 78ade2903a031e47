//! The ticks that are kept, as batches: what a source told, as far as it was not let go.

use std::collections::VecDeque;

use rustc_hash::{FxHashMap, FxHashSet};

use super::archive::{Record, Segment};
use super::history::{History, ON_CPU, StackEntry};
use super::past::tick_of;
use super::window::TickRange;
use super::{Model, NameTable};
use crate::tick::{
    Batch, FrameId, Lens, ModuleId, Names, ProcessFacts, ProcessKey, Session, StackId, StackWeight, State, Tick,
};

/// What was kept when it was asked for; the model may go on meanwhile. Yields names first, then each tick.
pub struct Saved {
    session: Session,
    names: Option<Names>,
    history: History,
    segments: VecDeque<Segment>,
    /// The model as it was before the next tick, and the ticks of its segment that are left.
    at: Option<(Model, VecDeque<Record>)>,
    /// Facts of those who lived before the first tick.
    facts: Vec<ProcessFacts>,
    last: u64,
}

impl Model {
    /// The ticks that are kept, up to the newest, whichever is looked at. `None` if there are none.
    pub fn saved(&self) -> Option<Saved> {
        let present = self.present.as_deref().unwrap_or(self);
        let first = present.archive.oldest()?;
        // Names are with whoever is looked at.
        let names = wanted(&self.names, &present.history, TickRange { first, last: present.ticks });
        Some(Saved {
            session: present.session.clone(),
            names: Some(names),
            history: present.history.clone(),
            segments: present.archive.from(first).cloned().collect(),
            at: None,
            facts: Vec::new(),
            last: present.ticks,
        })
    }
}

impl Saved {
    /// The machine, and how it was observed.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// How many ticks there are.
    pub fn ticks(&self) -> u64 {
        self.segments.front().map_or(0, |segment| self.last + 1 - segment.first)
    }

    fn next_tick(&mut self) -> Option<Tick> {
        while self.at.as_ref().is_none_or(|(_, records)| records.is_empty()) {
            let segment = self.segments.pop_front()?;
            // Segments follow each other: only the first needs its keyframe.
            let model = match self.at.take() {
                Some((model, _)) => model,
                None => self.begin(&segment)?,
            };
            self.at = Some((model, segment.records().into()));
        }
        let (model, records) = self.at.as_mut()?;
        let record = records.pop_front()?;
        let (history, block) = self.history.tick(model.ticks() + 1)?;
        let sleepers = model.sleepers(&record, history.span.len_ns());
        let Record { head, loud, tail } = record;
        let mut tick = tick_of(head, loud, history);
        model.take_in_again(tick.clone(), tail, block);
        tick.threads.extend(sleepers);
        let keys: FxHashMap<u32, ProcessKey> =
            model.processes.iter().map(|entry| (entry.serial, entry.process.key)).collect();
        let mut stacks = Vec::new();
        block.each(|entry| stacks.extend(keys.get(&entry.serial).map(|&key| weight(key, &entry))));
        let mut processes = std::mem::take(&mut self.facts);
        processes.extend(tick.processes);
        Some(Tick { processes, stacks, ..tick })
    }

    fn begin(&mut self, segment: &Segment) -> Option<Model> {
        let keyframe = segment.keyframe()?;
        let alive = keyframe.processes.iter().filter(|process| process.threads > 0 && process.has_facts);
        self.facts = alive.map(|process| process.facts.clone().into_owned()).collect();
        let (first, _) = self.history.tick(segment.first)?;
        Some(Model::resumed(self.session.clone(), Default::default(), segment.first, first.span.start_ns, &keyframe))
    }
}

impl Iterator for Saved {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        match self.names.take() {
            Some(names) => Some(Batch::Names(Box::new(names))),
            None => self.next_tick().map(|tick| Batch::Tick(Box::new(tick))),
        }
    }
}

fn weight(process: ProcessKey, entry: &StackEntry) -> StackWeight {
    let lens = match entry.lens {
        ON_CPU => Lens::OnCpu,
        code => Lens::Blocked(State::ALL.get(usize::from(code) - 1).copied().unwrap_or(State::Other)),
    };
    StackWeight { process, lens, stack: entry.stack, weight: entry.weight, count: entry.count }
}

/// The names that the stacks of a range need, and all users.
fn wanted(names: &NameTable, history: &History, range: TickRange) -> Names {
    let mut stacks: FxHashSet<StackId> = FxHashSet::default();
    history.stacks(range, |entry| {
        stacks.insert(entry.stack);
    });
    let stacks: Vec<_> = stacks.into_iter().filter_map(|id| Some((id, names.stacks.get(&id)?.clone()))).collect();
    let frames: FxHashSet<FrameId> = stacks.iter().flat_map(|(_, stack)| &stack.frames).copied().collect();
    let symbols = frames.iter().filter_map(|id| Some((*id, names.symbols.get(id)?.clone()))).collect();
    let details = frames.iter().filter_map(|id| Some((*id, names.details.get(id)?.clone()))).collect();
    let frames: Vec<_> = frames.iter().filter_map(|id| Some((*id, *names.frames.get(id)?))).collect();
    let modules: FxHashSet<ModuleId> = frames.iter().map(|(_, frame)| frame.module).collect();
    let modules = modules.into_iter().filter_map(|id| Some((id, names.modules.get(&id)?.clone()))).collect();
    let users = names.users.iter().map(|(uid, name)| (*uid, name.clone())).collect();
    let mut wanted = Names { users, modules, frames, symbols, details, stacks };
    // The order of first sight.
    wanted.users.sort_unstable();
    wanted.modules.sort_unstable_by_key(|(id, _)| *id);
    wanted.frames.sort_unstable_by_key(|(id, _)| *id);
    wanted.symbols.sort_unstable_by_key(|(id, _)| *id);
    wanted.details.sort_unstable_by_key(|(id, _)| *id);
    wanted.stacks.sort_unstable_by_key(|(id, _)| *id);
    wanted
}
