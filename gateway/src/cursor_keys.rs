//! The secrets by which gateways seal the cursors of lists.
//!
//! Any gateway of a cluster goes on from the cursors of any other, so the secrets are made of what they
//! have in common:
//!
//! * the key file, or what the embedded cluster has in its place: each of its keys opens cursors, and
//!   the first seals them, so that they outlast a rotation;
//! * without: the hashes of all tokens. They are secret, too, and the same at every gateway, but cursors
//!   do not outlast a change of the token file;
//! * without tokens as well: the cluster's servers. Whoever knows them can make such secrets. But then
//!   every caller may list everything, and a cursor holds nothing that its caller may not know.

use dkvs_common::view::ClusterView;
use dkvs_common::wire::v2::envelope::ClusterKey;
use dkvs_common::wire::v2::keys::Keys;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use crate::tokens::Tokens;

/// The id of secrets that come from no key file, where ids begin at 1.
const NO_KEY_ID: u8 = 0;

/// Where the secrets come from.
pub struct CursorKeys {
    cluster: Option<watch::Receiver<Keys>>,
    tokens: Option<watch::Receiver<Tokens>>,
}

/// Two secrets that say nothing of each other, nor of what they are made of.
pub struct CursorSecrets {
    /// To encrypt by.
    pub encryption: [u8; 32],
    /// To make nonces by.
    pub nonces: [u8; 32],
}

impl CursorKeys {
    /// From the cluster's keys, if there are any, else from the tokens, if there are any.
    pub fn new(
        cluster: Option<watch::Receiver<Keys>>,
        tokens: Option<watch::Receiver<Tokens>>,
    ) -> Self {
        Self { cluster, tokens }
    }

    /// The secrets to seal by, and their id.
    pub fn sealing(&self, view: &ClusterView) -> (u8, CursorSecrets) {
        match &self.cluster {
            Some(keys) => {
                let keys = keys.borrow();
                let (id, key) = keys.sending();
                (id, CursorSecrets::of(key))
            }
            None => (NO_KEY_ID, self.without_key_file(view)),
        }
    }

    /// The secrets of this id.
    pub fn opening(&self, view: &ClusterView, id: u8) -> Option<CursorSecrets> {
        match &self.cluster {
            Some(keys) => keys.borrow().find(id).map(CursorSecrets::of),
            None => (id == NO_KEY_ID).then(|| self.without_key_file(view)),
        }
    }

    fn without_key_file(&self, view: &ClusterView) -> CursorSecrets {
        let secret = match &self.tokens {
            Some(tokens) => tokens.borrow().digest(),
            None => {
                let mut names: Vec<&str> = view.servers().map(|it| view.name(it)).collect();
                // Servers files may have them in another order.
                names.sort_unstable();
                Sha256::digest(names.join("\n")).into()
            }
        };
        CursorSecrets::of(&ClusterKey::new(&secret))
    }
}

impl CursorSecrets {
    fn of(key: &ClusterKey) -> Self {
        Self {
            encryption: key.derive(b"dkvs list cursor 2: encryption"),
            nonces: key.derive(b"dkvs list cursor 2: nonces"),
        }
    }
}
