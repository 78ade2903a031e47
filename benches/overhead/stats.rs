//! Medians and ratios over rounds.

/// Middle, least and greatest of some runs.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

/// `None` without values.
pub fn spread(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
    let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    let (&min, &max) = (values.first()?, values.last()?);
    let middle = values.len() / 2;
    let median = if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
    Some(Spread { median, min, max })
}

/// Each round's value over the same round's base: drift between rounds cancels. Rounds without both are left out.
pub fn ratios(values: &[Option<f64>], base: &[Option<f64>]) -> Option<Spread> {
    spread(values.iter().zip(base).filter_map(|(value, base)| Some((*value)? / (*base)?)))
}

/// `0.642 (0.637–0.758)`; a dash for nothing.
pub fn cell(spread: Option<Spread>) -> String {
    match spread {
        Some(Spread { median, min, max }) => format!("{} ({}–{})", short(median), short(min), short(max)),
        None => "–".into(),
    }
}

/// Three significant digits.
pub fn short(value: f64) -> String {
    let digits = match value.abs() {
        v if v >= 100.0 || v == 0.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

/// Orders of a round: there, and back every second time.
pub fn order(count: usize, round: usize) -> Vec<usize> {
    if round.is_multiple_of(2) { (0..count).collect() } else { (0..count).rev().collect() }
}
