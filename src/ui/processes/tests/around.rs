//! What stands above the table: places and banner, legend, counts.

use super::*;

#[test]
fn the_legend_leaves_out_what_is_not_drawn_first() {
    let mut odd = busy(1);
    odd.threads.push(thread(9904, 9905, &[(State::Stopped, 900 * MS), (State::Timer, 100 * MS)]));
    let mut screen = Screen::new(model_of([odd]), 80, 24);
    let legend = |screen: &mut Screen| screen.draw()[2].clone();
    assert_eq!(legend(&mut screen), " █user ▓kernel ▒░runnable ▚disk ╳lock ≈net ═pipe ▪stopped      idle waits blank");
    screen.keys("i");
    assert_eq!(legend(&mut screen), " █user ▓kernel ▒░runnable ▚disk ╳lock ≈net ·timer -poll ─other idle waits shown");
    screen.size = (160, 24);
    let line = legend(&mut screen);
    for state in State::ALL.into_iter().filter(|&state| state != State::Preempted) {
        assert!(line.contains(state.name()), "{line}");
    }
}

#[test]
fn the_dead_are_counted_apart() {
    let mut screen = Screen::new(model(), 80, 24);
    screen.keys("\\cc1\n");
    assert!(screen.draw()[3].contains(" 1 of 5 processes, 6 threads, 1 exited │ filter cc1"), "{}", screen.draw()[3]);
    let mut alone = tick(1);
    alone.processes = vec![facts(7, 1, 0, &["alone"])];
    alone.threads = vec![thread(7, 7, &[(State::Poll, MS)])];
    assert!(Screen::new(model_of([alone]), 80, 24).draw()[3].contains(" 1 process, 1 thread ─"));
}

#[test]
fn a_banner_covers_no_place_and_is_not_covered() {
    let mut governed = turned(2);
    let levers = vec![Lever { what: LeverKind::Walks, now: 63, asked: 1000 }];
    let governor = Governor { budget_ppm: 10_000, cost_ppm: 13_000, levers, ..Governor::default() };
    governed.watch.governor = Some(governor);
    let mut screen = Screen::new(model(), 80, 24);
    screen.keys("j");
    screen.tick(governed, Duration::from_millis(900));
    assert_eq!(screen.draw()[1], " 1 Processes  2 CPUs  3 NUMA  4 Disks      over budget, $ says more  order held");
    screen.size = (120, 24);
    let line = screen.draw()[1].clone();
    assert!(line.ends_with(" over budget (1.3 of 1.0 %): 63 of 1000 blocked stacks/s  order held"), "{line}");
    // An icicle has no rows that could be held; threads have.
    screen.keys("\n");
    assert!(screen.draw()[1].ends_with("63 of 1000 blocked stacks/s"), "{}", screen.draw()[1]);
    screen.key(KeyCode::Tab);
    assert!(screen.draw()[1].ends_with("63 of 1000 blocked stacks/s  order held"), "{}", screen.draw()[1]);
}

#[test]
fn idle_waits_are_shown_everywhere_or_nowhere() {
    let mut screen = Screen::new(model(), 220, 50);
    screen.keys("o");
    let below = |screen: &mut Screen| screen.draw().into_iter().find(|line| line.contains("[blocked]")).unwrap();
    assert!(below(&mut screen).contains("idle waits hidden (2.3s)"), "{}", below(&mut screen));
    screen.keys("i");
    assert!(screen.draw()[2].contains("idle waits shown"));
    assert!(below(&mut screen).contains("idle waits included"), "{}", below(&mut screen));
    // The same in what is opened from there, and back.
    screen.keys("\no");
    assert!(below(&mut screen).contains("idle waits included"), "{}", below(&mut screen));
    screen.keys("i");
    assert!(below(&mut screen).contains("idle waits hidden"), "{}", below(&mut screen));
    screen.keys("q");
    assert!(screen.draw()[2].contains("idle waits blank"), "{}", screen.draw()[2]);
    assert!(below(&mut screen).contains("idle waits hidden"), "{}", below(&mut screen));
}

#[test]
fn a_quota_that_is_used_up_is_told_above_the_table_and_leads_to_its_processes() {
    use crate::tick::{ProcessFacts, Quota};
    let quota = |cgroup: &str, periods, throttled| Quota {
        cgroup: cgroup.into(),
        quota_ns: 20 * MS,
        period_ns: 100 * MS,
        periods,
        throttled,
        throttled_ns: 0,
    };
    let mut tick = busy(1);
    tick.processes
        .push(ProcessFacts { cgroup: Some("/system.slice/app.service".into()), ..facts(9904, 9871, 0, &["cc1"]) });
    tick.quotas = vec![quota("/system.slice/app.service", 10, 9), quota("/b", 10, 1), quota("/c", 100, 1)];
    let mut screen = Screen::new(model_of([tick]), 118, 24);
    let told = |screen: &mut Screen, width| {
        screen.size.0 = width;
        screen.draw()[3].clone()
    };
    let (long, short) =
        ("CPU quota of /system.slice/app.service used up in 9 of 10 periods, 1 more ", "…slice/app.service");
    assert!(told(&mut screen, 160).contains(long), "{}", told(&mut screen, 160));
    let line = told(&mut screen, 118);
    assert!(line.contains(&format!("CPU quota of {short} used up, 9/10, 1 more ─")), "{line}");
    let line = told(&mut screen, 80);
    assert!(line.contains("…e/app.service out of CPU quota, 1 more ─") && !line.contains("CPU %"), "{line}");
    screen.size.0 = 118;
    screen.keys("\\app.service\n");
    assert_eq!(screen.commands().len(), 1, "{:#?}", screen.draw());
    let mut calm = busy(2);
    calm.quotas = vec![quota("/c", 100, 9)];
    screen.tick(calm, Duration::from_secs(2));
    assert!(screen.draw().iter().all(|line| !line.contains("quota")), "nine in a hundred is nothing to be told");
}

/// The busy machine, and 300 processes of a command that a shell started and that ended in this tick.
fn storm(nth: u64) -> crate::tick::Tick {
    let mut tick = busy(nth);
    for pid in 20_000..20_300 {
        tick.processes.push(facts(pid, 8120, 1000, &["true"]));
        let lived = thread(pid, pid, &[(State::User, MS), (State::Kernel, MS), (State::Woken, 2 * MS)]);
        tick.threads.push(crate::tick::ThreadTick { now: None, comm: "true".into(), ..lived });
    }
    tick
}

#[test]
fn many_short_lives_are_one_row_by_command_and_by_parent() {
    let mut screen = Screen::new(model_of([storm(1)]), 118, 24);
    screen.keys("bc\n");
    let drawn = screen.draw();
    let head = drawn.iter().find(|line| line.contains("CPU%▼")).unwrap();
    assert!(head.contains("procs") && !head.contains("PID"), "{head}");
    let row = drawn.iter().find(|line| line.ends_with("true (300 exited)")).unwrap_or_else(|| panic!("{drawn:#?}"));
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(cells[..3], ["300", "ci", "60.0"], "how many, whose, and their CPU time together");
    assert!(drawn.iter().any(|line| line.contains("│ by command ")), "{drawn:#?}");
    assert!(drawn.iter().any(|line| line.contains("1 ") && line.ends_with("[kworker]")), "{drawn:#?}");
    // By parent, and into the group: each of them.
    screen.keys("bp\n");
    let drawn = screen.draw();
    let row = drawn.iter().find(|line| line.ends_with("of 8120 nginx †300"));
    let row = row.unwrap_or_else(|| panic!("{drawn:#?}"));
    assert!(row.contains(" 60.0 "), "{row}");
    screen.keys("/8120 nginx\n");
    screen.key(KeyCode::Enter);
    let commands = screen.commands();
    assert!(
        commands.len() > 5 && names(&commands).iter().all(|command| command.starts_with("true (")),
        "{commands:#?}"
    );
    assert!(screen.draw().iter().any(|line| line.contains("│ parent of 8120 nginx ")));
    // And back, step by step.
    screen.key(KeyCode::Esc);
    screen.key(KeyCode::Esc);
    assert!(screen.draw().iter().any(|line| line.contains("of 8120 nginx")), "{:#?}", screen.draw());
    screen.key(KeyCode::Esc);
    assert!(screen.draw().iter().any(|line| line.contains("  PID USER")), "{:#?}", screen.draw());
}

#[test]
fn groups_add_up_whatever_they_are_by() {
    use crate::tick::ProcessFacts;
    let mut tick = storm(1);
    tick.processes.push(ProcessFacts { cgroup: Some("/db".into()), ..facts(4711, 1, 70, &["postgres: writer"]) });
    let model = model_of([tick]);
    let processes: Vec<_> = model.processes().collect();
    for by in super::super::groups::By::ALL {
        let groups = super::super::groups::groups(by, &model, &processes);
        let mut sum = crate::tick::StateNs::default();
        groups.iter().for_each(|group| sum.add(&group.process.tick.ns));
        assert_eq!(sum, model.machine().ns, "{by:?}");
        assert_eq!(groups.iter().map(|group| group.count).sum::<u64>(), processes.len() as u64, "{by:?}");
        let mixed = groups.iter().filter(|group| group.process.facts.kernel).all(|group| group.count == 1);
        assert!(mixed, "the kernel's thread is not with others");
    }
}

#[test]
fn who_hangs_is_told_above_the_table_and_comes_first_when_sorted_by_what_blocks() {
    use crate::tick::{Stuck, ThreadKey};
    let stuck = |tgid: u32, since_ns, place: Option<&str>| Stuck {
        thread: ThreadKey { tid: tgid, start_ns: u64::from(tgid) * 1000 },
        process: fixture::key(tgid),
        since_ns,
        place: place.map(Into::into),
    };
    let ticks = (1..=15).map(|nth| crate::tick::Tick {
        stuck: vec![stuck(1, fixture::SECOND, Some("rwsem_wait")), stuck(8120, 9 * fixture::SECOND, None)],
        ..busy(nth)
    });
    let mut screen = Screen::new(model_of(ticks), 140, 24);
    assert!(screen.draw()[3].contains("│ 1 init stuck >15s in rwsem_wait, 1 more ─"), "{:#?}", screen.draw());
    screen.keys(">");
    screen.key(KeyCode::Home);
    let blocked = super::super::FIELDS.iter().position(|field| *field == super::super::Field::Blocked).unwrap();
    (0..blocked).for_each(|_| drop(screen.key(KeyCode::Down)));
    screen.key(KeyCode::Enter);
    assert_eq!(names(&screen.commands())[..2], ["init", "nginx -g daemon off;"], "{:#?}", screen.draw());
    let drawn = screen.draw();
    let row = |name: &str| drawn.iter().find(|line| line.ends_with(name)).unwrap_or_else(|| panic!("{drawn:#?}"));
    assert!(row(" init").contains(" stuck >15s ") && row("daemon off;").contains(" stuck 7s "), "{drawn:#?}");
    screen.size = (200, 24);
    let drawn = screen.draw();
    assert!(drawn.iter().any(|line| line.contains(" stuck >15s rwsem_wa… ")), "{drawn:#?}");
}
