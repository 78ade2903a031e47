//! Place 3: each NUMA node: what ran on it, its memory, what moved; and where each process ran.

use crossterm::event::{MouseButton, MouseEvent, MouseEventKind};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::process::nodes;
use super::table::{self, Column, Cursor, Sorted};
use super::{Command, Context, Outcome, Pane, Target, Theme, Wants, draw, format};
use crate::model::{Model, Process};
use crate::tick::{NodeTick, ProcessKey, SignalKind, is_missing};

const NODES: [Column; 11] = [
    Column { head: "node", width: 4, extra: 0, drop: 0, right: true },
    Column { head: "CPUs", width: 10, extra: 20, drop: 6, right: false },
    Column { head: "on-CPU%", width: 7, extra: 0, drop: 1, right: true },
    Column { head: "of all%", width: 7, extra: 0, drop: 3, right: true },
    Column { head: "memory", width: 7, extra: 0, drop: 2, right: true },
    Column { head: "free", width: 6, extra: 0, drop: 2, right: true },
    Column { head: "moved in/s", width: 10, extra: 0, drop: 4, right: true },
    Column { head: "out/s", width: 6, extra: 0, drop: 4, right: true },
    Column { head: "hit/s", width: 6, extra: 0, drop: 5, right: true },
    Column { head: "miss/s", width: 6, extra: 0, drop: 5, right: true },
    Column { head: "miss%", width: 5, extra: 0, drop: 7, right: true },
];

/// Head of the rows of processes.
const PROCESSES_HEAD: &str = "       PID   CPU%  migr/s  ran on, share of its on-CPU time          COMMAND";

/// Nodes and processes.
#[derive(Default)]
pub struct NumaPane {
    rows: Vec<ProcessKey>,
    selected: Option<ProcessKey>,
    cursor: Cursor,
    ticks: u64,
}

/// The sentence, rows of nodes, rows of processes.
fn parts(area: Rect, nodes: usize) -> (Rect, Rect, Rect) {
    let said = draw::line(area, 0);
    let wanted = nodes.min(usize::from(u16::MAX) - 2) as u16 + 1;
    let room = area.height - said.height;
    let table = Rect { y: said.bottom(), height: wanted.min(room - room / 2), ..area };
    let below = Rect { y: table.bottom(), height: room - table.height, ..area };
    let gap = u16::from(below.height > 2);
    (said, table, Rect { y: below.y + gap, height: below.height - gap, ..below })
}

impl NumaPane {
    /// Who ran most, first; those that still run in their order if it is held.
    fn order(&mut self, model: &Model, hold: bool) {
        let mut rows: Vec<&Process> = model.processes().filter(|process| !process.tick.node_ns.is_empty()).collect();
        match hold && !self.rows.is_empty() {
            true => {
                rows.sort_by_cached_key(|row| self.rows.iter().position(|&key| key == row.key).unwrap_or(usize::MAX))
            }
            false => rows.sort_by_key(|row| (std::cmp::Reverse(row.tick.ns.on_cpu()), row.key)),
        }
        self.rows = rows.into_iter().map(|row| row.key).collect();
        if let Some(at) = self.selected.and_then(|key| self.rows.iter().position(|&row| row == key)) {
            self.cursor.at = at;
        }
        self.cursor.clamp(self.rows.len());
        self.selected = self.rows.get(self.cursor.at).copied();
    }
}

impl Pane for NumaPane {
    fn context(&self) -> Context {
        Context::Numa
    }

    fn title(&self, _model: &Model) -> String {
        "NUMA".into()
    }

    fn command(&mut self, command: Command, _model: &Model) -> Outcome {
        if self.cursor.command(command, self.rows.len()) {
            self.selected = self.rows.get(self.cursor.at).copied();
            return Outcome::Done;
        }
        match (command, self.selected) {
            (Command::Enter, Some(key)) => Outcome::Open(Target::Process(key)),
            (Command::Enter, None) => Outcome::Done,
            _ => Outcome::Ignored,
        }
    }

    fn process(&self, _model: &Model) -> Option<ProcessKey> {
        self.selected
    }

    fn copy(&self, model: &Model) -> Option<String> {
        let line = self.process_line(model.process(self.selected?)?, model);
        Some(format!("{PROCESSES_HEAD}\n{}", format::clean(&line)))
    }

    fn mouse(&mut self, mouse: MouseEvent, area: Rect, model: &Model) -> Outcome {
        let (_, _, below) = parts(area, model.nodes().len());
        match mouse.kind {
            MouseEventKind::ScrollUp => self.command(Command::Up, model),
            MouseEventKind::ScrollDown => self.command(Command::Down, model),
            MouseEventKind::Down(MouseButton::Left) if mouse.row > below.y => {
                let row = self.cursor.first + usize::from(mouse.row - below.y - 1);
                if row == self.cursor.at {
                    return self.command(Command::Enter, model);
                }
                if row < self.rows.len() {
                    self.cursor.at = row;
                    self.selected = self.rows.get(row).copied();
                }
                Outcome::Done
            }
            _ => Outcome::Ignored,
        }
    }

    fn tick(&mut self, model: &Model, hold: bool) {
        if self.ticks != model.ticks() {
            self.ticks = model.ticks();
            self.order(model, hold);
        }
    }

    fn has_order(&self) -> bool {
        true
    }

    fn layout(&mut self, area: Rect, model: &Model) {
        let (_, _, below) = parts(area, model.nodes().len());
        self.cursor.show(self.rows.len(), usize::from(below.height.saturating_sub(1)));
    }

    fn wants(&self) -> Wants {
        let visible = self.cursor.shown(self.rows.len()).map(|at| self.rows[at]).collect();
        Wants { visible, focus: self.selected }
    }

    fn render(&self, model: &Model, theme: &Theme, area: Rect, buf: &mut Buffer) {
        let area = area.intersection(*buf.area());
        let (said, table, below) = parts(area, model.nodes().len());
        draw::put(
            buf,
            said.x + 1,
            said.y,
            &sentence(model),
            said.width.saturating_sub(1).min(said.height * 999),
            theme.text(),
        );
        render_nodes(model, theme, table, buf);
        self.render_processes(model, theme, below, buf);
    }
}

/// How many nodes there are, and what follows from it.
fn sentence(model: &Model) -> String {
    match model.session().nodes.len() {
        0 => "the kernel says nothing of NUMA nodes".into(),
        1 => "one NUMA node: all memory is equally near to every CPU".into(),
        nodes => format!("{nodes} NUMA nodes   moved: threads moved by the kernel's NUMA balancing   hit, miss: pages"),
    }
}

fn render_nodes(model: &Model, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let slots = table::lay_out(&NODES, 2, area.width);
    let unsorted = Sorted { column: usize::MAX, descending: false };
    table::heads(buf, draw::line(area, 0), &NODES, &slots, unsorted, (theme.header(), theme.header()));
    let all: u64 = model.nodes().iter().map(|node| node.on_cpu_ns).fold(0, u64::saturating_add);
    for (at, node) in model.nodes().iter().take(usize::from(area.height.saturating_sub(1))).enumerate() {
        let line = draw::line(area, at as u16 + 1);
        for &slot in &slots {
            let text = node_text(node, NODES[slot.column].head, all, model);
            table::cell(buf, line, slot, NODES[slot.column].right, &text, theme.text());
        }
    }
}

fn node_text(node: &NodeTick, head: &str, all_on_cpu: u64, model: &Model) -> String {
    let span_ns = model.span().map_or(1, |span| span.len_ns().max(1)) as f64;
    let cpus: &[u32] = model.session().nodes.iter().find(|(id, _)| *id == node.id).map_or(&[], |(_, cpus)| cpus);
    let rate = |count: u64| format::rate(count as f64 * 1e9 / span_ns);
    let share =
        |part: u64, whole: f64| if whole > 0.0 { format::percent(part as f64 / whole) } else { format::NONE.into() };
    let pages = node.numa_hit.zip(node.numa_miss);
    match head {
        "node" => node.id.to_string(),
        "CPUs" => ranges(cpus),
        "on-CPU%" => share(node.on_cpu_ns, span_ns * cpus.len() as f64),
        "of all%" => share(node.on_cpu_ns, all_on_cpu as f64),
        "memory" => format::bytes(node.total_bytes),
        "free" => format::bytes(node.free_bytes),
        "moved in/s" | "out/s" if is_missing(&model.session().signals, SignalKind::NumaMoves) => format::OFF.into(),
        "moved in/s" => rate(node.moved_in),
        "out/s" => rate(node.moved_out),
        "hit/s" => node.numa_hit.map(rate).unwrap_or_default(),
        "miss/s" => node.numa_miss.map(rate).unwrap_or_default(),
        "miss%" => pages.map_or_else(String::new, |(hit, miss)| share(miss, hit as f64 + miss as f64)),
        _ => String::new(),
    }
}

/// Ids as the kernel writes them: `0-3,8`.
fn ranges(ids: &[u32]) -> String {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    let runs = ids.chunk_by(|a, b| *b == a.saturating_add(1));
    let text = |run: &[u32]| match run {
        [one] => one.to_string(),
        [first, .., last] => format!("{first}-{last}"),
        [] => String::new(),
    };
    runs.map(text).collect::<Vec<_>>().join(",")
}

impl NumaPane {
    fn render_processes(&self, model: &Model, theme: &Theme, area: Rect, buf: &mut Buffer) {
        if model.session().nodes.len() < 2 || area.height < 2 {
            return;
        }
        draw::put(buf, area.x, area.y, PROCESSES_HEAD, area.width, theme.header());
        for (line, at) in self.cursor.shown(self.rows.len()).enumerate() {
            let line = draw::line(area, line as u16 + 1);
            let Some(process) = model.process(self.rows[at]).filter(|_| line.height > 0) else { continue };
            draw::put(buf, line.x, line.y, &self.process_line(process, model), line.width, theme.text());
            if at == self.cursor.at {
                draw::put(buf, line.x, line.y, "▸", 1, theme.accent());
                buf.set_style(line, theme.selected());
            }
        }
    }

    fn process_line(&self, process: &Process, model: &Model) -> String {
        let span_ns = model.span().map_or(1, |span| span.len_ns().max(1)) as f64;
        let cpu = format::percent(process.tick.ns.on_cpu() as f64 / span_ns);
        let migrations = format::rate(process.tick.migrations as f64 * 1e9 / span_ns);
        let ran = format::left(&nodes(&process.tick.node_ns, model.session()).join("  "), 40);
        format!("{:>10} {cpu:>6} {migrations:>7}  {ran}  {}", process.key.tgid, self.about(process, model))
    }

    /// Its name; of the one under the cursor also where its memory lies, once that is known.
    fn about(&self, process: &Process, model: &Model) -> String {
        let name = format::clean(&process.facts.comm).into_owned();
        let Some(by_node) = process.facts.node_bytes.as_ref().filter(|_| self.selected == Some(process.key)) else {
            return name;
        };
        let ids = model.session().nodes.iter().map(|(id, _)| *id);
        let memory: Vec<_> = ids.zip(by_node).map(|(id, &bytes)| format!("{} on {id}", format::bytes(bytes))).collect();
        format!("{name}   memory: {}", memory.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::invented::Invention;
    use crate::ui::testing::{any_size, lines, model};

    #[test]
    fn ids_as_ranges() {
        assert_eq!(ranges(&[0, 1, 2, 3, 8]), "0-3,8");
        assert_eq!(ranges(&[5, 1, 3]), "1,3,5");
        assert_eq!(ranges(&[]), "");
        assert_eq!(ranges(&[u32::MAX, 0]), format!("0,{}", u32::MAX));
    }

    #[test]
    fn one_node_is_said_and_shown() {
        let model = model(Invention::default(), 3);
        let drawn = lines(&mut NumaPane::default(), &model, 118, 20);
        assert_eq!(drawn[0], " one NUMA node: all memory is equally near to every CPU");
        assert!(drawn[1].contains("node CPUs"), "{drawn:?}");
        assert!(drawn[2].trim_start().starts_with("0 0-1"), "{drawn:?}");
        assert!(drawn[4..].iter().all(String::is_empty));
    }

    #[test]
    fn shares_of_nodes_and_processes() {
        let model = model(Invention { cpus: 4, nodes: 2, ..Invention::default() }, 5);
        let mut pane = NumaPane::default();
        let drawn = lines(&mut pane, &model, 118, 20);
        assert!(drawn[2].contains("0,2") && drawn[3].contains("1,3"), "{drawn:?}");
        let first = model.process(pane.rows[0]).unwrap();
        let row = drawn.iter().find(|line| line.starts_with('▸')).unwrap();
        let share = first.tick.node_ns[0] as f64 / first.tick.node_ns.iter().sum::<u64>() as f64;
        assert!(row.contains(&format!("node 0: {} %", format::percent(share))), "{row}");
        assert!(pane.rows.windows(2).all(|pair| {
            let on_cpu = |key: ProcessKey| model.process(key).unwrap().tick.ns.on_cpu();
            on_cpu(pair[0]) >= on_cpu(pair[1])
        }));
        assert!(
            matches!(pane.command(Command::Enter, &model), Outcome::Open(Target::Process(key)) if key == first.key)
        );
    }

    #[test]
    fn sizes() {
        let many = Invention { cpus: 64, nodes: 8, hostile: true, ..Invention::default() };
        any_size(&mut NumaPane::default(), &model(many, 4));
        any_size(&mut NumaPane::default(), &model(Invention::default(), 0));
    }
}
