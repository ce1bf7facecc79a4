//! The files that settings name and SIGHUP reads again.

use std::convert::Infallible;
use std::future::Future;

use dkvs_runtime::key_file::KeyFile;
use dkvs_runtime::signals::Hangups;

use crate::config::Config;
use crate::tls::TlsFiles;
use crate::tokens::TokenFile;

/// Those files, each if a setting names it.
pub(super) struct Files {
    pub(super) keys: Option<KeyFile>,
    pub(super) tokens: Option<TokenFile>,
    pub(super) tls: Option<TlsFiles>,
}

impl Files {
    pub(super) fn open(config: &Config) -> anyhow::Result<Self> {
        Ok(Self {
            keys: config.key_file.as_deref().map(KeyFile::open).transpose()?,
            tokens: config.tokens.as_deref().map(TokenFile::open).transpose()?,
            tls: config.tls.as_ref().map(TlsFiles::open).transpose()?,
        })
    }

    /// Reads them again on every SIGHUP, from now on if there are any. Needs a runtime with I/O.
    pub(super) fn reloads(&self) -> std::io::Result<impl Future<Output = Infallible>> {
        let any = self.keys.is_some() || self.tokens.is_some() || self.tls.is_some();
        let hangups = any.then(Hangups::new).transpose()?;
        Ok(async move {
            let Some(mut hangups) = hangups else {
                return std::future::pending().await;
            };
            loop {
                hangups.next().await;
                self.keys.as_ref().inspect(|file| file.reload());
                self.tokens.as_ref().inspect(|file| file.reload());
                self.tls.as_ref().inspect(|files| files.reload());
            }
        })
    }
}
