//! How complete stacks are, and what became of the rest: of the process that is looked at, and of all.

use crossterm::event::{KeyEvent, MouseEvent, MouseEventKind};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Span;

use super::app::Reply;
use super::info::wrap;
use super::keys::{self, Command, Context};
use super::{Theme, draw, format};
use crate::model::{EndSum, Model};
use crate::tick::ProcessKey;

/// The popup.
pub(super) struct Quality {
    process: Option<ProcessKey>,
    /// Whose they are, and how their stacks end.
    parts: Vec<(String, Vec<EndSum>)>,
    /// Memory of symbols, and most of it.
    symbols: (u64, u64),
}

impl Quality {
    /// Of a process, if there is one, and of all.
    pub fn new(process: Option<ProcessKey>, model: &Model) -> Self {
        let mut quality = Quality { process, parts: Vec::new(), symbols: (0, 0) };
        quality.update(model);
        quality
    }

    /// The model has news.
    pub fn update(&mut self, model: &Model) {
        self.parts.clear();
        if let Some(process) = self.process.and_then(|key| model.process(key)) {
            let whose = format!("{} {}", process.key.tgid, format::clean(&process.facts.comm));
            self.parts.push((whose, model.stack_ends(Some(process.key))));
        }
        self.parts.push(("all processes".into(), model.stack_ends(None)));
        self.symbols = (model.cost().symbol_bytes, model.session().symbol_limit_bytes);
    }

    /// Everything closes it.
    pub fn key(&self, context: Context, event: &KeyEvent) -> Reply {
        match keys::key_of(event).and_then(|key| keys::lookup(context, key)) {
            Some(Command::Quit) => Reply::Pass,
            _ => Reply::Close,
        }
    }

    /// A click closes it.
    pub fn mouse(&self, mouse: MouseEvent) -> Reply {
        if matches!(mouse.kind, MouseEventKind::Down(_)) { Reply::Close } else { Reply::Stay }
    }

    fn lines(&self, theme: &Theme, cells: usize) -> Vec<Vec<Span<'_>>> {
        let mut lines = Vec::new();
        for (whose, ends) in &self.parts {
            let head =
                format!("{:<COLUMN$}{:>17}{:>20}", format::fit(whose, COLUMN - 1), "on-CPU samples", "time blocked");
            lines.push(vec![Span::styled(head, theme.header())]);
            lines.extend(ends.iter().map(|sum| line(sum, ends, theme)));
            if ends.is_empty() {
                lines.push(vec![Span::styled("no stack was taken", theme.dim())]);
            }
            lines.push(Vec::new());
        }
        let about = "Since the start. A stack is complete when it reaches its thread's first function. What is not complete \
                     still counts, below a frame that says why.";
        lines.extend(wrap(about, cells).iter().map(|text| vec![Span::styled(text.trim_end().to_owned(), theme.dim())]));
        if let (bytes, most @ 1..) = self.symbols {
            let kept = format!("Symbols take {} of memory, {} at most.", format::bytes(bytes), format::bytes(most));
            lines.push(vec![Span::styled(kept, theme.dim())]);
        }
        lines
    }

    /// Draws it over `body`.
    pub fn render(&self, theme: &Theme, body: Rect, buf: &mut Buffer) {
        let lines = self.lines(theme, body.width.min(WIDTH).saturating_sub(4).max(1).into());
        let frame = draw::centred(body, WIDTH, (lines.len() + 2).min(u16::MAX.into()) as u16);
        let inner = draw::framed(buf, theme, frame, "how stacks end");
        for (row, spans) in lines.iter().take(inner.height.into()).enumerate() {
            let line = draw::line(inner, row as u16);
            draw::put_spans(buf, Rect { x: line.x + 1, width: line.width.saturating_sub(2), ..line }, spans);
        }
    }
}

/// Of the words on the left.
const COLUMN: usize = 34;
const WIDTH: u16 = 76;

fn line<'a>(sum: &EndSum, all: &[EndSum], theme: &Theme) -> Vec<Span<'a>> {
    let share = |part: u64, of: fn(&EndSum) -> u64| {
        let whole = all.iter().fold(0u64, |whole, sum| whole.saturating_add(of(sum)));
        match whole {
            0 => String::new(),
            whole => format!("{} %", format::percent(part as f64 / whole as f64)),
        }
    };
    let samples = share(sum.samples, |sum| sum.samples);
    let blocked = share(sum.blocked_ns, |sum| sum.blocked_ns);
    let style = if sum.is_complete() { theme.text() } else { theme.warn() };
    let text =
        format!("{:>9}{samples:>8}{:>12}{blocked:>8}", format::grouped(sum.samples), format::duration(sum.blocked_ns));
    vec![Span::styled(format::left(sum.end.name(), COLUMN), style), Span::styled(text, theme.text())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::invented::Invention;
    use crate::ui::testing::{model, mono, text};

    fn drawn(quality: &Quality, width: u16, height: u16) -> Vec<String> {
        let area = Rect::new(0, 0, width, height);
        let mut buf = Buffer::empty(area);
        quality.render(&mono(), area, &mut buf);
        text(&buf)
    }

    #[test]
    fn what_the_model_counts_stands_there() {
        let model = model(Invention::default(), 8);
        let busiest = model.processes().max_by_key(|process| process.all_samples).map(|process| process.key);
        let quality = Quality::new(busiest, &model);
        let lines = drawn(&quality, 80, 24);
        for (_, ends) in &quality.parts {
            for sum in ends {
                let samples = format::grouped(sum.samples);
                let found = lines.iter().any(|line| line.contains(sum.end.name()) && line.contains(&samples));
                assert!(found, "{sum:?}: {lines:#?}");
            }
        }
        let samples = |at: usize| quality.parts[at].1.iter().map(|sum| sum.samples).sum::<u64>();
        assert_eq!(samples(0), model.process(busiest.unwrap()).unwrap().all_samples);
        assert_eq!(samples(1), model.processes().map(|process| process.all_samples).sum::<u64>());
        assert!(lines.iter().any(|line| line.contains("all processes")));
        let all = |width| {
            drawn(&quality, width, 40).iter().map(|line| line.trim_matches(['│', ' '])).collect::<Vec<_>>().join(" ")
        };
        for width in [80, 120] {
            assert!(all(width).contains("still counts, below a frame that says why."), "{}", all(width));
        }
    }

    #[test]
    fn any_size() {
        let model = model(Invention { hostile: true, ..Invention::default() }, 3);
        let quality = Quality::new(None, &model);
        (0..30).for_each(|width| (0..9).for_each(|height| drop(drawn(&quality, width, height))));
    }
}
