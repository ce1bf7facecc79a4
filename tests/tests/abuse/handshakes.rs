//! Handshakes of TLS, which cost a server far more than its client.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dkvs_tests::http::{Connection, request};
use dkvs_tests::keys::set_mode;
use dkvs_tests::patiently;
use dkvs_tests::process::{ServersFile, own_loopback};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::PROGRAMS;
use crate::attack::alone;

/// A key that takes long to sign with, made for this test.
const RSA_KEY: &str = include_str!("rsa_4096.pem");

/// Connections of the attacker at a time, and how many handshakes they have in all.
const ATTACKERS: usize = 96;
const HANDSHAKES: usize = 400;

/// A caller who behaves has an answer for so many handshakes of others at the most.
const HANDSHAKES_PER_ANSWER_MAX: usize = 10;

/// The files of a gateway, and what its clients trust.
struct Certificate {
    chain: ServersFile,
    key: ServersFile,
    root: CertificateDer<'static>,
}

impl Certificate {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let root = params.self_signed(&key).expect("a root").der().clone();
        let issuer = Issuer::new(params, key);
        let key = KeyPair::from_pem(RSA_KEY).expect("a key");
        let params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("a name");
        let signed = params.signed_by(&key, &issuer).expect("a certificate");
        let (chain, key) = (
            ServersFile::with_text(signed.pem()),
            ServersFile::with_text(RSA_KEY),
        );
        set_mode(&key, 0o600);
        Self { chain, key, root }
    }

    fn client(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).expect("a root");
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        Arc::new(config.with_no_client_auth())
    }
}

async fn open(client: &Arc<ClientConfig>, addr: SocketAddr) -> Connection<TlsStream<TcpStream>> {
    let stream = patiently(TcpStream::connect(addr))
        .await
        .expect("a connection");
    let connector = TlsConnector::from(Arc::clone(client));
    let stream = patiently(connector.connect(ServerName::from(addr.ip()), stream)).await;
    Connection::over(stream.expect("a handshake"))
}

/// Begins handshakes, and ends the connection when the gateway has signed.
async fn insist(from: Ipv4Addr, addr: SocketAddr, hello: Arc<Vec<u8>>, signed: Arc<AtomicUsize>) {
    while signed.load(Ordering::Relaxed) < HANDSHAKES {
        let mut connection = Connection::open_from(from, addr).await;
        connection.send(&*hello).await;
        let is_signed = !connection.first_bytes(1_000).await.is_empty();
        signed.fetch_add(usize::from(is_signed), Ordering::Relaxed);
    }
}

#[tokio::test]
async fn an_address_that_shakes_hands_again_and_again_does_not_take_the_time_of_others() {
    let _alone = alone().await;
    let certificate = Certificate::new();
    let gateway = PROGRAMS.gateway(&[
        "--embedded",
        "1",
        "--workers",
        "1",
        "--tls-cert",
        certificate.chain.path(),
        "--tls-key",
        certificate.key.path(),
    ]);
    let (addr, client) = (gateway.addr, certificate.client());
    let mut hello = Vec::new();
    ClientConnection::new(Arc::clone(&client), ServerName::from(addr.ip()))
        .expect("a client")
        .write_tls(&mut hello)
        .expect("a vector takes it");
    let (hello, signed) = (Arc::new(hello), Arc::new(AtomicUsize::new(0)));
    let mut kept = open(&client, addr).await;
    let (from, mut attackers) = (own_loopback(), JoinSet::new());
    for _ in 0..ATTACKERS {
        let (hello, signed) = (Arc::clone(&hello), Arc::clone(&signed));
        attackers.spawn(insist(from, addr, hello, signed));
    }
    let mut answers = 0;
    while signed.load(Ordering::Relaxed) < HANDSHAKES {
        // On a connection that is there, and now and then on one that is new.
        let is_new = answers % 8 == 7;
        let mut new = match is_new {
            true => Some(open(&client, addr).await),
            false => None,
        };
        let connection = new.as_mut().unwrap_or(&mut kept);
        connection.send(request("GET", "/livez", None)).await;
        assert_eq!(connection.reply().await.status, 200);
        answers += 1;
    }
    attackers.join_all().await;
    assert!(
        answers * HANDSHAKES_PER_ANSWER_MAX >= HANDSHAKES,
        "{answers} answers beside {HANDSHAKES} handshakes"
    );
}
