//! Symbolic links that stay within a tree.
//!
//! A link is followed here as the system would follow it, other links of the
//! tree on the way included: one that leads above the root, or begins there,
//! is refused. One that leads to nothing is not: its target may come later.

use std::collections::BTreeMap;

use crate::model::TreePath;

/// Links followed on the way to one place; the system gives up there too.
const DEPTH: usize = 40;

/// Returns the first link that leads out of the tree.
pub(super) fn leaving(links: &BTreeMap<TreePath, Vec<u8>>) -> Option<&TreePath> {
    links.keys().find(|path| !stays(links, path))
}

fn stays(links: &BTreeMap<TreePath, Vec<u8>>, path: &TreePath) -> bool {
    let Some((folder, name)) = path.split_last() else {
        return false;
    };
    let mut at = folder;
    // What is still to be gone through, the next step last.
    let mut ahead = vec![name.to_vec()];
    let mut followed = 0;
    while let Some(step) = ahead.pop() {
        match &step[..] {
            b"" | b"." => continue,
            b".." => match at.split_last() {
                Some((above, _)) => at = above,
                None => return false,
            },
            _ => {
                let here = at.join(&step);
                let Some(target) = links.get(&here) else {
                    at = here;
                    continue;
                };
                followed += 1;
                if target.starts_with(b"/") {
                    return false;
                }
                if followed > DEPTH {
                    // A loop leads nowhere.
                    return true;
                }
                ahead.extend(target.split(|b| *b == b'/').rev().map(<[u8]>::to_vec));
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(links: &[(&str, &str)]) -> Option<String> {
        let links = links.iter().map(|(path, target)| {
            let path = TreePath::new(path).expect("legal");
            (path, target.as_bytes().to_vec())
        });
        leaving(&links.collect()).map(ToString::to_string)
    }

    #[test]
    fn links_are_followed_as_the_system_does() {
        for fine in [
            &[("a", "b")][..],
            &[("a/b", "../c")],
            &[("a/b", "./../a/../c//d")],
            &[("a", "missing/yet")],
            &[("a", "b"), ("b", "a")],
            &[("a", "a/a")],
            &[("deep/er", "../top"), ("top", "deep")],
        ] {
            assert_eq!(leaves(fine), None, "{fine:?}");
        }
        for bad in [
            &[("a", "/etc/passwd")][..],
            &[("a", "..")],
            &[("a/b", "../../c")],
            // Over another link, it gets higher than it looks.
            &[("x", "a/b/up/.."), ("a/b/up", "../..")],
            &[("a", "b/x"), ("b", "../..")],
        ] {
            assert!(leaves(bad).is_some(), "{bad:?}");
        }
    }
}
