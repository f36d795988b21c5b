//! The client that asks dk and diod the same, the servers, and the bare wire.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use datakit::ninep::message::{Dialect, Reply, Request, flags};
use datakit::ninep::wire::{Data, Output};
use rs9p::{NOFID, NOTAG};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::place::{Place, Store};

const DIALECT: Dialect = Dialect::Linux;

/// The tag of what is asked alone.
const ASK: u16 = 60_000;

/// What is asked over.
#[derive(Clone, Copy)]
pub enum Wire {
    Unix,
    Tcp,
}

impl Wire {
    pub fn name(self) -> &'static str {
        match self {
            Self::Unix => "unix",
            Self::Tcp => "tcp",
        }
    }
}

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(buffer),
            Self::Tcp(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(bytes),
            Self::Tcp(stream) => stream.write(bytes),
        }
    }

    fn write_vectored(&mut self, bytes: &[std::io::IoSlice<'_>]) -> std::io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write_vectored(bytes),
            Self::Tcp(stream) => stream.write_vectored(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn tcp(address: &str) -> Stream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    Stream::Tcp(stream)
}

/// A client that waits for what it asked.
pub struct Client {
    stream: BufReader<Stream>,
    out: Output,
    msize: u32,
}

impl Client {
    fn new(stream: Stream) -> Self {
        let mut client = Self {
            stream: BufReader::with_capacity(1 << 16, stream),
            out: Output::default(),
            msize: 1 << 20,
        };
        let version = DIALECT.version().into();
        client.send(
            NOTAG,
            &Request::Version {
                msize: 1 << 20,
                version,
            },
        );
        client.push();
        match client.receive() {
            (_, Reply::Version { msize, .. }) => client.msize = msize,
            other => panic!("{other:?}"),
        }
        client
    }

    /// A client of whatever listens there.
    pub fn dial(address: &str) -> Self {
        Self::new(tcp(address))
    }

    /// The most a read or write can carry.
    pub fn unit(&self) -> usize {
        self.msize as usize - 24
    }

    /// Makes a request ready, which [`Client::push`] sends.
    pub fn send(&mut self, tag: u16, request: &Request) {
        request.encode(tag, DIALECT, &mut self.out).unwrap();
    }

    pub fn push(&mut self) {
        while self.out.has_remaining() {
            let mut slices = [std::io::IoSlice::new(&[]); 16];
            let count = self.out.chunks_vectored(&mut slices);
            let written = self
                .stream
                .get_mut()
                .write_vectored(&slices[..count])
                .unwrap();
            self.out.advance(written);
        }
    }

    pub fn receive(&mut self) -> (u16, Reply) {
        let mut size = [0; 4];
        self.stream.read_exact(&mut size).unwrap();
        let length = u32::from_le_bytes(size) as usize;
        let mut frame = Vec::with_capacity(length);
        frame.extend_from_slice(&size);
        let mut rest = (&mut self.stream).take(length as u64 - 4);
        rest.read_to_end(&mut frame).unwrap();
        Reply::decode(&Bytes::from(frame), DIALECT).unwrap()
    }

    /// Takes what a read brings into memory that is there, as the bare copy does.
    fn receive_data(&mut self, data: &mut [u8]) -> usize {
        // size[4] Rread tag[2] count[4]
        const RREAD: u8 = 117;
        let mut head = [0; 11];
        self.stream.read_exact(&mut head).unwrap();
        let count = u32::from_le_bytes(head[7..].try_into().unwrap()) as usize;
        assert!(head[4] == RREAD && count > 0, "{head:?}");
        self.stream.read_exact(&mut data[..count]).unwrap();
        count
    }

    /// Tells whether an answer is here already.
    pub fn more(&self) -> bool {
        !self.stream.buffer().is_empty()
    }

    pub fn ask(&mut self, request: Request) -> Reply {
        self.send(ASK, &request);
        self.push();
        let (_, reply) = self.receive();
        assert!(
            !matches!(reply, Reply::Lerror { .. }),
            "{request:?}: {reply:?}"
        );
        reply
    }

    /// Attaches fid 0.
    pub fn attach(&mut self, aname: &str) {
        self.ask(Request::Attach {
            fid: 0,
            afid: NOFID,
            uname: "root".into(),
            aname: aname.to_owned().into(),
            n_uname: Some(0),
        });
    }

    pub fn open(&mut self, fid: u32, path: &str, flags: u32) {
        let names = path.split('/').collect();
        self.ask(Request::Walk {
            fid: 0,
            newfid: fid,
            names,
        });
        self.ask(Request::Lopen { fid, flags });
    }

    pub fn read(&mut self, fid: u32, offset: u64) -> Data {
        match self.ask(Request::Read {
            fid,
            offset,
            count: 8192,
        }) {
            Reply::Read { data } => data,
            other => panic!("{other:?}"),
        }
    }

    /// Reads a file from its beginning, eight reads under way.
    pub fn read_all(&mut self, path: &str, bytes: usize) -> Duration {
        self.open(7, path, 0);
        let began = Instant::now();
        let unit = self.unit();
        let mut data = vec![0; unit];
        let (mut asked, mut had) = (0, 0);
        while had < bytes {
            while asked < bytes && asked < had + 8 * unit {
                let count = unit.min(bytes - asked) as u32;
                let offset = asked as u64;
                self.send(
                    (asked / unit) as u16,
                    &Request::Read {
                        fid: 7,
                        offset,
                        count,
                    },
                );
                asked += count as usize;
            }
            self.push();
            had += self.receive_data(&mut data);
        }
        assert_eq!(had, bytes);
        let time = began.elapsed();
        self.ask(Request::Clunk { fid: 7 });
        time
    }

    /// Writes a new file in fid 0, eight writes under way; the end of it is
    /// waited for.
    pub fn write_all(&mut self, name: &str, bytes: usize, unit: usize) -> Duration {
        self.ask(Request::Walk {
            fid: 0,
            newfid: 8,
            names: Default::default(),
        });
        self.ask(Request::Lcreate {
            fid: 8,
            name: name.to_owned().into(),
            flags: flags::CREAT | flags::RDWR,
            mode: 0o644,
            gid: 0,
        });
        let mut seed = 0x9e37_79b9_7f4a_7c15u64;
        let content: Vec<u8> = (0..unit)
            .map(|_| {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                seed as u8
            })
            .collect();
        let content = Bytes::from(content);
        let began = Instant::now();
        let (mut asked, mut had) = (0, 0);
        while had < bytes {
            while asked < bytes && asked < had + 8 * unit {
                let count = unit.min(bytes - asked);
                let data = Data(content.slice(..count));
                let offset = asked as u64;
                self.send(
                    (asked / unit) as u16,
                    &Request::Write {
                        fid: 8,
                        offset,
                        data,
                    },
                );
                asked += count;
            }
            self.push();
            match self.receive() {
                (_, Reply::Write { count }) => had += count as usize,
                other => panic!("{other:?}"),
            }
        }
        self.ask(Request::Clunk { fid: 8 });
        began.elapsed()
    }

    /// Begins a transaction and attaches fid 0 to where it is written.
    pub fn transaction(&mut self, name: &str) {
        self.attach("/branch/master/transactions");
        self.ask(Request::Mkdir {
            dfid: 0,
            name: name.to_owned().into(),
            mode: 0o755,
            gid: 0,
        });
        let names = [name, "rw"].into_iter().collect();
        self.ask(Request::Walk {
            fid: 0,
            newfid: 1,
            names,
        });
        self.ask(Request::Clunk { fid: 0 });
        self.ask(Request::Walk {
            fid: 1,
            newfid: 0,
            names: Default::default(),
        });
    }

    /// Commits one file in a transaction; fid 0 is the branch.
    pub fn commit_one(&mut self, transaction: &str, content: &str) {
        let in_it = |path: &str| format!("transactions/{transaction}/{path}");
        let walk = |newfid, path: &str| Request::Walk {
            fid: 0,
            newfid,
            names: path.split('/').collect(),
        };
        self.ask(walk(20, "transactions"));
        self.ask(Request::Mkdir {
            dfid: 20,
            name: transaction.to_owned().into(),
            mode: 0o755,
            gid: 0,
        });
        self.ask(walk(21, &in_it("rw/file")));
        let truncated = flags::TRUNC | flags::RDWR;
        self.ask(Request::Lopen {
            fid: 21,
            flags: truncated,
        });
        let put = |fid, content: &str| Request::Write {
            fid,
            offset: 0,
            data: Data(Bytes::copy_from_slice(content.as_bytes())),
        };
        self.ask(put(21, content));
        self.ask(Request::Clunk { fid: 21 });
        self.ask(walk(22, &in_it("ctl")));
        self.ask(Request::Lopen {
            fid: 22,
            flags: flags::RDWR,
        });
        self.ask(put(22, "commit"));
        for fid in [20, 22] {
            self.ask(Request::Clunk { fid });
        }
    }
}

/// A dk that serves a store.
pub struct Serving {
    child: Child,
    tcp: String,
    socket: PathBuf,
    _store: Store,
}

impl Serving {
    pub fn start(place: &Place, store: Store) -> Self {
        Self::start_with(place, store, &[])
    }

    pub fn start_with(place: &Place, store: Store, options: &[&str]) -> Self {
        let socket = place.folder().join("socket");
        let mut child = place
            .dk(store.path(), options)
            .args(["serve", "--listen", "tcp://127.0.0.1:0", "--listen"])
            .arg(format!("unix://{}", socket.display()))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut tcp = None;
        for _ in 0..2 {
            let line = said.next().expect("a line for each listener").unwrap();
            let (_, at) = line.split_once(" at ").unwrap();
            tcp = at.strip_prefix("tcp://").map(str::to_owned).or(tcp);
        }
        std::thread::spawn(move || said.for_each(drop));
        Self {
            child,
            tcp: tcp.unwrap(),
            socket,
            _store: store,
        }
    }

    pub fn connect(&self, wire: Wire) -> Client {
        Client::new(match wire {
            Wire::Unix => Stream::Unix(UnixStream::connect(&self.socket).unwrap()),
            Wire::Tcp => tcp(&self.tcp),
        })
    }

    /// Its address and port.
    pub fn tcp(&self) -> &str {
        &self.tcp
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its memory in MiB, what it shares with others left out. `None` where
    /// the system does not tell.
    pub fn memory(&self) -> Option<f64> {
        let status = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(status).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"))?;
        let kibibytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kibibytes / 1024.0)
    }

    /// The processor time it has had.
    pub fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let ticks = |field: &str| field.parse::<u64>().unwrap();
        let mut fields = fields.split(' ').skip(11);
        let spent = ticks(fields.next().unwrap()) + ticks(fields.next().unwrap());
        Duration::from_millis(spent * 10)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// diod, which serves a folder.
pub struct Diod {
    child: Child,
    pub tcp: String,
    socket: PathBuf,
    pub folder: String,
}

impl Diod {
    /// Returns it, or why it cannot be had.
    pub fn start(place: &Place, folder: &Path) -> Result<Self, &'static str> {
        let socket = place.folder().join("diod");
        // Free for a moment, at least.
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp = free.local_addr().unwrap().to_string();
        drop(free);
        let program = ["/usr/sbin/diod", "/usr/bin/diod"];
        let program = program.into_iter().find(|path| Path::new(path).exists());
        let program = program.ok_or("no diod (apt-get install diod)")?;
        let child = place
            .program(program)
            .args(["-f", "-n", "-c", "/dev/null", "-l", &tcp, "-l"])
            .arg(&socket)
            .arg("-e")
            .arg(folder)
            .stderr(Stdio::null())
            .spawn()
            .map_err(|_| "diod does not start")?;
        let limit = Instant::now() + Duration::from_secs(5);
        while !socket.exists() || TcpStream::connect(&tcp).is_err() {
            if Instant::now() > limit {
                return Err("diod does not listen");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(Self {
            child,
            tcp,
            socket,
            folder: folder.to_str().unwrap().to_owned(),
        })
    }

    pub fn connect(&self, wire: Wire) -> Client {
        Client::new(match wire {
            Wire::Unix => Stream::Unix(UnixStream::connect(&self.socket).unwrap()),
            Wire::Tcp => tcp(&self.tcp),
        })
    }
}

impl Drop for Diod {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What both wires are measured by: 64 bytes there and back over TCP, between two
/// threads that block.
pub const LOOPBACK: &str = "bare loopback";

/// The bare wire: a thread that sends back what it is sent.
pub struct Echo(Stream);

pub fn echo(wire: Wire) -> Echo {
    echo_of(wire, None)
}

/// One whose copies are of what is read from a file.
pub fn echo_of(wire: Wire, file: Option<File>) -> Echo {
    let (near, mut far) = match wire {
        Wire::Unix => {
            let (near, far) = UnixStream::pair().unwrap();
            (Stream::Unix(near), Stream::Unix(far))
        }
        Wire::Tcp => {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let near = tcp(&listener.local_addr().unwrap().to_string());
            let (far, _) = listener.accept().unwrap();
            far.set_nodelay(true).unwrap();
            (near, Stream::Tcp(far))
        }
    };
    std::thread::spawn(move || {
        let mut message = [0; 64];
        while far.read_exact(&mut message).is_ok() {
            // The first byte of a copy says how much is to come.
            if message[0] == 1 {
                let mebibytes = u64::from_le_bytes(message[8..16].try_into().unwrap()) >> 20;
                let mut piece = vec![7; 1 << 20];
                for number in 0..mebibytes {
                    if let Some(file) = &file {
                        file.read_exact_at(&mut piece, number << 20).unwrap();
                    }
                    far.write_all(&piece).unwrap();
                }
            } else if far.write_all(&message).is_err() {
                return;
            }
        }
    });
    Echo(near)
}

/// The same by tokio, as dk serve is: what the runtime itself takes for a turn.
pub fn echo_by_tokio(wire: Wire) -> Echo {
    async fn answer(mut far: impl AsyncRead + AsyncWrite + Unpin) {
        let mut message = [0; 64];
        while far.read_exact(&mut message).await.is_ok() && far.write_all(&message).await.is_ok() {}
    }
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let far = async {
            match wire {
                Wire::Unix => {
                    let (near, far) = UnixStream::pair().unwrap();
                    tell.send(Stream::Unix(near)).unwrap();
                    far.set_nonblocking(true).unwrap();
                    let far = tokio::net::UnixStream::from_std(far).unwrap();
                    tokio::spawn(answer(far)).await.unwrap();
                }
                Wire::Tcp => {
                    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                    let address = listener.local_addr().unwrap().to_string();
                    tell.send(tcp(&address)).unwrap();
                    let (far, _) = listener.accept().await.unwrap();
                    far.set_nodelay(true).unwrap();
                    tokio::spawn(answer(far)).await.unwrap();
                }
            }
        };
        runtime.block_on(far);
    });
    Echo(told.recv().unwrap())
}

impl Echo {
    /// 64 bytes there and back.
    pub fn turn(&mut self) {
        let mut message = [0; 64];
        self.0.write_all(&message).unwrap();
        self.0.read_exact(&mut message).unwrap();
    }

    /// So many bytes one way.
    pub fn copy(&mut self, bytes: usize) -> Duration {
        let mut message = [0; 64];
        message[0] = 1;
        message[8..16].copy_from_slice(&(bytes as u64).to_le_bytes());
        let mut piece = vec![0; 1 << 20];
        let began = Instant::now();
        self.0.write_all(&message).unwrap();
        for _ in 0..bytes >> 20 {
            self.0.read_exact(&mut piece).unwrap();
        }
        began.elapsed()
    }
}
