//! Which cryptography everything over TLS uses: said in one place.
//!
//! Without the feature `https` there is none, and nothing to say.

/// Says it once for the process: without, no client and no listener over TLS
/// can be made.
#[cfg(feature = "https")]
pub fn provide() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        // Fails where somebody has said already.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

#[cfg(not(feature = "https"))]
pub fn provide() {}
