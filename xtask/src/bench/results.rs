//! Figures, and where they go.

use std::path::PathBuf;
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

/// The figures of one run. They are written whenever one is added: a run that ends early leaves those it has.
#[derive(Debug)]
pub(super) struct Results {
    /// What was measured, where and with what.
    facts: Value,
    path: PathBuf,
    measures: Vec<Measure>,
    missing: Vec<(&'static str, String)>,
}

impl Results {
    /// None yet, for a file.
    pub(super) const fn new(facts: Value, path: PathBuf) -> Self {
        Self {
            facts,
            path,
            measures: Vec::new(),
            missing: Vec::new(),
        }
    }

    /// Times a work once.
    pub(super) fn time(
        &mut self,
        case: &'static str,
        who: &'static str,
        work: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        let start = Instant::now();
        work()?;
        self.add(case, who, "ms", milliseconds(start.elapsed()))
    }

    /// Adds a figure.
    pub(super) fn add(
        &mut self,
        case: &'static str,
        who: &'static str,
        unit: &'static str,
        sample: f64,
    ) -> Result<(), Error> {
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
        self.write()
    }

    /// Says that somebody was not measured, and why.
    pub(super) fn not_measured(&mut self, who: &'static str, why: String) -> Result<(), Error> {
        self.missing.push((who, why));
        self.write()
    }

    /// Shows medians, and how many times those of `imagespec` they are.
    pub(super) fn show(&self) {
        report::heading("medians; in brackets, how many times that of `imagespec`");
        for measure in &self.measures {
            let times = self.times(measure);
            let shown = times.map_or(String::new(), |times| format!("  ({times:.1})"));
            report::note(&format!(
                "{:<36} {:<20} {:>11.1} {}{shown}",
                measure.case,
                measure.who,
                median(&measure.samples),
                measure.unit
            ));
        }
        for (who, why) in &self.missing {
            report::note(&format!("{who}: not measured: {why}"));
        }
        report::note(&format!("all samples: {}", self.path.display()));
    }

    /// How many times the median of `imagespec` in the same case a median is.
    fn times(&self, measure: &Measure) -> Option<f64> {
        let ours = self
            .measures
            .iter()
            .find(|other| (other.case, other.who) == (measure.case, "imagespec"))?;
        let ours = median(&ours.samples);
        (measure.who != "imagespec" && ours > 0.0).then(|| median(&measure.samples) / ours)
    }

    fn write(&self) -> Result<(), Error> {
        let measures = self.measures.iter().map(|measure| {
            json!({
                "case": measure.case,
                "who": measure.who,
                "unit": measure.unit,
                "median": median(&measure.samples),
                "times": self.times(measure),
                "samples": measure.samples,
            })
        });
        let missing = self.missing.iter();
        let missing = missing.map(|(who, why)| json!({"who": who, "why": why}));
        let document = json!({
            "run": self.facts,
            "measures": measures.collect::<Vec<_>>(),
            "not_measured": missing.collect::<Vec<_>>(),
        });
        fs_err::write(&self.path, format!("{document:#}\n"))?;
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
    fn what_was_measured_is_kept_although_more_was_to_come() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.json");
        let mut results = Results::new(json!({"date": "today"}), path.clone());
        results.add("a", "imagespec", "ms", 2.0).unwrap();
        results.add("a", "other", "ms", 5.0).unwrap();
        results
            .not_measured("third", "it is not here".to_owned())
            .unwrap();
        let written: Value = serde_json::from_str(&fs_err::read_to_string(path).unwrap()).unwrap();
        assert_eq!(written["run"]["date"], "today");
        assert_eq!(written["measures"][1]["times"], 2.5);
        assert_eq!(written["measures"][0]["times"], Value::Null);
        assert_eq!(written["not_measured"][0]["who"], "third");
    }

    #[test]
    fn the_median_is_the_middle_one() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(&[4.0, 1.0, 2.0, 8.0]) - 3.0).abs() < f64::EPSILON);
        assert!((median(&[5.0]) - 5.0).abs() < f64::EPSILON);
        assert!(median(&[]).abs() < f64::EPSILON);
    }
}
