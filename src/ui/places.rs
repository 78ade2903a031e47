//! Which panes there are: the places, and what each [`Target`] opens. The one file to touch when a pane is added.

use super::cpus::CpusPane;
use super::disks::DisksPane;
use super::icicle::IciclePane;
use super::latency::LatencyPane;
use super::numa::NumaPane;
use super::process::ProcessPane;
use super::processes::ProcessesPane;
use super::{Command, Pane, Target};
use crate::model::Model;

/// A place: a number key, a tab, and the pane at its bottom.
pub struct Place {
    /// The command that leads there.
    pub command: Command,
    /// What its tab says.
    pub name: &'static str,
    /// Number on the tab.
    pub number: u8,
    /// Its pane.
    pub pane: Box<dyn Pane>,
}

/// Every place, in the order of their tabs.
pub fn all() -> Vec<Place> {
    vec![
        Place { command: Command::Processes, name: "Processes", number: 1, pane: Box::new(ProcessesPane::default()) },
        Place { command: Command::Cpus, name: "CPUs", number: 2, pane: Box::new(CpusPane::default()) },
        Place { command: Command::Numa, name: "NUMA", number: 3, pane: Box::new(NumaPane::default()) },
        Place { command: Command::Disks, name: "Disks", number: 4, pane: Box::new(DisksPane::default()) },
    ]
}

/// The pane that shows a target; `None` if the model knows nothing of it any more.
pub fn open(target: Target, model: &Model) -> Option<Box<dyn Pane>> {
    match target {
        Target::Stacks => Some(Box::new(IciclePane::new(None))),
        Target::Process(key) => Some(Box::new(ProcessPane::open(key, model)?)),
        Target::Latency(scope) => Some(Box::new(LatencyPane::new(scope))),
        Target::Disk(dev) => Some(Box::new(LatencyPane::of_disk(dev, model))),
    }
}
