//! Procedure linkage tables that nothing describes: LLVM's linker writes no call frame information for them. They consist of
//! 16-byte stubs of a few known forms, which leave the stack alone or push one word half way.

use super::rule::{Cfa, Fp, Rule};

/// Bytes of a stub; each is aligned to as many.
pub const STUB_BYTES: u64 = 16;

const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];

/// Of a stub that only jumps.
pub const JUMPS: Rule = sp(8);

const fn sp(offset: i32) -> Rule {
    Rule { cfa: Cfa::Sp(offset), fp: Fp::Same }
}

fn plt(pushed_from: u8) -> Rule {
    Rule { cfa: Cfa::Plt(pushed_from), fp: Fp::Same }
}

/// The rules of a stub, each with the first byte that it holds for; the first one again if it has no second one. `None` if it
/// is no stub.
pub fn stub(code: &[u8; STUB_BYTES as usize]) -> Option<[(u64, Rule); 2]> {
    match code {
        // push GOT+8(%rip); jmp *GOT+16(%rip): the first stub; whoever jumped here has pushed a number already.
        [0xff, 0x35, _, _, _, _, 0xff, 0x25, ..] => Some([(0, sp(16)), (6, sp(24))]),
        // jmp *(%rip); push $number; jmp to the first.
        [0xff, 0x25, _, _, _, _, 0x68, _, _, _, _, 0xe9, ..] => Some([(0, plt(11)); 2]),
        // endbr64; push $number; (bnd) jmp to the first.
        [0xf3, 0x0f, 0x1e, 0xfa, 0x68, _, _, _, _, 0xe9, ..]
        | [0xf3, 0x0f, 0x1e, 0xfa, 0x68, _, _, _, _, 0xf2, 0xe9, ..] => Some([(0, plt(9)); 2]),
        _ => only_jumps(code).then_some([(0, JUMPS); 2]),
    }
}

/// `jmp *(%rip)` and padding, with or without marks of protection against jumps to elsewhere.
pub fn only_jumps(code: &[u8]) -> bool {
    let code = code.strip_prefix(&ENDBR64).unwrap_or(code);
    let code = code.strip_prefix(&[0xf2]).unwrap_or(code);
    let Some([_, _, _, _, padding @ ..]) = code.strip_prefix(&[0xff, 0x25]) else { return false };
    let nops: [&[u8]; 5] = [&[0xcc], &[0x90], &[0x66, 0x90], &[0x0f, 0x1f], &[0x66, 0x0f, 0x1f]];
    nops.iter().any(|nop| padding.starts_with(nop))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(code: &[u8]) -> Option<Vec<(u64, Cfa)>> {
        let mut whole = [0xcc; 16];
        whole[..code.len()].copy_from_slice(code);
        stub(&whole).map(|rules| rules.map(|(at, rule)| (at, rule.cfa)).to_vec())
    }

    #[test]
    fn stubs_of_each_form() {
        let sp = Cfa::Sp;
        let first = b"\xff\x35\xe2\x2f\x00\x00\xff\x25\xe4\x2f\x00\x00\x0f\x1f\x40\x00";
        assert_eq!(rules(first), Some(vec![(0, sp(16)), (6, sp(24))]));
        let lazy = b"\xff\x25\xe2\x2f\x00\x00\x68\x00\x00\x00\x00\xe9\xe0\xff\xff\xff";
        assert_eq!(rules(lazy), Some(vec![(0, Cfa::Plt(11)); 2]));
        let marked = b"\xf3\x0f\x1e\xfa\x68\x00\x00\x00\x00\xe9\xe2\xff\xff\xff\x66\x90";
        assert_eq!(rules(marked), Some(vec![(0, Cfa::Plt(9)); 2]));
        let bound = b"\xf3\x0f\x1e\xfa\x68\x00\x00\x00\x00\xf2\xe9\xe1\xff\xff\xff\x90";
        assert_eq!(rules(bound), Some(vec![(0, Cfa::Plt(9)); 2]));
        let second = b"\xf3\x0f\x1e\xfa\xff\x25\x76\x2f\x00\x00\x66\x0f\x1f\x44\x00\x00";
        let only = Some(vec![(0, sp(8)); 2]);
        for code in [
            &b"\xff\x25\x4a\x0a\x00\x00\x66\x90"[..],
            b"\xff\x25\x4a\x0a\x00\x00\xcc\xcc",
            b"\xf3\x0f\x1e\xfa\xf2\xff\x25\xad\x2f\x00\x00\x0f\x1f\x44\x00\x00",
        ] {
            assert_eq!(rules(code), only, "{code:x?}");
        }
        assert_eq!(rules(&second[..]), only);
    }

    #[test]
    fn other_code_is_none() {
        for code in [&b"\x55\x48\x89\xe5"[..], b"\xff\x25\x4a\x0a\x00\x00\x48\x89", b"\x68\0\0\0\0\xe9", b"", b"\xff"] {
            assert_eq!(rules(code), None, "{code:x?}");
        }
    }
}
