//! TLS: its files, and the workers that follow their changes.
//!
//! rustls checks the certificates, with ring's cryptography. It tells no server that its own
//! certificates are out of date, so they are verified here as a client would. Inside TLS there is
//! HTTP/1.1 only.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail, ensure};
use dkvs_runtime::key_file;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{CertificateError, Error, RootCertStore, ServerConfig};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// Where the files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// The gateway's certificate and those between it and its root, in this order.
    pub certificates: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The roots of clients' certificates; if none, clients need no certificate.
    pub client_roots: Option<PathBuf>,
}

/// The files in use, and what follows their changes.
pub struct TlsFiles {
    paths: Paths,
    config: watch::Sender<Arc<ServerConfig>>,
}

impl TlsFiles {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// If a file is missing or wrong, or others than its owner may read or write the key.
    pub fn open(paths: &Paths) -> anyhow::Result<Self> {
        Ok(Self {
            paths: paths.clone(),
            config: watch::Sender::new(Arc::new(load(paths)?)),
        })
    }

    /// The configuration as it changes.
    pub fn subscribe(&self) -> Tls {
        Tls(self.config.subscribe())
    }

    /// Reads the files again. If any is refused, nothing changes. Open connections stay as they are.
    pub fn reload(&self) {
        match load(&self.paths) {
            Ok(config) => {
                self.config.send_replace(Arc::new(config));
                tracing::info!("SIGHUP: the TLS files were read again");
            }
            Err(error) => {
                tracing::error!("SIGHUP: the TLS certificate and key stay as they were: {error:#}");
            }
        }
    }
}

/// How a worker speaks TLS.
#[derive(Clone)]
pub struct Tls(watch::Receiver<Arc<ServerConfig>>);

impl Tls {
    /// An acceptor with the present configuration.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.0.borrow()))
    }
}

fn load(paths: &Paths) -> anyhow::Result<ServerConfig> {
    let certificates = certificates(&paths.certificates)?;
    refuse_out_of_date(&certificates, &paths.certificates)?;
    let key = private_key(&paths.key)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let config = match &paths.client_roots {
        None => config.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for root in self::certificates(path)? {
                let added = roots.add(root);
                added.with_context(|| format!("{} has no valid roots", path.display()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            config.with_client_cert_verifier(verifier.build()?)
        }
    };
    let config = config.with_single_cert(certificates, key);
    let mut config = config.with_context(|| {
        let (certificates, key) = (paths.certificates.display(), paths.key.display());
        format!("the certificate in {certificates} and the key in {key} cannot be used together")
    })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let name = path.display();
    let text = fs::read(path).with_context(|| format!("cannot read {name}"))?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|_| anyhow!("{name} is damaged: certificates are expected in it, as PEM"))?;
    ensure!(
        !certificates.is_empty(),
        "{name} has no certificate; PEM is expected, with lines BEGIN CERTIFICATE"
    );
    Ok(certificates)
}

/// Refuses a certificate of the gateway that has expired or is not valid yet: every client would
/// refuse it. Clients may not need those behind it, so for them there is a warning.
fn refuse_out_of_date(certificates: &[CertificateDer<'_>], path: &Path) -> anyhow::Result<()> {
    let (name, now) = (path.display(), UnixTime::now());
    for (number, certificate) in (1..).zip(certificates) {
        match out_of_date(certificate, now) {
            Some(what) if number == 1 => bail!(
                "certificate 1 in {name} {what}: no client would go on with it; put another there, \
                 or set the clock if it is wrong"
            ),
            Some(what) => tracing::warn!(
                "certificate {number} in {name} {what}: clients that need it would not go on"
            ),
            None => {}
        }
    }
    Ok(())
}

/// The text that a certificate has expired, or is not valid yet, and by how much.
fn out_of_date(certificate: &CertificateDer<'_>, now: UnixTime) -> Option<String> {
    let days = |from: UnixTime, to: UnixTime| {
        let seconds = to.as_secs().saturating_sub(from.as_secs());
        seconds.div_ceil(24 * 60 * 60)
    };
    match validity_error(certificate, now)? {
        CertificateError::ExpiredContext { not_after, .. } => {
            let since = days(not_after, now);
            Some(format!("has expired, {since} days ago or less"))
        }
        CertificateError::NotValidYetContext { not_before, .. } => {
            let until = days(now, not_before);
            Some(format!("is not valid yet, for {until} days or less"))
        }
        _ => None,
    }
}

/// The error of a client without roots for a certificate. rustls checks the times first.
fn validity_error(certificate: &CertificateDer<'_>, now: UnixTime) -> Option<CertificateError> {
    let certificate = ParsedCertificate::try_from(certificate).ok()?;
    let roots = RootCertStore::empty();
    let judged = verify_server_cert_signed_by_trust_anchor(&certificate, &roots, &[], now, &[]);
    match judged {
        Err(Error::InvalidCertificate(error)) => Some(error),
        _ => None,
    }
}

fn private_key(path: &Path) -> anyhow::Result<PrivateKeyDer<'static>> {
    let text = key_file::read_private(path, "the private key is in it")?;
    // The cause is left out: it might show a part of the key.
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| {
        anyhow!(
            "{} has no private key that can be read; PEM is expected, not encrypted, with a line \
             BEGIN PRIVATE KEY, BEGIN RSA PRIVATE KEY or BEGIN EC PRIVATE KEY",
            path.display()
        )
    })
}
