//! Who is let in, how, and what browsers may be made to do: real gateways, asked by those who may
//! and those who may not.

mod browsers;
mod embedded;
mod files;
mod operations;
mod tls;

use dkvs_gateway::tokens::{Minted, Scopes, mint};
use dkvs_tests::keys::set_mode;
use dkvs_tests::process::{Programs, ServersFile};
use dkvs_tests::programs;

const PROGRAMS: Programs = programs!();

/// A new token with these scopes, for keys with these prefixes.
fn token(name: &str, scopes: &str, prefixes: &[&str]) -> Minted {
    let prefixes: Vec<String> = prefixes.iter().map(ToString::to_string).collect();
    mint(name, Scopes::parse(scopes).unwrap(), &prefixes).unwrap()
}

/// A token file of these, which only its owner may read.
fn token_file(tokens: &[&Minted]) -> ServersFile {
    private_file(lines(tokens))
}

fn lines(tokens: &[&Minted]) -> String {
    tokens
        .iter()
        .map(|token| token.line.clone() + "\n")
        .collect()
}

/// A file that only its owner may read.
fn private_file(text: impl AsRef<[u8]>) -> ServersFile {
    let file = ServersFile::with_text(text);
    set_mode(&file, 0o600);
    file
}

/// Runs a gateway that should not start; what it said.
fn refusal(arguments: &[&str]) -> String {
    let mut command = PROGRAMS.gateway_command();
    command.args(arguments);
    let (status, _, said) = PROGRAMS.run_to_end(command);
    assert!(!status.success(), "{said}");
    said
}
