//! The steps of a target as a drawing: who waits for whom, and their states.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::page::{log_path, segment};
use crate::ci::view::{Job, logs};

/// More steps than this are a list only.
const MOST: usize = 150;
/// Measures, in pixels.
const HEIGHT: usize = 30;
const GAP: usize = 12;
const BETWEEN: usize = 48;
const EDGE: usize = 8;
/// Characters of a name that are shown.
const SHOWN: usize = 28;

/// Returns the layer of every job: 0 for those that wait for nobody. What
/// waits in a circle is in the last.
pub fn layers(jobs: &[Job]) -> Vec<usize> {
    let numbers: BTreeMap<&str, usize> = jobs
        .iter()
        .enumerate()
        .map(|(number, job)| (job.name.as_str(), number))
        .collect();
    let mut layers = vec![0; jobs.len()];
    for _ in 0..jobs.len() {
        let mut changed = false;
        for (number, job) in jobs.iter().enumerate() {
            let needed = job
                .needs
                .iter()
                .filter_map(|name| numbers.get(name.as_str()));
            let layer = needed.map(|needed| layers[*needed] + 1).max().unwrap_or(0);
            if layer > layers[number] && layer < jobs.len() {
                layers[number] = layer;
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    layers
}

struct Node<'a> {
    job: &'a Job,
    x: usize,
    y: usize,
    width: usize,
}

fn label(name: &str) -> String {
    match name.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

/// Draws the jobs; nothing where none waits for another.
pub fn graph(jobs: &[Job]) -> Option<Markup> {
    if jobs.len() > MOST || jobs.iter().all(|job| job.needs.is_empty()) {
        return None;
    }
    let layers = layers(jobs);
    let count = layers.iter().max().map_or(0, |last| last + 1);
    let mut columns: Vec<Vec<&Job>> = vec![Vec::new(); count];
    for (job, layer) in jobs.iter().zip(&layers) {
        columns[*layer].push(job);
    }
    let mut nodes: BTreeMap<&str, Node<'_>> = BTreeMap::new();
    let mut x = EDGE;
    let mut height = 0;
    for column in &columns {
        let letters = column
            .iter()
            .map(|job| label(&job.name).chars().count())
            .max();
        let width = letters.unwrap_or(0) * 8 + 24;
        for (row, job) in column.iter().enumerate() {
            let y = EDGE + row * (HEIGHT + GAP);
            height = height.max(y + HEIGHT + EDGE);
            nodes.insert(&job.name, Node { job, x, y, width });
        }
        x += width + BETWEEN;
    }
    let width = x - BETWEEN + EDGE;
    let mut lines = Vec::new();
    for node in nodes.values() {
        for from in node
            .job
            .needs
            .iter()
            .filter_map(|name| nodes.get(name.as_str()))
        {
            let (x1, y1) = (from.x + from.width, from.y + HEIGHT / 2);
            let (x2, y2) = (node.x, node.y + HEIGHT / 2);
            let middle = (x1 + x2) / 2;
            lines.push(format!("M{x1} {y1}C{middle} {y1} {middle} {y2} {x2} {y2}"));
        }
    }
    Some(html! {
        div.graph tabindex="0" role="region" aria-label="Graph of the steps" {
            svg width=(width) height=(height) viewBox={ "0 0 " (width) " " (height) } {
                @for line in &lines { path d=(line) {} }
                @for node in nodes.values() {
                    @let look = node.job.look().word();
                    @let log = logs(&node.job.output.logs).pop();
                    a class=(look) href=(log.map_or_else(|| format!("#job-{}", segment(&node.job.name)), |log| log_path(&log))) {
                        title { (node.job.name) ": " (look) ", " (node.job.text()) }
                        rect x=(node.x) y=(node.y) width=(node.width) height=(HEIGHT) rx="5" {}
                        text x=(node.x + 12) y=(node.y + 20) { (label(&node.job.name)) }
                    }
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ci::layout::{Logs, Outcome, Output};

    fn job(name: &str, needs: &[&str]) -> Job {
        Job {
            name: name.into(),
            output: Output {
                result: Outcome::success("ok"),
                logs: Logs::None,
            },
            needs: needs.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[test]
    fn who_waits_stands_to_the_right() {
        let jobs = [
            job("deploy", &["test", "lint"]),
            job("build", &[]),
            job("lint", &[]),
            job("test", &["build", "gone"]),
        ];
        assert_eq!(layers(&jobs), [2, 0, 0, 1]);
        // A circle ends, too.
        let jobs = [job("a", &["b"]), job("b", &["a"])];
        assert_eq!(layers(&jobs).len(), 2);
        assert!(graph(&jobs).is_some());
        assert!(graph(&[job("a", &[])]).is_none());
    }
}
