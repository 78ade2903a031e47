//! Drawing the table: the legend, what is selected, heads and rows. Formats only what can be seen.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::Span;

use super::fields::{FIELDS, Field, Frame, Subject, cell};
use super::rows::{Row, RowId};
use super::{Parts, ProcessesPane, findings, label};
use crate::model::{Model, is_idle_wait};
use crate::tick::State;
use crate::ui::table::{self, Slot, Sorted};
use crate::ui::{Theme, bar, copy, draw, format};

impl ProcessesPane {
    pub(super) fn draw(&self, model: &Model, theme: &Theme, parts: Parts, buf: &mut Buffer) {
        let frame = self.frame(model, theme);
        self.draw_legend(&frame, parts.legend, buf);
        self.draw_summary(model, theme, parts.summary, buf);
        self.draw_heads(model, theme, parts.heads, buf);
        for (nth, at) in self.cursor.shown(self.rows.len()).enumerate() {
            self.draw_row(at, &frame, draw::line(parts.rows, nth as u16), buf);
        }
        if self.rows.is_empty() {
            let text = if self.hidden > 0 { "no process passes the filter; Esc takes it back" } else { "no process" };
            draw::put(buf, parts.rows.x + 2, parts.rows.y, text, parts.rows.width.saturating_sub(2), theme.dim());
        }
        self.lower.render(model, theme, parts.lower, buf);
    }

    fn frame<'a>(&self, model: &'a Model, theme: &'a Theme) -> Frame<'a> {
        let off = |name: &str| model.session().lenses.iter().any(|lens| lens.name == name && lens.off.is_some());
        Frame {
            model,
            theme,
            span_ns: model.span().map_or(0, |span| span.len_ns()),
            cpus: model.cpus().len().max(model.session().cpus.len()),
            machine: self.machine_basis,
            idle: self.idle,
            long: !self.short,
            sched_off: off("sched"),
            block_off: off("block"),
        }
    }

    /// Every cell of a row, whether there is room for its column or not.
    pub(super) fn row_text(&self, id: RowId, model: &Model) -> Option<String> {
        let theme = Theme::default();
        let frame = self.frame(model, &theme);
        let subject = id.subject(model, &self.groups)?;
        let text = |field: Field| match field {
            Field::Bar => copy::bar(&subject.totals().ns, subject.rests),
            Field::Command => match (subject.thread, subject.group) {
                (Some(thread), _) => thread.comm.clone(),
                (None, Some(group)) => {
                    label::command(subject.process, true, copy::LONGEST_BYTES) + &group.end(usize::MAX)
                }
                (None, None) => label::command(subject.process, true, copy::LONGEST_BYTES),
            },
            field => cell(field, subject, &frame, usize::MAX).0,
        };
        Some(copy::row(FIELDS.iter().zip(self.columns()).map(|(&field, column)| (column.head, text(field)))))
    }

    /// What the bars mean. Where not all of it fits, what stands in no bar on the screen is left out.
    fn draw_legend(&self, frame: &Frame<'_>, area: Rect, buf: &mut Buffer) {
        let theme = frame.theme;
        let idle = if self.idle { "idle waits shown " } else { "idle waits blank " };
        let title = match area.width {
            _ if frame.span_ns == 0 => " nothing measured yet; bars: wall time ".into(),
            0..120 => " ".into(),
            _ => format!(" bars: wall time of all threads, last {}", format::left(&format::duration(frame.span_ns), 8)),
        };
        let x = draw::put(buf, area.x, area.y, &title, area.width, theme.dim());
        let room = area.right().saturating_sub(x + format::width(idle) as u16);
        let mut spans = Vec::new();
        for states in self.legend(frame, room.into()) {
            spans.extend(states.iter().map(|&state| Span::styled(theme.state_glyph(state), theme.state(state))));
            spans.push(Span::styled(format!("{} ", states[0].name()), theme.text()));
        }
        draw::put_spans(buf, Rect { x, width: room, ..area }, &spans);
        draw::put_right(buf, area, idle, theme.dim());
    }

    /// The states that are explained in so many cells.
    fn legend(&self, frame: &Frame<'_>, room: usize) -> Vec<&'static [State]> {
        let wanted = |states: &&[State]| self.idle || !states.iter().any(|&state| is_idle_wait(state, false));
        let mut legend: Vec<&[State]> = LEGEND.iter().copied().filter(wanted).collect();
        let cells =
            |legend: &[&[State]]| legend.iter().map(|states| states.len() + states[0].name().len() + 1).sum::<usize>();
        let drawn = self.drawn_states(frame);
        while cells(&legend) > room {
            let is_drawn = |states: &&[State]| states.iter().any(|&state| drawn[state as usize]);
            let Some(spare) = legend.iter().rposition(|states| !is_drawn(states)) else { break };
            legend.remove(spare);
        }
        while cells(&legend) > room {
            legend.pop();
        }
        legend
    }

    /// Which states the bars on the screen have.
    fn drawn_states(&self, frame: &Frame<'_>) -> [bool; State::COUNT] {
        let mut drawn = [false; State::COUNT];
        for row in self.cursor.shown(self.rows.len()).filter_map(|at| self.rows.get(at)) {
            let Some(subject) = row.id.subject(frame.model, &self.groups) else { continue };
            let ns = &subject.totals().ns;
            for state in State::ALL {
                drawn[state as usize] |= ns[state] > 0 && (self.idle || !is_idle_wait(state, subject.rests));
            }
        }
        drawn
    }

    /// A rule that says how much is shown, and why not all.
    fn draw_summary(&self, model: &Model, theme: &Theme, area: Rect, buf: &mut Buffer) {
        draw::rule(buf, theme, area);
        let threads = format::counted(self.counts.threads, "thread", "threads");
        let exited = match self.counts.exited {
            0 => String::new(),
            exited => format!(", {} exited", format::grouped(exited as u64)),
        };
        let counts = format!(" {}, {threads}{exited} ", self.counts.processes());
        let mut spans = vec![Span::styled(counts, theme.text())];
        if let Some(by) = self.selection.by {
            spans.push(Span::styled(format!("│ by {} ", by.name()), theme.accent()));
        }
        if let Some((by, name)) = &self.selection.within {
            let name = format::fit_end(name, findings::LONGEST_NAME);
            spans.push(Span::styled(format!("│ {} {name} ", by.name()), theme.warn()));
        }
        if self.selection.filter.is_some() {
            spans.push(Span::styled(format!("│ filter {} ", self.filter_text), theme.warn()));
        }
        if let Some(user) = self.selection.user {
            spans.push(Span::styled(format!("│ user {} ", label::user(model, user)), theme.warn()));
        }
        if !self.selection.kernel {
            spans.push(Span::styled("│ kernel threads hidden ", theme.warn()));
        }
        if self.search.is_some() {
            spans.push(Span::styled(format!("│ /{} {} rows ", self.search_text, self.found.len()), theme.match_()));
        }
        let basis = if self.machine_basis { " CPU % of the machine " } else { " CPU % of one CPU " };
        let used: usize = spans.iter().map(Span::width).sum::<usize>() + 4;
        let room = usize::from(area.width).saturating_sub(used);
        let found = findings::line(model, room, format::width(basis));
        // What is wrong is worth more than what the numbers are of, which `%` and the head say as well.
        let basis = if format::width(&found) + format::width(basis) > room { "" } else { basis };
        spans.push(Span::styled(found, theme.warn()));
        let x = (area.x + 2).min(area.right());
        draw::put_spans(buf, Rect { x, width: area.right() - x, ..area }, &spans);
        let right = Rect { width: area.width.saturating_sub(2), ..area };
        draw::put_right(buf, right, basis, theme.dim());
    }

    fn draw_heads(&self, model: &Model, theme: &Theme, area: Rect, buf: &mut Buffer) {
        let column = FIELDS.iter().position(|&field| field == self.selection.sort).unwrap_or(0);
        let sorted = Sorted { column, descending: self.selection.descending };
        table::heads(buf, area, &self.columns(), &self.slots, sorted, (theme.header(), theme.accent()));
        for slot in self.slots.iter().filter(|slot| FIELDS[slot.column].has_no_source(model.session())) {
            let head = Rect { x: area.x + slot.x, width: slot.width, ..area };
            buf.set_style(head.intersection(area), theme.dim());
        }
    }

    fn draw_row(&self, at: usize, frame: &Frame<'_>, line: Rect, buf: &mut Buffer) {
        let Some(row) = self.rows.get(at) else { return };
        let Some(subject) = row.id.subject(frame.model, &self.groups) else { return };
        let columns = self.columns();
        for &slot in &self.slots {
            match FIELDS[slot.column] {
                Field::Bar => draw_bar(subject, frame, line, slot, buf),
                Field::Command => draw_command(row, subject, frame, line, slot, buf),
                field => {
                    let (text, mut style) = cell(field, subject, frame, slot.width.into());
                    let is_now = subject.thread.is_none() && subject.group.is_none() && !frame.model.is_past();
                    if is_now && self.normals.is_off(subject.process.key, field) {
                        style = style.add_modifier(Modifier::BOLD);
                    }
                    table::cell(buf, line, slot, columns[slot.column].right, &text, style);
                }
            }
        }
        if subject.exited() {
            buf.set_style(line, frame.theme.dim());
            draw::put(buf, line.x + 1, line.y, "†", line.width.saturating_sub(1), frame.theme.dim());
        }
        if self.found.contains(&row.id) {
            self.mark_match(line, frame.theme, buf);
        }
        if at == self.cursor.at {
            buf.set_style(self.without_bar(line), frame.theme.selected());
            draw::put(buf, line.x, line.y, "▸", line.width, frame.theme.accent());
        }
    }

    /// The part of a line before the bar: what the cursor marks there does not change the colours of states.
    fn without_bar(&self, line: Rect) -> Rect {
        let bar = self.slots.iter().find(|slot| FIELDS[slot.column] == Field::Bar);
        bar.map_or(line, |slot| Rect { width: slot.x.min(line.width), ..line })
    }

    fn mark_match(&self, line: Rect, theme: &Theme, buf: &mut Buffer) {
        for slot in self.slots.iter().filter(|slot| matches!(FIELDS[slot.column], Field::Pid | Field::Command)) {
            let area = Rect { x: line.x + slot.x, width: slot.width, ..line };
            buf.set_style(area.intersection(line), theme.match_());
        }
    }
}

/// States in the legend. Both kinds of waiting for a CPU go by one name.
const LEGEND: &[&[State]] = &[
    &[State::User],
    &[State::Kernel],
    &[State::Woken, State::Preempted],
    &[State::Disk],
    &[State::Lock],
    &[State::Net],
    &[State::Pipe],
    &[State::Timer],
    &[State::Poll],
    &[State::Other],
    &[State::Fault],
    &[State::Stopped],
];

fn draw_bar(subject: Subject<'_>, frame: &Frame<'_>, line: Rect, slot: Slot, buf: &mut Buffer) {
    let area = Rect { x: line.x + slot.x, width: slot.width, ..line };
    if frame.model.is_glance() {
        let text = moment(subject, frame.model);
        draw::put(buf, area.x, area.y, &text, area.width, frame.theme.dim());
        return;
    }
    bar::render(&subject.totals().ns, subject.rests, frame.idle, frame.theme, area.intersection(line), buf);
}

/// What it does at this moment, where nothing was measured over any time: `asleep, began 3m02s ago`.
fn moment(subject: Subject<'_>, model: &Model) -> String {
    let process = subject.process;
    let first = || model.threads(process.key).into_iter().find(|thread| thread.key.tid == process.key.tgid);
    let now = subject.thread.or_else(first).and_then(|thread| thread.now);
    let word = match now {
        Some(State::User | State::Kernel) => "runs",
        Some(State::Woken | State::Preempted) => "runnable",
        Some(State::Stopped) => "stopped",
        Some(_) => "asleep",
        None => return String::new(),
    };
    let start_ns = subject.thread.map_or(process.key.start_ns, |thread| thread.key.start_ns);
    let uptime_ns = model.newest_ns().saturating_add(model.boot_offset_ns());
    format!("{word}, began {} ago", format::age(uptime_ns.saturating_sub(start_ns)))
}

fn draw_command(row: &Row, subject: Subject<'_>, frame: &Frame<'_>, line: Rect, slot: Slot, buf: &mut Buffer) {
    let theme = frame.theme;
    let width = usize::from(slot.width);
    let lead = format::width(&row.lead);
    let cells = width.saturating_sub(lead);
    let end = match subject.group {
        Some(group) => group.end(cells),
        None => label::end(subject.process, frame.model.boot_offset_ns(), cells),
    };
    // How it ended is worth more than the end of its arguments.
    let room = cells.saturating_sub(format::width(&end));
    let (text, style) = match (row.id, subject.thread) {
        (RowId::Thread(..), Some(thread)) => (format::fit(&thread.comm, room), theme.text()),
        _ => (label::fitted(subject.process, frame.long, room), name_style(subject, theme)),
    };
    let spans =
        [Span::styled(row.lead.as_str(), theme.border()), Span::styled(text, style), Span::styled(end, theme.dim())];
    let area = Rect { x: line.x + slot.x, width: slot.width.min(line.width.saturating_sub(slot.x)), ..line };
    draw::put_spans(buf, area, &spans);
}

fn name_style(subject: Subject<'_>, theme: &Theme) -> Style {
    if subject.process.facts.kernel { theme.dim() } else { theme.text().remove_modifier(Modifier::BOLD) }
}
