//! Figures, and where they go.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::error::Error;
use crate::report;

/// What one of several did in one case.
#[derive(Debug, Clone)]
struct Measure {
    case: &'static str,
    who: &'static str,
    unit: &'static str,
    samples: Vec<f64>,
}

/// The figures of one run.
#[derive(Debug, Default)]
pub(super) struct Results {
    measures: Vec<Measure>,
    missing: Vec<(&'static str, String)>,
}

impl Results {
    /// Times a work once.
    pub(super) fn time(
        &mut self,
        case: &'static str,
        who: &'static str,
        work: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        let start = Instant::now();
        work()?;
        self.add(case, who, "ms", milliseconds(start.elapsed()));
        Ok(())
    }

    /// Adds a figure.
    pub(super) fn add(
        &mut self,
        case: &'static str,
        who: &'static str,
        unit: &'static str,
        sample: f64,
    ) {
        let known = self
            .measures
            .iter_mut()
            .find(|measure| (measure.case, measure.who) == (case, who));
        match known {
            Some(measure) => measure.samples.push(sample),
            None => self.measures.push(Measure {
                case,
                who,
                unit,
                samples: vec![sample],
            }),
        }
    }

    /// Says that somebody was not measured, and why.
    pub(super) fn not_measured(&mut self, who: &'static str, why: String) {
        self.missing.push((who, why));
    }

    /// Shows medians, and what they are of those of `imagespec`; writes all as JSON.
    pub(super) fn publish(self, name: &str, bytecode: bool, path: &Path) -> Result<(), Error> {
        report::heading("medians; in brackets, how many times that of `imagespec`");
        let mut rows = Vec::new();
        for measure in &self.measures {
            let median = median(&measure.samples);
            let ours = self
                .measures
                .iter()
                .find(|other| (other.case, other.who) == (measure.case, "imagespec"))
                .map(|ours| self::median(&ours.samples));
            let times = ours
                .filter(|ours| measure.who != "imagespec" && *ours > 0.0)
                .map(|ours| median / ours);
            let shown = times.map_or(String::new(), |times| format!("  ({times:.1})"));
            report::note(&format!(
                "{:<36} {:<20} {median:>11.1} {}{shown}",
                measure.case, measure.who, measure.unit
            ));
            rows.push(json!({
                "case": measure.case,
                "who": measure.who,
                "unit": measure.unit,
                "median": median,
                "times": times,
                "samples": measure.samples,
            }));
        }
        for (who, why) in &self.missing {
            report::note(&format!("{who}: not measured: {why}"));
        }
        let missing: Vec<Value> = self
            .missing
            .iter()
            .map(|(who, why)| json!({"who": who, "why": why}))
            .collect();
        let document = json!({
            "spec": name,
            "bytecode": bytecode,
            "cores": std::thread::available_parallelism().map_or(1, usize::from),
            "measures": rows,
            "not_measured": missing,
        });
        fs_err::write(path, format!("{document:#}\n"))?;
        Ok(())
    }
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

/// The middle one; of an even number, halfway between the two in the middle; zero of none.
fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = sorted.get(sorted.len() / 2);
    let lower = sorted.get(sorted.len().saturating_sub(1) / 2);
    lower
        .zip(upper)
        .map_or(0.0, |(lower, upper)| lower.midpoint(*upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(&[4.0, 1.0, 2.0, 8.0]) - 3.0).abs() < f64::EPSILON);
        assert!((median(&[5.0]) - 5.0).abs() < f64::EPSILON);
        assert!(median(&[]).abs() < f64::EPSILON);
    }
}
