//! Fetching by gix: objects come in, and no ref moves.
//!
//! - What arrives is a pack in a folder of its own under `objects`, which
//!   `git gc` clears away if it is left. Only when it is complete, checked and
//!   synced does it move to where readers look.
//! - Every id that is returned has its object in the store.

use std::fs::{self, File, Permissions};
use std::io::BufRead;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use gix::bstr::ByteSlice as _;
use gix::progress::DynNestedProgress;
use gix::protocol::fetch::negotiate::{self, one_round};
use gix::protocol::fetch::refmap::{Mapping, SpecIndex, init};
use gix::protocol::fetch::{Arguments, Context, Options, RefMap, Response, Shallow, Tags};
use gix::protocol::transport::{Protocol, Service};
use gix::refspec::{Instruction, RefSpec, instruction, parse::Operation};
use gix::remote::Direction;

use crate::model::ObjectId;
use crate::model::request::Progress;
use crate::store::engine::{Advertised, HeadName};
use crate::store::{Error, Result};

use super::progress::{Teller, relay};
use super::temp::TempFolder;
use super::{Git, remotes};

/// Brings the objects behind a remote's refs into the store.
pub(super) fn fetch(
    git: &Git,
    remote: &str,
    refspecs: &[String],
    progress: &dyn Progress,
) -> Result<Vec<Advertised>> {
    crate::tls::provide();
    let found = relay(progress, |teller, interrupt| {
        receive(git, remote, refspecs, teller, interrupt)
    });
    if progress.is_cancelled() {
        return Err(Error::Interrupted("the fetch was cancelled".into()));
    }
    let found = found?;
    git.objects.expect_change()?;
    let mut fetched = Vec::with_capacity(found.len());
    for (one, followed) in found {
        let there = git.objects.header(&one.id)?.is_some();
        if followed {
            // A tag that is here already is nobody's to move.
            let new = |name| Ok::<_, Error>(git.refs.head(name)?.is_none());
            if there && one.local.as_ref().map_or(Ok(false), new)? {
                fetched.push(one);
            }
            continue;
        }
        if !there {
            return Err(Error::Failed {
                what: format!("{remote} did not send {}", one.id),
                source: "its refs moved meanwhile, or it is damaged".into(),
            });
        }
        fetched.push(one);
    }
    Ok(fetched)
}

fn receive(
    git: &Git,
    name: &str,
    refspecs: &[String],
    mut progress: Teller,
    interrupt: &AtomicBool,
) -> Result<Vec<(Advertised, bool)>> {
    let repo = git.reopen()?;
    let (remote, branch) = remotes::find(git, &repo, name)?;
    let mut specs = refspecs.iter().cloned().chain(branch).collect::<Vec<_>>();
    if specs.is_empty() {
        let configured = remote.refspecs(Direction::Fetch).iter();
        specs.extend(configured.map(|spec| spec.to_ref().to_bstring().to_string()));
    }
    if specs.is_empty() {
        specs.push("HEAD".into());
    }
    let specs = specs
        .iter()
        .map(|spec| parse(spec))
        .collect::<Result<Vec<_>>>()?;

    let unreachable = || Error::failed(format!("cannot reach {name}"));
    let broken = || Error::failed(format!("the exchange with {name} broke off"));
    let mut connection = remote.connect(Direction::Fetch).map_err(unreachable())?;
    let credentials = connection.configured_credentials_for_current_url();
    let transport = connection.transport_mut();
    let url = transport.to_url().into_owned();
    let settings = repo.transport_options(url.as_bstr(), remote.name().map(|name| name.as_bstr()));
    if let Some(settings) = settings.map_err(unreachable())? {
        transport.configure(&*settings).map_err(unreachable())?;
    }
    let mut handshake = gix::protocol::handshake(
        &mut *transport,
        Service::UploadPack,
        credentials,
        Vec::new(),
        &mut progress,
    )
    .map_err(unreachable())?;
    let agent = || {
        let agent = gix::protocol::agent(concat!("dk/", env!("CARGO_PKG_VERSION")));
        ("agent", Some(agent))
    };
    // As git does: what is kept in local refs brings its tags along.
    let keeps = |spec: &RefSpec| spec.to_ref().local().is_some();
    let tags = match specs.iter().any(keeps) {
        true => Tags::Included,
        false => Tags::None,
    };
    let context = init::Context {
        fetch_refspecs: specs.clone(),
        extra_refspecs: tags
            .to_refspec()
            .map(|tags| tags.to_owned())
            .into_iter()
            .collect(),
    };
    let map = handshake
        .prepare_lsrefs_or_extract_refmap(agent(), true, context)
        .map_err(broken())?
        .fetch_blocking(&mut progress, transport, false)
        .map_err(broken())?;
    if map.object_hash != repo.object_hash() {
        return Err(Error::Unsupported(format!(
            "{name} names its objects by {}, this store by {}",
            map.object_hash,
            repo.object_hash()
        )));
    }
    let found = advertised(&map, &specs, name)?;

    let shallow = Shallow::NoChange;
    let options = Options {
        shallow_file: repo.shallow_file().map_err(broken())?,
        shallow: &shallow,
        tags,
        reject_shallow_remote: true,
    };
    let mut pack = Ok(());
    let ended = handshake.server_protocol_version == Protocol::V2;
    let graph_repo = {
        let mut repo = repo.clone();
        // Asking for what is not there is the rule here: do not look twice.
        repo.objects.refresh_never();
        repo
    };
    let cache = graph_repo.commit_graph_if_enabled().ok().flatten();
    let mut graph = graph_repo.revision_graph(cache.as_ref());
    let mut negotiation = Negotiation {
        repo: &graph_repo,
        graph: &mut graph,
        map: &map,
        shallow: &shallow,
        negotiator: gix::negotiate::Algorithm::Consecutive.into_negotiator(),
    };
    gix::protocol::fetch(
        &mut negotiation,
        |reader, progress, interrupt| {
            pack = take_pack(git, &repo, reader, progress, interrupt);
            // Read to the end only what is of use.
            Ok(pack.is_ok())
        },
        progress,
        interrupt,
        Context {
            handshake: &mut handshake,
            transport: &mut *transport,
            user_agent: agent(),
            trace_packetlines: false,
        },
        options,
    )
    .map_err(broken())?;
    pack?;
    if ended {
        let _ = gix::protocol::indicate_end_of_interaction(&mut *transport, false);
    }
    Ok(found)
}

fn parse(spec: &str) -> Result<RefSpec> {
    match gix::refspec::parse(spec.into(), Operation::Fetch) {
        Ok(spec) => Ok(spec.to_owned()),
        Err(error) => Err(Error::Invalid(format!("{spec} is not a refspec: {error}"))),
    }
}

/// Returns the refs that refspecs ask for. One that is named and not there is
/// an error; a pattern may match nothing. With each: whether it is only followed.
fn advertised(map: &RefMap, specs: &[RefSpec], remote: &str) -> Result<Vec<(Advertised, bool)>> {
    for (index, spec) in specs.iter().enumerate() {
        use instruction::Fetch::{AndUpdate, Exclude, Only};
        let Instruction::Fetch(fetch) = spec.to_ref().instruction() else {
            continue;
        };
        let (Only { src } | AndUpdate { src, .. }) = fetch else {
            debug_assert!(matches!(fetch, Exclude { .. }));
            continue;
        };
        let served = |mapping: &Mapping| {
            mapping.spec_index == SpecIndex::ExplicitInRemote(index)
                && mapping.remote.as_id().is_some()
        };
        if !src.contains(&b'*') && !map.mappings.iter().any(served) {
            return Err(Error::NotFound(format!("{src} at {remote}")));
        }
    }
    let mut found = Vec::with_capacity(map.mappings.len());
    for mapping in &map.mappings {
        let Some(id) = mapping.remote.as_id() else {
            continue;
        };
        let id = ObjectId::from_bytes(id.as_bytes()).expect("the hash kinds were compared");
        let local = mapping.local.as_ref().map(|local| {
            HeadName::from_full(local)
                .ok_or_else(|| Error::Invalid(format!("{local} is no name for a ref")))
        });
        let spec = match mapping.spec_index {
            SpecIndex::ExplicitInRemote(index) => specs.get(index),
            SpecIndex::Implicit(_) => None,
        };
        let one = Advertised {
            remote: match mapping.remote.as_name() {
                Some(name) => name.to_vec(),
                None => id.to_hex().into_bytes(),
            },
            id,
            local: local.transpose()?,
            force: spec.is_some_and(|spec| spec.allow_non_fast_forward()),
        };
        found.push((one, is_followed(mapping)));
    }
    Ok(found)
}

/// Writes the pack that arrives, and puts it where packs are.
fn take_pack(
    git: &Git,
    repo: &gix::Repository,
    reader: &mut dyn BufRead,
    progress: &mut dyn DynNestedProgress,
    interrupt: &AtomicBool,
) -> Result<()> {
    let cannot = || Error::failed("cannot store what was received");
    let io = |path: &Path| Error::io(format!("cannot write {}", path.display()));
    let objects = &git.loose.dir;
    // git clears away what is called tmp_ and old.
    let arrival = TempFolder::new(objects, "tmp_objdir-dk-").map_err(io(objects))?;
    let written = gix_pack::Bundle::write_to_directory(
        reader,
        Some(arrival.path()),
        progress,
        interrupt,
        Some(Box::new(repo.objects.clone())),
        repo.object_hash(),
        gix_pack::bundle::write::Options::default(),
    )
    .map_err(cannot())?;
    let (Some(pack), Some(index)) = (written.data_path, written.index_path) else {
        return Ok(());
    };
    let dir = git.loose.pack_dir()?;
    let mode = fs::metadata(&dir).map_err(io(&dir))?.permissions().mode() & 0o444;
    for path in [&pack, &index] {
        fs::set_permissions(path, Permissions::from_mode(mode)).map_err(io(path))?;
        if git.loose.keeping.sync {
            File::open(path)
                .and_then(|file| file.sync_all())
                .map_err(io(path))?;
        }
    }
    // The pack first: git looks for indices.
    for path in [&pack, &index] {
        let place = dir.join(path.file_name().unwrap_or_default());
        fs::rename(path, &place).map_err(io(&place))?;
    }
    git.loose.keeping.sync_dirs(&[dir])
}

/// Tells whether a tag is taken only where what it names comes along.
fn is_followed(mapping: &Mapping) -> bool {
    matches!(mapping.spec_index, SpecIndex::Implicit(_))
}

/// Tells whether a tag is left to the server, which sends it with what it
/// names. What is here already it does not send, so such a tag is asked for.
fn is_left(repo: &gix::Repository, mapping: &Mapping) -> bool {
    use gix::protocol::{fetch::refmap::Source, handshake::Ref};
    is_followed(mapping)
        && match &mapping.remote {
            Source::Ref(Ref::Peeled { object, .. }) => !repo.has_object(*object),
            _ => true,
        }
}

/// What is asked for and what is offered as known.
struct Negotiation<'a, 'b, 'c> {
    repo: &'a gix::Repository,
    graph: &'a mut gix::negotiate::Graph<'b, 'c>,
    map: &'a RefMap,
    shallow: &'a Shallow,
    negotiator: Box<dyn gix::negotiate::Negotiator>,
}

impl gix::protocol::fetch::Negotiate for Negotiation<'_, '_, '_> {
    fn mark_complete_and_common_ref(&mut self) -> gix::Result<negotiate::Action> {
        type NoAlternates = std::iter::Empty<(gix::refs::file::Store, gix::OdbHandle)>;
        negotiate::mark_complete_and_common_ref(
            &self.repo.objects,
            &self.repo.refs,
            || Ok(NoAlternates::default()),
            &mut *self.negotiator,
            self.graph,
            self.map,
            self.shallow,
            |mapping| is_left(self.repo, mapping),
        )
    }

    /// Asks by id: what is named could be another thing by then.
    fn add_wants(&mut self, arguments: &mut Arguments, known: &[bool]) -> bool {
        let mut any = false;
        for (mapping, known) in self.map.mappings.iter().zip(known) {
            // The server sends tags of what it sends.
            if let (Some(id), false) = (
                mapping.remote.as_id(),
                *known || is_left(self.repo, mapping),
            ) {
                arguments.want(id);
                any = true;
            }
        }
        any
    }

    fn one_round(
        &mut self,
        state: &mut one_round::State,
        arguments: &mut Arguments,
        previous: Option<&Response>,
    ) -> gix::Result<(negotiate::Round, bool)> {
        negotiate::one_round(
            &mut *self.negotiator,
            self.graph,
            state,
            arguments,
            previous,
        )
    }
}
