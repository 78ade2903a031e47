//! Walks a stack in user space, from registers and a copy of stack memory, by the same rules as the kernel side.

use super::rule::{Cfa, FoundBy, Fp, Rule, Stop, shape};

/// A frame pointer may lie this far above the stack pointer: as much as a stack is by default.
const MOST_FP: u64 = 8 << 20;

/// What a thread was interrupted with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// The instruction that comes next.
    pub pc: u64,
    /// General registers by DWARF's numbers: x86-64 rax rdx rcx rbx rsi rdi rbp rsp r8…r15.
    pub general: [u64; 16],
}

impl Registers {
    fn fp(&self) -> u64 {
        self.general[6]
    }

    fn sp(&self) -> u64 {
        self.general[7]
    }
}

/// A copy of stack memory.
#[derive(Clone, Copy, Debug)]
pub struct Stack<'bytes> {
    /// From the innermost frame on.
    pub inner: Part<'bytes>,
    /// The frames of a thread's first functions, where `inner` does not reach them. It may be empty, or overlap.
    pub outer: Part<'bytes>,
}

/// Memory as it was.
#[derive(Clone, Copy, Debug, Default)]
pub struct Part<'bytes> {
    /// Address of the first byte.
    pub start: u64,
    /// From there upwards.
    pub bytes: &'bytes [u8],
}

impl<'bytes> Stack<'bytes> {
    /// In one part.
    pub fn new(start: u64, bytes: &'bytes [u8]) -> Self {
        Stack { inner: Part { start, bytes }, outer: Part::default() }
    }

    fn word(&self, address: u64) -> Option<u64> {
        self.inner.word(address).or_else(|| self.outer.word(address))
    }
}

impl Part<'_> {
    fn word(&self, address: u64) -> Option<u64> {
        let into = usize::try_from(address.checked_sub(self.start)?).ok()?;
        let word = self.bytes.get(into..into.checked_add(8)?)?;
        word.try_into().ok().map(u64::from_le_bytes)
    }
}

/// What is known of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Code of a file, and what its table says ([`Rule::NONE`] if it has none).
    File(Rule),
    /// Code of a file whose table is not there yet.
    NotLoaded,
    /// Code that was made at run time.
    Anonymous {
        /// The instructions at the return address are `add $8,%rsp; ret`.
        thunk: bool,
    },
    /// No code.
    NotCode,
}

/// Says what an address is; return addresses come less one, so that they lie in the call.
pub trait Code {
    /// `address` lies in the instruction that is asked about.
    fn place(&mut self, address: u64) -> Place;
}

impl<F: FnMut(u64) -> Place> Code for F {
    fn place(&mut self, address: u64) -> Place {
        self(address)
    }
}

/// One frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Return address, or the instruction itself.
    pub pc: u64,
    /// `pc` is the instruction itself: of the innermost frame, of what a signal interrupted, and of what its handler returns to,
    /// for nobody called that.
    pub is_exact: bool,
    /// How it was found.
    pub found_by: FoundBy,
}

/// Where a walk stands.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    pc: u64,
    sp: u64,
    /// `None`: it was lost.
    fp: Option<u64>,
    found_by: FoundBy,
}

impl Cursor {
    fn is_exact(&self) -> bool {
        matches!(self.found_by, FoundBy::Regs | FoundBy::Signal)
    }

    /// An address inside the instruction that this frame executes.
    fn inside(&self) -> u64 {
        if self.is_exact() { self.pc } else { self.pc.wrapping_sub(1) }
    }
}

/// Walks from the innermost frame outwards; appends at most `most` frames, leaf first.
pub fn walk(
    registers: &Registers,
    stack: Stack<'_>,
    code: &mut dyn Code,
    most: usize,
    frames: &mut Vec<Frame>,
) -> Stop {
    let mut at = Cursor { pc: registers.pc, sp: registers.sp(), fp: Some(registers.fp()), found_by: FoundBy::Regs };
    for _ in 0..most {
        let place = code.place(at.inside());
        if place == Place::NotCode && at.found_by != FoundBy::Regs {
            return Stop::NotCode;
        }
        let is_exact = at.is_exact() || matches!(place, Place::File(Rule { cfa: Cfa::Signal(_), .. }));
        frames.push(Frame { pc: at.pc, is_exact, found_by: at.found_by });
        let caller = match place {
            Place::NotCode => Err(Stop::NotCode),
            Place::NotLoaded => Err(Stop::NoTable),
            Place::File(rule) => by_rule(rule, &at, registers, stack),
            Place::Anonymous { thunk: true } => thunk(&at, stack),
            Place::Anonymous { thunk: false } => by_frame_pointer(&at, stack),
        };
        match caller {
            Ok(caller) => at = caller,
            Err(stop) => return stop,
        }
    }
    Stop::Truncated
}

fn by_rule(rule: Rule, at: &Cursor, registers: &Registers, stack: Stack<'_>) -> Result<Cursor, Stop> {
    let read = |address| stack.word(address).ok_or(Stop::Read);
    let fp = at.fp.ok_or(Stop::RegisterLost);
    // All registers are known of the innermost frame only.
    let register = |number: u8| match registers.general.get(usize::from(number)) {
        Some(&value) if at.found_by == FoundBy::Regs => Ok(value),
        _ => Err(Stop::RegisterLost),
    };
    let mut pc = None;
    let cfa = match rule.cfa {
        Cfa::None => return by_frame_pointer(at, stack),
        Cfa::End => return Err(Stop::End),
        Cfa::Unsupported => return Err(Stop::Unsupported),
        Cfa::Signal(offset) => return interrupted(add(at.sp, offset), stack),
        Cfa::Sp(offset) => add(at.sp, offset),
        Cfa::Fp(offset) => add(fp?, offset),
        Cfa::Plt(from) => add(at.sp, if at.inside() & 15 >= u64::from(from) { 16 } else { 8 }),
        Cfa::SpDeref { at: place, add: more } => add(read(add(at.sp, place.into()))?, more.into()),
        Cfa::FpDeref { at: place, add: more } => add(read(add(fp?, place.into()))?, more.into()),
        Cfa::SpIndexDeref { register: number, at: place, add: more } => {
            let index = register(number)?.wrapping_mul(8).wrapping_add(place.into());
            add(read(at.sp.wrapping_add(index))?, more.into())
        }
        Cfa::Register { register: number, offset } => add(register(number)?, offset),
        Cfa::PcInRegister { register: number, offset } => {
            pc = Some(register(number)?);
            add(at.sp, offset)
        }
    };
    let pc = match pc {
        Some(pc) => pc,
        None => read(cfa.wrapping_sub(8))?,
    };
    // A function whose return address is still in a register may not have touched the stack.
    if cfa < at.sp || cfa == at.sp && !matches!(rule.cfa, Cfa::PcInRegister { .. }) {
        return Err(Stop::Stuck);
    }
    let fp = match rule.fp {
        Fp::Same => at.fp,
        Fp::AtCfa(offset) => Some(saved(add(cfa, offset.into()), at, stack)?),
        Fp::AtSp(offset) => Some(saved(add(at.sp, offset.into()), at, stack)?),
        Fp::AtFp(offset) => Some(read(add(fp?, offset.into()))?),
        Fp::Lost => None,
    };
    Ok(Cursor { pc, sp: cfa, fp, found_by: FoundBy::Table })
}

/// What was saved at that address. While a function returns, what it saved lies below SP already, perhaps outside of what was
/// copied; then it is in the register again.
fn saved(address: u64, at: &Cursor, stack: Stack<'_>) -> Result<u64, Stop> {
    match (stack.word(address), at.fp) {
        (Some(word), _) => Ok(word),
        (None, Some(fp)) if address < at.sp => Ok(fp),
        _ => Err(Stop::Read),
    }
}

/// From the code that a signal handler returns to, to what the signal interrupted. That may lie on another stack.
fn interrupted(context: u64, stack: Stack<'_>) -> Result<Cursor, Stop> {
    let read = |place| stack.word(context.wrapping_add(place)).ok_or(Stop::Read);
    let (pc, sp, fp) = (read(shape::UC_PC)?, read(shape::UC_SP)?, read(shape::UC_FP)?);
    Ok(Cursor { pc, sp, fp: Some(fp), found_by: FoundBy::Signal })
}

fn by_frame_pointer(at: &Cursor, stack: Stack<'_>) -> Result<Cursor, Stop> {
    let fp = at.fp.ok_or(Stop::RegisterLost)?;
    if fp % 8 != 0 || fp < at.sp || fp - at.sp >= MOST_FP {
        return Err(Stop::FramePointer);
    }
    let read = |address| stack.word(address).ok_or(Stop::Read);
    let pc = read(add(fp, 8))?;
    Ok(Cursor { pc, sp: add(fp, 16), fp: Some(read(fp)?), found_by: FoundBy::FramePointer })
}

/// `add $8,%rsp; ret` comes next: the return address lies above one word.
fn thunk(at: &Cursor, stack: Stack<'_>) -> Result<Cursor, Stop> {
    let pc = stack.word(add(at.sp, 8)).ok_or(Stop::Read)?;
    Ok(Cursor { pc, sp: add(at.sp, 16), fp: at.fp, found_by: FoundBy::Thunk })
}

fn add(base: u64, offset: i32) -> u64 {
    base.wrapping_add_signed(offset.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SP: u64 = 0x7fff_0000;

    /// Words upwards from [`SP`].
    fn bytes(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn registers(pc: u64, fp: u64) -> Registers {
        let mut general = [0; 16];
        (general[6], general[7], general[10]) = (fp, SP, SP + 40);
        Registers { pc, general }
    }

    fn walk_in(places: &[Place], registers: &Registers, words: &[u64]) -> (Vec<(u64, FoundBy)>, Stop) {
        walk_split(places, registers, words, usize::MAX / 8)
    }

    /// Where the words behind `split` lie above [`SP`].
    const OUTER: u64 = 1 << 20;

    /// Code of functions 0x100 long, by number; `split` words lie at [`SP`].
    fn walk_split(places: &[Place], registers: &Registers, words: &[u64], split: usize) -> (Vec<(u64, FoundBy)>, Stop) {
        let mut frames = Vec::new();
        let mut code = |address: u64| match address / 0x100 {
            0 => Place::NotCode,
            number => places.get(number as usize - 1).copied().unwrap_or(Place::NotCode),
        };
        let bytes = bytes(words);
        let (inner, outer) = bytes.split_at(bytes.len().min(8 * split));
        let outer = Part { start: SP + OUTER, bytes: outer };
        let stack = Stack { inner: Part { start: SP, bytes: inner }, outer };
        let stop = walk(registers, stack, &mut code, 8, &mut frames);
        (frames.into_iter().map(|frame| (frame.pc, frame.found_by)).collect(), stop)
    }

    fn file(cfa: Cfa, fp: Fp) -> Place {
        Place::File(Rule { cfa, fp })
    }

    const END: Place = Place::File(Rule::END);
    use FoundBy::{FramePointer, Regs, Signal, Table, Thunk};

    #[test]
    fn by_the_stack_pointer_and_by_the_frame_pointer() {
        // The first has pushed the frame pointer and 8 bytes; the second one is based on it.
        let places = [file(Cfa::Sp(24), Fp::AtCfa(-16)), file(Cfa::Fp(16), Fp::AtCfa(-16)), END];
        let words = [0, SP + 40, 0x210, 0, 0, 0x77, 0x350, 0];
        let (frames, stop) = walk_in(&places, &registers(0x120, 0), &words);
        assert_eq!((frames, stop), (vec![(0x120, Regs), (0x210, Table), (0x350, Table)], Stop::End));
    }

    #[test]
    fn a_large_frame_may_lie_between_what_was_copied() {
        let places = [file(Cfa::Sp(16), Fp::Same), file(Cfa::Sp(OUTER as i32), Fp::Same), END];
        // The second frame, which began at SP + 16, has its return address as the second word of the outer part.
        let words = [0, 0x210, 0, 0x350];
        let (frames, stop) = walk_split(&places, &registers(0x120, 0), &words, 2);
        assert_eq!((frames, stop), (vec![(0x120, Regs), (0x210, Table), (0x350, Table)], Stop::End));
        assert_eq!(walk_split(&places, &registers(0x120, 0), &words, 3).1, Stop::Read);
    }

    #[test]
    fn a_return_address_belongs_to_the_call() {
        // The call is the last instruction of function 1; what follows it is another function.
        let places = [file(Cfa::Sp(8), Fp::Same), END, Place::NotCode];
        let (frames, stop) = walk_in(&places, &registers(0x110, 0), &[0x300]);
        assert_eq!((frames, stop), (vec![(0x110, Regs), (0x300, Table)], Stop::End));
    }

    #[test]
    fn a_signal_leads_to_an_exact_place() {
        // Handler, then the code it returns to (its first instruction), then the first instruction of what was interrupted.
        let mut words = vec![0x201, 0];
        words.resize(1 + 21, 0);
        let context = SP + 8;
        let at = |place: u64| ((context + place - SP) / 8) as usize;
        words.resize(at(shape::UC_PC) + 3, 0);
        words[at(shape::UC_PC)] = 0x300;
        words[at(shape::UC_SP)] = context + shape::UC_PC + 8;
        words[at(shape::UC_FP)] = 0x1234;
        words[at(shape::UC_PC) + 1] = 0x410;
        let places = [file(Cfa::Sp(8), Fp::Same), file(Cfa::Signal(0), Fp::Same), file(Cfa::Sp(8), Fp::Same), END];
        let (frames, stop) = walk_in(&places, &registers(0x110, 0), &words);
        let want = vec![(0x110, Regs), (0x201, Table), (0x300, Signal), (0x410, Table)];
        assert_eq!((frames, stop), (want, Stop::End));
    }

    #[test]
    fn registers_are_known_of_the_innermost_frame_only() {
        let in_register = file(Cfa::Register { register: 10, offset: 8 }, Fp::AtFp(0));
        let words = [0, 0, 0, 0, 0, 0x110, 0, 0];
        let (frames, stop) = walk_in(&[in_register, END], &registers(0x120, SP), &words);
        assert_eq!((frames, stop), (vec![(0x120, Regs), (0x110, Table)], Stop::RegisterLost));
        // The register counts words.
        let indexed = file(Cfa::SpIndexDeref { register: 10, at: 8, add: 8 }, Fp::Same);
        let mut counting = registers(0x120, 0);
        counting.general[10] = 2;
        let words = [0, 0, 0, SP + 40, 0, 0x230];
        assert_eq!(walk_in(&[indexed, END], &counting, &words), (vec![(0x120, Regs), (0x230, Table)], Stop::End));
        // vfork takes its return address from the stack into a register.
        let vfork = file(Cfa::PcInRegister { register: 10, offset: 0 }, Fp::Same);
        let mut registers = registers(0x120, 0);
        registers.general[10] = 0x230;
        assert_eq!(walk_in(&[vfork, END], &registers, &[]), (vec![(0x120, Regs), (0x230, Table)], Stop::End));
    }

    #[test]
    fn a_lost_frame_pointer_matters_when_it_is_needed() {
        let lost = file(Cfa::Sp(8), Fp::Lost);
        let by_sp = walk_in(&[lost, file(Cfa::Sp(8), Fp::Same), END], &registers(0x110, 0), &[0x210, 0x310]);
        assert_eq!((by_sp.0.len(), by_sp.1), (3, Stop::End));
        let by_fp = walk_in(&[lost, file(Cfa::Fp(16), Fp::Same), END], &registers(0x110, SP), &[0x210, 0x310]);
        assert_eq!((by_fp.0.len(), by_fp.1), (2, Stop::RegisterLost));
    }

    #[test]
    fn a_function_that_has_restored_the_frame_pointer() {
        // As after `pop %rbp`: the slot lies below SP, where nothing was copied.
        let places = [file(Cfa::Sp(8), Fp::AtCfa(-16)), file(Cfa::Fp(16), Fp::AtCfa(-16)), END];
        let words = [0x210, 0, 0x310];
        assert_eq!(walk_in(&places, &registers(0x110, SP + 8), &words).1, Stop::End);
        let above = file(Cfa::Sp(8), Fp::AtCfa(100));
        assert_eq!(walk_in(&[above, END], &registers(0x110, SP + 8), &words).1, Stop::Read);
    }

    #[test]
    fn code_without_a_table_has_a_frame_pointer_or_none() {
        let jit = Place::Anonymous { thunk: false };
        let words = [0, SP + 24, 0x210, 0, 0x310];
        let (frames, stop) = walk_in(&[jit, Place::File(Rule::NONE), END], &registers(0x110, SP + 8), &words);
        assert_eq!(frames, [(0x110, Regs), (0x210, FramePointer), (0x310, FramePointer)]);
        assert_eq!(stop, Stop::End);
        for fp in [SP - 8, SP + 4, SP + MOST_FP, 0] {
            assert_eq!(walk_in(&[jit], &registers(0x110, fp), &words).1, Stop::FramePointer, "{fp:#x}");
        }
        let thunked = walk_in(&[Place::Anonymous { thunk: true }, END], &registers(0x110, 0), &[0, 0x210]);
        assert_eq!(thunked, (vec![(0x110, Regs), (0x210, Thunk)], Stop::End));
    }

    #[test]
    fn the_linkage_table_pushes_half_way() {
        for (pc, words) in [(0x10a, [0x210, 0]), (0x10b, [0, 0x210])] {
            let (frames, _) = walk_in(&[file(Cfa::Plt(11), Fp::Same), END], &registers(pc, 0), &words);
            assert_eq!(frames.last(), Some(&(0x210, Table)), "{pc:#x}");
        }
    }

    #[test]
    fn realigned_stacks() {
        let places =
            [file(Cfa::FpDeref { at: -8, add: 0 }, Fp::AtFp(0)), file(Cfa::SpDeref { at: 8, add: 8 }, Fp::Same), END];
        // The frame pointer at 2 leads to the CFA at 5, through 1.
        let words = [0, SP + 40, 0x77, 0, 0x210, 0, SP + 64, 0, 0x310];
        let (frames, stop) = walk_in(&places, &registers(0x110, SP + 16), &words);
        assert_eq!((frames, stop), (vec![(0x110, Regs), (0x210, Table), (0x310, Table)], Stop::End));
    }

    proptest::proptest! {
        /// Whatever the tables and the stack say, a walk ends and keeps to its bounds.
        #[test]
        fn any_walk_ends(
            rules in proptest::collection::vec(proptest::num::u64::ANY, 1..6),
            kinds in proptest::collection::vec((0u64..13, 0u64..6), 6),
            words in proptest::collection::vec((0u64..64, proptest::bool::ANY), 0..64),
            fp in 0u64..64,
            most in 0usize..40,
        ) {
            // Small offsets and kinds that exist, so that walks come somewhere.
            let rule = |(packed, (cfa, fp)): (&u64, &(u64, u64))| {
                Place::File(Rule::unpack(packed & 0x003f_00ff_0078_0000 | cfa | fp << 8))
            };
            let mut places: Vec<Place> = rules.iter().zip(&kinds).map(rule).collect();
            places.extend([Place::Anonymous { thunk: true }, Place::Anonymous { thunk: false }]);
            let words: Vec<u64> =
                words.into_iter().map(|(word, code)| if code { 0x100 + word * 32 } else { SP + word * 8 }).collect();
            let bytes = bytes(&words);
            let mut frames = Vec::new();
            let mut asked = 0;
            let mut code = |address: u64| {
                asked += 1;
                places.get((address / 0x100) as usize).copied().unwrap_or(Place::NotCode)
            };
            let stack = Stack::new(SP, &bytes);
            let stop = walk(&registers(0x110, SP + fp * 8), stack, &mut code, most, &mut frames);
            proptest::prop_assert!(frames.len() <= most && asked <= frames.len() + 1);
            proptest::prop_assert!(stop != Stop::Truncated || frames.len() == most);
        }
    }

    #[test]
    fn each_end_has_its_reason() {
        let sp = |offset| file(Cfa::Sp(offset), Fp::Same);
        let stop = |places: &[Place], words: &[u64]| walk_in(places, &registers(0x110, 0), words).1;
        assert_eq!(stop(&[sp(8)], &[]), Stop::Read);
        assert_eq!(stop(&[sp(8)], &[0x1234]), Stop::NotCode);
        assert_eq!(stop(&[sp(0)], &[0]), Stop::Read, "below what was copied");
        assert_eq!(stop(&[file(Cfa::Register { register: 10, offset: -40 }, Fp::Same)], &[0]), Stop::Read);
        assert_eq!(stop(&[Place::NotLoaded], &[]), Stop::NoTable);
        assert_eq!(stop(&[Place::File(Rule::UNSUPPORTED)], &[]), Stop::Unsupported);
        assert_eq!(stop(&[sp(8)], &[0x110; 20]), Stop::Truncated);
        assert_eq!(stop(&[Place::NotCode], &[]), Stop::NotCode);
        let back = [sp(16), file(Cfa::FpDeref { at: 0, add: 0 }, Fp::Same)];
        let (frames, stop) = walk_in(&back, &registers(0x110, SP), &[SP + 8, 0x210]);
        assert_eq!((frames.len(), stop), (2, Stop::Stuck));
    }
}
