//! The texts of a durable transaction that can be written: message and parents
//! wait here until they are made durable, author and base are so at once.

use std::sync::{Arc, Weak};

use crate::model::text::write_signature;
use crate::model::{ObjectId, Time, Transaction};
use crate::namespace::control::read_who;
use crate::namespace::failure;
use crate::namespace::files::{Text, lock};
use crate::namespace::node::{Call, Result};
use crate::namespace::snapshots::parse_id;
use crate::store::Store;

use super::Durable;

/// A text of a transaction.
pub struct Line {
    pub durable: Weak<Durable>,
    pub what: What,
}

#[derive(Clone, Copy)]
pub enum What {
    Message,
    Parents,
    Author,
    Base,
}

impl Line {
    fn durable(&self) -> Result<Arc<Durable>> {
        let durable = self.durable.upgrade();
        durable.ok_or_else(|| failure::no_entry("the transaction"))
    }
}

pub fn author_line(transaction: &Transaction) -> Vec<u8> {
    let mut line = Vec::new();
    write_signature(&mut line, &transaction.author);
    line.push(b'\n');
    line
}

#[async_trait::async_trait]
impl Text for Line {
    async fn load(&self, _: &Call) -> Result<Vec<u8>> {
        let durable = self.durable()?;
        let written = match self.what {
            What::Message => lock(&durable.message).clone(),
            What::Parents => lock(&durable.parents).clone(),
            What::Author | What::Base => None,
        };
        if let Some(written) = written {
            return Ok(written);
        }
        let now = durable.now().await?;
        let lines = |ids: &[ObjectId]| ids.iter().map(|id| format!("{id}\n")).collect::<String>();
        Ok(match self.what {
            What::Message => now.message,
            What::Parents => lines(&now.parents).into_bytes(),
            What::Author => author_line(&now),
            What::Base => lines(now.base.as_slice()).into_bytes(),
        })
    }

    async fn save(&self, call: &Call, text: Vec<u8>) -> Result<()> {
        let durable = self.durable()?;
        durable.world.writable()?;
        let line = text.trim_ascii();
        let id = durable.id.clone();
        match self.what {
            What::Message => *lock(&durable.message) = Some(text),
            What::Parents => *lock(&durable.parents) = Some(text),
            // Emptied, to be written anew.
            What::Author | What::Base if line.is_empty() => {}
            What::Author => {
                let author = read_who(line, Time::now());
                let name = move |store: &Arc<Store>| {
                    store.tx_author(&id, &author, Time::now())?;
                    Ok(())
                };
                durable.world.change(call, name).await?;
            }
            What::Base => {
                let base = parse_id(durable.world.store.engine.hash_kind(), line)?;
                let begin = move |store: &Arc<Store>| {
                    store.tx_base(&id, &base, Time::now())?;
                    Ok(())
                };
                durable.world.change(call, begin).await?;
            }
        }
        Ok(())
    }

    async fn sync(&self, call: &Call) -> Result<()> {
        self.durable()?.sync(call).await
    }
}
