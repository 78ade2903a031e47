//! Frames on their way to the terminal.
//!
//! Frames are drawn into memory, as the cells that changed, and written by a thread of their own. While it writes
//! (a terminal over a slow line, or one that was stopped with Ctrl-S), no frame is drawn; ticks are taken in
//! nevertheless. So a slow terminal costs frames, never data.

use std::cell::RefCell;
use std::io::{self, Write};
use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crossbeam_channel::{Receiver, Sender, bounded};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::terminal;

/// Between these, a terminal that knows them shows nothing half done.
const BEGIN: &[u8] = b"\x1b[?2026h";
const END: &[u8] = b"\x1b[?2026l";

/// Bytes that are drawn and not yet written.
#[derive(Clone, Default)]
struct Bytes(Rc<RefCell<Vec<u8>>>);

impl Write for Bytes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Draws frames and hands them on.
pub struct Screen {
    terminal: Terminal<CrosstermBackend<Bytes>>,
    bytes: Bytes,
    frames: Sender<Vec<u8>>,
    written: Receiver<io::Result<()>>,
    writing: bool,
    /// Goes out with the next frame.
    aside: Vec<u8>,
}

impl Screen {
    /// Starts the thread that writes to `output`.
    pub fn new(output: impl Write + Send + 'static) -> io::Result<Self> {
        let bytes = Bytes::default();
        let (frames, to_write) = bounded::<Vec<u8>>(1);
        let (done, written) = bounded(1);
        std::thread::Builder::new().name("screen".into()).spawn(move || write_frames(output, &to_write, &done))?;
        let terminal = Terminal::new(CrosstermBackend::new(bytes.clone()))?;
        Ok(Screen { terminal, bytes, frames, written, writing: false, aside: Vec::new() })
    }

    /// Says when the frame under way is written. Give what it yields to [`Screen::finished`].
    pub fn written(&self) -> &Receiver<io::Result<()>> {
        &self.written
    }

    /// The frame is written; an error is for good.
    pub fn finished(&mut self, result: io::Result<()>) -> io::Result<()> {
        self.writing = false;
        result
    }

    /// A frame is still being written: none can be drawn.
    pub fn is_busy(&self) -> bool {
        self.writing
    }

    /// What the terminal shows is not what we drew: the next frame is drawn whole.
    pub fn forget(&mut self) -> io::Result<()> {
        let size = self.terminal.size()?;
        self.terminal.resize(Rect::new(0, 0, size.width, size.height))
    }

    /// Hands a text to the clipboard, with the next frame: OSC 52, which terminals (and tmux, if it may) obey or ignore.
    pub fn copy(&mut self, text: &str) {
        self.aside = format!("\x1b]52;c;{}\x07", STANDARD.encode(text)).into_bytes();
    }

    /// Draws a frame, unless one is under way.
    pub fn draw(&mut self, render: impl FnOnce(Rect, &mut Buffer)) -> io::Result<()> {
        if self.writing {
            return Ok(());
        }
        self.terminal.draw(|frame| {
            let area = frame.area();
            render(area, frame.buffer_mut());
        })?;
        let drawn = std::mem::take(&mut *self.bytes.0.borrow_mut());
        let aside = std::mem::take(&mut self.aside);
        if drawn.is_empty() && aside.is_empty() {
            return Ok(());
        }
        self.writing = self.frames.try_send([&aside, BEGIN, &drawn, END].concat()).is_ok();
        Ok(())
    }
}

fn write_frames(mut output: impl Write, frames: &Receiver<Vec<u8>>, done: &Sender<io::Result<()>>) {
    for frame in frames {
        let result = terminal::write_frame(&mut output, &frame);
        if done.send(result).is_err() {
            return;
        }
    }
}
