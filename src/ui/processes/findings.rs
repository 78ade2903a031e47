//! What is wrong on this machine and is not in the rows that show: a thread that hangs uses no CPU and stands at the end, one
//! that its cgroup holds back looks like one that others keep from running.

use crate::model::{Model, Process, Thread};
use crate::tick::{Quota, Stuck};
use crate::ui::format;
use crate::ui::process::used_up;

/// Cells of the name of a cgroup or a group above the table; its end says which it is.
pub const LONGEST_NAME: usize = 28;

/// All there is to say, each as long as `room` cells allow. It leaves `spare` of them free unless only the shortest way to say it
/// would. Empty where nothing is to be said.
pub fn line(model: &Model, room: usize, spare: usize) -> String {
    let mut line = String::new();
    for ways in [hanging(model), held_back(model)] {
        let left = room.saturating_sub(format::width(&line));
        let fits = |cells: usize| ways.iter().find(|way| format::width(way) <= cells);
        let beside = fits(left.saturating_sub(spare)).filter(|way| Some(*way) != ways.last());
        line += beside.or(fits(left)).or(ways.last()).map_or("", String::as_str);
    }
    line
}

/// Of a process, or one thread of it: which of its threads has been stuck longest.
pub fn stuck_of<'a>(model: &'a Model, process: &Process, thread: Option<&Thread>) -> Option<&'a Stuck> {
    let is_of = |stuck: &&Stuck| match thread {
        Some(thread) => stuck.thread == thread.key,
        None => stuck.process == process.key,
    };
    model.stuck().iter().find(is_of)
}

/// The same in the cell of a row: `stuck 13s percpu_rw…`, `stuck 13s`.
pub fn stuck_cell(model: &Model, stuck: &Stuck, width: usize) -> String {
    let age = stuck_for(model, stuck);
    let text = format!("stuck {age}");
    match &stuck.place {
        _ if format::width(&text) > width => format!("D {age}"),
        Some(place) if format::width(&text) + LEAST_OF_A_PLACE < width => {
            format::fit(&format!("{text} {place}"), width)
        }
        _ => text,
    }
}

/// `13s`, or `>13s` of what was stuck before we came.
fn stuck_for(model: &Model, stuck: &Stuck) -> String {
    let (ns, longer) = model.stuck_for(stuck);
    format!("{}{}", if longer { ">" } else { "" }, format::age(ns))
}

/// Cells of the name of a place that say something.
const LEAST_OF_A_PLACE: usize = 6;

/// Who hangs longest. The longest way to say so first.
fn hanging(model: &Model) -> Vec<String> {
    let Some(stuck) = model.stuck().first() else { return Vec::new() };
    let more = match model.stuck().len() - 1 {
        0 => String::new(),
        more => format!(", {more} more"),
    };
    let name = model.process(stuck.process).map_or("", |process| process.facts.comm.as_str());
    let (pid, name, age) = (stuck.process.tgid, format::fit(name, 15), stuck_for(model, stuck));
    let place = stuck.place.as_ref().map(|place| format!(" in {}", format::fit(place, LONGEST_NAME)));
    vec![
        format!("│ {pid} {name} stuck {age}{}{more} ", place.unwrap_or_default()),
        format!("│ {pid} {name} stuck {age}{more} "),
        format!("│ {pid} stuck{more} "),
    ]
}

/// Which CPU quotas were used up in at least one of ten of their periods, the one that was most often: their threads wait
/// for a CPU without anybody on it. The longest way to say so first.
fn held_back(model: &Model) -> Vec<String> {
    let is_held = |quota: &&Quota| quota.share().is_some_and(|share| share >= 0.1);
    let Some(worst) = model.quotas().iter().find(is_held) else { return Vec::new() };
    let more = match model.quotas().iter().filter(is_held).count() - 1 {
        0 => String::new(),
        more => format!(", {more} more"),
    };
    let name = |cells: usize| format::fit_end(&worst.cgroup, cells);
    let Quota { throttled, periods, .. } = worst;
    vec![
        format!("│ CPU quota of {} used up in {}{more} ", name(LONGEST_NAME), used_up(worst)),
        format!("│ CPU quota of {} used up, {throttled}/{periods}{more} ", name(LONGEST_NAME * 2 / 3)),
        format!("│ {} out of CPU quota{more} ", name(LONGEST_NAME / 2)),
    ]
}
