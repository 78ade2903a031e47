//! What tests of panes need: a model fed by the invented machine, and a pane drawn as lines of text.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::theme::{Background, Depth};
use super::{Pane, Theme};
use crate::collect::Source;
use crate::collect::invented::{Invented, Invention};
use crate::model::{Limits, Model};

/// A model that has taken in so many ticks of that machine.
pub fn model(options: Invention, ticks: usize) -> Model {
    let mut source = Invented::new(options);
    let mut model = Model::new(source.session(), Limits::default());
    (0..ticks).for_each(|_| model.apply(source.tick()));
    model
}

/// Unicode without colours.
pub fn mono() -> Theme {
    Theme::new(Depth::None, false, Background::Dark)
}

/// The symbols of a buffer, a string per line, without blanks at the ends.
pub fn text(buf: &Buffer) -> Vec<String> {
    let line = |y| (0..buf.area.width).map(|x| buf[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..buf.area.height).map(line).collect()
}

/// A pane after a tick, as lines.
pub fn lines(pane: &mut dyn Pane, model: &Model, width: u16, height: u16) -> Vec<String> {
    let area = Rect::new(0, 0, width, height);
    let mut buf = Buffer::empty(area);
    pane.tick(model, false);
    pane.layout(area, model);
    pane.render(model, &mono(), area, &mut buf);
    text(&buf)
}

/// Draws a pane at tiny, odd and usual sizes, on every kind of terminal; nothing hostile may reach a cell.
pub fn any_size(pane: &mut dyn Pane, model: &Model) {
    let sizes = [0, 1, 2, 5, 9, 13].into_iter().flat_map(|width| (0..8).map(move |height| (width, height)));
    let usual = [(79, 23), (80, 24), (118, 40), (200, 50), (400, 3), (3, 90)];
    for (width, height) in sizes.chain(usual) {
        for theme in [mono(), Theme::default(), Theme::new(Depth::Ansi16, true, Background::Light)] {
            let area = Rect::new(0, 0, width, height);
            let mut buf = Buffer::empty(area);
            pane.tick(model, false);
            pane.layout(area, model);
            pane.render(model, &theme, area, &mut buf);
            let drawn = text(&buf).join("");
            let hostile = |c: char| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c);
            assert!(!drawn.contains(hostile), "{drawn:?}");
        }
    }
}
