//! Token files, the command that makes tokens, and where a gateway listens.

use std::fs;

use dkvs_tests::http::{Connection, Reply, client, get, request, send};
use dkvs_tests::keys::set_mode;
use dkvs_tests::process::Gateway;
use rustix::process::Signal;

use crate::tls::Authority;
use crate::{PROGRAMS, lines, private_file, refusal, token, token_file};

/// Reads a key that is not there, so 404 is for those who may.
async fn read(gateway: &Gateway, token: &str) -> Reply {
    send(client().get(gateway.url("/kv/k")).bearer_auth(token)).await
}

#[tokio::test]
async fn tokens_are_replaced_without_a_stop_and_a_bad_file_changes_nothing() {
    let [old, new] = ["old", "new"].map(|name| token(name, "read", &[]));
    let file = token_file(&[&old]);
    let mut gateway = PROGRAMS.gateway(&["--embedded", "1", "--tokens", file.path()]);
    let mut open = Connection::open(gateway.addr).await;
    for (listed, old_status, new_status) in [
        (&[&old][..], 404, 401),
        (&[&old, &new], 404, 404),
        (&[&new], 401, 404),
    ] {
        fs::write(&file, lines(listed)).unwrap();
        gateway.process.signal(Signal::HUP);
        let said = gateway
            .process
            .stderr_line_with("the token file was read again");
        assert_eq!(said.contains("\"old\""), old_status == 404, "{said}");
        assert_eq!(read(&gateway, &old.token).await.status, old_status);
        assert_eq!(read(&gateway, &new.token).await.status, new_status);
        // On a connection that was there before, too.
        let head = format!(
            "GET /kv/k HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\r\n",
            old.token
        );
        open.send(head).await;
        assert_eq!(open.reply().await.status, old_status);
    }

    fs::write(&file, format!("{}\nold dkvs_secret read\n", old.line)).unwrap();
    gateway.process.signal(Signal::HUP);
    let said = gateway
        .process
        .stderr_line_with("the tokens stay as they were");
    assert!(said.contains(&format!("{}:2: ", file.path())), "{said}");
    assert!(!said.contains("dkvs_secret"), "{said}");
    fs::write(&file, lines(&[&old])).unwrap();
    set_mode(&file, 0o640);
    gateway.process.signal(Signal::HUP);
    let said = gateway
        .process
        .stderr_line_with("the tokens stay as they were");
    assert!(said.contains("chmod 600"), "{said}");
    assert_eq!(read(&gateway, &old.token).await.status, 401);
    assert_eq!(read(&gateway, &new.token).await.status, 404);
}

#[test]
fn a_token_file_that_others_may_read_or_that_is_no_such_is_refused() {
    let known = token("known", "read", &[]);
    let file = token_file(&[&known]);
    for mode in [0o640, 0o604, 0o620, 0o601] {
        set_mode(&file, mode);
        let said = refusal(&["--listen", "127.0.0.1:0", "--tokens", file.path()]);
        let expected = format!("chmod 600 {}", file.path());
        assert!(said.contains(&expected), "{said}");
    }
    for (text, reason) in [
        ("# none\n", "no token is listed"),
        (
            "a dkvs_secret read\n",
            ":1: the second field is not sha256:",
        ),
    ] {
        let file = private_file(text);
        let said = refusal(&["--listen", "127.0.0.1:0", "--tokens", file.path()]);
        assert!(said.contains(reason), "{said}");
        assert!(!said.contains("dkvs_secret"), "{said}");
    }
    let said = refusal(&["--listen", "127.0.0.1:0", "--tokens", "/no/such/file"]);
    assert!(said.contains("cannot read /no/such/file"), "{said}");
}

#[tokio::test]
async fn the_line_that_comes_with_a_new_token_lets_it_in() {
    let mut command = PROGRAMS.gateway_command();
    command.args(["token", "--name", "shop", "--scope", "read,write"]);
    command.args(["--prefix", "k", "--prefix", "with space"]);
    // What is set for the gateway does not matter to the command.
    command.env("DKVS_LISTEN", "127.0.0.1:1");
    let (status, out, err) = PROGRAMS.run_to_end(command);
    assert!(status.success(), "{err}");
    let [token, line] = out.lines().collect::<Vec<_>>()[..] else {
        panic!("a token and a line: {out}");
    };
    assert!(
        err.contains("--tokens FILE") && err.contains("SIGHUP"),
        "{err}"
    );
    assert!(!err.contains(token), "{err}");
    assert!(!line.contains(token), "{line}");
    let file = private_file(line);
    let gateway = PROGRAMS.gateway(&["--embedded", "1", "--tokens", file.path()]);
    assert_eq!(read(&gateway, token).await.status, 404);
    let url = gateway.url("/kv/with%20space");
    let put = client().put(url).bearer_auth(token).body("v");
    assert_eq!(send(put).await.status, 200);
    let other = client().get(gateway.url("/kv/other"));
    assert_eq!(send(other.bearer_auth(token)).await.status, 403);
}

#[tokio::test]
async fn beyond_loopback_callers_have_to_say_who_they_are() {
    let known = token("known", "read", &[]);
    let tokens = token_file(&[&known]);
    let authority = Authority::new();
    let server = authority.server();
    let everywhere = ["--embedded", "1", "--listen", "0.0.0.0:0"];
    for arguments in [&[][..], &server.arguments()] {
        let said = refusal(&[&everywhere, arguments].concat());
        for flag in ["--tokens", "--tls-client-ca", "--insecure"] {
            assert!(said.contains(flag), "{flag}: {said}");
        }
    }
    let start = |arguments: &[&str]| {
        let mut command = PROGRAMS.gateway_command();
        command.args(everywhere).args(arguments);
        Gateway::of(command)
    };
    let mut gateway = start(&["--tokens", tokens.path()]);
    gateway.process.stderr_line_with("travel unencrypted");
    let url = format!("http://127.0.0.1:{}/kv/k", gateway.addr.port());
    assert_eq!(get(&client(), url).await.status, 401);

    let clients = [
        &server.arguments()[..],
        &["--tls-client-ca", authority.path()],
    ];
    let gateway = start(&clients.concat());
    let addr = (std::net::Ipv4Addr::LOCALHOST, gateway.addr.port()).into();
    let mut connection = authority.client().open(addr).await.expect("a connection");
    connection.send(request("GET", "/livez", None)).await;
    assert_eq!(connection.reply().await.status, 200);
}

#[test]
fn the_greeting_says_how_to_talk_to_a_gateway_with_tokens_and_tls() {
    let known = token("known", "read", &[]);
    let tokens = token_file(&[&known]);
    let authority = Authority::new();
    let server = authority.server();
    let arguments = ["--embedded", "1", "--tokens", tokens.path()];
    let mut gateway = PROGRAMS.gateway(&[&arguments, &server.arguments()[..]].concat());
    let command = gateway.process.stdout_line_with("/servers'");
    let expected = format!(
        "curl -H 'Authorization: Bearer TOKEN' 'https://{}/servers'",
        gateway.addr
    );
    assert_eq!(command.trim(), expected);
}
