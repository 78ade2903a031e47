//! Names of the stubs through which a file calls functions of others: `puts@plt`. No symbol names them; what they jump to
//! does.

use crate::collect::object::{Object, SHT_DYNSYM, u32_at, u64_at};

/// `Elf64_Rela`.
const RELA_BYTES: u64 = 24;
/// `Elf64_Sym`.
const SYM_BYTES: u64 = 24;
/// Relocations beyond this are not looked at.
const MAX_RELOCATIONS: u64 = 1 << 20;
/// All stubs of x86-64 are that long, or half as long.
const STUB_BYTES: u64 = 16;
const CHUNK: u64 = 64 << 10;

/// What the stub that holds an address is called, and where it begins. x86-64 only; `None` for what is no stub.
pub fn name(object: &Object, address: u64) -> Option<(String, u64)> {
    let section = object.sections.iter().find(|section| {
        section.name.starts_with(".plt") && address.checked_sub(section.address).is_some_and(|at| at < section.bytes)
    })?;
    // Stubs that need no symbol of their own number are half as long.
    [STUB_BYTES, STUB_BYTES / 2].into_iter().find_map(|bytes| {
        let into = (address - section.address) / bytes * bytes;
        let stub = object.bytes_at(section.offset.checked_add(into)?, bytes.min(section.bytes - into))?;
        let start = section.address + into;
        let symbol = match target(&stub, start)? {
            Target::Slot(slot) => relocation(object, &[".rela.plt", ".rela.dyn"], |_, at| at == slot)?,
            Target::Number(number) => relocation(object, &[".rela.plt"], |nth, _| nth == u64::from(number))?,
        };
        Some((format!("{}@plt", dynamic_name(object, symbol)?), start))
    })
}

enum Target {
    /// It jumps to what stands at this address.
    Slot(u64),
    /// It asks the dynamic loader for the relocation with this number.
    Number(u32),
}

/// What a stub does, by its instructions.
fn target(stub: &[u8], start: u64) -> Option<Target> {
    let code = stub.strip_prefix(b"\xf3\x0f\x1e\xfa").unwrap_or(stub); // endbr64
    let at = (stub.len() - code.len()) as u64;
    let (code, at) = code.strip_prefix(b"\xf2").map_or((code, at), |code| (code, at + 1)); // bnd
    match code {
        // jmp *number(%rip)
        [0xff, 0x25, ..] => {
            let next = start.wrapping_add(at + 6);
            Some(Target::Slot(next.wrapping_add_signed(i64::from(u32_at(code, 2)? as i32))))
        }
        // push number
        [0x68, ..] => Some(Target::Number(u32_at(code, 1)?)),
        _ => None,
    }
}

/// The symbol of the first relocation of these sections that is the one, by its number in its section and its address.
fn relocation(object: &Object, sections: &[&str], is_it: impl Fn(u64, u64) -> bool) -> Option<u32> {
    sections.iter().filter_map(|name| object.section(name)).find_map(|section| {
        let bytes = section.bytes.min(MAX_RELOCATIONS * RELA_BYTES);
        let step = CHUNK / RELA_BYTES * RELA_BYTES;
        (0..bytes).step_by(step as usize).find_map(|at| {
            let chunk = object.bytes_at(section.offset.checked_add(at)?, step.min(bytes - at))?;
            let mut entries = (at / RELA_BYTES..).zip(chunk.chunks_exact(RELA_BYTES as usize));
            let symbol = |entry: &[u8]| u64_at(entry, 8).and_then(|info| u32::try_from(info >> 32).ok());
            let found = entries.find(|(nth, entry)| u64_at(entry, 0).is_some_and(|address| is_it(*nth, address)));
            found.and_then(|(_, entry)| symbol(entry)).filter(|symbol| *symbol > 0)
        })
    })
}

fn dynamic_name(object: &Object, symbol: u32) -> Option<String> {
    let table = object.sections.iter().find(|section| section.kind == SHT_DYNSYM)?;
    let strings = object.sections.get(table.link as usize)?;
    let at = u64::from(symbol).checked_mul(SYM_BYTES)?;
    let entry = object.bytes_at(table.offset.checked_add(at)?, SYM_BYTES)?;
    let place = u64::from(u32_at(&entry, 0)?);
    let bytes = object.bytes_at(strings.offset.checked_add(place)?, strings.bytes.checked_sub(place)?.min(1024))?;
    let end = bytes.iter().position(|&byte| byte == 0).filter(|&end| end > 0)?;
    Some(crate::collect::demangle::demangle(&String::from_utf8_lossy(bytes.get(..end)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::symbols::oracle::Built;
    use std::fs::File;
    use std::process::Command;
    use std::sync::Arc;

    /// Stubs by objdump: address, name.
    fn stubs(built: &Built) -> Option<Vec<(u64, String)>> {
        let output = Command::new("objdump").args(["-d"]).arg(&built.path).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let stub = |line: &str| {
            let (address, rest) = line.split_once(" <")?;
            let name = rest.strip_suffix("@plt>:")?;
            Some((u64::from_str_radix(address, 16).ok()?, format!("{name}@plt")))
        };
        Some(text.lines().filter_map(stub).collect())
    }

    #[test]
    fn as_objdump_calls_them() {
        let source = "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n\
            int main(int n, char **v) { puts(v[0]); srand(n); printf(\"%zu %p\\n\", strlen(v[0]), (void *)&free); return rand(); }";
        let mut checked = 0;
        for flags in [["-O1", "-fcf-protection=full", "-Wl,-z,lazy"], ["-O1", "-fcf-protection=none", "-Wl,-z,now"]] {
            let Some(built) = Built::c("cc", source, &flags) else { return };
            let Some(stubs) = stubs(&built) else { return };
            let object = Object::open(Arc::new(File::open(&built.path).unwrap())).unwrap();
            for (address, called) in &stubs {
                let found = name(&object, address + 3);
                assert_eq!(found, Some((called.clone(), *address)), "{flags:?}");
                checked += 1;
            }
            let code = object.section(".text").unwrap();
            assert_eq!(name(&object, code.address), None);
            // Whatever stands there: bounds hold.
            (0..0x5000).for_each(|address| drop(name(&object, address)));
        }
        assert!(checked >= 8, "{checked}");
    }
}
