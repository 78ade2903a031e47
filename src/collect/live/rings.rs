//! Ring buffers, emptied into plain bytes. No program wakes us: the collector looks at them a few times per tick.

use std::sync::{Arc, Mutex, PoisonError};

use libbpf_rs::{MapCore, RingBuffer, RingBufferBuilder};

/// One ring and what was taken out of it since the last look.
pub struct Ring {
    ring: RingBuffer<'static>,
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl Ring {
    /// A reader of the ring buffer `map`.
    pub fn new(map: &impl MapCore) -> libbpf_rs::Result<Self> {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&bytes);
        let mut builder = RingBufferBuilder::new();
        builder.add(map, move |record| {
            sink.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(record);
            0
        })?;
        Ok(Ring { ring: builder.build()?, bytes })
    }

    /// Moves what the programs have written into our own memory, so that the ring has room again.
    pub fn pump(&self) {
        // A negative result is an error of the ring, which the next look meets again; nothing is lost by it.
        let _ = self.ring.consume_raw();
    }

    /// Everything since the last call, records one after the other.
    pub fn take(&self) -> Vec<u8> {
        self.pump();
        std::mem::take(&mut *self.bytes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
