//! TLS, with certificates that are made for each test.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use dkvs_tests::http::{Connection, request};
use dkvs_tests::keys::set_mode;
use dkvs_tests::patiently;
use dkvs_tests::process::ServersFile;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::{PROGRAMS, private_file, refusal};

/// A certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    file: ServersFile,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap();
        Self {
            file: ServersFile::with_text(root.pem()),
            root: root.der().clone(),
            issuer: Issuer::new(params, key),
        }
    }

    /// Where its certificate is.
    pub fn path(&self) -> &str {
        self.file.path()
    }

    /// A certificate for someone, and its key, in PEM.
    fn sign(&self, names: &[&str]) -> (String, String) {
        self.sign_for_years(names, 2000..4000)
    }

    /// The same, good for some years.
    fn sign_for_years(&self, names: &[&str], years: Range<i32>) -> (String, String) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = date_time_ymd(years.start, 1, 1);
        params.not_after = date_time_ymd(years.end, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// The files of a gateway with a certificate of it.
    pub fn server(&self) -> ServerFiles {
        let (certificate, key) = self.sign(&["localhost", "127.0.0.1"]);
        ServerFiles {
            certificate: ServersFile::with_text(certificate),
            key: private_file(key),
        }
    }

    /// A client that trusts it and has a certificate of it.
    pub fn client(&self) -> Client {
        self.client_of(self)
    }

    /// A client that trusts it and has a certificate of another.
    fn client_of(&self, other: &Self) -> Client {
        let (certificate, key) = other.sign(&["client"]);
        self.client_with(Some((certificate, key)), &[b"http/1.1"])
    }

    /// A client that trusts it and has no certificate.
    fn client_without_certificate(&self) -> Client {
        self.client_with(None, &[b"h2", b"http/1.1"])
    }

    fn client_with(&self, identity: Option<(String, String)>, protocols: &[&[u8]]) -> Client {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match identity {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                config
                    .with_client_auth_cert(vec![certificate], key)
                    .unwrap()
            }
        };
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Client(TlsConnector::from(Arc::new(config)))
    }
}

/// What a gateway needs to speak TLS.
pub struct ServerFiles {
    certificate: ServersFile,
    key: ServersFile,
}

impl ServerFiles {
    pub fn arguments(&self) -> [&str; 4] {
        [
            "--tls-cert",
            self.certificate.path(),
            "--tls-key",
            self.key.path(),
        ]
    }

    /// Puts others in their place.
    fn replace_by(&self, authority: &Authority) {
        self.replace_during(authority, 2000..4000);
    }

    /// The same, good for some years.
    fn replace_during(&self, authority: &Authority, years: Range<i32>) {
        let (certificate, key) = authority.sign_for_years(&["127.0.0.1"], years);
        fs::write(&self.certificate, certificate).unwrap();
        fs::write(&self.key, key).unwrap();
    }
}

/// Who speaks TLS to a gateway.
pub struct Client(TlsConnector);

impl Client {
    /// A connection after the handshake, as far as the client's part of it goes.
    pub async fn open(&self, addr: SocketAddr) -> io::Result<Connection<TlsStream<TcpStream>>> {
        Ok(Connection::over(self.stream(addr).await?))
    }

    async fn stream(&self, addr: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
        let stream = patiently(TcpStream::connect(addr)).await?;
        let name = ServerName::from(addr.ip());
        patiently(self.0.connect(name, stream)).await
    }

    /// Whether a gateway answers.
    async fn is_let_in(&self, addr: SocketAddr) -> bool {
        // A client has done its part before the server has judged its certificate.
        let Ok(mut connection) = self.open(addr).await else {
            return false;
        };
        connection.send(request("GET", "/livez", None)).await;
        let answer = connection.first_bytes(8).await;
        assert!(answer.is_empty() || answer == b"HTTP/1.1", "{answer:?}");
        !answer.is_empty()
    }
}

#[tokio::test]
async fn requests_are_served_by_tls_and_by_nothing_else() {
    let authority = Authority::new();
    let server = authority.server();
    let gateway = PROGRAMS.gateway(&[&["--embedded", "3"], &server.arguments()[..]].concat());
    assert!(gateway.process.log.join("\n").contains("https://"));
    let client = authority.client_without_certificate();
    let stream = client.stream(gateway.addr).await.unwrap();
    let protocol = stream.get_ref().1.alpn_protocol();
    assert_eq!(protocol, Some(&b"http/1.1"[..]));
    let mut connection = Connection::over(stream);
    // A long one, so that it takes many records in either direction.
    let value = "v".repeat(1 << 20);
    let put = request("PUT", "/kv/k?wait=all", Some(value.as_bytes()));
    connection.send(put).await;
    assert_eq!(connection.reply().await.json["outcome"], "committed");
    for _ in 0..3 {
        connection
            .send(request("GET", "/kv/k?raw=true", None))
            .await;
        assert!(connection.reply().await.body == value.as_bytes());
    }

    let other = Authority::new().client_without_certificate();
    assert!(other.open(gateway.addr).await.is_err(), "it trusts another");
    let only_h2 = authority.client_with(None, &[b"h2"]);
    assert!(only_h2.open(gateway.addr).await.is_err());
    let mut plain = Connection::open(gateway.addr).await;
    plain.send(request("GET", "/livez", None)).await;
    let answer = plain.rest().await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
}

#[tokio::test]
async fn a_connection_ends_with_a_closure_alert_and_may_end_without_the_clients() {
    let authority = Authority::new();
    let server = authority.server();
    let gateway = PROGRAMS.gateway(&[&["--embedded", "1"], &server.arguments()[..]].concat());
    let client = authority.client_without_certificate();
    let last = b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let mut stream = client.stream(gateway.addr).await.unwrap();
    stream.write_all(last).await.unwrap();
    let mut reply = Vec::new();
    // Without the alert, the end of the stream would be an error.
    patiently(stream.read_to_end(&mut reply)).await.unwrap();
    assert!(reply.starts_with(b"HTTP/1.1 200"));

    let mut stream = client.stream(gateway.addr).await.unwrap();
    stream.write_all(last).await.unwrap();
    // The connection itself, without an alert.
    stream.get_mut().0.shutdown().await.unwrap();
    let mut reply = Vec::new();
    let _ = patiently(stream.read_to_end(&mut reply)).await;
    assert!(client.is_let_in(gateway.addr).await);
}

#[tokio::test]
async fn by_tls_browsers_are_told_to_come_by_nothing_else_and_an_origin_has_that_scheme() {
    let authority = Authority::new();
    let server = authority.server();
    let gateway = PROGRAMS.gateway(&[&["--embedded", "1"], &server.arguments()[..]].concat());
    let client = authority.client_without_certificate();
    let mut connection = client.open(gateway.addr).await.unwrap();
    for (target, status) in [
        ("/livez", 200),
        ("/nothing", 404),
        ("https://localhost/livez", 200),
        ("http://localhost/livez", 421),
    ] {
        connection.send(request("GET", target, None)).await;
        let reply = connection.reply().await;
        assert_eq!(reply.status, status, "{target}");
        let transport = reply.header("strict-transport-security");
        assert_eq!(transport, "max-age=31536000", "{target}");
    }
    for (origin, status) in [
        ("https://localhost", 200),
        ("https://localhost:443", 200),
        ("http://localhost", 403),
        ("http://localhost:443", 403),
        ("https://localhost:80", 403),
    ] {
        let head = format!(
            "PUT /kv/k HTTP/1.1\r\nhost: localhost\r\norigin: {origin}\r\ncontent-length: 1\r\n\r\nv"
        );
        connection.send(head).await;
        assert_eq!(connection.reply().await.status, status, "{origin}");
    }
}

#[tokio::test]
async fn with_roots_for_clients_only_those_with_a_certificate_are_let_in() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let server = authority.server();
    let arguments = [
        &server.arguments()[..],
        &["--tls-client-ca", clients.path()],
    ]
    .concat();
    let gateway = PROGRAMS.gateway(&[&["--embedded", "1"], &arguments[..]].concat());
    assert!(authority.client_of(&clients).is_let_in(gateway.addr).await);
    assert!(
        !authority
            .client_without_certificate()
            .is_let_in(gateway.addr)
            .await
    );
    assert!(!authority.client().is_let_in(gateway.addr).await);
}

#[tokio::test]
async fn certificates_are_replaced_without_a_stop_and_bad_ones_change_nothing() {
    let (old, new) = (Authority::new(), Authority::new());
    let server = old.server();
    let clients = ServersFile::with_text(fs::read(old.path()).unwrap());
    let arguments = [
        &server.arguments()[..],
        &["--tls-client-ca", clients.path()],
    ]
    .concat();
    let mut gateway = PROGRAMS.gateway(&[&["--embedded", "1"], &arguments[..]].concat());
    let addr = gateway.addr;
    let mut before = old.client().open(addr).await.unwrap();
    before.send(request("GET", "/livez", None)).await;
    assert_eq!(before.reply().await.status, 200);

    server.replace_by(&new);
    fs::copy(new.path(), &clients).unwrap();
    assert!(
        old.client().is_let_in(addr).await,
        "nobody has asked for it yet"
    );
    gateway.process.signal(Signal::HUP);
    gateway
        .process
        .stderr_line_with("the TLS files were read again");
    assert!(new.client().is_let_in(addr).await);
    assert!(!new.client_of(&old).is_let_in(addr).await);
    assert!(!old.client().is_let_in(addr).await);
    before.send(request("GET", "/livez", None)).await;
    assert_eq!(before.reply().await.status, 200, "it goes on as it was");

    for spoil in [
        |server: &ServerFiles| fs::write(&server.certificate, "no certificate").unwrap(),
        |server: &ServerFiles| fs::write(&server.key, "no key").unwrap(),
        |server: &ServerFiles| server.replace_during(&Authority::new(), 2000..2001),
        |server: &ServerFiles| server.replace_during(&Authority::new(), 3998..3999),
        |server: &ServerFiles| fs::write(&server.key, Authority::new().sign(&["a"]).1).unwrap(),
        |server: &ServerFiles| set_mode(&server.key, 0o640),
    ] {
        server.replace_by(&old);
        spoil(&server);
        gateway.process.signal(Signal::HUP);
        gateway
            .process
            .stderr_line_with("the TLS certificate and key stay as they were");
        assert!(new.client().is_let_in(addr).await);
    }
}

#[test]
fn files_that_cannot_be_used_are_refused_with_the_reason() {
    let authority = Authority::new();
    let server = authority.server();
    let other = authority.server();
    let [_, certificate, _, key] = server.arguments();
    let nothing = private_file("nothing\n");
    let damaged = private_file(fs::read_to_string(key).unwrap().replace('M', "*"));
    let try_with = |certificate: &str, key: &str, more: &[&str]| {
        let arguments = [
            "--listen",
            "127.0.0.1:0",
            "--tls-cert",
            certificate,
            "--tls-key",
            key,
        ];
        refusal(&[&arguments, more].concat())
    };
    for (said, reason) in [
        (try_with("/no/such", key, &[]), "cannot read /no/such"),
        (
            try_with(certificate, "/no/such", &[]),
            "cannot read /no/such",
        ),
        (try_with(nothing.path(), key, &[]), "has no certificate"),
        (
            try_with(certificate, nothing.path(), &[]),
            "has no private key",
        ),
        (try_with(certificate, certificate, &[]), "chmod 600"),
        (
            try_with(certificate, damaged.path(), &[]),
            "has no private key",
        ),
        (
            try_with(certificate, other.key.path(), &[]),
            "cannot be used together",
        ),
        (
            try_with(certificate, key, &["--tls-client-ca", nothing.path()]),
            "has no certificate",
        ),
    ] {
        assert!(said.contains(reason), "{reason}: {said}");
        assert!(!said.contains("MIG"), "no part of the key: {said}");
    }
    set_mode(&server.key, 0o644);
    let said = try_with(certificate, key, &[]);
    assert!(said.contains(&format!("chmod 600 {key}")), "{said}");
    let said = refusal(&["--listen", "127.0.0.1:0", "--tls-cert", certificate]);
    assert!(said.contains("`tls_key`"), "{said}");
}

#[test]
fn certificates_that_no_client_would_take_are_refused_by_every_start_and_check() {
    let authority = Authority::new();
    let files = |leaf: Range<i32>, between: Option<Range<i32>>| {
        let (mut certificate, key) = authority.sign_for_years(&["localhost"], leaf);
        if let Some(years) = between {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.not_before = date_time_ymd(years.start, 1, 1);
            params.not_after = date_time_ymd(years.end, 1, 1);
            let own = KeyPair::generate().unwrap();
            certificate += &params.signed_by(&own, &authority.issuer).unwrap().pem();
        }
        (ServersFile::with_text(certificate), private_file(key))
    };
    let (past, now, future) = (2000..2001, 2000..4000, 3998..3999);
    for (leaf, between, expected) in [
        (past.clone(), None, Some("certificate 1 in")),
        (future.clone(), None, Some("certificate 1 in")),
        (now.clone(), Some(past.clone()), None),
        (now.clone(), Some(future.clone()), None),
        (now.clone(), Some(now.clone()), None),
        (now.clone(), None, None),
    ] {
        let is_past = leaf == past;
        let is_between_wrong = between.as_ref().is_some_and(|it| *it != now);
        let (certificate, key) = files(leaf, between);
        let arguments = ["--tls-cert", certificate.path(), "--tls-key", key.path()];
        let check = [&arguments[..], &["--check-config"]].concat();
        let Some(expected) = expected else {
            let mut command = PROGRAMS.gateway_command();
            command.args(check);
            let (status, _, said) = PROGRAMS.run_to_end(command);
            assert!(status.success(), "{said}");
            assert_eq!(
                said.contains("certificate 2 in"),
                is_between_wrong,
                "{said}"
            );
            continue;
        };
        for said in [
            refusal(&check),
            refusal(&[&["--listen", "127.0.0.1:0"], &arguments[..]].concat()),
        ] {
            assert!(said.contains(expected), "{said}");
            assert!(said.contains(certificate.path()), "{said}");
            let reason = if is_past {
                "has expired"
            } else {
                "is not valid yet"
            };
            assert!(said.contains(reason), "{said}");
        }
    }
}

#[tokio::test]
async fn who_does_not_finish_the_handshake_is_cut_off() {
    let authority = Authority::new();
    let server = authority.server();
    let limits = [
        "--embedded",
        "1",
        "--workers",
        "1",
        "--max-connections",
        "2",
    ];
    let gateway = PROGRAMS.gateway(&[&limits, &server.arguments()[..]].concat());
    let mut silent = Connection::open(gateway.addr).await;
    let mut slow = Connection::open(gateway.addr).await;
    // The beginning of a record, and no more.
    slow.send(b"\x16\x03\x01\x02\x00\x01").await;
    assert_eq!(silent.rest().await, b"");
    assert_eq!(slow.rest().await, b"");
    // While all places are taken by such, they make room.
    let mut silent = Connection::open(gateway.addr).await;
    let _slow = Connection::open(gateway.addr).await;
    for _ in 0..5 {
        let client = authority.client_without_certificate();
        assert!(client.is_let_in(gateway.addr).await);
    }
    assert_eq!(silent.rest().await, b"");
}

#[tokio::test]
async fn a_gateway_that_ends_finishes_its_tls_connections() {
    let authority = Authority::new();
    let server = authority.server();
    let mut gateway = PROGRAMS.gateway(&[&["--embedded", "1"], &server.arguments()[..]].concat());
    let mut idle = authority
        .client_without_certificate()
        .open(gateway.addr)
        .await
        .unwrap();
    idle.send(request("GET", "/livez", None)).await;
    assert_eq!(idle.reply().await.status, 200);
    let (status, _) = gateway.process.end_with(Signal::TERM);
    assert!(status.success());
    assert_eq!(idle.rest().await, b"", "closed in good order");
}
