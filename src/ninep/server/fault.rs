//! A failed request, as it is told in each dialect.

use std::borrow::Cow;

use crate::model::failure::Failure;
use crate::model::text::write_failure;
use crate::namespace::node;
use crate::ninep::errno::*;
use crate::ninep::message::{Dialect, Reply};
use crate::ninep::wire::Text;
use crate::ninep::{kind, number, number_of, text};

/// No text of an error is longer; it may hold a name a client sent.
const TEXT: usize = 1024;

/// Why a request fails.
#[derive(Clone, Debug)]
pub struct Fault {
    pub errno: u32,
    /// For dialects that have a text.
    pub text: Cow<'static, str>,
    /// For ours. `None`: of what number and text say.
    failure: Option<Box<Failure>>,
}

impl Fault {
    pub fn new(errno: u32, text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            errno,
            text: text.into(),
            failure: None,
        }
    }

    pub fn unknown_fid(fid: u32) -> Self {
        Self::new(EBADF, format!("Unknown fid {}", fid.cast_signed()))
    }

    pub fn unsupported() -> Self {
        Self::new(EOPNOTSUPP, text(kind(EOPNOTSUPP)))
    }

    pub fn interrupted() -> Self {
        Self::new(EINTR, text(kind(EINTR)))
    }

    pub fn too_long() -> Self {
        Self::new(EMSGSIZE, rs9p::errstr::EMSGSIZE)
    }

    /// Returns the answer that says so, within `msize`.
    pub fn reply(&self, dialect: Dialect, msize: u32) -> Reply {
        match dialect {
            Dialect::Plain | Dialect::Unix => Reply::Error {
                text: cut(&self.text).as_bytes().into(),
                errno: Some(self.errno),
            },
            Dialect::Linux => Reply::Lerror {
                errno: self.errno,
                failure: None,
            },
            Dialect::Dk => Reply::Lerror {
                errno: self.errno,
                failure: Some(self.in_full(msize)),
            },
        }
    }

    fn in_full(&self, msize: u32) -> Text {
        // Size, type, tag, number and the string's length.
        let room = (msize as usize - 13).min(u16::MAX.into());
        match &self.failure {
            Some(failure) => write_failure(failure, room),
            None => write_failure(&Failure::new(kind(self.errno), cut(&self.text)), room),
        }
        .into()
    }
}

fn cut(text: &str) -> &str {
    let end = (0..=TEXT.min(text.len())).rev();
    let end = end.into_iter().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

impl From<node::Error> for Fault {
    fn from(error: node::Error) -> Self {
        let kind = error.kind();
        let known = error.text.as_ref();
        Self {
            errno: known
                .and_then(|text| number_of(text.as_bytes()))
                .unwrap_or_else(|| number(kind)),
            text: error.text.map_or(Cow::Borrowed(text(kind)), Cow::Owned),
            failure: Some(Box::new(error.failure)),
        }
    }
}
