//! Any bytes as an ELF file: its windows are windows, within time and memory.

#![no_main]

#[path = "../../tests/unwind/check.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    check::check(bytes, false);
});
