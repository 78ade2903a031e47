//! What lies over the panes, and what stands above them.

use super::*;

#[test]
fn help_can_be_read_to_its_end_and_nothing_is_cut() {
    let model = model();
    let mut app = app(&model);
    for (width, height) in [(80, 24), (120, 35)] {
        press(&mut app, &model, Key::Char('?'));
        drawn(&mut app, &model, width, height);
        for key in [Key::Code(KeyCode::End), Key::Char('G')] {
            press(&mut app, &model, key);
            let at_end = lines(&mut app, &model, width, height).join("\n");
            assert!(at_end.contains("Numbers") && at_end.contains("less than can be shown"), "{at_end}");
            (0..60).for_each(|_| drop(press(&mut app, &model, Key::Code(KeyCode::Down))));
            press(&mut app, &model, Key::Code(KeyCode::Up));
            assert_ne!(lines(&mut app, &model, width, height).join("\n"), at_end, "one up is one up");
        }
        press(&mut app, &model, Key::Code(KeyCode::Enter));
        press(&mut app, &model, Key::Char('?'));
        let (left, inside) = (usize::from((width - width.min(92)) / 2), usize::from(width.min(92)) - 2);
        let within = |line: &String| {
            let cells: String = line.chars().skip(left).collect();
            let text: String = cells.strip_prefix('│')?.chars().take(inside).collect();
            cells.chars().nth(inside + 1).filter(|&edge| edge == '│').map(|_| text.trim_end().to_owned())
        };
        let text: Vec<String> = lines(&mut app, &model, width, 250).iter().filter_map(within).collect();
        let all = text.iter().flat_map(|line| line.split_whitespace()).collect::<Vec<_>>().join(" ");
        assert!(all.contains("also of bytes.") && all.contains("may keep none"), "{text:#?}");
        let cut: Vec<&String> = text.iter().filter(|line| line.ends_with('…')).collect();
        assert!(cut.is_empty(), "{cut:#?}");
        press(&mut app, &model, Key::Code(KeyCode::Enter));
        // What sberf costs scrolls alike.
        press(&mut app, &model, Key::Char('$'));
        press(&mut app, &model, Key::Char('G'));
        assert!(lines(&mut app, &model, width, height).iter().any(|line| line.contains("what sberf costs")));
        press(&mut app, &model, Key::Code(KeyCode::Enter));
    }
}

#[test]
fn a_loss_is_told_of_this_tick_and_in_all_and_is_red_while_it_weighs() {
    let unseen = |nth, losses: &[(Loss, u64)]| {
        let mut tick = busy(nth);
        tick.threads[0].voluntary = 100_000;
        tick.losses = losses.to_vec();
        tick
    };
    let shown = |model: &Model, width: u16| {
        let mut app = App::new(Theme::default(), Options::default());
        app.on_tick(model, NOW);
        let buf = drawn(&mut app, model, width, 24);
        let cells: Vec<&str> = (0..width).map(|x| buf[(x, 0)].symbol()).collect();
        let at = (0..cells.len()).find(|&at| cells[at..].concat().starts_with("lost")).unwrap();
        let text = cells[at..].concat().split("  ").next().unwrap_or_default().to_owned();
        (text, Some(buf[(at as u16, 0)].fg) == Theme::default().alert().fg)
    };
    let said = |text: &str, red| (text.to_owned(), red);
    let few = model_of([unseen(1, &[(Loss::Unseen, 13)])]);
    assert_eq!(shown(&few, 80), said("lost 13 (13)", false));
    assert_eq!(shown(&few, 140), said("lost 13 (13 in all)", false));
    assert_eq!(shown(&few, 120), said("lost 13 (13)", false), "longer, it would cost what machine this is its place");
    let many = model_of([unseen(1, &[(Loss::Unseen, 1_000)])]);
    assert_eq!(shown(&many, 80), said("lost 1.0k (1.0k)", true));
    let over = model_of([unseen(1, &[(Loss::FrameRingFull, 7)]), unseen(2, &[])]);
    assert_eq!(shown(&over, 80), said("lost 0 (7)", false));
}
