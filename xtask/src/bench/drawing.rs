//! The comparison as a drawing: a bar a measure, on a logarithmic scale.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use crate::error::Error;

const WIDTH: f64 = 960.0;
/// Where bars begin and how far they reach.
const LEFT: f64 = 400.0;
const REACH: f64 = 460.0;
const ROW: f64 = 22.0;
/// The ends of the scale, in milliseconds.
const LEAST: f64 = 1.0;
const MOST: f64 = 100_000.0;

/// Draws the durations of a run's JSON.
pub(super) fn draw(json: &Path, svg: &Path) -> Result<(), Error> {
    let text = fs_err::read_to_string(json)?;
    let document: Value = serde_json::from_str(&text).map_err(std::io::Error::from)?;
    if let Some(folder) = svg.parent() {
        fs_err::create_dir_all(folder)?;
    }
    fs_err::write(svg, drawing(&document))?;
    Ok(())
}

fn drawing(document: &Value) -> String {
    let none = Vec::new();
    let measures = document["measures"].as_array().unwrap_or(&none);
    let mut bars = String::new();
    let mut y = 30.0;
    let mut cases: Vec<&str> = Vec::new();
    for measure in measures.iter().filter(|measure| measure["unit"] == "ms") {
        let case = measure["case"].as_str().unwrap_or_default();
        if !cases.contains(&case) {
            cases.push(case);
        }
    }
    for case in cases {
        y += 8.0;
        for measure in measures.iter().filter(|measure| measure["case"] == case) {
            let who = measure["who"].as_str().unwrap_or_default();
            bar(
                &mut bars,
                y,
                case,
                who,
                measure["median"].as_f64().unwrap_or_default(),
            );
            y += ROW;
        }
    }
    let mut axis = String::new();
    for (at, label) in [
        (1.0, "1 ms"),
        (10.0, "10 ms"),
        (100.0, "100 ms"),
        (1e3, "1 s"),
        (1e4, "10 s"),
        (1e5, "100 s"),
    ] {
        let x = LEFT + length(at);
        let _ = writeln!(
            axis,
            "<path class=\"grid\" d=\"M{x:.1} 24V{y:.0}\"/><text class=\"tick\" x=\"{x:.1}\" y=\"18\">{label}</text>"
        );
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH:.0} {height:.0}\" role=\"img\">\n\
         <title>Median times, on a logarithmic scale</title>\n\
         <style>rect.page{{fill:#fff}}text{{font:12px sans-serif;fill:#222}}.tick{{text-anchor:middle;fill:#666}}\
         .name{{text-anchor:end}}.grid{{stroke:#ddd}}.ours{{fill:#2a6fbb}}.others{{fill:#b8bec6}}</style>\n\
         <rect class=\"page\" width=\"100%\" height=\"100%\"/>\n{axis}{bars}</svg>\n",
        height = y + 12.0
    )
}

fn bar(out: &mut String, y: f64, case: &str, who: &str, milliseconds: f64) {
    let class = if who == "imagespec" { "ours" } else { "others" };
    let (length, middle) = (length(milliseconds), y + 14.0);
    let shown = if milliseconds < 1000.0 {
        format!("{milliseconds:.0} ms")
    } else {
        format!("{:.1} s", milliseconds / 1000.0)
    };
    let _ = writeln!(
        out,
        "<text class=\"name\" x=\"{name:.0}\" y=\"{middle:.0}\">{case}: {who}</text>\
         <rect class=\"{class}\" x=\"{LEFT:.0}\" y=\"{top:.0}\" width=\"{length:.1}\" height=\"16\"/>\
         <text x=\"{value:.1}\" y=\"{middle:.0}\">{shown}</text>",
        name = LEFT - 8.0,
        top = y + 2.0,
        value = LEFT + length + 6.0,
    );
}

/// How long a bar is.
fn length(milliseconds: f64) -> f64 {
    let decades = (MOST / LEAST).log10();
    REACH * (milliseconds.clamp(LEAST, MOST) / LEAST).log10() / decades
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decade_is_as_long_as_any_other_and_sizes_are_not_drawn() {
        assert!((length(100.0) - 2.0 * length(10.0)).abs() < 1e-9);
        let document = serde_json::json!({"measures": [
            {"case": "a", "who": "imagespec", "unit": "ms", "median": 1500.0},
            {"case": "memory", "who": "imagespec", "unit": "bytes", "median": 5.0},
        ]});
        let drawn = drawing(&document);
        assert!(drawn.contains("a: imagespec") && drawn.contains("1.5 s"));
        assert!(!drawn.contains("memory"));
    }
}
