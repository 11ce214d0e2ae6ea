//! Tables and plots of a comparison.

use std::fmt::Write;

use crate::compare::{Case, Measured, Rounds};
use crate::statistics::Spread;

/// Ratios that are of interest: what is compared with what, by name.
const RATIOS: [(&str, &str, &str); 7] = [
    ("encrypted / LUKS", "sealblk layered", "qemu LUKS"),
    ("encrypted / QEMU raw", "sealblk layered", "qemu raw"),
    ("encrypted / plain", "sealblk layered", "sealblk layered plain"),
    ("layered / raw store", "sealblk layered", "sealblk raw"),
    ("plain / QEMU raw", "sealblk layered plain", "qemu raw"),
    ("encrypted / fio", "sealblk layered", "fio"),
    ("polling / not", "sealblk polling", "sealblk layered"),
];

/// The processor that was measured on.
fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown", |model| model.trim_start_matches([' ', '\t', ':']));
    let count = text.lines().filter(|line| line.starts_with("processor")).count();
    format!("{model}, {count} processors")
}

fn speeds(measured: &[Measured]) -> Vec<f64> {
    measured.iter().map(|one| one.speed).collect()
}

fn scaled(case: &Case, speed: f64) -> f64 {
    speed / if case.in_requests { 1e3 } else { 1e6 }
}

fn unit(case: &Case) -> &'static str {
    if case.in_requests { "kIOPS" } else { "MB/s" }
}

/// For the terminal: medians, and ratios round by round.
pub(crate) fn text(names: &[&str], results: &[(Case, Rounds)]) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(text, "{}\n", processor());
    for (case, rounds) in results {
        let _ = writeln!(text, "{} ({})", case.name, unit(case));
        let _ = writeln!(
            text,
            "  {:<22} {:>9} {:>19} {:>12} {:>9} {:>9}",
            "", "median", "min – max", "CPU µs/req", "p50 µs", "p99 µs"
        );
        for (name, measured) in names.iter().zip(rounds) {
            let spread = Spread::of(speeds(measured));
            let median = |field: fn(&Measured) -> f64| Spread::of(measured.iter().map(field)).median;
            let _ = writeln!(
                text,
                "  {name:<22} {:>9.1} {:>8.1} – {:>8.1} {:>12.2} {:>9.1} {:>9.1}",
                scaled(case, spread.median),
                scaled(case, spread.min),
                scaled(case, spread.max),
                median(|one| one.processor),
                median(|one| one.p50),
                median(|one| one.p99),
            );
        }
        for (title, ratio, processor) in ratios(names, rounds) {
            let _ = writeln!(
                text,
                "    {title:<22} {:>6.2}  ({:.2} – {:.2})   CPU per request {:.2}",
                ratio.median, ratio.min, ratio.max, processor.median
            );
        }
        text.push('\n');
    }
    text
}

/// Speed and processor time of one peer in terms of another one's.
fn ratios(names: &[&str], rounds: &Rounds) -> Vec<(&'static str, Spread, Spread)> {
    let of = |name: &str| {
        names
            .iter()
            .position(|other| *other == name)
            .map(|at| &rounds[at])
    };
    let processors = |measured: &[Measured]| measured.iter().map(|one| one.processor).collect::<Vec<_>>();
    RATIOS
        .iter()
        .filter_map(|(title, above, below)| {
            let (above, below) = (of(above)?, of(below)?);
            Some((
                *title,
                Spread::of_ratios(&speeds(above), &speeds(below)),
                Spread::of_ratios(&processors(above), &processors(below)),
            ))
        })
        .collect()
}

/// A page that needs nothing else: bars for the medians, lines from the smallest to the largest.
pub(crate) fn html(names: &[&str], results: &[(Case, Rounds)]) -> String {
    let mut page = String::from(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>sealblk: measurements</title>\n<style>\n\
         body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }\n\
         h2 { font-size: 1.05rem; margin: 2rem 0 .3rem; } svg { width: 100%; height: auto; }\n\
         text { font-size: 12px; } .value { font-variant-numeric: tabular-nums; }\n\
         table { border-collapse: collapse; } td, th { padding: .1rem .8rem .1rem 0; text-align: right; }\n\
         td:first-child, th:first-child { text-align: left; }\n</style>\n<h1>sealblk: measurements</h1>\n",
    );
    let _ = writeln!(
        page,
        "<p>{}. Bars are medians of {} rounds in which all backends took turns; thin lines reach from the smallest to \
         the largest.</p>",
        processor(),
        results
            .first()
            .map_or(0, |(_, rounds)| rounds.first().map_or(0, Vec::len))
    );
    for (case, rounds) in results {
        let _ = writeln!(page, "<h2>{}, {}</h2>", case.name, unit(case));
        page.push_str(&plot(names, case, rounds));
        page.push_str("<table><tr><th></th><th>speed</th><th>CPU per request</th></tr>\n");
        for (title, ratio, processor) in ratios(names, rounds) {
            let _ = writeln!(
                page,
                "<tr><td>{title}</td><td>{:.2}×</td><td>{:.2}×</td></tr>",
                ratio.median, processor.median
            );
        }
        page.push_str("</table>\n");
    }
    page.push_str("</html>\n");
    page
}

const ROW: usize = 26;
const LABELS: f64 = 160.0;
const BARS: f64 = 560.0;

fn plot(names: &[&str], case: &Case, rounds: &Rounds) -> String {
    let spreads: Vec<Spread> = rounds
        .iter()
        .map(|measured| Spread::of(speeds(measured)))
        .collect();
    let largest = spreads.iter().map(|spread| spread.max).fold(1.0, f64::max);
    let at = |speed: f64| LABELS + speed / largest * BARS;
    let height = ROW * names.len();
    let mut svg = format!("<svg viewBox=\"0 0 820 {height}\" role=\"img\">\n");
    for (row, (name, spread)) in names.iter().zip(&spreads).enumerate() {
        let (top, middle) = (row * ROW + 4, row * ROW + ROW / 2);
        let colour = if name.starts_with("sealblk") {
            "#2a6f97"
        } else {
            "#a3a3a3"
        };
        let _ = writeln!(
            svg,
            "<text x=\"0\" y=\"{}\">{name}</text><rect x=\"{LABELS}\" y=\"{top}\" width=\"{:.1}\" height=\"{}\" \
             fill=\"{colour}\"/><line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle}\" y2=\"{middle}\" stroke=\"#111\"/>\
             <text class=\"value\" x=\"{:.1}\" y=\"{}\">{:.1}</text>",
            middle + 4,
            at(spread.median) - LABELS,
            ROW - 8,
            at(spread.min),
            at(spread.max),
            at(spread.max) + 6.0,
            middle + 4,
            scaled(case, spread.median),
        );
    }
    svg.push_str("</svg>\n");
    svg
}
