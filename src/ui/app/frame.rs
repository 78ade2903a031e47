//! Drawing what is always there: places, the way to where we are, the footer, and what lies over them.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::{App, MIN_SIZE, Parts, Popup};
use crate::model::Model;
use crate::ui::{draw, footer, format, status, watch};

impl App {
    pub(super) fn render_too_small(&self, area: Rect, buf: &mut Buffer) {
        let text = format!("sberf needs {}x{}, this is {}x{}", MIN_SIZE.0, MIN_SIZE.1, area.width, area.height);
        let line = draw::line(area, area.height / 2);
        let width = format::width(&text) as u16;
        let middle = draw::centred(line, width, 1);
        draw::put(buf, middle.x, middle.y, &text, middle.width, self.theme.warn());
    }

    pub(super) fn render_parts(&self, model: &Model, parts: Parts, buf: &mut Buffer) {
        status::render(&self.status(model), model, &self.theme, parts.status, buf);
        self.render_places(model, parts.places, buf);
        match model.span() {
            None => self.render_loading(parts.body, buf),
            // Of all places only the first is about who is there.
            Some(_) if model.is_glance() && (self.at > 0 || !self.places[self.at].inside.is_empty()) => {
                self.render_loading(parts.body, buf);
            }
            Some(_) => self.pane().render(model, &self.theme, parts.body, buf),
        }
        self.render_footer(parts.footer, buf);
        for popup in &self.popups {
            match popup {
                Popup::Help(help) => help.render(model, &self.theme, parts.body, buf),
                Popup::Prompt(prompt) => prompt.render(&self.theme, parts.footer, buf),
                Popup::Picker(picker) => picker.render(&self.theme, parts.body, buf),
                Popup::Signal(popup) => popup.render(&self.theme, parts.body, buf),
                Popup::Quality(popup) => popup.render(&self.theme, parts.body, buf),
                Popup::Cost(popup) => popup.render(model, self.draws, &self.theme, parts.body, buf),
            }
        }
    }

    pub(super) fn status(&self, model: &Model) -> status::Status {
        status::Status {
            interval: self.interval(model),
            paused: self.paused,
            behind: self.behind,
            past_ns: model
                .is_past()
                .then(|| model.newest_ns().saturating_sub(model.span().map_or(0, |span| span.end_ns))),
            replay: self.options.replay,
            ended: self.ended,
            utc_offset_s: self.options.utc_offset_s,
            samples: self.samples,
        }
    }

    pub(super) fn render_loading(&self, area: Rect, buf: &mut Buffer) {
        let text = format!("{} …", self.loading);
        let middle = draw::centred(area, format::width(&text) as u16, 1);
        draw::put(buf, middle.x, middle.y, &text, middle.width, self.theme.header());
    }

    /// The places, or the way to where we are.
    pub(super) fn render_places(&self, model: &Model, area: Rect, buf: &mut Buffer) {
        let stack = &self.places[self.at];
        if !stack.inside.is_empty() {
            return self.render_breadcrumb(model, area, buf);
        }
        let mut x = area.x;
        for (index, (start, _)) in self.tabs(area).enumerate() {
            let place = &self.places[index].place;
            let style = if index == self.at { self.theme.accent() } else { self.theme.dim() };
            x = draw::put(buf, start, area.y, &place.number.to_string(), 1, self.theme.accent());
            x = draw::put(buf, x + 1, area.y, place.name, area.right().saturating_sub(x + 1), style);
        }
        self.render_notes(model, after(area, x), buf);
    }

    /// At the right end of `area`: that rows keep their order, and before it the banner. What is left of the area.
    fn render_notes(&self, model: &Model, area: Rect, buf: &mut Buffer) -> Rect {
        let held = if self.order_held && self.pane().has_order() { " order held " } else { "" };
        let area = note(held, self.theme.warn(), area, buf);
        if model.is_glance() {
            return note(&format!(" {} … ", self.loading), self.theme.header(), area, buf);
        }
        // What sberf gave up, or does not believe of itself.
        let banner = watch::banner(model.watch(), usize::from(area.width).saturating_sub(2));
        note(&banner.map_or(String::new(), |text| format!(" {text} ")), self.theme.warn(), area, buf)
    }

    pub(super) fn render_breadcrumb(&self, model: &Model, area: Rect, buf: &mut Buffer) {
        let stack = &self.places[self.at];
        let mut x =
            draw::put(buf, area.x + 1, area.y, stack.place.name, area.width.saturating_sub(1), self.theme.dim());
        for pane in &stack.inside {
            x = draw::put(buf, x, area.y, " › ", area.right().saturating_sub(x), self.theme.border());
            x = draw::put(buf, x, area.y, &pane.title(model), area.right().saturating_sub(x), self.theme.accent());
        }
        let rest = self.render_notes(model, after(area, x), buf);
        let about = Rect { x: (rest.x + 3).min(rest.right()), width: rest.width.saturating_sub(3), ..rest };
        draw::put(buf, about.x, about.y, &self.pane().about(model), about.width, self.theme.text());
    }

    pub(super) fn render_footer(&self, area: Rect, buf: &mut Buffer) {
        match &self.message {
            Some(message) => {
                let style = self.theme.warn();
                draw::put(buf, area.x + 1, area.y, message, area.width.saturating_sub(1), style);
            }
            None => footer::render(self.pane().context(), &self.theme, area, buf),
        }
    }
}

/// What of an area lies right of a column.
fn after(area: Rect, x: u16) -> Rect {
    let x = x.clamp(area.x, area.right());
    Rect { x, width: area.right() - x, ..area }
}

/// Puts a text at the right end of an area; yields what lies before it.
fn note(text: &str, style: Style, area: Rect, buf: &mut Buffer) -> Rect {
    draw::put_right(buf, area, text, style);
    Rect { width: area.width.saturating_sub(format::width(text) as u16), ..area }
}
