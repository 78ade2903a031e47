//! What a process would have to be told so that its stacks say more: runtimes that keep the names of their code to
//! themselves, or walk without frame pointers, unless they are asked not to.

use super::Model;
use super::history::ON_CPU;
use crate::tick::{FrameKind, ProcessKey, Stack, StackEnd};

/// What is missing, and of which runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Stacks end in code that HotSpot compiled.
    JavaStacks,
    /// Code that HotSpot compiled has no names.
    JavaNames,
    /// Code that V8 compiled has no names.
    NodeNames,
    /// Functions of Python have no names; since this minor version of Python 3 they can.
    PythonNames(u32),
    /// The same, and this minor version of Python 3 cannot tell them.
    PythonTooOld(u32),
}

/// Fewer samples say nothing.
const FEW: u64 = 10;
/// Python writes its functions down since 3.12.
const PYTHON_TELLS: u32 = 12;

/// How many on-CPU samples of a process have what.
#[derive(Default)]
struct Seen {
    all: u64,
    /// Code made at run time, without a name.
    unnamed: u64,
    /// The outermost frame that is known is of such code, and it is not the first function.
    cut: u64,
    /// The loop that runs Python's functions.
    python: u64,
    /// A function of Python that has a name.
    python_named: u64,
}

impl Seen {
    /// Enough of them that somebody would miss it.
    fn matters(&self, part: u64) -> bool {
        self.all >= FEW && part.saturating_mul(20) >= self.all
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Runtime {
    Java,
    Node,
    Python(u32),
}

impl Model {
    /// What is missing in the on-CPU stacks of a process for want of a flag; empty if nothing is.
    pub fn hints(&self, process: ProcessKey) -> Vec<Hint> {
        let Some(entry) = self.processes.get(process) else { return Vec::new() };
        let mut seen = Seen::default();
        let mut runtime = None;
        for (&(lens, id), &(weight, _)) in self.stacks_of(entry).iter() {
            let Some(stack) = self.names.stacks.get(&id).filter(|_| lens == ON_CPU) else { continue };
            self.look(stack, weight, &mut seen);
            runtime = runtime.or_else(|| self.runtime_in(stack));
        }
        match runtime {
            Some(Runtime::Java) => [(Hint::JavaStacks, seen.cut), (Hint::JavaNames, seen.unnamed)]
                .into_iter()
                .filter(|(_, part)| seen.matters(*part))
                .map(|(hint, _)| hint)
                .collect(),
            Some(Runtime::Node) if seen.matters(seen.unnamed) => vec![Hint::NodeNames],
            // With the flag every function of Python has a frame, and a name.
            Some(Runtime::Python(minor)) if seen.matters(seen.python) && !seen.matters(seen.python_named) => {
                vec![if minor >= PYTHON_TELLS { Hint::PythonNames(minor) } else { Hint::PythonTooOld(minor) }]
            }
            _ => Vec::new(),
        }
    }

    fn look(&self, stack: &Stack, weight: u64, seen: &mut Seen) {
        let labels = || stack.frames.iter().filter_map(|frame| self.labels.of(*frame));
        let name = |at: Option<&u32>| at.and_then(|at| self.labels.get(*at)).map(|label| &*label.name);
        let mut add = |is_so: bool, sum: fn(&mut Seen) -> &mut u64| {
            if is_so {
                let sum = sum(seen);
                *sum = sum.saturating_add(weight);
            }
        };
        let is_jit = |kind: FrameKind| kind == FrameKind::Jit;
        add(true, |seen| &mut seen.all);
        add(labels().any(|of| is_jit(of.kind) && of.functions.is_empty()), |seen| &mut seen.unnamed);
        add(stack.end != StackEnd::Complete && labels().next().is_some_and(|of| is_jit(of.kind)), |seen| &mut seen.cut);
        let functions = || labels().filter_map(|of| name(of.functions.first()));
        add(functions().any(|name| name.starts_with("_PyEval_EvalFrameDefault")), |seen| &mut seen.python);
        add(functions().any(|name| name.starts_with("py::")), |seen| &mut seen.python_named);
    }

    fn runtime_in(&self, stack: &Stack) -> Option<Runtime> {
        let module = |frame| self.names.modules.get(&self.names.frames.get(frame)?.module);
        stack.frames.iter().filter_map(module).find_map(|module| runtime_of(&module.path))
    }
}

/// By the file that it is.
fn runtime_of(path: &str) -> Option<Runtime> {
    let base = path.rsplit('/').next().unwrap_or(path);
    match base {
        "libjvm.so" => Some(Runtime::Java),
        "node" | "nodejs" => Some(Runtime::Node),
        base if base.starts_with("libnode.so") => Some(Runtime::Node),
        base => {
            let version = base.strip_prefix("libpython3.").or_else(|| base.strip_prefix("python3."))?;
            let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
            version.get(..digits)?.parse().ok().map(Runtime::Python)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::story::{MS, facts, model, names, process, thread, tick, weight};
    use crate::tick::{Lens, State, Tick};

    /// Samples of stacks of these functions, each in a module: `j!` before a name is code made at run time.
    fn hints(runtime: &str, stacks: &[(&[&str], StackEnd, u64)]) -> Vec<Hint> {
        let mut functions: Vec<&str> = stacks.iter().flat_map(|(stack, ..)| stack.iter().copied()).collect();
        functions.sort_unstable();
        functions.dedup();
        let lists: Vec<&[&str]> = stacks.iter().map(|(stack, ..)| *stack).collect();
        let mut names = names(&functions, &lists);
        names.modules[0].1.path = runtime.into();
        for ((_, frame), function) in names.frames.iter_mut().zip(&functions) {
            if function.starts_with("j!") {
                frame.kind = FrameKind::Jit;
            }
        }
        names.symbols.iter_mut().for_each(|(_, symbol)| symbol.function = symbol.function.replace("j!", ""));
        for ((_, stack), (_, end, _)) in names.stacks.iter_mut().zip(stacks) {
            stack.end = *end;
        }
        let mut model = model();
        model.apply(Tick {
            names,
            processes: vec![facts(7, "app")],
            threads: vec![thread(7, 7, &[(State::User, 9 * MS)])],
            stacks: (0..).zip(stacks).map(|(id, (.., samples))| weight(7, Lens::OnCpu, id, *samples)).collect(),
            ..tick(0)
        });
        model.hints(process(7))
    }

    #[test]
    fn only_what_is_missing_is_hinted_at() {
        let whole = StackEnd::Complete;
        let java = "/usr/lib/jvm/lib/server/libjvm.so";
        // `?` has no symbol.
        assert_eq!(hints(java, &[(&["start", "j!?1"], whole, 90), (&["gc"], whole, 10)]), [Hint::JavaNames]);
        assert_eq!(
            hints(java, &[(&["j!?1", "copy"], StackEnd::Broken, 50), (&["gc"], whole, 50)]),
            [Hint::JavaStacks, Hint::JavaNames]
        );
        assert_eq!(hints(java, &[(&["j!Main::run"], StackEnd::Broken, 50)]), [Hint::JavaStacks]);
        assert_eq!(hints(java, &[(&["start", "j!Main::run"], whole, 99), (&["start", "j!?1"], whole, 1)]), []);
        assert_eq!(hints(java, &[(&["start", "j!?1"], whole, 9)]), [], "few");
        assert_eq!(hints("/usr/bin/node", &[(&["main", "j!?1"], whole, 50)]), [Hint::NodeNames]);
        assert_eq!(hints("/usr/bin/node", &[(&["main", "j!LazyCompile:~f"], whole, 50)]), []);
        assert_eq!(hints("/usr/bin/postgres", &[(&["main", "j!?1"], whole, 50)]), [], "nobody knows a flag");
        let eval = "_PyEval_EvalFrameDefault";
        let python = |path: &str, stack: &[&str]| hints(path, &[(stack, whole, 50)]);
        assert_eq!(python("/opt/lib/libpython3.13.so.1.0", &["main", eval]), [Hint::PythonNames(13)]);
        assert_eq!(python("/usr/bin/python3.11", &["main", eval]), [Hint::PythonTooOld(11)]);
        assert_eq!(python("/usr/bin/python3.12", &["main", "j!py::work:/x.py", eval]), []);
        assert_eq!(python("/usr/bin/python3.12", &["main", "malloc"]), [], "it runs no Python");
    }

    #[test]
    fn runtimes_by_file() {
        let python = |path| match runtime_of(path) {
            Some(Runtime::Python(minor)) => Some(minor),
            _ => None,
        };
        assert_eq!(python("/usr/bin/python3.9"), Some(9));
        assert_eq!(python("/usr/lib/libpython3.12d.so.1.0"), Some(12));
        assert_eq!(
            (python("/usr/bin/python3"), python("python3.x"), python("python3.99999999999")),
            (None, None, None)
        );
        assert!(runtime_of("/opt/libnode.so.115") == Some(Runtime::Node) && runtime_of("/bin/nodered").is_none());
    }
}
