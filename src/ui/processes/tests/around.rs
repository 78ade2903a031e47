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
