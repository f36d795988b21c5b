//! Questions put as one element of a path:
//! `SUBJECT[?key[=value][&key=value]…]`, as below `resolve`, `log`, `ls`, `diff`
//! and `branch/B/since`.
//!
//! Encoded by `%XX` where a path could not hold it, and `?` and `&` where they
//! mean themselves. `AT` is a commit's id, `tree:ID` or `tx:ID`.

use crate::model::failure::Failure;
use crate::model::request::{At, LogQuery, Since};
use crate::model::rev::Step;
use crate::model::{Kind, ObjectId, Rev, TransactionId, TreePath};

use super::{percent_decode, percent_encode, quote};

/// An element taken apart.
struct Parts {
    subject: Vec<u8>,
    options: Vec<(Vec<u8>, Vec<u8>)>,
}

/// An element being put together.
struct Element {
    text: Vec<u8>,
    sign: u8,
}

impl Element {
    fn new(subject: &[u8]) -> Self {
        let mut text = percent_encode(subject, b"?&");
        // `.` and `..` mean something else in a path; no subject is one of them.
        if text.iter().all(|b| *b == b'.') {
            text = "%2E".repeat(text.len()).into_bytes();
        }
        Self { text, sign: b'?' }
    }

    fn flag(&mut self, key: &str) {
        self.text.push(self.sign);
        self.text.extend_from_slice(key.as_bytes());
        self.sign = b'&';
    }

    fn option(&mut self, key: &str, value: &[u8]) {
        self.flag(key);
        self.text.push(b'=');
        self.text.extend_from_slice(&percent_encode(value, b"?&"));
    }

    fn path(&mut self, path: &TreePath) {
        if !path.is_root() {
            self.option("path", path.as_bytes());
        }
    }
}

fn invalid(text: &[u8], what: &str) -> Failure {
    let message = format!("{} is not {what}", quote(text));
    Failure::new(Kind::Invalid, message)
}

fn parse(element: &[u8]) -> Result<Parts, Failure> {
    let decode = |text: &[u8]| {
        percent_decode(text).ok_or_else(|| invalid(element, "a query: after % two digits follow"))
    };
    let mut halves = element.splitn(2, |b| *b == b'?');
    let subject = decode(halves.next().unwrap_or_default())?;
    let mut options = Vec::new();
    for option in halves
        .next()
        .into_iter()
        .flat_map(|all| all.split(|b| *b == b'&'))
    {
        let mut pair = option.splitn(2, |b| *b == b'=');
        let (key, value) = (pair.next(), pair.next());
        options.push((
            decode(key.unwrap_or_default())?,
            decode(value.unwrap_or_default())?,
        ));
    }
    Ok(Parts { subject, options })
}

impl Parts {
    fn unknown<T>(key: &[u8]) -> Result<T, Failure> {
        Err(invalid(key, "something one may ask for here"))
    }
}

fn read_path(text: &[u8]) -> Result<TreePath, Failure> {
    // What stands in a tree can be asked for, legal for writing or not.
    match TreePath::new(text) {
        Ok(path) => Ok(path),
        Err(refused) => {
            TreePath::found(text).ok_or_else(|| Failure::new(Kind::Invalid, refused.to_string()))
        }
    }
}

fn read_id(text: &[u8]) -> Result<ObjectId, Failure> {
    ObjectId::from_hex(text).ok_or_else(|| invalid(text, "a full id"))
}

fn write_at(at: &At) -> String {
    match at {
        At::Commit(id) => id.to_string(),
        At::Tree(id) => format!("tree:{id}"),
        At::Transaction(id) => format!("tx:{id}"),
    }
}

fn read_at(text: &[u8]) -> Result<At, Failure> {
    if let Some(id) = text.strip_prefix(b"tree:") {
        return read_id(id).map(At::Tree);
    }
    if let Some(name) = text.strip_prefix(b"tx:") {
        let id = std::str::from_utf8(name).ok().and_then(TransactionId::new);
        return id
            .map(At::Transaction)
            .ok_or_else(|| Failure::missing(format!("transaction {}", quote(name))));
    }
    read_id(text).map(At::Commit)
}

/// Prints a revision so that [`Rev::new`] reads it again, whatever bytes it has.
pub fn write_rev(rev: &Rev) -> Vec<u8> {
    let mut text = rev.base.clone();
    for step in &rev.steps {
        let step = match step {
            Step::Ancestor(n) => format!("~{n}"),
            Step::Parent(n) => format!("^{n}"),
        };
        text.extend_from_slice(step.as_bytes());
    }
    text
}

pub fn read_rev(text: &[u8]) -> Result<Rev, Failure> {
    Rev::new(text).map_err(|refused| Failure::new(Kind::Invalid, refused.to_string()))
}

/// Below `resolve`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResolveQuery {
    /// `REV`: its full id and a newline.
    Rev(Rev),
    /// `A...B`: the best common ancestors, one a line.
    Bases(Rev, Rev),
}

impl ResolveQuery {
    pub fn write(&self) -> Vec<u8> {
        let subject = match self {
            Self::Rev(rev) => write_rev(rev),
            Self::Bases(a, b) => [&write_rev(a)[..], b"...", &write_rev(b)].concat(),
        };
        Element::new(&subject).text
    }

    pub fn read(element: &[u8]) -> Result<Self, Failure> {
        let parts = parse(element)?;
        if let Some((key, _)) = parts.options.first() {
            return Parts::unknown(key);
        }
        let text = &parts.subject[..];
        match text.windows(3).position(|three| three == b"...") {
            Some(at) => Ok(Self::Bases(
                read_rev(&text[..at])?,
                read_rev(&text[at + 3..])?,
            )),
            None => read_rev(text).map(Self::Rev),
        }
    }
}

/// Below `log`: `REV[?not=ID][&path=P][&first-parent][&limit=N][&from=ID]`,
/// `not`, `path` and `from` as often as wanted.
#[derive(Clone, Debug)]
pub struct LogElement {
    pub start: Rev,
    /// Where else to start, and the rest.
    pub query: LogQuery,
}

impl LogElement {
    pub fn write(&self) -> Vec<u8> {
        let mut element = Element::new(&write_rev(&self.start));
        let query = &self.query;
        for id in &query.hidden {
            element.option("not", id.to_string().as_bytes());
        }
        for path in &query.paths {
            element.option("path", path.as_bytes());
        }
        if query.first_parent {
            element.flag("first-parent");
        }
        if let Some(limit) = query.limit {
            element.option("limit", limit.to_string().as_bytes());
        }
        for id in &query.from {
            element.option("from", id.to_string().as_bytes());
        }
        element.text
    }

    pub fn read(element: &[u8]) -> Result<Self, Failure> {
        let parts = parse(element)?;
        let mut query = LogQuery::default();
        for (key, value) in &parts.options {
            match &key[..] {
                b"not" => query.hidden.push(read_id(value)?),
                b"path" => query.paths.push(read_path(value)?),
                b"first-parent" => query.first_parent = true,
                b"limit" => {
                    let number = std::str::from_utf8(value).ok();
                    let number = number.and_then(|number| number.parse().ok());
                    query.limit = Some(number.ok_or_else(|| invalid(value, "a number"))?);
                }
                b"from" => query.from.push(read_id(value)?),
                other => return Parts::unknown(other),
            }
        }
        let start = read_rev(&parts.subject)?;
        Ok(Self { start, query })
    }
}

/// How far a listing goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LsShape {
    /// `?self`: what stands there; no record where nothing does.
    Own,
    /// The entries of a directory.
    Entries,
    /// `?recursive`: every leaf below.
    Leaves,
}

/// Below `ls`: `AT[:PATH][?self|recursive][&sizes]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LsQuery {
    pub at: At,
    pub path: TreePath,
    pub shape: LsShape,
    pub sizes: bool,
}

impl LsQuery {
    pub fn write(&self) -> Vec<u8> {
        let mut subject = write_at(&self.at).into_bytes();
        if !self.path.is_root() {
            subject.push(b':');
            subject.extend_from_slice(self.path.as_bytes());
        }
        let mut element = Element::new(&subject);
        match self.shape {
            LsShape::Own => element.flag("self"),
            LsShape::Entries => {}
            LsShape::Leaves => element.flag("recursive"),
        }
        if self.sizes {
            element.flag("sizes");
        }
        element.text
    }

    pub fn read(element: &[u8]) -> Result<Self, Failure> {
        let parts = parse(element)?;
        let text = &parts.subject[..];
        let prefix = [&b"tree:"[..], b"tx:"]
            .into_iter()
            .find(|prefix| text.starts_with(prefix));
        let skip = prefix.map_or(0, <[u8]>::len);
        let colon = text[skip..].iter().position(|b| *b == b':');
        let (at, path) = match colon {
            Some(colon) => (&text[..skip + colon], &text[skip + colon + 1..]),
            None => (text, &b""[..]),
        };
        let mut query = Self {
            at: read_at(at)?,
            path: read_path(path)?,
            shape: LsShape::Entries,
            sizes: false,
        };
        for (key, _) in &parts.options {
            match &key[..] {
                b"self" => query.shape = LsShape::Own,
                b"recursive" => query.shape = LsShape::Leaves,
                b"sizes" => query.sizes = true,
                other => return Parts::unknown(other),
            }
        }
        Ok(query)
    }
}

/// Below `diff`: `FROM..TO[?path=P]`, each side an AT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiffQuery {
    pub from: At,
    pub to: At,
    pub path: TreePath,
}

impl DiffQuery {
    pub fn write(&self) -> Vec<u8> {
        let subject = format!("{}..{}", write_at(&self.from), write_at(&self.to));
        let mut element = Element::new(subject.as_bytes());
        element.path(&self.path);
        element.text
    }

    pub fn read(element: &[u8]) -> Result<Self, Failure> {
        let parts = parse(element)?;
        let text = &parts.subject[..];
        let dots = text.windows(2).position(|pair| pair == b"..");
        let dots = dots.ok_or_else(|| invalid(text, "two trees with \"..\" between them"))?;
        let mut query = Self {
            from: read_at(&text[..dots])?,
            to: read_at(&text[dots + 2..])?,
            path: TreePath::root(),
        };
        for (key, value) in &parts.options {
            match &key[..] {
                b"path" => query.path = read_path(value)?,
                other => return Parts::unknown(other),
            }
        }
        Ok(query)
    }
}

/// Below `branch/B/since`: `POINT[?path=P][&latest][&unchanged][&events]`, POINT
/// being `0`, `head`, `current` or a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinceQuery {
    pub since: Since,
    pub path: TreePath,
    pub latest: bool,
    pub unchanged: bool,
    /// Whole events, not just lines of ids.
    pub events: bool,
}

impl SinceQuery {
    pub fn write(&self) -> Vec<u8> {
        let point = match self.since {
            Since::Beginning => "0".into(),
            Since::Now => "head".into(),
            Since::Current => "current".into(),
            Since::Commit(id) => id.to_string(),
        };
        let mut element = Element::new(point.as_bytes());
        element.path(&self.path);
        let flags = [
            (self.latest, "latest"),
            (self.unchanged, "unchanged"),
            (self.events, "events"),
        ];
        for (_, flag) in flags.iter().filter(|(wanted, _)| *wanted) {
            element.flag(flag);
        }
        element.text
    }

    /// Parses an element; a point that is no full id does not exist.
    pub fn read(element: &[u8]) -> Result<Self, Failure> {
        let parts = parse(element)?;
        let since = match &parts.subject[..] {
            b"0" => Since::Beginning,
            b"head" => Since::Now,
            b"current" => Since::Current,
            hex => {
                let id = ObjectId::from_hex(hex).map(Since::Commit);
                id.ok_or_else(|| Failure::missing(format!("commit {}", quote(hex))))?
            }
        };
        let mut query = Self {
            since,
            path: TreePath::root(),
            latest: false,
            unchanged: false,
            events: false,
        };
        for (key, value) in &parts.options {
            match &key[..] {
                b"path" => query.path = read_path(value)?,
                b"latest" => query.latest = true,
                b"unchanged" => query.unchanged = true,
                b"events" => query.events = true,
                other => return Parts::unknown(other),
            }
        }
        Ok(query)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(n: u8, long: bool) -> ObjectId {
        ObjectId::from_bytes(&[n; 32][..if long { 32 } else { 20 }]).expect("a length of ids")
    }

    fn ids() -> impl Strategy<Value = ObjectId> {
        (any::<u8>(), any::<bool>()).prop_map(|(n, long)| id(n, long))
    }

    fn paths() -> impl Strategy<Value = TreePath> {
        let step = prop::collection::vec(any::<u8>(), 1..6);
        prop::collection::vec(step, 0..4).prop_map(|steps| {
            let mut path = TreePath::root();
            for mut step in steps {
                step.iter_mut()
                    .filter(|b| matches!(b, b'/' | 0))
                    .for_each(|b| *b = b'%');
                path.push(&step);
            }
            path
        })
    }

    fn ats() -> impl Strategy<Value = At> {
        let names = "[a-z0-9][a-z0-9._-]{0,5}[a-z0-9]";
        prop_oneof![
            ids().prop_map(At::Commit),
            ids().prop_map(At::Tree),
            names.prop_filter_map("legal", |name| TransactionId::new(&name)
                .map(At::Transaction)),
        ]
    }

    fn legal(element: &[u8]) -> bool {
        !element
            .iter()
            .any(|b| *b == b'/' || *b == 0 || !b.is_ascii_graphic())
    }

    proptest! {
        #[test]
        fn listings_round_trip(at in ats(), path in paths(), shape in 0..3_usize, sizes: bool) {
            let shape = [LsShape::Own, LsShape::Entries, LsShape::Leaves][shape];
            let query = LsQuery { at, path, shape, sizes };
            let element = query.write();
            prop_assert!(legal(&element));
            prop_assert_eq!(LsQuery::read(&element), Ok(query));
        }

        #[test]
        fn differences_round_trip(from in ats(), to in ats(), path in paths()) {
            let query = DiffQuery { from, to, path };
            let element = query.write();
            prop_assert!(legal(&element));
            prop_assert_eq!(DiffQuery::read(&element), Ok(query));
        }

        #[test]
        fn watches_round_trip(
            commit in ids(), point in 0..4_usize, path in paths(), flags: [bool; 3],
        ) {
            let points = [Since::Beginning, Since::Now, Since::Current, Since::Commit(commit)];
            let [latest, unchanged, events] = flags;
            let query = SinceQuery { since: points[point], path, latest, unchanged, events };
            let element = query.write();
            prop_assert!(legal(&element));
            prop_assert_eq!(SinceQuery::read(&element), Ok(query));
        }

        #[test]
        fn logs_round_trip(
            base in prop::collection::vec(any::<u8>(), 1..8),
            hidden in prop::collection::vec(ids(), 0..3),
            paths in prop::collection::vec(paths(), 0..3),
            from in prop::collection::vec(ids(), 0..3),
            first_parent: bool,
            limit: Option<u64>,
        ) {
            let Ok(start) = Rev::new(&base) else { return Ok(()) };
            let query = LogQuery { from, hidden, paths, first_parent, limit };
            let log = LogElement { start, query };
            let element = log.write();
            prop_assert!(legal(&element));
            let read = LogElement::read(&element).expect("as written");
            prop_assert_eq!(format!("{read:?}"), format!("{log:?}"));
        }

        #[test]
        fn anything_may_come(element: Vec<u8>) {
            let _ = (LsQuery::read(&element), DiffQuery::read(&element));
            let _ = (SinceQuery::read(&element), LogElement::read(&element));
            let _ = ResolveQuery::read(&element);
        }
    }

    #[test]
    fn elements_read_as_documented() {
        let at = At::Tree(id(1, false));
        let (path, shape) = (TreePath::new("a b/c?").expect("legal"), LsShape::Leaves);
        let query = LsQuery {
            at,
            path,
            shape,
            sizes: true,
        };
        let hex = "01".repeat(20);
        let text = format!("tree:{hex}:a%20b%2Fc%3F?recursive&sizes");
        assert_eq!(query.write(), text.as_bytes());
        for rev in ["master~3^2", "a/b", "HEAD", "\u{ff}~"] {
            let query = ResolveQuery::Rev(Rev::new(rev).expect("legal"));
            assert_eq!(ResolveQuery::read(&query.write()), Ok(query), "{rev}");
        }
        let bases = ResolveQuery::read(b"a~1...b%2Fc").expect("legal");
        assert_eq!(bases.write(), b"a~1...b%2Fc");
        for bad in ["", "x?y", "%", "a b c:", "...", "a?self"] {
            assert!(ResolveQuery::read(bad.as_bytes()).is_err(), "{bad}");
        }
        for bad in [
            "",
            "tree:x",
            "tx:..",
            &format!("{hex}?x"),
            &format!("{hex}:a%00"),
        ] {
            assert!(LsQuery::read(bad.as_bytes()).is_err(), "{bad}");
        }
        let missing = SinceQuery::read(b"0123").expect_err("no full id");
        assert_eq!(missing.kind, Kind::NotFound);
    }
}
