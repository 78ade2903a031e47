//! Tables of real files against call frame information that gimli evaluates afresh for each address.

use gimli::{BaseAddresses, CieOrFde, EhFrame, EndianSlice, LittleEndian, UnwindContext, UnwindSection};
use sberf::collect::unwind::{Cfa, Fp, Rule, Rules, Table, Window, shape};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::elf::Elf;
use super::files;
use super::oracle::{Step, by_row, by_rule};

type Slice<'bytes> = EndianSlice<'bytes, LittleEndian>;
type Fde<'bytes> = gimli::FrameDescriptionEntry<Slice<'bytes>>;

/// Set to look at all windows of all files of the machine.
const ALL: &str = "SBERF_UNWIND_ALL";
const SMALL_GAP: u64 = 64;

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end.max(1)
    }
}

#[derive(Debug, Default)]
struct Counts {
    files: u64,
    without: BTreeMap<String, u64>,
    windows: u64,
    rows: u64,
    pcs: u64,
    in_gaps: u64,
    at_entry: u64,
    overlaps: u64,
    hidden: u64,
    in_plt: u64,
    unsupported: u64,
    fp_lost: u64,
    mismatches: Vec<String>,
    odd: BTreeMap<String, u64>,
    /// Call frame information that gimli refuses.
    broken: BTreeMap<String, u64>,
    build: Duration,
}

/// What one file says, in both ways.
struct Both<'bytes> {
    path: &'bytes Path,
    elf: &'bytes Elf<'bytes>,
    section: EhFrame<Slice<'bytes>>,
    bases: BaseAddresses,
    context: UnwindContext<usize>,
    fdes: Vec<Fde<'bytes>>,
    windows: BTreeMap<u32, Window>,
    table: Table<Arc<[u8]>>,
    rules: &'bytes mut Rules,
    counts: &'bytes mut Counts,
}

impl Both<'_> {
    fn rule_at(&mut self, address: u64) -> Option<Rule> {
        let offset = self.elf.offset_of(address)?;
        let extent = self.table.extent();
        let number = extent.window_of(offset)?;
        let window = self.windows.get(&number)?;
        self.rules.get(window.lookup(offset - extent.offsets(number).start)?)
    }

    /// Compares at one address that is covered by this FDE, whose row is fresh.
    fn compare(&mut self, address: u64, want: Step, odd: impl FnOnce() -> String) {
        let Some(rule) = self.rule_at(address) else { return };
        self.counts.pcs += 1;
        let got = by_rule(rule, address);
        let equal = match (got, want) {
            (Step::To(got), Step::To(want)) if got.fp.is_none() => {
                self.counts.fp_lost += 1;
                (got.sp, got.pc) == (want.sp, want.pc)
            }
            (Step::End, Step::To(_)) => {
                self.counts.at_entry += 1;
                self.elf.entry <= address && address < self.elf.entry + 4096
            }
            (Step::Unsupported, Step::To(_)) => {
                self.counts.unsupported += 1;
                true
            }
            // The linker's index does not have it, so no C++ exception passes through it, either.
            (Step::None, Step::To(_)) if self.is_hidden(address) => {
                self.counts.hidden += 1;
                true
            }
            (got, want) => got == want,
        };
        if !equal {
            self.counts.mismatches.push(format!(
                "{} at {address:#x}: {rule:?} makes {got:x?}, wanted {want:x?} of {}",
                self.path.display(),
                odd()
            ));
        } else if got == Step::Unsupported || matches!(got, Step::To(caller) if caller.fp.is_none()) {
            *self.counts.odd.entry(odd()).or_default() += 1;
        }
    }

    /// What holds in `.plt` as LLVM's linker writes it, which is x86-64's ABI: the first 16 bytes are reached with two words on
    /// the stack and push a third one, each further 16 bytes push one as their second instruction of three. `.iplt` has no
    /// such first ones. In a static program GNU's linker writes one of 8-byte stubs, each a jump and its padding.
    fn linkage(&self, address: u64) -> Option<Step> {
        let into = |table: Option<(&[u8], u64)>| {
            let (bytes, start) = table?;
            address.checked_sub(start).filter(|&into| into < bytes.len() as u64)
        };
        let only_jumps = |code: &[u8]| matches!(code, [0xff, 0x25, _, _, _, _, 0x66, 0x90, ..]);
        let words = match (into(self.elf.plt), into(self.elf.iplt)) {
            (Some(_), _) if self.elf.plt.is_some_and(|(code, _)| only_jumps(code)) => 1,
            (Some(0..6), _) => 2,
            (Some(6..16), _) => 3,
            (Some(into), _) | (None, Some(into)) if into % 16 < 11 => 1,
            (Some(_), _) | (None, Some(_)) => 2,
            (None, None) => return None,
        };
        Some(by_rule(Rule { cfa: Cfa::Sp(8 * words), fp: Fp::Same }, address))
    }

    fn is_hidden(&self, address: u64) -> bool {
        let Some((bytes, start)) = self.elf.eh_frame_hdr else { return false };
        let bases = self.bases.clone().set_eh_frame_hdr(start);
        let header = gimli::EhFrameHdr::new(bytes, LittleEndian).parse(&bases, 8).expect("a header");
        let table = header.table().expect("a table");
        table.fde_for_address(&self.section, &bases, address, EhFrame::cie_from_offset).is_err()
    }

    /// At the first and the last address of each row of a function, or of those rows that lie in made windows.
    fn boundaries(&mut self, number: usize) {
        let fde = self.fdes[number].clone();
        let next = self.fdes[number + 1..].iter().map(Fde::initial_address).find(|&next| next != fde.initial_address());
        let end = fde.end_address().min(next.unwrap_or(u64::MAX));
        if fde.end_address() > end {
            self.counts.overlaps += 1;
        }
        let mut context = std::mem::take(&mut self.context);
        let section = self.section;
        let bases = self.bases.clone();
        let mut table = fde.rows(&section, &bases, &mut context).expect("a CIE that can be evaluated");
        while let Ok(Some(row)) = table.next_row() {
            for address in [row.start_address(), row.end_address().min(end).wrapping_sub(1)] {
                if row.contains(address) && address < end {
                    let want = by_row(row, &section, address);
                    self.compare(address, want, || form(row, &section));
                }
            }
        }
        self.context = context;
    }

    /// At any address, with or without a function.
    fn anywhere(&mut self, address: u64) {
        let behind = self.fdes.partition_point(|fde| fde.initial_address() <= address);
        let fde = behind.checked_sub(1).map(|at| self.fdes[at].clone());
        if let Some(fde) = fde.as_ref().filter(|fde| fde.contains(address)) {
            let mut context = std::mem::take(&mut self.context);
            let section = self.section;
            match fde.unwind_info_for_address(&section, &self.bases, &mut context, address).cloned() {
                Ok(row) => self.compare(address, by_row(&row, &section, address), || form(&row, &section)),
                Err(error) => {
                    *self.counts.broken.entry(format!("{}: {error}", self.path.display())).or_default() += 1;
                    self.compare(address, Step::Unsupported, || "nothing".to_owned());
                }
            }
            self.context = context;
            let offset = self.elf.offset_of(address).expect("code is in the file");
            if self.counts.pcs.is_multiple_of(64) {
                let start = self.table.function_start(offset);
                assert_eq!(start, self.elf.offset_of(fde.initial_address()), "{} {address:#x}", self.path.display());
                assert_eq!(
                    Some(self.table.rule(offset)),
                    self.rule_at(address),
                    "{} {address:#x}",
                    self.path.display()
                );
            }
            return;
        }
        let start = fde.map_or(0, |fde| fde.end_address());
        let end = self.fdes.get(behind).map_or(u64::MAX, Fde::initial_address);
        let Some((segment, _)) = self.elf.code.iter().find(|(segment, _)| segment.contains(&address)).cloned() else {
            return;
        };
        let gap = start.max(segment.start)..end.min(segment.end);
        if gap.end - gap.start < SMALL_GAP {
            return;
        }
        let Some(rule) = self.rule_at(address) else { return };
        self.counts.in_gaps += 1;
        if let Some(want) = self.linkage(address) {
            self.counts.in_plt += 1;
            let got = by_rule(rule, address);
            if got != want {
                let path = self.path.display();
                self.counts
                    .mismatches
                    .push(format!("{path} at {address:#x}: {got:?} in a linkage table, not {want:?}"));
            }
            return;
        }
        let entry = self.elf.entry..self.elf.entry + SMALL_GAP;
        if rule != Rule::NONE && !(rule == Rule::END && entry.contains(&address)) {
            self.counts.mismatches.push(format!("{} at {address:#x}: {rule:?} in a gap", self.path.display()));
        }
    }
}

/// What of a row is not understood.
fn form(row: &gimli::UnwindTableRow<usize>, section: &EhFrame<Slice<'_>>) -> String {
    let operations = |expression: &gimli::UnwindExpression<usize>| {
        let bytes = expression.get(section).expect("an expression");
        format!("{:x?}", bytes.0.slice())
    };
    let cfa = match row.cfa() {
        gimli::CfaRule::Expression(expression) => operations(expression),
        gimli::CfaRule::RegisterAndOffset { register, .. } => format!("r{}+n", register.0),
    };
    let register = |number| match row.register(gimli::Register(number)) {
        Some(gimli::RegisterRule::Expression(expression)) => operations(&expression),
        Some(gimli::RegisterRule::Offset(offset)) => format!("at cfa{offset:+}"),
        rule => format!("{rule:?}"),
    };
    let (fp, sp, ra) = (register(6), register(7), register(16));
    format!("cfa {cfa}, rbp {fp}, rsp {sp}, ra {ra}")
}

/// Compares one file; `windows`: at most so many of them, any.
fn compare(path: &Path, windows: u32, pcs: u64, random: &mut Random, rules: &mut Rules, counts: &mut Counts) {
    let Ok(bytes) = fs::read(path) else { return };
    let bytes: Arc<[u8]> = bytes.into();
    let Some(elf) = Elf::parse(&bytes) else { return };
    let section = EhFrame::new(elf.eh_frame.0, LittleEndian);
    let bases = BaseAddresses::default().set_eh_frame(elf.eh_frame.1);
    let mut fdes = Vec::new();
    let mut entries = section.entries(&bases);
    while let Ok(Some(entry)) = entries.next() {
        if let CieOrFde::Fde(partial) = entry
            && let Ok(fde) = partial.parse(EhFrame::cie_from_offset)
            && elf.offset_of(fde.initial_address()).is_some()
            && fde.len() > 0
        {
            fdes.push(fde);
        }
    }
    if fdes.is_empty() {
        return;
    }
    fdes.sort_by_key(Fde::initial_address);
    let mut table = match Table::open(Arc::clone(&bytes)) {
        Ok(table) => table,
        Err(why) => return *counts.without.entry(format!("{why}")).or_default() += 1,
    };
    counts.files += 1;
    let extent = table.extent();
    let begun = Instant::now();
    let numbers: Vec<u32> = match extent.windows() {
        all if all <= windows => (0..all).collect(),
        all => (0..windows).map(|_| random.below(all.into()) as u32).collect(),
    };
    let windows: BTreeMap<u32, Window> = numbers.iter().map(|&number| (number, table.window(number, rules))).collect();
    counts.build += begun.elapsed();
    for (number, window) in &windows {
        well_formed(path, window, extent.window_pages(*number), rules);
        counts.rows += window.rows.len() as u64;
    }
    counts.windows += windows.len() as u64;
    let offsets: Vec<_> = windows.keys().map(|&number| extent.offsets(number)).collect();
    let context = UnwindContext::new();
    let elf = &elf;
    let mut both = Both { path, elf, section, bases, context, fdes, windows, table, rules, counts };
    for number in 0..both.fdes.len() {
        let fde = &both.fdes[number];
        let (Some(first), bytes) = (elf.offset_of(fde.initial_address()), fde.len()) else { continue };
        if offsets.iter().any(|offsets| first < offsets.end && offsets.start < first + bytes) {
            both.boundaries(number);
        }
    }
    for _ in 0..pcs {
        let window = &offsets[random.below(offsets.len() as u64) as usize];
        let offset = window.start + random.below(window.end - window.start);
        let address = elf.code.iter().find_map(|(addresses, first)| {
            let into = offset.checked_sub(*first)?;
            (into < addresses.end - addresses.start).then(|| addresses.start + into)
        });
        if let Some(address) = address {
            both.anywhere(address);
        }
    }
}

fn well_formed(path: &Path, window: &Window, pages: u32, rules: &Rules) {
    let path = path.display();
    assert_eq!(window.pages.len() as u32, pages + 1, "{path}");
    assert_eq!(window.pages.last().copied(), Some(window.rows.len() as u32), "{path}");
    for page in window.pages.windows(2) {
        let rows = &window.rows[page[0] as usize..page[1] as usize];
        assert_eq!(rows.first().map(|row| row.pc()), Some(0), "{path}: no rule at the start of a page");
        assert!(rows.windows(2).all(|rows| rows[0].pc() < rows[1].pc()), "{path}: not sorted");
        assert!(rows.iter().all(|row| u64::from(row.pc()) < shape::PAGE_BYTES), "{path}");
        assert!(rows.iter().all(|row| rules.get(row.rule()).is_some()), "{path}");
    }
}

fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[test]
fn the_linkage_table_of_a_static_program() {
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("static");
    let source = program.with_extension("c");
    fs::write(&source, "int main(void) { return 0; }").expect("room");
    let made = std::process::Command::new("cc").arg("-static").arg("-o").args([&program, &source]).status();
    if !made.is_ok_and(|status| status.success()) {
        return eprintln!("skipped: no C compiler that links static programs");
    }
    let (mut counts, mut rules) = (Counts::default(), Rules::default());
    compare(&program, u32::MAX, 1_000_000, &mut Random(1), &mut rules, &mut counts);
    assert!(counts.mismatches.is_empty(), "{:#?}", counts.mismatches);
    println!("{} in a linkage table", counts.in_plt);
}

#[test]
fn tables_say_what_call_frame_information_says() {
    let all = std::env::var_os(ALL).is_some();
    let files = files::programs(all);
    assert!(files.len() > 20, "a Linux machine has more programs than {}", files.len());
    // Another part of the machine each time; the seed is told, so that a failure can be had again.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let seed = match std::env::var("SBERF_UNWIND_SEED") {
        Ok(seed) => seed.parse().expect("a number"),
        Err(_) => now.as_secs() | 1,
    };
    let mut random = Random(seed);
    let (mut counts, mut rules) = (Counts::default(), Rules::default());
    let (begun, began) = (Instant::now(), cpu());
    if all {
        for path in &files {
            compare(path, u32::MAX, 10_000, &mut random, &mut rules, &mut counts);
        }
    } else {
        for path in files.iter().take(20) {
            compare(path, 2, 200, &mut random, &mut rules, &mut counts);
        }
        while begun.elapsed() < Duration::from_secs(15) {
            let path = &files[20 + random.below(files.len() as u64 - 20) as usize];
            compare(path, 4, 200, &mut random, &mut rules, &mut counts);
        }
    }
    let Counts { files, windows, rows, pcs, in_gaps, at_entry, overlaps, hidden, in_plt, unsupported, fp_lost, .. } =
        counts;
    println!(
        "seed {seed}: {files} files, {windows} windows, {rows} rows made in {:.2?} (rules: {}), {pcs} pcs compared, {} unequal; \
         {in_gaps} in gaps, {in_plt} of them in linkage tables, {at_entry} at the entry, {overlaps} overlaps, {hidden} not in the linker's index, {unsupported} unsupported, {fp_lost} without frame \
         pointer; CPU {:.1?}; without a table: {:?}",
        counts.build,
        rules.packed().len(),
        counts.mismatches.len(),
        cpu() - began,
        counts.without,
    );
    let mut odd: Vec<_> = counts.odd.iter().collect();
    odd.sort_by(|a, b| b.1.cmp(a.1));
    for (form, count) in odd.iter().take(40) {
        println!("{count:8} {form}");
    }
    for (why, count) in counts.broken.iter().take(40) {
        println!("{count:8} {why}");
    }
    assert!(counts.mismatches.is_empty(), "{:#?}", &counts.mismatches[..counts.mismatches.len().min(20)]);
    assert!(pcs > 1000 && files > 20, "too little was compared");
    assert!(unsupported * 1000 < pcs, "{unsupported} of {pcs} pcs have a rule that is not understood");
}
