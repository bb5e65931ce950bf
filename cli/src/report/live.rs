//! Progress for people: a line a running step, with bytes and time, and finished steps above.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use imagespec_core::event::{BuildEvent, Event, EventSink};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::lines::Lines;

pub(super) struct Live {
    view: MultiProgress,
    bars: Mutex<HashMap<(String, String), ProgressBar>>,
    lines: Lines,
}

impl Live {
    pub(super) fn new() -> Self {
        Self {
            view: MultiProgress::new(),
            bars: Mutex::default(),
            lines: Lines::default(),
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

impl EventSink for Live {
    fn emit(&self, event: Event) {
        let Ok(mut bars) = self.bars.lock() else {
            return;
        };
        match &event.event {
            BuildEvent::StepStarted { step, title } => {
                let bar = self.view.add(
                    ProgressBar::new_spinner().with_message(format!("{}: {title}", event.image)),
                );
                bar.set_style(style("{spinner:.cyan} {wide_msg} {elapsed}"));
                bar.enable_steady_tick(Duration::from_millis(100));
                bars.insert((event.image.clone(), step.clone()), bar);
            }
            BuildEvent::StepProgress { step, done, total } => {
                if let Some(bar) = bars.get(&(event.image.clone(), step.clone())) {
                    if let (Some(total), None) = (total, bar.length()) {
                        bar.set_length(*total);
                        bar.set_style(style("{spinner:.cyan} {wide_msg} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {elapsed}"));
                    }
                    bar.set_position(*done);
                }
            }
            BuildEvent::StepFinished { step, .. } => {
                if let Some(bar) = bars.remove(&(event.image.clone(), step.clone())) {
                    bar.finish_and_clear();
                    self.view.remove(&bar);
                }
            }
            _ => {}
        }
        drop(bars);
        if let Some(line) = self.lines.line(event) {
            // A terminal that is gone shows nothing.
            let _ = self.view.println(line);
        }
    }
}
