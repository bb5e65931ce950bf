//! Progress for people: a line a running step, with bytes, rate and time, and finished steps above.

use std::collections::HashMap;
use std::io::{BufRead as _, IsTerminal as _, Read as _};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use imagespec_core::event::{BuildEvent, Event, EventSink};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::lines::Lines;

/// How often the view is drawn at most, in times a second.
const RATE: u8 = 12;

/// The longest answer to a question, in bytes.
const ANSWER: u64 = 256;

const WORKING: &str = "{spinner:.cyan} {wide_msg} {elapsed}";
const MOVING: &str = "{spinner:.cyan} {wide_msg} {decimal_bytes} {decimal_bytes_per_sec} {elapsed}";
const MEASURED: &str = "{spinner:.cyan} {wide_msg} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {elapsed}";

pub(super) struct Live {
    view: MultiProgress,
    bars: Mutex<HashMap<(String, String), ProgressBar>>,
    lines: Lines,
}

impl Live {
    pub(super) fn new() -> Self {
        let target = ProgressDrawTarget::stderr_with_hz(RATE);
        Self {
            view: MultiProgress::with_draw_target(target),
            bars: Mutex::default(),
            lines: Lines::default(),
        }
    }

    fn draw(&self, Event { image, event }: &Event) {
        let mut bars = self.bars.lock().unwrap_or_else(PoisonError::into_inner);
        let key = |step: &String| (image.clone(), step.clone());
        match event {
            BuildEvent::StepStarted { step, title } => {
                let bar = ProgressBar::new_spinner().with_message(format!("{image}: {title}"));
                let bar = self.view.add(bar.with_style(style(WORKING)));
                bar.enable_steady_tick(Duration::from_millis(100));
                bars.insert(key(step), bar);
            }
            BuildEvent::StepProgress { step, done, total } => {
                let Some(bar) = bars.get(&key(step)) else {
                    return;
                };
                match total {
                    Some(total) if bar.length() != Some(*total) => {
                        bar.set_length(*total);
                        bar.set_style(style(MEASURED));
                    }
                    None if bar.position() == 0 => bar.set_style(style(MOVING)),
                    _ => {}
                }
                bar.set_position(*done);
            }
            BuildEvent::StepFinished { step, .. } => {
                if let Some(bar) = bars.remove(&key(step)) {
                    bar.finish_and_clear();
                    self.view.remove(&bar);
                }
            }
            _ => {}
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // Steps that failed never finished; the error that follows says more than their lines.
        let _ = self.view.clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

impl EventSink for Live {
    fn emit(&self, event: Event) {
        self.draw(&event);
        if let Some(line) = self.lines.line(event) {
            // A terminal that is gone shows nothing.
            let _ = self.view.println(line);
        }
    }

    fn ask(&self, question: &str, ways: &[(char, &str)]) -> Option<char> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return None;
        }
        let each = |(letter, meaning): &(char, &str)| format!("  {letter}  {meaning}");
        let ways_told: Vec<_> = ways.iter().map(each).collect();
        let first = ways.first()?.0;
        let mut answer = String::new();
        self.view.suspend(|| {
            super::note(&format!("{question}\n{}", ways_told.join("\n")));
            super::prompt(&format!("[{first}] "));
            // Who closes the terminal has not chosen.
            stdin.lock().take(ANSWER).read_line(&mut answer).ok()
        })?;
        let chosen = answer.trim().to_lowercase().chars().next();
        let known = |letter: &char| ways.iter().any(|(way, _)| way == letter);
        Some(chosen.filter(known).unwrap_or(first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_is_one() {
        for template in [WORKING, MOVING, MEASURED] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
