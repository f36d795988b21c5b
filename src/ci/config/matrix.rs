//! One step, many cells: every combination of the values of a matrix.
//!
//! A cell is named `STEP,KEY=VALUE,…`, keys in order, and every byte of a key
//! or value but letters, digits, `.`, `_` and `-` as `%XX`: so a name says
//! exactly which cell it is.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::model::TreePath;

/// Bytes that the name of a cell may have: it is a part of paths.
pub const MAX_CELL: usize = 200;

/// Cells that a step may have.
pub(super) const MAX_CELLS: usize = 256;

/// One run of a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// The step's name alone, where there is no matrix.
    pub name: String,
    /// The value of each key; they are variables of the step too.
    pub values: BTreeMap<String, String>,
    /// What it makes: files or folders, none within another.
    pub outputs: Vec<TreePath>,
    /// The image of the container it runs in.
    pub image: Option<String>,
}

/// Returns the cells of a step, in order of their keys and of the values as
/// they were written.
pub(super) fn expand(step: &str, matrix: &BTreeMap<String, Vec<String>>) -> Vec<Cell> {
    let mut cells = vec![Cell {
        name: step.into(),
        ..Cell::default()
    }];
    for (key, values) in matrix {
        let with = |cell: &Cell, value: &String| {
            let mut cell = cell.clone();
            let _ = write!(cell.name, ",{}={}", escaped(key), escaped(value));
            cell.values.insert(key.clone(), value.clone());
            cell
        };
        let combine =
            |cell: &Cell| -> Vec<Cell> { values.iter().map(|value| with(cell, value)).collect() };
        cells = cells.iter().flat_map(combine).collect();
    }
    cells
}

fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' => {
                out.push(char::from(byte));
            }
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

/// Returns a text with each `${KEY}` replaced by its value.
pub(super) fn fill(text: &str, values: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, key, after)) = place(rest) {
        out.push_str(before);
        out.push_str(values.get(key).map_or("", String::as_str));
        rest = after;
    }
    out + rest
}

/// Returns the keys a text names.
pub(super) fn named(text: &str) -> Vec<&str> {
    let mut keys = Vec::new();
    let mut rest = text;
    while let Some((_, key, after)) = place(rest) {
        keys.push(key);
        rest = after;
    }
    keys
}

fn place(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once("${")?;
    let (key, after) = rest.split_once('}')?;
    Some((before, key, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_has_a_name() {
        let matrix = BTreeMap::from([
            ("os".into(), vec!["x".into(), "y/z".into()]),
            ("locale".into(), vec!["C".into(), "de_DE".into()]),
        ]);
        let names: Vec<String> = expand("test", &matrix)
            .into_iter()
            .map(|cell| cell.name)
            .collect();
        assert_eq!(
            names,
            [
                "test,locale=C,os=x",
                "test,locale=C,os=y%2Fz",
                "test,locale=de_DE,os=x",
                "test,locale=de_DE,os=y%2Fz",
            ]
        );
        assert_eq!(expand("test", &BTreeMap::new())[0].name, "test");
    }

    #[test]
    fn images_and_outputs_take_values() {
        let values = BTreeMap::from([("v".to_string(), "12".to_string())]);
        assert_eq!(fill("debian:${v}-slim", &values), "debian:12-slim");
        assert_eq!(fill("a$b{v}${", &values), "a$b{v}${");
        assert_eq!(named("${a}/${b}"), ["a", "b"]);
    }
}
