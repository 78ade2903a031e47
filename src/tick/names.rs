//! Interned names: modules, frames, symbols, stacks. Ids are given out by the source, rise from 0 and are never re-used
//! within a session, so their order is the order of first sight.

use serde::{Deserialize, Serialize};

/// Id of a [`Module`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ModuleId(pub u32);

/// Id of a [`Frame`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FrameId(pub u32);

/// Id of a [`Stack`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StackId(pub u32);

/// Names used for the first time. Within one batch: modules, then frames, then symbols, then stacks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Names {
    /// User names by uid.
    pub users: Vec<(u32, String)>,
    /// Modules.
    pub modules: Vec<(ModuleId, Module)>,
    /// Frames.
    pub frames: Vec<(FrameId, Frame)>,
    /// Symbols of frames that are known already; a later one replaces an earlier one.
    pub symbols: Vec<(FrameId, Symbol)>,
    /// Details of frames for which they were asked; a later one replaces an earlier one.
    pub details: Vec<(FrameId, Detail)>,
    /// Stacks; a later one of the same id replaces an earlier one (it proved complete).
    pub stacks: Vec<(StackId, Stack)>,
}

impl Names {
    /// Nothing in it.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
            && self.modules.is_empty()
            && self.frames.is_empty()
            && self.symbols.is_empty()
            && self.details.is_empty()
            && self.stacks.is_empty()
    }
}

/// What kind of code a module holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ModuleKind {
    /// A file that is mapped.
    #[default]
    File,
    /// The kernel and its modules.
    Kernel,
    /// The kernel's page in every process.
    Vdso,
    /// Anonymous executable memory of one process: JIT code.
    Anonymous,
    /// Not code: holds the notes such as `[stack not taken]`.
    Note,
}

/// Where code lies.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Module {
    /// Path as the process saw it, `[kernel]`, `[vdso]`, `[anon]`.
    pub path: String,
    /// What it is.
    pub kind: ModuleKind,
    /// GNU build id, where there is one.
    pub build_id: Option<Vec<u8>>,
}

/// What kind of frame, for colour, suffix and trust.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum FrameKind {
    /// Code of a file outside the kernel.
    #[default]
    User,
    /// Code of the kernel; `_[k]` in folded files.
    Kernel,
    /// Code made at run time; `_[j]`.
    Jit,
    /// Inlined into its caller; `_[i]`.
    Inlined,
    /// Not code: says what is missing, as `[stack not taken]`.
    Note,
}

/// One code address, as (module, file offset).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Frame {
    /// In which module.
    pub module: ModuleId,
    /// File offset; in the kernel and in anonymous memory, the address.
    pub offset: u64,
    /// What kind.
    pub kind: FrameKind,
}

/// What a frame is called.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Symbol {
    /// Function, demangled. May hold anything, control characters too.
    pub function: String,
    /// Offset of the frame within the function, bytes.
    pub offset: u64,
    /// No symbol names the function: it is called after the place where it begins (`libfoo.so:fn@0x1200`).
    pub nameless: bool,
}

/// What debug information says of the place of a frame. All of it may hold anything, control characters too.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Detail {
    /// The function, demangled: for where no symbol names it.
    pub function: Option<String>,
    /// Functions inlined at this place, outermost first, each called by the one before.
    pub inlined: Vec<Inlined>,
    /// Where in the innermost of them.
    pub line: Option<Line>,
}

impl Detail {
    /// Where in the frame's function (0) or the nth function that is inlined there.
    pub fn line_in(&self, nth: usize) -> Option<&Line> {
        match self.inlined.get(nth) {
            Some(next) => next.call.as_ref(),
            None if nth == self.inlined.len() => self.line.as_ref(),
            None => None,
        }
    }
}

/// A function without a frame of its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Inlined {
    /// Its name, demangled.
    pub function: String,
    /// Where its caller calls it.
    pub call: Option<Line>,
}

/// A line of source code.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Line {
    /// Path of the file, as the compiler was told it.
    pub file: String,
    /// From 1; 0 is code of no line.
    pub number: u32,
}

/// Why the user part of a stack ends where it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum StackEnd {
    /// At the thread's first function.
    Complete,
    /// A frame pointer led nowhere: the rest of the stack is not known.
    #[default]
    Broken,
    /// Deeper than the limit.
    Truncated,
    /// The kernel could not read the user stack; the number is an errno.
    Unreadable(i32),
    /// There is no user part (a kernel thread).
    KernelOnly,
    /// Not walked: over budget, or no room.
    NotTaken,
    /// The unwind table of a file was not there yet.
    NoTable,
    /// A return address led to where no code is.
    NotCode,
    /// What the file says of how to find the caller cannot be followed.
    NoRule,
    /// The caller's frame would not lie above its callee's.
    Stuck,
}

impl StackEnd {
    /// The words on the screen.
    pub fn name(self) -> &'static str {
        match self {
            StackEnd::Complete => "complete",
            StackEnd::Broken => "no frame pointer",
            StackEnd::Truncated => "too deep",
            StackEnd::Unreadable(_) => "unreadable",
            StackEnd::KernelOnly => "kernel only",
            StackEnd::NotTaken => "not taken",
            StackEnd::NoTable => "no unwind table yet",
            StackEnd::NotCode => "return to where no code is",
            StackEnd::NoRule => "no rule to unwind by",
            StackEnd::Stuck => "frame does not lie above its callee",
        }
    }
}

/// How a frame of the user part was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum FoundBy {
    /// It ran: the registers point at it.
    Registers,
    /// By what the file of the frame inside it says of that (`.eh_frame`).
    Table,
    /// A signal interrupted it: the kernel saved its registers on the stack.
    Signal,
    /// By the frame pointer. Code that uses that register for something else may have led astray.
    FramePointer,
    /// By a sequence of instructions that is known from code made at run time.
    Thunk,
    /// It looks like a return address.
    Guess,
}

impl FoundBy {
    /// The words on the screen, after "found by".
    pub fn name(self) -> &'static str {
        match self {
            FoundBy::Registers => "registers",
            FoundBy::Table => "table",
            FoundBy::Signal => "signal frame",
            FoundBy::FramePointer => "frame pointer",
            FoundBy::Thunk => "thunk",
            FoundBy::Guess => "guess",
        }
    }
}

/// How the user part of a stack was walked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Walk {
    /// By frame pointers throughout.
    #[default]
    FramePointers,
    /// By tables throughout.
    Tables,
    /// By tables, with something else in between: runs of frames found in the same way, root first.
    Mixed(Vec<(FoundBy, u16)>),
}

impl Walk {
    /// Of frames that were found so, root first.
    pub fn of(found: impl IntoIterator<Item = FoundBy>) -> Walk {
        let mut runs: Vec<(FoundBy, u16)> = Vec::new();
        for by in found {
            match runs.last_mut() {
                Some((last, count)) if *last == by => *count = count.saturating_add(1),
                _ => runs.push((by, 1)),
            }
        }
        match runs.iter().any(|(by, _)| !matches!(by, FoundBy::Table | FoundBy::Registers)) {
            true => Walk::Mixed(runs),
            false => Walk::Tables,
        }
    }

    /// The same without its outermost frames.
    pub fn without_first(self, count: usize) -> Walk {
        let Walk::Mixed(mut runs) = self else { return self };
        let mut left = count;
        for (_, frames) in &mut runs {
            let cut = left.min(usize::from(*frames));
            *frames -= cut as u16;
            left -= cut;
        }
        runs.retain(|(_, frames)| *frames > 0);
        Walk::Mixed(runs)
    }

    /// How the frame `at` (root first) of the user part was found. The innermost is where the registers point, however the
    /// others were found; only a mixed walk tells it from those.
    pub fn found(&self, at: usize) -> FoundBy {
        match self {
            Walk::FramePointers => FoundBy::FramePointer,
            Walk::Tables => FoundBy::Table,
            Walk::Mixed(runs) => {
                let mut before = 0;
                let run = runs.iter().find(|(_, count)| {
                    before += usize::from(*count);
                    at < before
                });
                run.map_or(FoundBy::Registers, |(by, _)| *by)
            }
        }
    }
}

/// Frames from the thread's first function to where it was, user part first, kernel part after it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Stack {
    /// Root first. May be empty.
    pub frames: Vec<FrameId>,
    /// Why the user part ends (at its root) where it does.
    pub end: StackEnd,
    /// How the user part was found.
    pub walk: Walk,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_know_how_they_were_found() {
        use FoundBy::*;
        assert_eq!(Walk::of([Table, Table, Registers]), Walk::Tables);
        let mixed = Walk::of([Table, Table, FramePointer, FramePointer, Registers]);
        assert_eq!(mixed, Walk::Mixed(vec![(Table, 2), (FramePointer, 2), (Registers, 1)]));
        let found: Vec<_> = (0..6).map(|at| mixed.found(at)).collect();
        assert_eq!(found, [Table, Table, FramePointer, FramePointer, Registers, Registers]);
        assert_eq!(mixed.without_first(3), Walk::Mixed(vec![(FramePointer, 1), (Registers, 1)]));
        assert_eq!(Walk::default().found(0), FramePointer);
    }
}
