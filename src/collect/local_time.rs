//! How far local time is from UTC.

/// Local time minus UTC at that Unix time, in seconds, by `TZ` or `/etc/localtime`; 0 if neither helps.
pub fn utc_offset_s(unix_s: i64) -> i32 {
    let time: libc::time_t = unix_s;
    let mut parts = std::mem::MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are to live values of the right type, and `localtime_r(3)` keeps neither. Zeroes are a valid
    // `tm`, so it may be read whether or not the call filled it.
    let parts = unsafe {
        libc::localtime_r(&time, parts.as_mut_ptr());
        parts.assume_init()
    };
    i32::try_from(parts.tm_gmtoff).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn offsets_are_less_than_a_day() {
        assert!(super::utc_offset_s(1_700_000_000).abs() < 86_400);
        assert_eq!(super::utc_offset_s(i64::MAX), 0);
    }
}
