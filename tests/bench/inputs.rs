//! The inputs: repositories made by `git fast-import`, and a folder of files.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::place::{Place, run};

/// Numbers that look random and are the same in each run.
pub struct Noise(pub u64);

impl Noise {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Returns text of so many bytes that compresses about as sources do.
    pub fn text(&mut self, size: usize) -> Vec<u8> {
        let mut text = Vec::with_capacity(size + 16);
        while text.len() < size {
            let word = self.next();
            let letters = 2 + word % 7;
            for letter in 0..letters {
                text.push(b'a' + ((word >> (8 + 4 * letter)) & 15) as u8);
            }
            text.push(if word >> 60 == 0 { b'\n' } else { b' ' });
        }
        text.truncate(size);
        text
    }
}

/// Returns the path of a file: folders of a hundred, as many levels as it takes.
pub fn path(number: usize, count: usize) -> String {
    let mut levels = 1;
    let mut reach = 100;
    while reach < count {
        reach *= 100;
        levels += 1;
    }
    let mut names: Vec<String> = (1..levels)
        .rev()
        .map(|level| format!("d{:02}/", number / 100_usize.pow(level) % 100))
        .collect();
    names.push(format!("f{number}"));
    names.concat()
}

/// A `git fast-import` that is being fed.
struct Import<'a> {
    out: BufWriter<&'a mut dyn Write>,
    time: u64,
}

impl Import<'_> {
    fn commit(&mut self, branch: &str, from: Option<&str>) -> io::Result<()> {
        self.time += 1;
        writeln!(self.out, "commit refs/heads/{branch}")?;
        let time = self.time;
        writeln!(
            self.out,
            "committer Bench <bench@example.org> {time} +0000\ndata 19\nchange the content\n"
        )?;
        match from {
            Some(from) => writeln!(self.out, "from {from}"),
            None => Ok(()),
        }
    }

    fn file(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        writeln!(self.out, "M 100644 inline {path}\ndata {}", content.len())?;
        self.out.write_all(content)?;
        writeln!(self.out)
    }
}

/// Makes a bare repository at `dir` of what `write` says.
fn import(place: &Place, dir: &Path, write: impl FnOnce(&mut Import<'_>) -> io::Result<()>) {
    fs::create_dir_all(dir).unwrap();
    run(&mut place.git(dir, ["init", "--quiet", "--bare", "-b", "master"]));
    let mut command = place.git(dir, ["fast-import", "--quiet", "--force"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let mut import = Import {
        out: BufWriter::with_capacity(1 << 20, &mut pipe),
        time: 1_700_000_000,
    };
    write(&mut import).unwrap();
    import.out.flush().unwrap();
    drop(import);
    drop(pipe);
    assert!(child.wait().unwrap().success());
}

/// A repository with one commit of `count` small files on master.
pub fn tree(place: &Place, count: usize) -> PathBuf {
    place.input(&format!("tree-{count}.git"), |dir| {
        import(place, dir, |import| {
            import.commit("master", None)?;
            for number in 0..count {
                // Few contents: the trees are what counts.
                let content = format!("content {}\n", number % 1000);
                import.file(&path(number, count), content.as_bytes())?;
            }
            Ok(())
        });
        run(&mut place.git(dir, ["repack", "-adq"]));
    })
}

/// A repository with one folder, `wide`, of `count` files.
pub fn wide(place: &Place, count: usize) -> PathBuf {
    place.input(&format!("wide-{count}.git"), |dir| {
        import(place, dir, |import| {
            import.commit("master", None)?;
            for number in 0..count {
                let content = format!("content {}\n", number % 1000);
                import.file(&format!("wide/f{number}"), content.as_bytes())?;
            }
            Ok(())
        });
        run(&mut place.git(dir, ["repack", "-adq"]));
    })
}

/// A repository with `count` commits on master, each of which changes one of
/// 1,000 files, collected as a store in use would be.
pub fn history(place: &Place, count: usize) -> PathBuf {
    place.input(&format!("history-{count}.git"), |dir| {
        import(place, dir, |import| {
            import.commit("master", None)?;
            for number in 0..1000 {
                import.file(&path(number, 1000), format!("{number}\n").as_bytes())?;
            }
            let mut noise = Noise(1);
            for number in 1..count {
                import.commit("master", None)?;
                let file = noise.next() as usize % 1000;
                let content = format!("content of commit {number}\n");
                import.file(&path(file, 1000), content.as_bytes())?;
            }
            Ok(())
        });
        run(&mut place.git(dir, ["gc", "--quiet"]));
    })
}

/// A repository with branches `base`, `ours` and `theirs`: `files` files, of which
/// each side changed `changes`, never the same ones.
pub fn sides(place: &Place, files: usize, changes: usize) -> PathBuf {
    place.input(&format!("sides-{files}-{changes}.git"), |dir| {
        import(place, dir, |import| {
            import.commit("base", None)?;
            for number in 0..files {
                let content = format!("content {}\n", number % 1000);
                import.file(&path(number, files), content.as_bytes())?;
            }
            let stride = files / changes;
            for (offset, side) in ["ours", "theirs"].into_iter().enumerate() {
                import.commit(side, Some("refs/heads/base"))?;
                for number in 0..changes {
                    let content = format!("{side} {number}\n");
                    let number = number * stride + offset;
                    import.file(&path(number, files), content.as_bytes())?;
                }
            }
            Ok(())
        });
        run(&mut place.git(dir, ["repack", "-adq"]));
    })
}

/// A repository with `count` branches, and one commit on all of them.
pub fn branches(place: &Place, count: usize) -> PathBuf {
    place.input(&format!("branches-{count}.git"), |dir| {
        import(place, dir, |import| {
            import.commit("master", None)?;
            import.file("a", b"a\n")?;
            for number in 0..count {
                let group = number % 100;
                writeln!(
                    import.out,
                    "reset refs/heads/g{group}/b{number}\nfrom refs/heads/master\n"
                )?;
            }
            Ok(())
        });
        run(&mut place.git(dir, ["pack-refs", "--all"]));
    })
}

/// A folder with `count` files of `bytes` in all.
pub fn files(place: &Place, count: usize, bytes: usize) -> PathBuf {
    place.input(&format!("files-{count}-{bytes}"), |dir| {
        let mut noise = Noise(7);
        let mean = bytes / count;
        for number in 0..count {
            let file = dir.join(path(number, count));
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            // From a tenth of the mean to nearly twice that.
            let size = mean / 10 + noise.next() as usize % (mean * 9 / 5);
            fs::write(file, noise.text(size)).unwrap();
        }
    })
}
