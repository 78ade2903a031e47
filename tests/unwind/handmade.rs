//! Call frame information made by hand, and the rules that must come of it.

use sberf::collect::unwind::{Cfa, Fp, NoTable, Rule, Rules, Table};
use std::sync::Arc;

use super::made::{Cie, Found, Made, RA, RBP, RSP, cfa, function, image};

fn sp(offset: i32) -> Rule {
    Rule { cfa: Cfa::Sp(offset), fp: Fp::Same }
}

fn open(made: &Made) -> Table<Arc<[u8]>> {
    Table::open(made.build().into()).expect("a table")
}

/// The rule at a place in the code, asked for alone and found in its window.
fn at(made: &Made, into: u64) -> Rule {
    let (mut table, offset, mut rules) = (open(made), made.offset(into), Rules::default());
    let (extent, alone) = (table.extent(), table.rule(offset));
    let number = extent.window_of(offset).expect("inside");
    let window = table.window(number, &mut rules);
    let index = window.lookup(offset - extent.offsets(number).start).expect("inside");
    assert_eq!(rules.get(index), Some(alone), "at {into:#x}");
    alone
}

/// The rule of a function that consists of these instructions.
fn of(instructions: &[Vec<u8>]) -> Rule {
    at(&image(0x100, &[function(0, 0x100, instructions)]), 0x80)
}

#[test]
fn each_row_holds_from_its_first_byte_on() {
    let push = [cfa::advance(1), cfa::def_offset(16), cfa::saved(RBP as u8, 2)];
    let frame = [cfa::advance(3), cfa::def_register(RBP), cfa::advance(0x300), cfa::def(RSP, 8)];
    let made = image(0x1000, &[function(0x40, 0x600, &[push.concat(), frame.concat()])]);
    let saved = Fp::AtCfa(-16);
    for (into, want) in [
        (0x3f, Rule::NONE),
        (0x40, sp(8)),
        (0x41, Rule { cfa: Cfa::Sp(16), fp: saved }),
        (0x43, Rule { cfa: Cfa::Sp(16), fp: saved }),
        (0x44, Rule { cfa: Cfa::Fp(16), fp: saved }),
        (0x343, Rule { cfa: Cfa::Fp(16), fp: saved }),
        (0x344, Rule { cfa: Cfa::Sp(8), fp: saved }),
        // The second page begins in the midst of the function.
        (0x400, Rule { cfa: Cfa::Sp(8), fp: saved }),
        (0x63f, Rule { cfa: Cfa::Sp(8), fp: saved }),
        (0x640, Rule::NONE),
        (0xfff, Rule::NONE),
    ] {
        assert_eq!(at(&made, into), want, "{into:#x}");
    }
}

#[test]
fn padding_belongs_to_what_is_before_it() {
    let one = function(0x100, 0x40, &[cfa::def_offset(16)]);
    let near = image(0x1000, &[one.clone(), function(0x17f, 0x40, &[])]);
    assert_eq!((at(&near, 0x140), at(&near, 0x17e), at(&near, 0x17f)), (sp(16), sp(16), sp(8)));
    let far = image(0x1000, &[one, function(0x180, 0x40, &[])]);
    assert_eq!((at(&far, 0x13f), at(&far, 0x140), at(&far, 0x17f)), (sp(16), Rule::NONE, Rule::NONE));
    // Across a window, too; and not beyond the code.
    let across = image(0x1_002f, &[function(0x20, 0xffd0, &[cfa::def_offset(24)])]);
    assert_eq!([0x1f, 0x1_0000, 0x1_002e].map(|into| at(&across, into)), [Rule::NONE, sp(24), sp(24)]);
    let far = image(0x1_0030, &[function(0x20, 0xffd0, &[cfa::def_offset(24)])]);
    assert_eq!([0xffef, 0xfff0, 0x1_002f].map(|into| at(&far, into)), [sp(24), Rule::NONE, Rule::NONE]);
}

#[test]
fn where_nothing_returns_to() {
    assert_eq!(of(&[cfa::undefined(RA)]), Rule::END);
    // A program's entry has an ordinary description, or none.
    let made = Made { program: true, entry: Some(0x180), ..image(0x400, &[function(0x100, 0x100, &[])]) };
    assert_eq!((at(&made, 0x100), at(&made, 0x1ff), at(&made, 0x200)), (Rule::END, Rule::END, Rule::NONE));
    let made = Made { entry: Some(0x220), ..made };
    let around = [0x1ff, 0x200, 0x21f, 0x220, 0x25f, 0x260].map(|into| at(&made, into));
    assert_eq!(around, [sp(8), Rule::NONE, Rule::NONE, Rule::END, Rule::END, Rule::NONE]);
    // In a library the same number means nothing, unless code stands there that begins programs.
    let mut made = Made { program: false, ..made };
    assert_eq!(at(&made, 0x220), Rule::NONE);
    made.code[0x220..0x226].copy_from_slice(b"\xf3\x0f\x1e\xfa\x31\xed");
    assert_eq!(at(&made, 0x220), Rule::END);
}

/// `DW_OP_bregN offset`, for small numbers.
fn breg(register: u8, offset: i8) -> Vec<u8> {
    vec![0x70 + register, offset as u8 & 0x7f]
}

const DEREF: u8 = 0x06;
const MUL: u8 = 0x1e;
const PLUS: u8 = 0x22;
const PLUS_UCONST: u8 = 0x23;
const LIT0: u8 = 0x30;

#[test]
fn expressions_that_are_understood() {
    let plt = [breg(7, 8), breg(16, 0), vec![LIT0 + 15, 0x1a, LIT0 + 11, 0x2a, LIT0 + 3, 0x24, PLUS]].concat();
    let made = image(0x100, &[function(0, 0x100, &[cfa::def_expression(&plt)])]);
    assert_eq!(at(&made, 0x20).cfa, Cfa::Plt(11));
    let expression = |parts: &[&[u8]]| of(&[cfa::def_expression(&parts.concat())]).cfa;
    assert_eq!(expression(&[&breg(7, 24)]), Cfa::Sp(24));
    assert_eq!(expression(&[&breg(7, 40), &[DEREF, PLUS_UCONST, 8]]), Cfa::SpDeref { at: 40, add: 8 });
    assert_eq!(expression(&[&breg(6, -8), &[DEREF]]), Cfa::FpDeref { at: -8, add: 0 });
    let indexed = [&breg(7, 8)[..], &breg(9, 0), &[LIT0 + 8, MUL, PLUS, DEREF, PLUS_UCONST, 8]];
    assert_eq!(expression(&indexed), Cfa::SpIndexDeref { register: 9, at: 8, add: 8 });
    let (twice, other) = ([breg(7, 8), vec![DEREF, DEREF]].concat(), [breg(3, 8), vec![DEREF]].concat());
    for unknown in [vec![], vec![0x96], twice, other, vec![0x09, 0x08]] {
        assert_eq!(expression(&[&unknown]), Cfa::Unsupported, "{unknown:x?}");
    }
    assert_eq!(expression(&[&[0x70; 4000]]), Cfa::Unsupported);
}

#[test]
fn where_the_frame_pointer_is() {
    let fp = |instructions: &[Vec<u8>]| of(instructions).fp;
    assert_eq!(fp(&[cfa::saved(RBP as u8, 4095)]), Fp::AtCfa(-32760));
    assert_eq!(fp(&[cfa::saved(RBP as u8, 4097)]), Fp::Lost, "too far for 16 bits");
    assert_eq!(fp(&[cfa::expression(RBP, &breg(6, 0))]), Fp::AtFp(0));
    assert_eq!(fp(&[cfa::expression(RBP, &breg(7, -16))]), Fp::AtSp(-16));
    assert_eq!(fp(&[cfa::expression(RBP, &breg(3, 0))]), Fp::Lost);
    assert_eq!(fp(&[cfa::in_register(RBP, 11)]), Fp::Lost);
    assert_eq!(fp(&[cfa::undefined(RBP)]), Fp::Lost);
}

#[test]
fn other_registers() {
    assert_eq!(of(&[cfa::def(10, 0)]).cfa, Cfa::Register { register: 10, offset: 0 });
    assert_eq!(of(&[cfa::def(17, 0)]), Rule::UNSUPPORTED);
    // vfork pops its return address.
    let vfork = [cfa::def_offset(0), cfa::in_register(RA, 5)];
    assert_eq!(of(&vfork).cfa, Cfa::PcInRegister { register: 5, offset: 0 });
    assert_eq!(of(&[cfa::def(RBP, 16), cfa::in_register(RA, 5)]), Rule::UNSUPPORTED);
    assert_eq!(of(&[cfa::saved(RA as u8, 2)]), Rule::UNSUPPORTED, "a return address elsewhere");
    assert_eq!(of(&[cfa::saved(RSP as u8, 2)]), Rule::UNSUPPORTED, "another stack");
    let mut made = image(0x100, &[function(0, 0x100, &[])]);
    made.cies = vec![Cie { return_register: 15, ..Cie::default() }];
    assert_eq!(at(&made, 0), Rule::UNSUPPORTED);
}

fn signal_frame(context: i8) -> Vec<Vec<u8>> {
    let far = |offset: i16| {
        let offset = offset + i16::from(context);
        vec![0x77, offset as u8 & 0x7f | 0x80, (offset >> 7) as u8 & 0x7f]
    };
    vec![
        cfa::def_expression(&[far(160), vec![DEREF]].concat()),
        cfa::expression(RBP, &far(120)),
        cfa::expression(RSP, &far(160)),
        cfa::expression(RA, &far(168)),
    ]
}

#[test]
fn signal_frames() {
    let mut made = image(0x100, &[function(0, 0x100, &signal_frame(0))]);
    assert_eq!(at(&made, 0), Rule::UNSUPPORTED, "they are marked");
    made.cies = vec![Cie { augmentation: "zRS", ..Cie::default() }];
    assert_eq!(at(&made, 0).cfa, Cfa::Signal(0));
    made.functions = vec![function(0, 0x100, &signal_frame(8))];
    assert_eq!(at(&made, 0).cfa, Cfa::Signal(8));
    made.functions = vec![function(0, 0x100, &signal_frame(0)[..3])];
    assert_eq!(at(&made, 0), Rule::UNSUPPORTED);
}

#[test]
fn what_cannot_be_evaluated_is_said_to_be() {
    let broken = [cfa::advance(4), cfa::def_offset(16), cfa::advance(4), cfa::nonsense()];
    let made = image(0x400, &[function(0, 0x40, &broken), function(0x40, 0x40, &[])]);
    let found = [0, 4, 7, 8, 0x3f, 0x40].map(|into| at(&made, into));
    assert_eq!(found, [sp(8), sp(16), sp(16), Rule::UNSUPPORTED, Rule::UNSUPPORTED, sp(8)]);
    // States are given back that were never kept; or a register changes that the CFA does not have.
    assert_eq!(of(&[cfa::restore_state()]), Rule::UNSUPPORTED);
    assert_eq!(of(&[cfa::def_expression(&breg(7, 8)), cfa::def_offset(8)]), Rule::UNSUPPORTED);
    assert_eq!(of(&vec![cfa::remember(); 100]), Rule::UNSUPPORTED);
}

#[test]
fn of_two_descriptions_the_later_one_holds() {
    let outer = function(0, 0x200, &[cfa::def_offset(16)]);
    let inner = function(0x100, 0x40, &[cfa::def_offset(32)]);
    let made = image(0x400, &[outer, inner]);
    let found = [0xff, 0x100, 0x13f, 0x140].map(|into| at(&made, into));
    assert_eq!(found, [sp(16), sp(32), sp(32), Rule::NONE], "as a search by start finds them");
    // Without a length nothing is known.
    let made = image(0x400, &[function(0, 0x100, &[]), function(0x100, 0, &[]), function(0x120, 0x40, &[])]);
    assert_eq!([0xff, 0x100, 0x11f, 0x120].map(|into| at(&made, into)), [sp(8), Rule::NONE, Rule::NONE, sp(8)]);
}

#[test]
fn without_the_linkers_table_all_is_the_same() {
    let functions: Vec<_> =
        (0..300).rev().map(|number| function(number * 0x200, 0x1f0, &[cfa::def_offset(8 * number)])).collect();
    let sorted = Made { code_offset: 0x4_0000, ..image(300 * 0x200, &functions) };
    let table = open(&sorted);
    for found in [Found::Unsorted, Found::Section] {
        let other = open(&Made { found, ..sorted.clone() });
        for offset in (0..300 * 0x200).step_by(0x155).map(|into| sorted.offset(into)) {
            assert_eq!(other.rule(offset), table.rule(offset), "{offset:#x}");
            assert_eq!(other.function_start(offset), table.function_start(offset), "{offset:#x}");
        }
    }
}

#[test]
fn functions_have_a_start() {
    let made = image(0x1000, &[function(0x100, 0x40, &[]), function(0x200, 0x700, &[])]);
    for found in [Found::Sorted, Found::Section] {
        let table = open(&Made { found, ..made.clone() });
        let start = |into| table.function_start(made.offset(into)).map(|start| start - made.code_offset);
        assert_eq!(
            [0xff, 0x100, 0x13f, 0x140, 0x8ff, 0x900].map(start),
            [None, Some(0x100), Some(0x100), None, Some(0x200), None]
        );
        assert_eq!((table.function_start(0), table.function_start(u64::MAX)), (None, None));
    }
}

#[test]
fn offsets_are_those_of_the_file() {
    let made = Made { code_offset: 0x2_3400, ..image(0x2_0001, &[function(0x1_fff0, 0x11, &[cfa::def_offset(64)])]) };
    let table = open(&made);
    let extent = table.extent();
    assert_eq!((extent.first, extent.pages, extent.windows(), extent.entries()), (0x2_3400, 129, 3, 132));
    assert_eq!((extent.window_pages(0), extent.window_pages(2), extent.window_pages(3)), (64, 1, 0));
    assert_eq!(
        (extent.window_of(0x2_33ff), extent.window_of(0x4_3400), extent.window_of(0x4_3800)),
        (None, Some(2), None)
    );
    assert_eq!((at(&made, 0x1_ffef), at(&made, 0x1_fff0), at(&made, 0x2_0000)), (Rule::NONE, sp(64), sp(64)));
}

#[test]
fn what_has_no_table() {
    let made = image(0x400, &[function(0, 0x100, &[])]);
    let whole = made.build();
    let why = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = whole.clone();
        change(&mut bytes);
        Table::open(Arc::<[u8]>::from(bytes)).err()
    };
    assert_eq!(why(&|_| ()), None);
    assert_eq!(why(&|bytes| bytes.clear()), Some(NoTable::NotElf));
    assert_eq!(why(&|bytes| bytes.truncate(200)), Some(NoTable::NotElf));
    assert_eq!(why(&|bytes| bytes[4] = 1), Some(NoTable::OtherMachine));
    assert_eq!(why(&|bytes| bytes[18] = 183), Some(NoTable::OtherMachine));
    assert_eq!(why(&|bytes| bytes[16] = 1), Some(NoTable::NotElf), "an object file");
    assert_eq!(why(&|bytes| bytes[64 + 56 + 4] = 4), Some(NoTable::NoCode), "no segment is executable");
    // Neither `.eh_frame_hdr` nor a section of that name.
    let none = |bytes: &mut Vec<u8>| {
        bytes[56] = 2;
        let name = bytes.windows(9).position(|name| name == b".eh_frame").expect("a name");
        bytes[name + 1] = b'x';
    };
    assert_eq!(why(&none), Some(NoTable::NoFrames));
    let empty = Made { found: Found::Unsorted, functions: Vec::new(), ..made };
    assert_eq!(Table::open(Arc::<[u8]>::from(empty.build())).err(), Some(NoTable::NoFrames));
}

#[test]
fn the_vdso_has_a_table() {
    use std::os::unix::fs::FileExt;
    let maps = std::fs::read_to_string("/proc/self/maps").expect("procfs");
    let Some(line) = maps.lines().find(|line| line.ends_with("[vdso]")) else {
        eprintln!("skipped: no vDSO here");
        return;
    };
    let (start, rest) = line.split_once('-').expect("a range");
    let (end, _) = rest.split_once(' ').expect("a range");
    let [start, end] = [start, end].map(|hex| u64::from_str_radix(hex, 16).expect("a number"));
    let mut bytes = vec![0; (end - start) as usize];
    let memory = std::fs::File::open("/proc/self/mem").expect("our own memory");
    memory.read_exact_at(&mut bytes, start).expect("it is mapped");
    let table = Table::open(Arc::<[u8]>::from(bytes)).expect("a table");
    let extent = table.extent();
    let all: Vec<Rule> = (extent.first..extent.offsets(0).end).map(|offset| table.rule(offset)).collect();
    let with = all.iter().filter(|rule| matches!(rule.cfa, Cfa::Sp(_) | Cfa::Fp(_))).count();
    assert!(with > 500, "{with} of {} bytes have a rule", all.len());
}
