//! Threads that do nothing: it takes the kernel side a while to ask after all of them.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

/// Runs `test` while there are so many more threads.
pub fn among_sleepers(count: usize, test: impl FnOnce()) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sleep = || {
            while !over.load(Ordering::Relaxed) {
                std::thread::park();
            }
        };
        let sleepers = (0..count).map(|_| scope.spawn(sleep)).collect::<Vec<_>>();
        // Also if it fails they have to be woken, or nobody would hear of that.
        let tested = catch_unwind(AssertUnwindSafe(test));
        over.store(true, Ordering::Relaxed);
        sleepers.iter().for_each(|sleeper| sleeper.thread().unpark());
        tested.unwrap_or_else(|failed| resume_unwind(failed));
    });
}
