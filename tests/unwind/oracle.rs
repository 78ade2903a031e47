//! Two ways to say how a frame leads to its caller, both turned into numbers: given the same registers and the same memory,
//! what are the caller's stack pointer, frame pointer and pc? Equal numbers from made-up registers and a made-up memory, in
//! which each address holds something else, mean equal rules.

use gimli::{CfaRule, EhFrame, Encoding, EndianSlice, EvaluationResult, Format, Location};
use gimli::{LittleEndian, Register, RegisterRule, UnwindExpression, UnwindTableRow, Value};
use sberf::collect::unwind::{Cfa, Fp, Rule, shape};

type Section<'bytes> = EhFrame<EndianSlice<'bytes, LittleEndian>>;

/// What a rule makes of the registers. `None`: it has no answer, or (of a frame pointer) none that it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    pub sp: Option<u64>,
    pub fp: Option<u64>,
    pub pc: Option<u64>,
}

/// As [`Caller`], or why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    To(Caller),
    End,
    None,
    Unsupported,
}

fn mix(number: u64) -> u64 {
    let number = (number ^ number >> 31).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    number ^ number >> 29
}

/// Registers by DWARF's numbers; the last one is the pc.
fn register(register: u16, pc: u64) -> u64 {
    if register == 16 { pc } else { mix(u64::from(register) + 100) >> 16 }
}

fn memory(address: u64) -> u64 {
    mix(address.wrapping_add(0x1234_5678))
}

/// By a rule of a table, at the address `pc`.
pub fn by_rule(rule: Rule, pc: u64) -> Step {
    let (sp, fp) = (register(7, pc), register(6, pc));
    let add = |base: u64, offset: i32| base.wrapping_add_signed(offset.into());
    let mut return_pc = None;
    let cfa = match rule.cfa {
        Cfa::None => return Step::None,
        Cfa::End => return Step::End,
        Cfa::Unsupported => return Step::Unsupported,
        Cfa::Sp(offset) => add(sp, offset),
        Cfa::Fp(offset) => add(fp, offset),
        Cfa::Plt(from) => sp + 8 + if pc & 15 >= u64::from(from) { 8 } else { 0 },
        Cfa::SpDeref { at, add: more } => add(memory(add(sp, at.into())), more.into()),
        Cfa::FpDeref { at, add: more } => add(memory(add(fp, at.into())), more.into()),
        Cfa::SpIndexDeref { register: number, at, add: more } => {
            add(memory(sp + u64::from(at) + 8 * register(number.into(), pc)), more.into())
        }
        Cfa::Register { register: number, offset } => add(register(number.into(), pc), offset),
        Cfa::PcInRegister { register: number, offset } => {
            return_pc = Some(register(number.into(), pc));
            add(sp, offset)
        }
        Cfa::Signal(offset) => {
            let context = add(sp, offset);
            let at = |place| Some(memory(context + place));
            return Step::To(Caller { sp: at(shape::UC_SP), fp: at(shape::UC_FP), pc: at(shape::UC_PC) });
        }
    };
    let fp = match rule.fp {
        Fp::Same => Some(fp),
        Fp::AtCfa(offset) => Some(memory(add(cfa, offset.into()))),
        Fp::AtSp(offset) => Some(memory(add(sp, offset.into()))),
        Fp::AtFp(offset) => Some(memory(add(fp, offset.into()))),
        Fp::Lost => None,
    };
    Step::To(Caller { sp: Some(cfa), fp, pc: return_pc.or_else(|| Some(memory(cfa.wrapping_sub(8)))) })
}

/// By a row of call frame information.
pub fn by_row(row: &UnwindTableRow<usize>, section: &Section<'_>, pc: u64) -> Step {
    let cfa = match row.cfa() {
        CfaRule::RegisterAndOffset { register: number, offset } => {
            Some(register(number.0, pc).wrapping_add_signed(*offset))
        }
        CfaRule::Expression(expression) => value_of(expression, section, pc, None),
    };
    let recovered = |number: u16| -> Option<u64> {
        match row.register(Register(number)) {
            None if number == 7 => cfa,
            // Nothing is said of the return address: nobody can know it.
            None if number == 16 => None,
            None | Some(RegisterRule::SameValue) => Some(register(number, pc)),
            Some(RegisterRule::Undefined | RegisterRule::Architectural) => None,
            Some(RegisterRule::Offset(offset)) => Some(memory(cfa?.wrapping_add_signed(offset))),
            Some(RegisterRule::ValOffset(offset)) => Some(cfa?.wrapping_add_signed(offset)),
            Some(RegisterRule::Register(other)) => Some(register(other.0, pc)),
            Some(RegisterRule::Expression(expression)) => value_of(&expression, section, pc, cfa).map(memory),
            Some(RegisterRule::ValExpression(expression)) => value_of(&expression, section, pc, cfa),
            Some(_) => None,
        }
    };
    if matches!(row.register(Register(16)), Some(RegisterRule::Undefined)) {
        return Step::End;
    }
    Step::To(Caller { sp: recovered(7), fp: recovered(6), pc: recovered(16) })
}

/// Evaluates a DWARF expression with gimli's own machine.
fn value_of(expression: &UnwindExpression<usize>, section: &Section<'_>, pc: u64, initial: Option<u64>) -> Option<u64> {
    let encoding = Encoding { address_size: 8, format: Format::Dwarf32, version: 4 };
    let mut evaluation = expression.get(section).ok()?.evaluation(encoding);
    if let Some(initial) = initial {
        evaluation.set_initial_value(initial);
    }
    let mut result = evaluation.evaluate().ok()?;
    loop {
        result = match result {
            EvaluationResult::Complete => break,
            EvaluationResult::RequiresRegister { register: number, .. } => {
                evaluation.resume_with_register(Value::Generic(register(number.0, pc))).ok()?
            }
            EvaluationResult::RequiresMemory { address, size: 8, .. } => {
                evaluation.resume_with_memory(Value::Generic(memory(address))).ok()?
            }
            _ => return None,
        };
    }
    match evaluation.result().first()?.location {
        Location::Address { address } => Some(address),
        _ => None,
    }
}
