//! What must hold of any file, whatever is in it.

use sberf::collect::unwind::{Rule, Rules, Table, shape};
use std::sync::Arc;

/// Of a file with more windows, only so many are made.
const MOST_WINDOWS: u32 = 24;

/// Opens a file and makes its windows; panics if any of them is not as windows are. How many were made. `sorted`: its index
/// is, so that asking for one rule and looking into a window find the same.
pub fn check(bytes: &[u8], sorted: bool) -> u32 {
    let Ok(mut table) = Table::open(Arc::<[u8]>::from(bytes)) else { return 0 };
    let extent = table.extent();
    assert!(extent.pages > 0 && extent.entries() <= shape::PAGES);
    assert!(u64::from(extent.pages - 1) * shape::PAGE_BYTES < bytes.len() as u64, "no page lies behind the file");
    let mut rules = Rules::default();
    let made = extent.windows().min(MOST_WINDOWS);
    for number in 0..made {
        let window = table.window(number, &mut rules);
        assert_eq!(window.pages.len() as u32, extent.window_pages(number) + 1);
        assert_eq!(window.pages.last().copied(), Some(window.rows.len() as u32));
        for page in window.pages.windows(2) {
            let rows = &window.rows[page[0] as usize..page[1] as usize];
            assert_eq!(rows.first().map(|row| row.pc()), Some(0));
            assert!(rows.windows(2).all(|rows| rows[0].pc() < rows[1].pc()));
            assert!(rows.iter().all(|row| u64::from(row.pc()) < shape::PAGE_BYTES && rules.get(row.rule()).is_some()));
        }
        let offsets = extent.offsets(number);
        for offset in offsets.clone().step_by(997).take(8) {
            let alone = table.rule(offset);
            let found = window.lookup(offset - offsets.start).and_then(|index| rules.get(index));
            assert!(found.is_some());
            // Each of the two may have had enough of a file that wants to be read for ever.
            let enough = [found, Some(alone)].contains(&Some(Rule::UNSUPPORTED));
            assert!(found == Some(alone) || enough || !sorted, "{offset:#x}: {found:?} {alone:?}");
            if let Some(start) = table.function_start(offset) {
                assert!(start <= offset);
            }
        }
    }
    made
}
