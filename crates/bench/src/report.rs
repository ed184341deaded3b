//! Figures: a table for people, JSON for programs.

use std::time::Duration;

use serde_json::{Value, json};

/// Rows of one benchmark.
#[derive(Default)]
pub struct Report {
    rows: Vec<Value>,
}

impl Report {
    /// Prints a line at once, and keeps the figures.
    pub fn add(&mut self, name: &str, figures: &[(&str, f64)]) {
        let shown: Vec<String> =
            figures.iter().map(|(what, value)| format!("{what} {}", short(*value))).collect();
        println!("{name:<44} {}", shown.join("   "));
        let mut row = json!({ "name": name });
        for (what, value) in figures {
            row[*what] = json!(value);
        }
        self.rows.push(row);
    }

    pub fn json(&self) -> String {
        serde_json::to_string_pretty(&self.rows).expect("numbers and texts become JSON")
    }
}

fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 1e9 => format!("{:.2}G", value / 1e9),
        v if v >= 1e6 => format!("{:.2}M", value / 1e6),
        v if v >= 1e4 => format!("{:.1}k", value / 1e3),
        v if v >= 100.0 => format!("{value:.0}"),
        _ => format!("{value:.3}"),
    }
}

/// Median and 99th percentile in milliseconds.
pub fn percentiles(times: &mut [Duration]) -> (f64, f64) {
    times.sort_unstable();
    let at = |q: f64| {
        let index = ((times.len() as f64 * q) as usize).min(times.len().saturating_sub(1));
        times.get(index).map_or(0.0, |t| t.as_secs_f64() * 1e3)
    };
    (at(0.5), at(0.99))
}
