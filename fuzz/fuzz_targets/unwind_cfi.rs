//! Any bytes as the `.eh_frame` of a file that is all right otherwise.

#![no_main]

#[path = "../../tests/unwind/check.rs"]
mod check;
#[allow(dead_code)]
#[path = "../../tests/unwind/made.rs"]
mod made;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some(image) = made::around(bytes) {
        check::check(&image, true);
    }
});
