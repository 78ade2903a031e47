//! Place 2: each CPU: how busy, who waits for it and how long, who runs, and the last minute.

use crossterm::event::{MouseButton, MouseEvent, MouseEventKind};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Modifier;

use super::ran::Ran;
use super::table::{self, Column, Cursor, Slot, Sorted};
use super::{Command, Context, Outcome, Pane, Target, Theme, copy, draw, format, strip};
use crate::model::{HistoryTick, Model, Scope};
use crate::tick::{CpuTick, State};

/// Columns, in their order on the screen.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Cpu,
    Node,
    User,
    Kernel,
    Irq,
    Softirq,
    Steal,
    Idle,
    Queue,
    P99,
    Max,
    Switches,
    Running,
    History,
}

impl What {
    /// Only whoever sees every switch can tell.
    const fn takes_switches(self) -> bool {
        matches!(self, What::Queue | What::P99 | What::Max | What::Switches | What::Running)
    }
}

const WHAT: [What; 14] = [
    What::Cpu,
    What::Node,
    What::User,
    What::Kernel,
    What::Irq,
    What::Softirq,
    What::Steal,
    What::Idle,
    What::Queue,
    What::P99,
    What::Max,
    What::Switches,
    What::Running,
    What::History,
];

const COLUMNS: [Column; 14] = [
    Column { head: "CPU", width: 4, extra: 0, drop: 0, right: true },
    Column { head: "node", width: 4, extra: 0, drop: 11, right: true },
    Column { head: "user%", width: 5, extra: 0, drop: 1, right: true },
    Column { head: "kern%", width: 5, extra: 0, drop: 1, right: true },
    Column { head: "irq%", width: 4, extra: 0, drop: 9, right: true },
    Column { head: "soft%", width: 5, extra: 0, drop: 7, right: true },
    Column { head: "steal%", width: 6, extra: 0, drop: 8, right: true },
    Column { head: "idle%", width: 5, extra: 0, drop: 1, right: true },
    Column { head: "queue", width: 5, extra: 0, drop: 2, right: true },
    Column { head: "runq p99", width: 8, extra: 0, drop: 3, right: true },
    Column { head: "max", width: 6, extra: 0, drop: 4, right: true },
    Column { head: "switch/s", width: 8, extra: 0, drop: 10, right: true },
    Column { head: "now running", width: 14, extra: 8, drop: 5, right: false },
    Column { head: "▁█ busy, 1–9 waiting", width: 10, extra: 50, drop: 4, right: false },
];

/// Ticks of the past that are drawn.
const PAST: usize = 60;
/// Lines of the past before anything comes below it, and of that: a blank, a title, heads and three threads.
const LEAST_PAST: u16 = 8;
const LEAST_RAN: u16 = 6;
/// From here on a CPU has too many threads.
const CROWDED: f64 = 1.0;
/// From here on a CPU has time to spare.
const SPARE: f64 = 0.5;
/// Stolen time, or time in soft interrupts, worth a word.
const STOLEN: f64 = 0.1;
const SOFT: f64 = 0.3;

/// Every CPU.
#[derive(Default)]
pub struct CpusPane {
    cursor: Cursor,
    selected: Option<u32>,
    ran: Ran,
}

/// Heads and rows, findings, and the last minute of the CPU under the cursor.
struct Parts {
    table: Rect,
    findings: Rect,
    past: Rect,
    ran: Rect,
}

fn parts(area: Rect, cpus: usize, findings: usize) -> Parts {
    let wanted = cpus.min(usize::from(u16::MAX) - 1) as u16 + 1;
    let said = (findings as u16).min(area.height / 6);
    let room = area.height - said;
    // The past gets what rows leave over; where CPUs are many, a third, if that is enough to show anything.
    let past = match room.saturating_sub(wanted) {
        left if left >= LEAST_PAST + LEAST_RAN => (left - LEAST_RAN).min(16),
        left if left >= 7 => left.min(16),
        _ if room / 3 >= 7 => room / 3,
        _ => 0,
    };
    let table = Rect { height: room - past, ..area };
    let table = Rect { height: table.height.min(wanted), ..table };
    let findings = Rect { y: table.bottom(), height: said, ..area };
    let past = Rect { y: findings.bottom() + u16::from(past > 0), height: past.saturating_sub(1), ..area };
    let y = (past.bottom() + u16::from(past.height > 0)).min(area.bottom());
    Parts { table, findings, past, ran: Rect { y, height: area.bottom() - y, ..area } }
}

impl CpusPane {
    fn select(&mut self, model: &Model) {
        self.selected = model.cpus().get(self.cursor.at).map(|cpu| cpu.id);
        self.ran.update(self.selected, model);
    }

    /// The past gets a fifth of a narrow screen, a quarter of a wide one.
    fn slots(area: Rect) -> Vec<Slot> {
        let mut columns = COLUMNS;
        let part = if area.width < 100 { area.width / 5 } else { area.width / 4 };
        columns[COLUMNS.len() - 1].width = part.clamp(10, PAST as u16);
        columns[COLUMNS.len() - 1].extra = (PAST as u16).saturating_sub(part);
        table::lay_out(&columns, 2, area.width)
    }
}

impl Pane for CpusPane {
    fn context(&self) -> Context {
        Context::Cpus
    }

    fn title(&self, _model: &Model) -> String {
        "CPUs".into()
    }

    fn command(&mut self, command: Command, model: &Model) -> Outcome {
        if self.cursor.command(command, model.cpus().len()) {
            self.select(model);
            return Outcome::Done;
        }
        match (command, self.selected) {
            (Command::Enter, Some(cpu)) => Outcome::Open(Target::Latency(Scope::Cpu(cpu))),
            _ => Outcome::Ignored,
        }
    }

    fn copy(&self, model: &Model) -> Option<String> {
        let cpu = model.cpus().get(self.cursor.at)?;
        Some(copy::row(WHAT.iter().zip(&COLUMNS).map(|(&what, column)| (column.head, text(cpu, what, model)))))
    }

    fn mouse(&mut self, mouse: MouseEvent, area: Rect, model: &Model) -> Outcome {
        let table = parts(area, model.cpus().len(), findings(model).len()).table;
        match mouse.kind {
            MouseEventKind::ScrollUp => return self.command(Command::Up, model),
            MouseEventKind::ScrollDown => return self.command(Command::Down, model),
            MouseEventKind::Down(MouseButton::Left) if table.contains((mouse.column, mouse.row).into()) => {
                let Some(row) = mouse.row.checked_sub(table.y + 1) else { return Outcome::Done };
                let row = self.cursor.first + usize::from(row);
                if row == self.cursor.at {
                    return self.command(Command::Enter, model);
                }
                self.cursor.at = row.min(model.cpus().len().saturating_sub(1));
                self.select(model);
            }
            _ => return Outcome::Ignored,
        }
        Outcome::Done
    }

    fn tick(&mut self, model: &Model, _hold: bool) {
        if let Some(at) = self.selected.and_then(|id| model.cpus().iter().position(|cpu| cpu.id == id)) {
            self.cursor.at = at;
        }
        self.cursor.clamp(model.cpus().len());
        self.select(model);
    }

    fn layout(&mut self, area: Rect, model: &Model) {
        let table = parts(area, model.cpus().len(), findings(model).len()).table;
        self.cursor.show(model.cpus().len(), usize::from(table.height.saturating_sub(1)));
    }

    fn render(&self, model: &Model, theme: &Theme, area: Rect, buf: &mut Buffer) {
        let area = area.intersection(*buf.area());
        let findings = findings(model);
        let parts = parts(area, model.cpus().len(), findings.len());
        self.render_table(model, theme, parts.table, buf);
        for (at, finding) in findings.iter().enumerate() {
            let line = draw::line(parts.findings, at as u16);
            if line.height > 0 {
                draw::put(buf, line.x + 2, line.y, finding, line.width.saturating_sub(2), theme.warn());
            }
        }
        if let Some(id) = self.selected {
            past(model, id, theme, parts.past, buf);
            self.ran.render(model, theme, parts.ran, buf);
        }
    }
}

impl CpusPane {
    fn render_table(&self, model: &Model, theme: &Theme, area: Rect, buf: &mut Buffer) {
        let slots = Self::slots(area);
        let unsorted = Sorted { column: usize::MAX, descending: false };
        table::heads(buf, draw::line(area, 0), &COLUMNS, &slots, unsorted, (theme.header(), theme.header()));
        for (line, at) in self.cursor.shown(model.cpus().len()).enumerate() {
            let line = draw::line(area, line as u16 + 1);
            let cpu = &model.cpus()[at];
            for &slot in &slots {
                match WHAT[slot.column] {
                    What::History => {
                        history(model, cpu.id, theme, Rect { x: line.x + slot.x, width: slot.width, ..line }, buf)
                    }
                    what => {
                        let text = text(cpu, what, model);
                        table::cell(buf, line, slot, COLUMNS[slot.column].right, &text, theme.text());
                    }
                }
            }
            if at == self.cursor.at && line.height > 0 {
                draw::put(buf, line.x, line.y, "▸", 1, theme.accent());
                let still =
                    slots.iter().find(|slot| WHAT[slot.column] == What::History).map_or(line.width, |slot| slot.x);
                buf.set_style(Rect { width: still, ..line }, theme.selected());
            }
        }
    }
}

/// Time a CPU was observed, ns.
fn total(cpu: &CpuTick) -> u64 {
    [cpu.user_ns, cpu.kernel_ns, cpu.irq_ns, cpu.softirq_ns, cpu.steal_ns, cpu.idle_ns]
        .into_iter()
        .fold(0, u64::saturating_add)
}

fn share(cpu: &CpuTick, ns: u64) -> f64 {
    let total = total(cpu);
    if total > 0 { ns as f64 / total as f64 } else { 0.0 }
}

/// Mean length of the run queue: threads that waited, on average over the interval.
fn queue(cpu: &CpuTick, span_ns: u64) -> f64 {
    cpu.runnable_ns as f64 / span_ns.max(1) as f64
}

fn text(cpu: &CpuTick, what: What, model: &Model) -> String {
    let span_ns = model.span().map_or(1, |span| span.len_ns());
    let percent = |ns| format::percent(share(cpu, ns));
    let some = |value: Option<u64>| value.map_or_else(|| format::NONE.to_owned(), format::duration);
    if what.takes_switches() && model.waits_have_no_reasons() {
        return format::OFF.into();
    }
    match what {
        What::Cpu => cpu.id.to_string(),
        What::Node => cpu.node.to_string(),
        What::User => percent(cpu.user_ns),
        What::Kernel => percent(cpu.kernel_ns),
        What::Irq => percent(cpu.irq_ns),
        What::Softirq => percent(cpu.softirq_ns),
        What::Steal => percent(cpu.steal_ns),
        What::Idle => percent(cpu.idle_ns),
        What::Queue => format::rate(queue(cpu, span_ns)),
        What::P99 => some(cpu.runq.quantile(0.99)),
        What::Max => some((!cpu.runq.is_empty()).then_some(cpu.runq.max)),
        What::Switches => format::rate(cpu.switches as f64 * 1e9 / span_ns.max(1) as f64),
        What::Running => running(cpu, model),
        What::History => String::new(),
    }
}

/// `4711 postgres`: process and name of the thread that runs.
fn running(cpu: &CpuTick, model: &Model) -> String {
    match cpu.running {
        None => "idle".into(),
        Some(key) => match model.thread(key) {
            Some(thread) => format!("{} {}", thread.process.tgid, thread.comm),
            None => format!("thread {}", key.tid),
        },
    }
}

/// One cell per tick, the newest at the right end: how busy, or as a digit how many threads waited.
fn history(model: &Model, id: u32, theme: &Theme, place: Rect, buf: &mut Buffer) {
    let room = usize::from(place.width).min(PAST);
    for (back, tick) in model.history().iter().rev().take(room).enumerate() {
        let Some(cpu) = tick.cpus.iter().find(|cpu| cpu.id == id) else { continue };
        let waiting = queue(cpu, tick.span.len_ns());
        let busy = (share(cpu, total(cpu) - cpu.idle_ns) * 8.0).round() as usize;
        let x = place.x + (room - 1 - back) as u16;
        if waiting >= 0.5 {
            let digit = if waiting < 9.5 { format!("{waiting:.0}") } else { "+".into() };
            draw::put(buf, x, place.y, &digit, 1, theme.state(State::Woken).add_modifier(Modifier::BOLD));
        } else if busy > 0 {
            draw::put(buf, x, place.y, theme.level(busy), 1, theme.state(State::User));
        }
    }
}

/// The last minute of one CPU: user and kernel time from below, and on top of them who waited.
fn past(model: &Model, id: u32, theme: &Theme, area: Rect, buf: &mut Buffer) {
    if area.height < 4 {
        return;
    }
    let ticks: Vec<(&HistoryTick, &CpuTick)> =
        model.history().iter().filter_map(|tick| Some((&**tick, tick.cpus.iter().find(|cpu| cpu.id == id)?))).collect();
    let columns = ticks.iter().map(|(tick, cpu)| {
        let interrupts = cpu.irq_ns + cpu.softirq_ns + cpu.steal_ns;
        strip::Column {
            end_ns: tick.span.end_ns,
            len_ns: tick.span.len_ns(),
            parts: vec![
                (State::User, share(cpu, cpu.user_ns)),
                (State::Kernel, share(cpu, cpu.kernel_ns)),
                (State::Other, share(cpu, interrupts)),
                (State::Woken, queue(cpu, tick.span.len_ns())),
            ],
        }
    });
    let legend = [
        (State::User, "user"),
        (State::Kernel, "kernel"),
        (State::Other, "interrupts, steal"),
        (State::Woken, "threads waiting"),
    ];
    let title = format!("CPU {id} over time");
    strip::draw(&title, &legend, &columns.collect::<Vec<_>>(), theme, area, buf);
}

/// What is wrong, in words, with its numbers; nothing where nothing is.
pub fn findings(model: &Model) -> Vec<String> {
    let span_ns = model.span().map_or(0, |span| span.len_ns());
    let cpus = model.cpus();
    [unbalanced(cpus, span_ns), stolen(cpus), soft(cpus)].into_iter().flatten().collect()
}

fn unbalanced(cpus: &[CpuTick], span_ns: u64) -> Option<String> {
    let queue = |cpu: &CpuTick| queue(cpu, span_ns);
    let idle = |cpu: &CpuTick| share(cpu, cpu.idle_ns);
    let crowded = cpus.iter().max_by(|a, b| queue(a).total_cmp(&queue(b)))?;
    let spare = cpus.iter().filter(|cpu| cpu.id != crowded.id).max_by(|a, b| idle(a).total_cmp(&idle(b)))?;
    (queue(crowded) >= CROWDED && idle(spare) >= SPARE).then(|| {
        format!(
            "unbalanced: CPU {} had {} threads waiting while CPU {} was idle {} % of the time",
            crowded.id,
            format::rate(queue(crowded)),
            spare.id,
            format::percent(idle(spare)),
        )
    })
}

fn stolen(cpus: &[CpuTick]) -> Option<String> {
    let most = cpus.iter().max_by(|a, b| share(a, a.steal_ns).total_cmp(&share(b, b.steal_ns)))?;
    let stolen = share(most, most.steal_ns);
    (stolen >= STOLEN).then(|| {
        format!("stolen: the hypervisor gave {} % of CPU {}'s time to other guests", format::percent(stolen), most.id)
    })
}

fn soft(cpus: &[CpuTick]) -> Option<String> {
    let most = cpus.iter().max_by(|a, b| share(a, a.softirq_ns).total_cmp(&share(b, b.softirq_ns)))?;
    let soft = share(most, most.softirq_ns);
    (soft >= SOFT).then(|| format!("soft interrupts take {} % of CPU {}", format::percent(soft), most.id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::invented::Invention;
    use crate::ui::testing::{any_size, lines, model};

    const SECOND: u64 = 1_000_000_000;

    fn cpu(id: u32, user: u64, idle: u64, runnable: u64) -> CpuTick {
        let ms = |ms: u64| ms * 1_000_000;
        CpuTick { id, user_ns: ms(user), idle_ns: ms(idle), runnable_ns: ms(runnable), ..CpuTick::default() }
    }

    #[test]
    fn unbalanced_only_when_it_is() {
        let find = |cpus: &[CpuTick]| unbalanced(cpus, SECOND);
        assert_eq!(
            find(&[cpu(0, 1000, 0, 1900), cpu(1, 60, 940, 0)]).as_deref(),
            Some("unbalanced: CPU 0 had 1.9 threads waiting while CPU 1 was idle 94.0 % of the time")
        );
        assert_eq!(find(&[cpu(0, 1000, 0, 1900), cpu(1, 1000, 0, 1900)]), None, "both are crowded");
        assert_eq!(find(&[cpu(0, 1000, 0, 300), cpu(1, 60, 940, 0)]), None, "one thread waits now and then");
        assert_eq!(find(&[cpu(0, 100, 900, 1900)]), None, "there is no other CPU");
        assert_eq!(find(&[]), None);
    }

    #[test]
    fn stolen_time_is_said() {
        let mut stolen_from = cpu(3, 700, 100, 0);
        stolen_from.steal_ns = 200_000_000;
        let said = stolen(&[cpu(0, 1, 999, 0), stolen_from]).unwrap();
        assert_eq!(said, "stolen: the hypervisor gave 20.0 % of CPU 3's time to other guests");
        assert_eq!(stolen(&[cpu(0, 1, 999, 0)]), None);
    }

    #[test]
    fn rows_say_what_the_model_knows() {
        let model = model(Invention { cpus: 4, nodes: 2, ..Invention::default() }, 10);
        let drawn = lines(&mut CpusPane::default(), &model, 118, 40);
        for (row, cpu) in drawn[1..5].iter().zip(model.cpus()) {
            assert!(row.contains(&running(cpu, &model)[..4]), "{row}");
            let user = format::percent(share(cpu, cpu.user_ns));
            assert!(row.split_whitespace().any(|word| word == user), "{row}: {user}");
        }
        assert!(drawn[0].contains("user%") && drawn[0].contains("runq p99"));
    }

    #[test]
    fn many_cpus_scroll() {
        let model = model(Invention { cpus: 96, ..Invention::default() }, 3);
        let mut pane = CpusPane::default();
        let drawn = lines(&mut pane, &model, 80, 21);
        assert!(drawn.iter().all(|line| !line.trim_start().starts_with("95 ")));
        pane.command(Command::Bottom, &model);
        let drawn = lines(&mut pane, &model, 80, 21);
        assert!(drawn.iter().any(|line| line.starts_with("▸   95")), "{drawn:?}");
        assert!(matches!(pane.command(Command::Enter, &model), Outcome::Open(Target::Latency(Scope::Cpu(95)))));
    }

    #[test]
    fn sizes() {
        any_size(&mut CpusPane::default(), &model(Invention { cpus: 9, hostile: true, ..Invention::default() }, 5));
        any_size(&mut CpusPane::default(), &model(Invention::default(), 0));
    }
}
