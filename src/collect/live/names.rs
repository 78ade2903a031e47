//! What the kernel calls its code, asked of the kernel itself, address by address.

use std::mem::{offset_of, size_of};
use std::ops::Range;

use libbpf_rs::skel::Skel as _;
use libbpf_rs::{MapCore, MapFlags, ProgramInput};

use super::maps::memory_of;
use super::skel::names::NamesSkel;
use super::skel::names::types::name_request;
use super::stacks::hook_code;
use super::wire;
use crate::collect::symbols::KernelNames;

/// Addresses at once, and the room for what one is called; as in `src/bpf/sberf.h`.
const AT_ONCE: usize = (offset_of!(name_request, name) - offset_of!(name_request, address)) / size_of::<u64>();
const NAME_BYTES: usize = (size_of::<name_request>() - offset_of!(name_request, name)) / AT_ONCE;

/// Where the code of hooks lies, and who names the kernel's code; from the kernel's list what cannot be asked.
pub fn or_list(asked: Option<Asked>) -> (Vec<Range<u64>>, Option<Box<dyn KernelNames>>) {
    let hooks = asked.as_ref().and_then(Asked::hook_code).map_or_else(hook_code, |code| vec![code]);
    (hooks, asked.map(|asked| Box::new(asked) as Box<dyn KernelNames>))
}

/// The program that names addresses.
pub struct Asked(NamesSkel<'static>);

impl Asked {
    /// `skel`: loaded.
    pub fn new(skel: NamesSkel<'static>) -> Self {
        Asked(skel)
    }

    /// Memory of its map, bytes.
    pub fn map_bytes(&self) -> u64 {
        memory_of(&self.0.maps.asked)
    }

    /// The program, and the map.
    pub fn object(&self) -> &libbpf_rs::Object {
        self.0.object()
    }

    /// Where the kernel's code lies that calls the hooks of a trace point; `None` if that is not known.
    pub fn hook_code(&self) -> Option<Range<u64>> {
        let answer = self.ask(true, &[])?;
        let address = wire::read::<u64>(answer.get(offset_of!(name_request, address)..)?)?;
        let place = parse(told(&answer, 0)?)?;
        let start = address.checked_sub(place.offset).filter(|start| *start != 0)?;
        Some(start..start.checked_add(place.bytes)?)
    }

    /// Has the program answer.
    fn ask(&self, wants_hook: bool, addresses: &[u64]) -> Option<Vec<u8>> {
        let mut request = vec![0u8; size_of::<name_request>()];
        request[offset_of!(name_request, wants_hook)] = wants_hook.into();
        let places = request[offset_of!(name_request, address)..].chunks_exact_mut(size_of::<u64>());
        for (place, address) in places.zip(addresses) {
            place.copy_from_slice(&address.to_ne_bytes());
        }
        let (asked, key) = (&self.0.maps.asked, 0u32.to_ne_bytes());
        asked.update(&key, &request, MapFlags::ANY).ok()?;
        self.0.progs.name_code.test_run(ProgramInput::default()).ok()?;
        asked.lookup(&key, MapFlags::ANY).ok()?
    }
}

impl KernelNames for Asked {
    fn names(&self, addresses: &[u64]) -> Vec<Option<(String, u64)>> {
        let mut names = Vec::with_capacity(addresses.len());
        for some in addresses.chunks(AT_ONCE) {
            let answer = self.ask(false, some).unwrap_or_default();
            names.extend((0..some.len()).map(|nth| {
                let place = parse(told(&answer, nth)?)?;
                Some((place.function.to_owned(), place.offset))
            }));
        }
        names
    }
}

/// What is said of one address.
fn told(answer: &[u8], nth: usize) -> Option<&str> {
    let text = answer.get(offset_of!(name_request, name)..)?.chunks_exact(NAME_BYTES).nth(nth)?;
    std::str::from_utf8(text.split(|&byte| byte == 0).next()?).ok()
}

/// Part of a function.
#[derive(Debug, PartialEq, Eq)]
struct Place<'a> {
    function: &'a str,
    /// Into it.
    offset: u64,
    /// Its length.
    bytes: u64,
}

/// `schedule+0x1f/0xe0`, ` [module]` behind it; `None` for a bare number, which is what the kernel says of anything else.
fn parse(text: &str) -> Option<Place<'_>> {
    let (function, numbers) = text.rsplit_once("+0x")?;
    let (offset, rest) = numbers.split_once("/0x")?;
    let bytes = rest.split(' ').next()?;
    let hex = |digits| u64::from_str_radix(digits, 16).ok();
    (!function.is_empty()).then_some(Place { function, offset: hex(offset)?, bytes: hex(bytes)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_of_an_address() {
        let place = |function, offset, bytes| Some(Place { function, offset, bytes });
        assert_eq!(parse("schedule+0x1f/0xe0"), place("schedule", 0x1f, 0xe0));
        assert_eq!(parse("ext4_sync_file+0x0/0x3a0 [ext4]"), place("ext4_sync_file", 0, 0x3a0));
        assert_eq!(
            parse("bpf_prog_6deef7357e7b4530_main+0x8/0xa bpf]"),
            place("bpf_prog_6deef7357e7b4530_main", 8, 10)
        );
        for other in ["0xffffffff81000000", "", "+0x1/0x2", "a+0x1", "a+0xg/0x1", "a+0x1/0x", "a+1/2"] {
            assert_eq!(parse(other), None, "{other}");
        }
        assert_eq!((AT_ONCE, NAME_BYTES), (64, 576));
    }
}
