//! What changed in a tree in memory, as edits of the stored tree below; and
//! putting another stored tree below.

use std::sync::Arc;

use crate::model::{Entry, EntryKind, Mode, ObjectId, TreePath};

use super::arena::{Arena, Content, Leaf, Trees, What, memory};

/// A change to be made to the stored tree, in order.
pub enum Planned {
    Remove(TreePath),
    Mkdir(TreePath),
    Set(TreePath, Entry),
    Chmod(TreePath, bool),
    Write(TreePath, bool, Content),
    Link(TreePath, Arc<Vec<u8>>),
}

impl Arena {
    /// Says how to make this of the stored tree.
    pub fn plan(&self) -> Vec<Planned> {
        let mut plan = Vec::new();
        self.plan_below(self.root, &TreePath::root(), &mut plan);
        plan
    }

    fn plan_below(&self, node: u64, path: &TreePath, plan: &mut Vec<Planned>) {
        let Ok(folder) = self.folder(node) else {
            return;
        };
        let tree = match &folder.base {
            Some((_, tree)) => tree.clone(),
            None => None,
        };
        // What goes first makes room for what comes.
        let stored = |name: &[u8]| tree.as_ref()?.get(name);
        for (name, change) in &folder.changes {
            if change.is_none() && stored(name).is_some() {
                plan.push(Planned::Remove(path.join(name)));
            }
        }
        for (name, change) in &folder.changes {
            let Some((node, item)) = change.and_then(|node| Some((node, self.items.get(&node)?)))
            else {
                continue;
            };
            let (path, stored) = (path.join(name), stored(name));
            match &item.what {
                What::Leaf(leaf) => plan_leaf(leaf, path, stored, plan),
                What::Dir(child) => {
                    let old = stored.filter(|entry| entry.mode.is_dir());
                    match (&child.base, old) {
                        (Some((id, _)), Some(old)) if old.id == *id => {}
                        (Some((id, _)), _) => {
                            let mode = Mode::DIR;
                            plan.push(Planned::Set(path.clone(), Entry { mode, id: *id }));
                        }
                        (None, _) => {
                            if stored.is_some() {
                                plan.push(Planned::Remove(path.clone()));
                            }
                            plan.push(Planned::Mkdir(path.clone()));
                        }
                    }
                    self.plan_below(node, &path, plan);
                }
            }
        }
    }

    /// Returns trees that [`Arena::rebase`] needs and that `have` has not.
    pub fn missing(&self, tree: ObjectId, have: &Trees) -> Vec<ObjectId> {
        let mut missing = Vec::new();
        let mut left = vec![(self.root, tree)];
        while let Some((node, id)) = left.pop() {
            let Some(tree) = have.get(&id) else {
                missing.push(id);
                continue;
            };
            let Ok(folder) = self.folder(node) else {
                continue;
            };
            for (name, child) in &folder.changes {
                if let Some(child) = child
                    && let Some(entry) = tree.get(name)
                    && entry.mode.is_dir()
                {
                    left.push((*child, entry.id));
                }
            }
        }
        missing
    }

    /// Puts another stored tree below, as the whole of the content: what was
    /// changed is forgotten, except folders that have nothing in them. Nodes
    /// that stand in both stay the same.
    pub fn rebase(&mut self, tree: ObjectId, since: i64, have: &Trees) {
        self.base = tree;
        self.since = since;
        let mut left = vec![(self.root, Some(tree))];
        while let Some((node, id)) = left.pop() {
            let tree = id.and_then(|id| have.get(&id).cloned());
            let Ok(folder) = self.folder_mut(node) else {
                continue;
            };
            let changes = std::mem::take(&mut folder.changes);
            folder.base = id.map(|id| (id, tree.clone()));
            for (name, child) in changes {
                let Some(child) = child else { continue };
                let entry = tree.as_ref().and_then(|tree| tree.get(&name));
                if !self.take_over(child, entry) {
                    self.drop_below(child);
                    continue;
                }
                if let Some(What::Dir(_)) = self.items.get(&child).map(|item| &item.what) {
                    left.push((child, entry.map(|entry| entry.id)));
                }
                if let Ok(folder) = self.folder_mut(node) {
                    folder.changes.insert(name, Some(child));
                }
            }
        }
        self.edits = 0;
    }

    /// Makes a node what the new tree has in its place. `false`: it has not.
    fn take_over(&mut self, node: u64, entry: Option<Entry>) -> bool {
        let empty = self.has_no_leaf(node);
        let Some(item) = self.items.get_mut(&node) else {
            return false;
        };
        match (&mut item.what, entry) {
            (What::Dir(_), Some(entry)) => entry.mode.is_dir(),
            (What::Dir(_), None) => empty,
            (What::Leaf(_), None) => false,
            (What::Leaf(_), Some(entry)) if entry.mode.is_dir() => false,
            (What::Leaf(leaf), Some(entry)) => {
                let same = matches!(&leaf.content, Content::Stored { id, .. } if *id == entry.id);
                leaf.mode = entry.mode;
                if !same {
                    self.bytes -= memory(&leaf.content);
                    leaf.content = Content::Stored {
                        id: entry.id,
                        size: None,
                    };
                    item.version = item.version.wrapping_add(1).max(1);
                }
                true
            }
        }
    }

    /// Tells whether a folder is new and has nothing but such folders in it.
    fn has_no_leaf(&self, node: u64) -> bool {
        let mut left = vec![node];
        while let Some(node) = left.pop() {
            match self.items.get(&node).map(|item| &item.what) {
                Some(What::Dir(folder)) if folder.base.is_none() => {
                    left.extend(folder.changes.values().flatten());
                }
                _ => return false,
            }
        }
        true
    }
}

fn plan_leaf(leaf: &Leaf, path: TreePath, stored: Option<Entry>, plan: &mut Vec<Planned>) {
    let runnable = |mode: Mode| matches!(mode.kind(), EntryKind::File | EntryKind::Exec);
    match (&leaf.content, stored) {
        (Content::Stored { id, .. }, stored) => {
            let entry = Entry {
                mode: leaf.mode,
                id: *id,
            };
            match stored {
                Some(old) if old == entry => {}
                Some(old) if old.id == *id && runnable(old.mode) && runnable(leaf.mode) => {
                    plan.push(Planned::Chmod(path, leaf.mode == Mode::EXEC));
                }
                _ => plan.push(Planned::Set(path, entry)),
            }
        }
        (content, stored) => {
            if stored.is_some_and(|old| old.mode.is_dir()) {
                plan.push(Planned::Remove(path.clone()));
            }
            match (leaf.mode, content) {
                (Mode::LINK, Content::Memory(target)) => {
                    plan.push(Planned::Link(path, target.clone()));
                }
                (mode, content) => {
                    plan.push(Planned::Write(path, mode == Mode::EXEC, content.clone()));
                }
            }
        }
    }
}
