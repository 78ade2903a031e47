//! The stacks of the table of programs, interned as a live source would.

use std::collections::HashMap;

use crate::tick::{
    Detail, Frame, FrameId, FrameKind, Inlined, Line, Module, ModuleId, ModuleKind, Names, Stack, StackEnd, StackId,
    Symbol,
};

/// Names given out so far, and those that nobody was told yet.
#[derive(Default)]
pub struct Stacks {
    modules: HashMap<String, ModuleId>,
    frames: HashMap<(String, u64), FrameId>,
    stacks: HashMap<(String, u64, StackEnd), StackId>,
    /// For the tick.
    pub new: Names,
    /// Symbols and details, which come later than their frames.
    pub late: Names,
}

impl Stacks {
    /// The stack that is written so; `place` tells its leaf's address from others in the same function.
    pub fn intern(&mut self, text: &str, place: u64, end: StackEnd) -> StackId {
        let key = (text.to_owned(), place, end);
        if let Some(&id) = self.stacks.get(&key) {
            return id;
        }
        let frames = self.frames(text, place);
        let id = StackId(self.stacks.len() as u32);
        self.stacks.insert(key, id);
        self.new.stacks.push((id, Stack { frames, end, ..Stack::default() }));
        id
    }

    fn frames(&mut self, text: &str, place: u64) -> Vec<FrameId> {
        let parts: Vec<&str> = text.split(';').map(str::trim_start).collect();
        let mut frames = Vec::new();
        for (at, part) in parts.iter().enumerate().filter(|(_, part)| !part.starts_with("i!")) {
            let inlined = parts[at + 1..].iter().take_while(|part| part.starts_with("i!"));
            let inlined: Vec<String> = inlined.map(|part| part[2..].to_owned()).collect();
            let is_leaf = at + 1 + inlined.len() == parts.len();
            frames.push(self.frame(part, inlined, if is_leaf { place } else { 0 }));
        }
        frames
    }

    fn frame(&mut self, part: &str, inlined: Vec<String>, place: u64) -> FrameId {
        let key = (format!("{part};{inlined:?}"), place);
        if let Some(&id) = self.frames.get(&key) {
            return id;
        }
        let id = FrameId(self.frames.len() as u32);
        let (module, function) = part.split_once('!').unwrap_or(("k", part));
        let (path, kind, frame_kind) = match module {
            "k" => ("[kernel]".to_owned(), ModuleKind::Kernel, FrameKind::Kernel),
            "j" => ("[anon]".to_owned(), ModuleKind::Anonymous, FrameKind::Jit),
            _ if module.contains(".so") => (format!("/usr/lib/{module}"), ModuleKind::File, FrameKind::User),
            _ => (format!("/usr/bin/{module}"), ModuleKind::File, FrameKind::User),
        };
        let module = self.module(path, kind);
        let offset = 0x1000 + address(part) % 0x40_0000 * 16 + place * 8;
        self.new.frames.push((id, Frame { module, offset, kind: frame_kind }));
        if !function.is_empty() {
            let file = format!("{}.c", function.split("::").last().unwrap_or(function));
            let line = |number: u32| Some(Line { file: file.clone(), number });
            let inlined = inlined.into_iter().map(|function| Inlined { function, call: line(10) }).collect();
            let detail = Detail { function: None, inlined, line: line(10 + place as u32) };
            if frame_kind == FrameKind::User {
                self.late.details.push((id, detail));
            }
            let function = function.replace('\x02', ";");
            self.late.symbols.push((id, Symbol { function, offset: 4 + place * 8, nameless: false }));
        }
        self.frames.insert(key, id);
        id
    }

    fn module(&mut self, path: String, kind: ModuleKind) -> ModuleId {
        if let Some(&id) = self.modules.get(&path) {
            return id;
        }
        let id = ModuleId(self.modules.len() as u32);
        let build_id = (kind == ModuleKind::File).then(|| address(&path).to_le_bytes().to_vec());
        self.new.modules.push((id, Module { path: path.clone(), kind, build_id }));
        self.modules.insert(path, id);
        id
    }
}

/// A number that is the same for the same text (FNV-1a).
fn address(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}
