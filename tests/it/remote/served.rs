//! A server in this process.

use std::sync::{Arc, Mutex};

use datakit::client::local::Local;
use datakit::client::remote::{Options, Remote};
use datakit::model::HashKind;
use datakit::namespace::Namespace;
use datakit::ninep::server::{Limits, Server};
use datakit::ninep::transport::{Endpoint, Listener};
use datakit::store::Store;
use datakit::store::engine::Engine;
use datakit::store::memory::Memory;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::task::JoinSet;

/// A store, and who serves it; ends with this.
pub struct Served {
    engine: Arc<dyn Engine>,
    server: Arc<Server>,
    tasks: Mutex<JoinSet<()>>,
}

impl Served {
    pub fn new(engine: Arc<dyn Engine>) -> Arc<Self> {
        let store = Arc::new(Store::new(engine.clone()));
        let tree = Namespace::new(store, Default::default());
        Arc::new(Self {
            engine,
            server: Arc::new(Server::new(Arc::new(tree), Limits::default())),
            tasks: Mutex::default(),
        })
    }

    pub fn memory() -> Arc<Self> {
        Self::new(Arc::new(Memory::new(HashKind::Sha1)))
    }

    /// Returns a client of the same store without a server.
    pub fn local(&self) -> Local {
        Local::new(self.engine.clone(), "local".into())
    }

    fn serve<S>(&self, stream: S, peer: &'static str)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let server = self.server.clone();
        self.tasks.lock().unwrap().spawn(async move {
            // A test that cuts a connection sees what that does at its own end.
            let _ = server.serve(stream, peer, std::future::pending()).await;
        });
    }

    /// Returns the client's end of a new connection.
    pub fn connect(&self) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(256 << 10);
        self.serve(theirs, "test");
        ours
    }

    /// Listens at an endpoint; returns its URL.
    pub async fn listen(self: &Arc<Self>, endpoint: &str) -> String {
        let endpoint: Endpoint = endpoint.parse().unwrap();
        let listener = Listener::bind(&endpoint).await.unwrap();
        let url = listener.endpoint().to_string();
        let served = Arc::downgrade(self);
        self.tasks.lock().unwrap().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Some(served) = served.upgrade() else {
                    return;
                };
                served.serve(stream, "test socket");
            }
        });
        url
    }

    /// Returns a client over memory.
    pub async fn remote(self: &Arc<Self>) -> Remote {
        let served = self.clone();
        let dial = move || {
            let stream = served.connect();
            async move { Ok(stream) }
        };
        Remote::over("test:".into(), dial, Options::default())
            .await
            .unwrap()
    }
}
