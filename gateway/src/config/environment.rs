//! The variables of the environment: settings, and others whose names begin as theirs.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, SocketAddr};

use anyhow::bail;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command, CommandFactory, Parser as _};
use dkvs_runtime::log::{self, filter};

use super::flags::Flags;
use crate::tokens;

/// The prefix of every setting's name.
const OURS: &str = "DKVS_";

/// Where callers may keep their access token. It is no setting of the gateway, and is so close to the
/// name of one that it must hold a token.
const CALLERS_TOKEN: &str = "DKVS_TOKEN";

/// Names and values.
type Variables = [(OsString, OsString)];

/// Parses the command line and the environment, or prints what is wrong and ends the process.
pub(crate) fn flags() -> Flags {
    Flags::try_parse().unwrap_or_else(|error| {
        let variables: Vec<_> = std::env::vars_os().collect();
        let arguments: Vec<_> = std::env::args_os().collect();
        let Some(origin) = origin(&error, &arguments, &variables) else {
            error.exit();
        };
        // The reader may be gone.
        let _ = error.print();
        log::print(&format!("\n  {origin}"));
        log::flush();
        std::process::exit(error.exit_code());
    })
}

/// A sentence that names the variable of a wrong value; none if a flag has the value.
fn origin(error: &clap::Error, arguments: &[OsString], variables: &Variables) -> Option<String> {
    let mut command = Flags::command();
    command.build();
    let value_of = |arg: &Arg| {
        let mut variables = variables.iter();
        variables.find_map(|(name, value)| (arg.get_env() == Some(name)).then_some(value))
    };
    if error.kind() == ErrorKind::InvalidUtf8 {
        let is_broken = |arg: &&Arg| value_of(arg).is_some_and(|value| value.to_str().is_none());
        let name = command.get_arguments().find(is_broken)?.get_env()?;
        return Some(format!(
            "Look at the environment variable {}.",
            name.display()
        ));
    }
    let Some(ContextValue::String(named)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let arg = command
        .get_arguments()
        .find(|arg| arg.to_string() == *named)?;
    let flag = format!("--{}", arg.get_long()?);
    let is_flag = |argument: &OsString| {
        let after = argument.to_str().and_then(|text| text.strip_prefix(&*flag));
        after.is_some_and(|after| after.is_empty() || after.starts_with('='))
    };
    if arguments.iter().any(is_flag) {
        return None;
    }
    value_of(arg)?;
    let name = arg.get_env()?.display();
    Some(format!(
        "The value is that of the environment variable {name}."
    ))
}

/// Refuses variables that look meant for the gateway and are not known: a misspelt setting must not
/// pass unnoticed. The variables that Kubernetes sets for services pass.
pub(crate) fn check(variables: &Variables) -> anyhow::Result<()> {
    let command: Command = Flags::command();
    let known: Vec<&OsStr> = command.get_arguments().filter_map(Arg::get_env).collect();
    let services = services(variables);
    for (name, value) in variables {
        let is_ours = name.as_encoded_bytes().starts_with(OURS.as_bytes());
        let is_token = || name == CALLERS_TOKEN && tokens::is_token(value);
        if !is_ours
            || known.contains(&name.as_os_str())
            || is_of_service(name, value, &services)
            || is_token()
        {
            continue;
        }
        let names = known
            .iter()
            .filter_map(|name| name.to_str()?.strip_prefix(OURS));
        let tail = name.to_string_lossy()[OURS.len()..].to_uppercase();
        let hint = match filter::nearest(&tail, names) {
            Some(meant) => format!("did you mean {OURS}{meant}?"),
            None => "see --help for the names".to_owned(),
        };
        bail!(
            "the environment sets {}, which the gateway does not know; {hint}",
            name.display()
        );
    }
    Ok(())
}

/// The services that Kubernetes has variables for, by their prefix: those with an address.
fn services(variables: &Variables) -> HashSet<&str> {
    variables
        .iter()
        .filter_map(|(name, value)| {
            let service = name.to_str()?.strip_suffix("_SERVICE_HOST")?;
            is_address(value.to_str()?).then_some(service)
        })
        .collect()
}

/// Whether a variable describes a service: name and value have the form that Kubernetes gives them.
///
/// ```text
///   X_SERVICE_HOST        10.0.0.7
///   X_SERVICE_PORT        8080           X_SERVICE_PORT_HTTP the same
///   X_PORT                tcp://10.0.0.7:8080
///   X_PORT_8080_TCP       tcp://10.0.0.7:8080
///   X_PORT_8080_TCP_PROTO tcp            ..._PORT 8080, ..._ADDR 10.0.0.7
/// ```
fn is_of_service(name: &OsStr, value: &OsStr, services: &HashSet<&str>) -> bool {
    let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else {
        return false;
    };
    services.iter().any(|service| {
        let rest = name
            .strip_prefix(service)
            .and_then(|rest| rest.strip_prefix('_'));
        rest.is_some_and(|rest| describes_service(rest, value))
    })
}

/// The same, with the service's name removed from that of the variable.
fn describes_service(rest: &str, value: &str) -> bool {
    match rest {
        "SERVICE_HOST" => is_address(value),
        "SERVICE_PORT" => is_port(value),
        "PORT" => is_url(value),
        _ => {
            if let Some(port_name) = rest.strip_prefix("SERVICE_PORT_") {
                return !port_name.is_empty() && is_port(value);
            }
            let mut parts = rest.split('_');
            let (Some("PORT"), Some(port), Some("TCP" | "UDP" | "SCTP")) =
                (parts.next(), parts.next(), parts.next())
            else {
                return false;
            };
            let is_right = match (parts.next(), parts.next()) {
                (None, None) => is_url(value),
                (Some("PROTO"), None) => is_protocol(value),
                (Some("PORT"), None) => is_port(value),
                (Some("ADDR"), None) => is_address(value),
                _ => false,
            };
            is_port(port) && is_right
        }
    }
}

fn is_address(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok_and(|port| port > 0)
}

fn is_protocol(text: &str) -> bool {
    ["tcp", "udp", "sctp"].contains(&text)
}

fn is_url(text: &str) -> bool {
    text.split_once("://").is_some_and(|(protocol, addr)| {
        // An IPv6 address has brackets or, from older releases, none.
        let is_bare = || {
            let parts = addr.rsplit_once(':');
            parts.is_some_and(|(ip, port)| is_address(ip) && is_port(port))
        };
        is_protocol(protocol) && (addr.parse::<SocketAddr>().is_ok() || is_bare())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_all(variables: &[(&str, &str)]) -> anyhow::Result<()> {
        let owned = variables
            .iter()
            .map(|(name, value)| (name.into(), value.into()));
        check(&owned.collect::<Vec<_>>())
    }

    /// What Kubernetes sets in a container for a service.
    fn variables_of(service: &str) -> Vec<(String, String)> {
        let prefix = service.to_uppercase().replace('-', "_");
        [
            ("SERVICE_HOST", "10.96.0.7"),
            ("SERVICE_PORT", "8080"),
            ("SERVICE_PORT_HTTP_2", "8080"),
            ("PORT", "tcp://10.96.0.7:8080"),
            ("PORT_8080_TCP", "tcp://10.96.0.7:8080"),
            ("PORT_8080_TCP_PROTO", "tcp"),
            ("PORT_8080_TCP_PORT", "8080"),
            ("PORT_8080_TCP_ADDR", "10.96.0.7"),
            ("PORT_4000_UDP", "udp://[fd00::7]:4000"),
            ("PORT_4000_UDP_PROTO", "udp"),
            ("PORT_4000_UDP_PORT", "4000"),
            ("PORT_4000_UDP_ADDR", "fd00::7"),
        ]
        .map(|(name, value)| (format!("{prefix}_{name}"), value.to_owned()))
        .to_vec()
    }

    #[test]
    fn what_kubernetes_tells_of_services_is_let_pass() {
        for service in [
            "dkvs",
            "dkvs-gateway",
            "dkvs-listen",
            "dkvs-listen-port",
            "dkvs-port",
        ] {
            let variables = variables_of(service);
            let variables: Vec<_> = variables
                .iter()
                .map(|(name, value)| (&**name, &**value))
                .collect();
            assert!(
                check_all(&variables).is_ok(),
                "{service}: {:?}",
                check_all(&variables)
            );
            let misspelt = [&variables[..], &[("DKVS_LISTENN", "127.0.0.1:0")]].concat();
            let refusal = check_all(&misspelt).unwrap_err().to_string();
            assert!(refusal.contains("DKVS_LISTENN"), "{service}: {refusal}");
            // Only together with the address of the service, and only with values like theirs.
            for (name, _) in &variables[1..] {
                assert!(check_all(&[(name, "8080")]).is_err(), "{name} alone");
                let wrong = [variables[0], (name, "127.0.0.1:8080 ")];
                assert!(check_all(&wrong).is_err(), "{name} with another value");
            }
        }
    }

    #[test]
    fn a_callers_token_is_let_pass_and_a_file_of_tokens_under_its_name_is_not() {
        let minted = tokens::mint("a", tokens::Scopes::parse("read").unwrap(), &[]).unwrap();
        assert!(check_all(&[("DKVS_TOKEN", &minted.token)]).is_ok());
        for value in ["", "/etc/dkvs/tokens", "tokens.txt"] {
            let refusal = check_all(&[("DKVS_TOKEN", value)]).unwrap_err();
            let refusal = refusal.to_string();
            assert!(refusal.contains("did you mean DKVS_TOKENS?"), "{refusal}");
        }
    }

    #[test]
    fn no_setting_has_a_name_that_kubernetes_might_set() {
        let command = Flags::command();
        for name in command.get_arguments().filter_map(Arg::get_env) {
            let name = name.to_str().unwrap();
            for (at, _) in name.match_indices('_') {
                let rest = &name[at + 1..];
                let values = ["8080", "10.0.0.7", "tcp", "tcp://10.0.0.7:8080"];
                assert!(
                    !values.iter().any(|value| describes_service(rest, value)),
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn an_unknown_name_is_refused_with_what_was_meant() {
        let known = [
            ("PATH", "/"),
            ("DKVS_LISTEN", ""),
            ("DKVS_MAX_IN_FLIGHT", ""),
            ("NOT_DKVS_X", ""),
        ];
        assert!(check_all(&known).is_ok());
        for (name, meant) in [
            ("DKVS_LISTENN", "did you mean DKVS_LISTEN?"),
            ("DKVS_TOKEN", "did you mean DKVS_TOKENS?"),
            ("DKVS_workers", "did you mean DKVS_WORKERS?"),
            ("DKVS_COLOUR", "see --help"),
            ("DKVS_", "see --help"),
            ("DKVS_SERVICE_HOST", "DKVS_SERVICE_HOST"),
            ("DKVS_PORT", "DKVS_PORT"),
        ] {
            let refusal = check_all(&[("PATH", "/"), (name, "8080")])
                .unwrap_err()
                .to_string();
            assert!(
                refusal.contains(name) && refusal.contains(meant),
                "{refusal}"
            );
        }
    }

    #[test]
    fn a_wrong_value_is_told_with_its_variable_unless_a_flag_has_it() {
        let origin_of = |arguments: &[&str], variables: &[(&str, &str)]| {
            let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
            let error = Flags::try_parse_from(["dkvs-gateway", "--workers", "many"]).unwrap_err();
            let variables = variables
                .iter()
                .map(|(name, value)| (name.into(), value.into()));
            origin(&error, &arguments, &variables.collect::<Vec<_>>())
        };
        let set = [("DKVS_WORKERS", "many")];
        let origin = origin_of(&["dkvs-gateway", "--timeout", "5"], &set);
        assert!(origin.is_some_and(|origin| origin.contains("DKVS_WORKERS")));
        assert_eq!(
            origin_of(&["dkvs-gateway", "--workers", "many"], &set),
            None
        );
        assert_eq!(origin_of(&["dkvs-gateway", "--workers=many"], &set), None);
        assert_eq!(
            origin_of(&["dkvs-gateway"], &[("DKVS_TIMEOUT", "many")]),
            None
        );
    }
}
