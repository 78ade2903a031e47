//! Records from the kernel, as bytes, to values. The only place where such bytes are trusted to be a type.

use super::skel::{block, ids, life, mappings, sched};

/// A type of which any bytes are a value: integers and arrays of them, without padding that matters.
///
/// # Safety
/// Only for `repr(C)` structs of integers, as the skeletons declare them.
pub unsafe trait Wire: Copy {}

// SAFETY: structs of integers, generated from `src/bpf/sberf.h`.
unsafe impl Wire for sched::types::task_rec {}
// SAFETY: as above.
unsafe impl Wire for sched::types::acc {}
// SAFETY: as above.
unsafe impl Wire for sched::types::place_key {}
// SAFETY: as above.
unsafe impl Wire for sched::types::stack_key {}
// SAFETY: as above.
unsafe impl Wire for sched::types::stack_val {}
// SAFETY: as above.
unsafe impl Wire for sched::types::hist_key {}
// SAFETY: as above.
unsafe impl Wire for sched::types::cpu_acc {}
// SAFETY: as above.
unsafe impl Wire for sched::types::frames_rec {}
// SAFETY: as above.
unsafe impl Wire for life::types::life_rec {}
// SAFETY: as above.
unsafe impl Wire for mappings::types::unwind_mapping {}
// SAFETY: as above.
unsafe impl Wire for mappings::types::unwind_need {}
// SAFETY: as above.
unsafe impl Wire for mappings::types::unwind_snapshot {}
// SAFETY: as above.
unsafe impl Wire for block::types::disk_key {}
// SAFETY: as above.
unsafe impl Wire for block::types::disk_val {}
// SAFETY: as above.
unsafe impl Wire for block::types::io_key {}
// SAFETY: as above.
unsafe impl Wire for block::types::io_val {}
// SAFETY: as above.
unsafe impl Wire for block::types::inflight {}
// SAFETY: as above.
unsafe impl Wire for block::types::slow_rec {}
// SAFETY: as above.
unsafe impl Wire for ids::types::id_rec {}
// SAFETY: an integer.
unsafe impl Wire for u64 {}
// SAFETY: an integer.
unsafe impl Wire for u8 {}

/// Reads one record from the front of `bytes`; `None` if they are too few to hold one.
pub fn read<T: Wire>(bytes: &[u8]) -> Option<T> {
    let bytes = bytes.get(..size_of::<T>())?;
    // SAFETY: the slice is exactly `size_of::<T>()` long, `Wire` makes any bytes a valid `T`, and an unaligned read
    // asks nothing of the pointer.
    Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

/// Takes one record off the front of `bytes`.
pub fn take<T: Wire>(bytes: &mut &[u8]) -> Option<T> {
    let value = read(bytes)?;
    *bytes = &bytes[size_of::<T>()..];
    Some(value)
}

/// The bytes of a record.
pub fn bytes_of<T: Wire>(value: &T) -> &[u8] {
    // SAFETY: a live reference to a struct of integers, read as bytes of the same length and lifetime.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast::<u8>(), size_of::<T>()) }
}

/// A `comm`: up to its NUL, made valid UTF-8. May hold control characters.
pub fn comm(bytes: &[i8; 16]) -> String {
    let bytes = bytes.map(i8::cast_unsigned);
    let len = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..len]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_records_are_none() {
        assert_eq!(read::<u64>(&[1, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(read::<u64>(&[1, 0, 0, 0, 0, 0, 0, 0, 9]), Some(1));
    }

    #[test]
    fn comm_stops_at_nul_and_survives_nonsense() {
        let mut raw = [0i8; 16];
        raw[..3].copy_from_slice(&[b'a' as i8, -1, b'b' as i8]);
        assert_eq!(comm(&raw), "a\u{fffd}b");
        assert_eq!(comm(&[b'x' as i8; 16]).len(), 16);
    }
}
