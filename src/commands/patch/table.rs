//! How much each path changed, as `git diff --stat` shows it.

use std::io::{self, Write};

use super::Counts;
use crate::model::TreePath;
use crate::ui::{Look, Paint};

/// The columns of a table, by Git's rules.
#[derive(Debug, PartialEq, Eq)]
struct Layout {
    name: usize,
    number: usize,
    graph: usize,
    /// Lines of the path that changed most.
    most: usize,
}

/// Writes a line a path and one with the sums, `width` columns at most.
pub(in crate::commands) fn write_table(
    out: &mut dyn Write,
    counted: &[(TreePath, Counts)],
    paint: Paint,
    width: usize,
) -> io::Result<()> {
    let names: Vec<String> = counted.iter().map(|(path, _)| path.to_string()).collect();
    let longest = names.iter().map(|name| name.chars().count()).max();
    let total = |counts: &Counts| counts.added.unwrap_or(0) + counts.removed.unwrap_or(0);
    let most = counted.iter().map(|(_, counts)| total(counts)).max();
    let binary = counted.iter().any(|(_, counts)| counts.added.is_none());
    let layout = layout(
        width,
        longest.unwrap_or(0),
        most.unwrap_or(0) as usize,
        binary,
    );
    let (column, digits) = (layout.name, layout.number);
    for (name, (_, counts)) in names.iter().zip(counted) {
        let name = shortened(name, column);
        let (Some(added), Some(removed)) = (counts.added, counts.removed) else {
            writeln!(out, " {name:<column$} | {:>digits$}", "Bin")?;
            continue;
        };
        write!(out, " {name:<column$} | {:>digits$}", added + removed)?;
        let (plus, minus) = layout.bars(added as usize, removed as usize);
        if plus + minus > 0 {
            let plus = paint.of(Look::Added, "+".repeat(plus));
            let minus = paint.of(Look::Removed, "-".repeat(minus));
            write!(out, " {plus}{minus}")?;
        }
        writeln!(out)?;
    }
    let sum = |side: fn(&Counts) -> Option<u64>| -> u64 {
        counted.iter().filter_map(|(_, counts)| side(counts)).sum()
    };
    let (added, removed) = (sum(|counts| counts.added), sum(|counts| counts.removed));
    let files = number(counted.len() as u64, "file changed", "files changed");
    write!(out, " {files}")?;
    if added > 0 || removed == 0 {
        write!(out, ", {}", number(added, "insertion(+)", "insertions(+)"))?;
    }
    if removed > 0 || added == 0 {
        write!(out, ", {}", number(removed, "deletion(-)", "deletions(-)"))?;
    }
    writeln!(out)
}

fn number(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Divides the width among the columns. Six more hold ` name | 12 +-` apart.
fn layout(width: usize, longest: usize, most: usize, binary: bool) -> Layout {
    let number = most.to_string().len().max(if binary { 3 } else { 1 });
    let width = width.max(16 + 6 + number);
    let room = width - number - 6;
    let (mut name, mut graph) = (longest, most);
    if name + graph > room {
        graph = graph.min((width * 3 / 8).saturating_sub(number + 6).max(6));
        if name > room - graph {
            name = room - graph;
        } else {
            graph = room - name;
        }
    }
    Layout {
        name,
        number,
        graph,
        most,
    }
}

impl Layout {
    /// Returns the lengths of the two bars of a path.
    fn bars(&self, added: usize, removed: usize) -> (usize, usize) {
        if self.most < self.graph {
            return (added, removed);
        }
        let scale = |count: usize| match count {
            0 => 0,
            count => 1 + count * self.graph.saturating_sub(1) / self.most,
        };
        let mut total = scale(added + removed);
        if total < 2 && added > 0 && removed > 0 {
            total = 2;
        }
        if added < removed {
            let plus = scale(added);
            (plus, total.saturating_sub(plus))
        } else {
            let minus = scale(removed);
            (total.saturating_sub(minus), minus)
        }
    }
}

/// Returns the end of a name too long for its column, from a slash if it can.
fn shortened(name: &str, column: usize) -> String {
    let length = name.chars().count();
    if length <= column {
        return name.into();
    }
    let kept = column.saturating_sub(3);
    let end: String = name.chars().skip(length - kept).collect();
    format!("...{}", end.find('/').map_or(&*end, |slash| &end[slash..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_fit() {
        let narrow = layout(80, 5, 1000, false);
        assert_eq!((narrow.name, narrow.number, narrow.graph), (5, 4, 65));
        assert_eq!(narrow.bars(1000, 0), (65, 0));
        assert_eq!(narrow.bars(1, 999), (1, 64));
        assert_eq!(narrow.bars(1, 1), (1, 1));
        assert_eq!(layout(80, 5, 3, true).bars(2, 1), (2, 1));
    }

    #[test]
    fn long_names_lose_their_beginning() {
        assert_eq!(shortened("abcdefgh", 6), "...fgh");
        assert_eq!(shortened("abc/defgh/ijk", 9), ".../ijk");
        assert_eq!(shortened("abc", 3), "abc");
    }
}
