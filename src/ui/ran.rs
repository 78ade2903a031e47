//! Below the past of a CPU: the threads that ran on it last, and how long they ran and waited in the newest tick. Who waits
//! there long stands beside who runs meanwhile.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::table::{self, Column, Sorted};
use super::{Theme, draw, format};
use crate::model::{Model, Thread};
use crate::tick::ThreadKey;

/// So many are found; more than a screen has lines for.
const MOST: usize = 64;

const COLUMNS: [Column; 7] = [
    Column { head: "PID", width: 7, extra: 0, drop: 0, right: true },
    Column { head: "ran%", width: 6, extra: 0, drop: 0, right: true },
    Column { head: "waited%", width: 7, extra: 0, drop: 0, right: true },
    Column { head: "runq p99", width: 8, extra: 0, drop: 2, right: true },
    Column { head: "max", width: 6, extra: 0, drop: 3, right: true },
    Column { head: "moves/s", width: 7, extra: 0, drop: 4, right: true },
    Column { head: "THREAD", width: 16, extra: 60, drop: 1, right: false },
];

/// The threads of one CPU.
#[derive(Default)]
pub struct Ran {
    cpu: Option<u32>,
    rows: Vec<ThreadKey>,
    /// How many there are.
    all: usize,
}

impl Ran {
    /// Finds them: who ran longest first, then who waited longest.
    pub fn update(&mut self, cpu: Option<u32>, model: &Model) {
        let is_of =
            |thread: &&Thread| Some(thread.cpu) == cpu && thread.tick.ns.on_cpu() + thread.tick.ns.runnable() > 0;
        let mut threads: Vec<&Thread> = model.all_threads().filter(is_of).collect();
        let key = |thread: &&Thread| {
            let ns = &thread.tick.ns;
            (std::cmp::Reverse((ns.on_cpu(), ns.runnable())), thread.key)
        };
        threads.sort_by_key(key);
        (self.cpu, self.all) = (cpu, threads.len());
        self.rows = threads.into_iter().take(MOST).map(|thread| thread.key).collect();
    }

    /// Draws them: a title, heads, and as many as there is room for. Nothing where that is not even one.
    pub fn render(&self, model: &Model, theme: &Theme, area: Rect, buf: &mut Buffer) {
        let Some(cpu) = self.cpu.filter(|_| area.height >= 3 && !model.is_glance()) else { return };
        let shown = self.rows.len().min(usize::from(area.height) - 2);
        let count = match self.all {
            all if all > shown => {
                format!("{} of {}", format::grouped(shown as u64), format::counted(all as u64, "thread", "threads"))
            }
            all => format::counted(all as u64, "thread", "threads"),
        };
        let title = format!("  last on CPU {cpu}: {count}, with all they ran and waited in this tick");
        draw::put(buf, area.x, area.y, &title, area.width, theme.header());
        let slots = table::lay_out(&COLUMNS, 2, area.width);
        let unsorted = Sorted { column: usize::MAX, descending: false };
        table::heads(buf, draw::line(area, 1), &COLUMNS, &slots, unsorted, (theme.header(), theme.header()));
        for (nth, key) in self.rows.iter().take(shown).enumerate() {
            let Some(thread) = model.thread(*key) else { continue };
            let line = draw::line(area, nth as u16 + 2);
            for &slot in &slots {
                let text = text(slot.column, thread, model);
                let style = if matches!(text.as_str(), "0" | format::NONE) { theme.dim() } else { theme.text() };
                table::cell(buf, line, slot, COLUMNS[slot.column].right, &text, style);
            }
        }
    }
}

fn text(column: usize, thread: &Thread, model: &Model) -> String {
    let span_ns = model.span().map_or(1, |span| span.len_ns()).max(1);
    let share = |ns: u64| format::percent(ns as f64 / span_ns as f64);
    let tick = &thread.tick;
    match COLUMNS[column].head {
        "PID" => thread.process.tgid.to_string(),
        "ran%" => share(tick.ns.on_cpu()),
        "waited%" => share(tick.ns.runnable()),
        "runq p99" => tick.runq.quantile(0.99).map_or(format::NONE.into(), format::duration),
        "max" => (!tick.runq.is_empty()).then_some(tick.runq.max).map_or(format::NONE.into(), format::duration),
        "moves/s" => format::rate(tick.migrations as f64 * 1e9 / span_ns as f64),
        _ => format::clean(&thread.comm).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use crate::tick::{Hist, State, ThreadTick};
    use crate::ui::fixture::{MS, busy, facts, model_of, thread};
    use crate::ui::testing::lines;

    #[test]
    fn who_waits_on_a_cpu_stands_beside_who_ran_there() {
        let mut tick = busy(1);
        tick.processes.extend([facts(50, 1, 0, &["server"]), facts(60, 1, 0, &["batch"])]);
        let on = |tgid: u32, ran: u64, waited: u64| ThreadTick {
            cpu: 7,
            runq: Hist::of([waited * MS]),
            ..thread(tgid, tgid, &[(State::User, ran * MS), (State::Woken, waited * MS), (State::Timer, 500 * MS)])
        };
        tick.threads.extend([on(50, 50, 450), on(60, 400, 100)]);
        tick.threads.push(ThreadTick { cpu: 7, ..thread(4711, 4799, &[(State::Lock, 1000 * MS)]) });
        tick.cpus.push(crate::tick::CpuTick { id: 7, idle_ns: 1, ..Default::default() });
        let model = model_of([tick]);
        let mut pane = super::super::cpus::CpusPane::default();
        super::super::Pane::command(&mut pane, super::super::Command::Bottom, &model);
        for height in [21, 37] {
            let drawn = lines(&mut pane, &model, 100, height);
            let at = drawn.iter().position(|line| line.contains("last on CPU 7: 2 threads, with all")).unwrap();
            let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            assert_eq!(words(&drawn[at + 2]), ["60", "40.0", "10.0", "96.5ms", "100ms", "0", "t60"], "{drawn:#?}");
            assert_eq!(words(&drawn[at + 3])[..3], ["50", "5.0", "45.0"], "{drawn:#?}");
        }
    }
}
