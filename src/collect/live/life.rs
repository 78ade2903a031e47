//! Process events from their ring.

use super::skel::life::types::life_rec;
use super::wire;
use crate::tick::{Event, Life, ProcessKey};

/// The events in `bytes`, oldest first, and how many records could not be understood.
pub fn events(bytes: &[u8]) -> (Vec<Event>, u64) {
    let (mut events, mut malformed) = (Vec::new(), 0);
    let mut rest = bytes;
    while !rest.is_empty() {
        let Some(record) = wire::take::<life_rec>(&mut rest) else {
            malformed += 1;
            break;
        };
        match event(&record) {
            Some(event) => events.push(event),
            None => malformed += 1,
        }
    }
    // Each CPU writes in order, but they reserve and submit side by side.
    events.sort_by_key(|event| event.at_ns);
    (events, malformed)
}

fn event(record: &life_rec) -> Option<Event> {
    let what = match record.kind {
        0 => Life::Fork { parent: record.parent },
        1 => Life::Exec,
        2 => Life::Exit { status: record.status },
        _ => return None,
    };
    Some(Event {
        at_ns: record.at_ns,
        process: ProcessKey { tgid: record.tgid, start_ns: record.start_ns },
        comm: wire::comm(&record.comm),
        what,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_records_are_counted() {
        let good = life_rec { kind: 2, status: 9, tgid: 7, ..life_rec::default() };
        let bad = life_rec { kind: 77, ..life_rec::default() };
        let mut bytes = wire::bytes_of(&good).to_vec();
        bytes.extend_from_slice(wire::bytes_of(&bad));
        bytes.extend_from_slice(&[1, 2, 3]);
        let (events, malformed) = events(&bytes);
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].what, Life::Exit { status: 9 });
        assert_eq!(malformed, 2);
    }
}
