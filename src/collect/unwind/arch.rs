//! What is particular to an architecture: its registers by DWARF's numbers, and which forms of call frame information its
//! compilers and linkers write. A row of any other form becomes [`Rule::UNSUPPORTED`]: a stack that ends and says why.

use gimli::{CfaRule, EhFrame, Expression, Operation, Reader, Register, RegisterRule, UnwindExpression};

use super::cfi::CfiRow;
use super::rule::{Cfa, Fp, Rule, shape};

/// Architectures whose tables are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// x86-64.
    X86_64,
}

const EM_X86_64: u16 = 62;

impl Arch {
    /// By `e_machine` of an ELF header.
    pub fn of(machine: u16) -> Option<Arch> {
        (machine == EM_X86_64).then_some(Arch::X86_64)
    }

    /// The rule of one row of call frame information whose CIE names `return_register`, and is or is not marked as that of
    /// a signal frame.
    pub fn rule<R: Reader<Offset = u64>>(
        self,
        row: &CfiRow,
        section: &EhFrame<R>,
        return_register: Register,
        signal: bool,
    ) -> Rule {
        match self {
            Arch::X86_64 => x86_64(row, section, return_register, signal),
        }
    }
}

const FP: Register = Register(6);
const SP: Register = Register(7);
const LAST: u16 = 15;
const RA: Register = Register(16);

/// Of the expressions that are understood, the one for the procedure linkage table is the longest.
const MOST_OPERATIONS: usize = 9;

fn x86_64<R: Reader<Offset = u64>>(
    row: &CfiRow,
    section: &EhFrame<R>,
    return_register: Register,
    signal: bool,
) -> Rule {
    if return_register != RA {
        return Rule::UNSUPPORTED;
    }
    let return_rule = row.register(RA);
    if matches!(return_rule, Some(RegisterRule::Undefined)) {
        return Rule::END;
    }
    let cfa = cfa(row.cfa(), section);
    if signal {
        return signal_frame(row, section, cfa);
    }
    // The caller's stack pointer is the CFA by definition, unless something else is said.
    if !matches!(row.register(SP), None | Some(RegisterRule::ValOffset(0))) {
        return Rule::UNSUPPORTED;
    }
    let cfa = match (cfa, return_rule) {
        (cfa, Some(RegisterRule::Offset(-8))) => cfa,
        (Cfa::Sp(offset), Some(RegisterRule::Register(Register(register @ 0..=LAST)))) => {
            Cfa::PcInRegister { register: register as u8, offset }
        }
        _ => Cfa::Unsupported,
    };
    if cfa == Cfa::Unsupported {
        return Rule::UNSUPPORTED;
    }
    Rule { cfa, fp: fp(row.register(FP), section) }
}

/// What a C library writes for the code that a signal handler returns to: all registers lie in a `ucontext` above SP.
fn signal_frame<R: Reader<Offset = u64>>(row: &CfiRow, section: &EhFrame<R>, cfa: Cfa) -> Rule {
    let Cfa::SpDeref { at, add: 0 } = cfa else { return Rule::UNSUPPORTED };
    let context = i64::from(at) - shape::UC_SP as i64;
    let lies_at = |register, place: u64| match row.register(register) {
        Some(RegisterRule::Expression(expression)) => matches!(
            operations(&expression, section).as_slice(),
            [Operation::RegisterOffset { register: SP, offset, .. }] if *offset == context + place as i64
        ),
        _ => false,
    };
    if lies_at(RA, shape::UC_PC) && lies_at(FP, shape::UC_FP) {
        Rule { cfa: Cfa::Signal(context as i32), fp: Fp::Same }
    } else {
        Rule::UNSUPPORTED
    }
}

fn cfa<R: Reader<Offset = u64>>(rule: &CfaRule<u64>, section: &EhFrame<R>) -> Cfa {
    match rule {
        CfaRule::RegisterAndOffset { register, offset } => at_register(*register, *offset),
        CfaRule::Expression(expression) => of_expression(&operations(expression, section)),
    }
}

fn at_register(register: Register, offset: i64) -> Cfa {
    match (register, i32::try_from(offset)) {
        (SP, Ok(offset)) => Cfa::Sp(offset),
        (FP, Ok(offset)) => Cfa::Fp(offset),
        (Register(register @ 0..=LAST), Ok(offset)) => Cfa::Register { register: register as u8, offset },
        _ => Cfa::Unsupported,
    }
}

fn of_expression<R: Reader<Offset = u64>>(operations: &[Operation<R>]) -> Cfa {
    use Operation::{Deref, PlusConstant, RegisterOffset};
    match operations {
        [RegisterOffset { register, offset, .. }] => at_register(*register, *offset),
        [RegisterOffset { register, offset, .. }, Deref { size: 8, space: false, .. }] => {
            dereferenced(*register, *offset, 0)
        }
        [RegisterOffset { register, offset, .. }, Deref { size: 8, space: false, .. }, PlusConstant { value }] => {
            dereferenced(*register, *offset, *value)
        }
        _ => linkage_table(operations).or_else(|| indexed(operations)).unwrap_or(Cfa::Unsupported),
    }
}

fn dereferenced(register: Register, at: i64, add: u64) -> Cfa {
    match (register, i16::try_from(at), i16::try_from(add)) {
        (SP, Ok(at), Ok(add)) => Cfa::SpDeref { at, add },
        (FP, Ok(at), Ok(add)) => Cfa::FpDeref { at, add },
        _ => Cfa::Unsupported,
    }
}

/// What linkers write for `.plt`: `rsp + 8 + ((rip & 15) >= from) << 3`.
fn linkage_table<R: Reader<Offset = u64>>(operations: &[Operation<R>]) -> Option<Cfa> {
    use Operation::{And, Ge, Plus, RegisterOffset, Shl, UnsignedConstant as Number};
    let [
        RegisterOffset { register: SP, offset: 8, .. },
        RegisterOffset { register: RA, offset: 0, .. },
        Number { value: 15 },
        And,
        Number { value: from },
        Ge,
        Number { value: 3 },
        Shl,
        Plus,
    ] = operations
    else {
        return None;
    };
    u8::try_from(*from).ok().filter(|&from| from < 16).map(Cfa::Plt)
}

/// What the authors of big-number arithmetic write: `*(rsp + at + 8 * register) + add`.
fn indexed<R: Reader<Offset = u64>>(operations: &[Operation<R>]) -> Option<Cfa> {
    use Operation::{Deref, Mul, Plus, PlusConstant, RegisterOffset, UnsignedConstant as Number};
    let [
        RegisterOffset { register: SP, offset, .. },
        RegisterOffset { register: Register(register @ 0..=LAST), offset: 0, .. },
        Number { value: 8 },
        Mul,
        Plus,
        Deref { size: 8, space: false, .. },
        PlusConstant { value },
    ] = operations
    else {
        return None;
    };
    let (at, add) = (u8::try_from(*offset).ok()?, i16::try_from(*value).ok()?);
    Some(Cfa::SpIndexDeref { register: *register as u8, at, add })
}

fn fp<R: Reader<Offset = u64>>(rule: Option<RegisterRule<u64>>, section: &EhFrame<R>) -> Fp {
    match rule {
        None | Some(RegisterRule::SameValue) => Fp::Same,
        Some(RegisterRule::Offset(offset)) => i16::try_from(offset).map_or(Fp::Lost, Fp::AtCfa),
        Some(RegisterRule::Expression(expression)) => match operations(&expression, section).as_slice() {
            [Operation::RegisterOffset { register: SP, offset, .. }] => {
                i16::try_from(*offset).map_or(Fp::Lost, Fp::AtSp)
            }
            [Operation::RegisterOffset { register: FP, offset, .. }] => {
                i16::try_from(*offset).map_or(Fp::Lost, Fp::AtFp)
            }
            _ => Fp::Lost,
        },
        Some(_) => Fp::Lost,
    }
}

/// The operations of an expression; none if it is longer than any that is understood, or broken.
fn operations<R: Reader<Offset = u64>>(
    expression: &UnwindExpression<u64>,
    section: &EhFrame<R>,
) -> smallvec::SmallVec<[Operation<R>; MOST_OPERATIONS]> {
    let mut found = smallvec::SmallVec::new();
    let Ok(Expression(bytes)) = expression.get(section) else { return found };
    // As in an FDE that is no part of a unit: 64 bits, 32-bit DWARF, the version does not matter to operations used here.
    let mut operations =
        Expression(bytes).operations(gimli::Encoding { address_size: 8, format: gimli::Format::Dwarf32, version: 4 });
    loop {
        match operations.next() {
            Ok(Some(operation)) if found.len() < MOST_OPERATIONS => found.push(operation),
            Ok(None) => return found,
            _ => {
                found.clear();
                return found;
            }
        }
    }
}
