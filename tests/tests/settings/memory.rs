//! The most memory that a gateway takes, as `--check-config` says, against the limits that units and
//! manifests set.

use std::process::Command;

use dkvs_tests::process::ServersFile;
use serde_norway::Value;

use crate::PROGRAMS;

const KUBERNETES: &str = include_str!("../../../packaging/kubernetes/3-gateways.yaml");
const COMPOSE: &str = include_str!("../../../packaging/compose/compose.yaml");
const UNIT: &str = include_str!("../../../packaging/systemd/dkvs-gateway.service");
const UNIT_SETTINGS: &str = include_str!("../../../packaging/systemd/gateway.env");

/// The servers of the compose file and the manifests.
const SERVERS: &str = "10.0.0.1 4000 64\n10.0.0.2 4000 64\n10.0.0.3 4000 64\n10.0.0.4 4000 64\n\
    10.0.0.5 4000 64\n";

/// The sum in mebibytes that a gateway with these variables names. Files that they name are not here.
fn sum(variables: &[(String, String)]) -> u64 {
    let servers = ServersFile::with_text(SERVERS);
    let mut command = PROGRAMS.gateway_command();
    command.args(["--check-config", "--insecure", "--servers", servers.path()]);
    for (name, value) in variables {
        if !["DKVS_SERVERS", "DKVS_KEY_FILE", "DKVS_TOKENS"].contains(&&**name) {
            command.env(name, value);
        }
    }
    said_sum(command)
}

fn said_sum(command: Command) -> u64 {
    let (status, out, err) = PROGRAMS.run_to_end(command);
    assert!(status.success(), "{err}");
    let (_, sum) = out.split_once("memory at most ").expect("a sum");
    let (sum, parts) = sum.split_once(" MiB:\n").expect("in mebibytes");
    let sum: u64 = sum.parse().expect("a number");
    let part = |line: &str| line.split_whitespace().next()?.parse::<u64>().ok();
    let parts: Vec<u64> = parts.lines().map_while(part).collect();
    assert!(parts.len() > 6, "{out}");
    // Each is rounded up.
    let of_parts = parts.iter().sum::<u64>();
    assert!(
        sum <= of_parts && of_parts < sum + parts.len() as u64,
        "{out}"
    );
    sum
}

fn is_within(what: &str, sum: u64, limit: u64) {
    assert!(
        sum <= limit,
        "{what}: {sum} MiB at most, and {limit} MiB are allowed"
    );
    assert!(
        sum * 10 > limit * 9,
        "{what}: {limit} MiB for {sum} MiB is a waste"
    );
}

#[test]
fn the_manifests_allow_what_a_gateway_takes_at_most() {
    let documents = KUBERNETES.split("\n---\n");
    let mut documents = documents.map(|it| serde_norway::from_str::<Value>(it).expect("YAML"));
    let deployment = documents.find(|it| it["kind"] == "Deployment");
    let deployment = deployment.expect("a deployment");
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let variables = container["env"].as_sequence().expect("variables");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let variables: Vec<_> = variables
        .iter()
        .map(|it| (text(&it["name"]), text(&it["value"])))
        .collect();
    let limit = text(&container["resources"]["limits"]["memory"]);
    let limit: u64 = limit
        .strip_suffix("Gi")
        .expect("GiB")
        .parse()
        .expect("a number");
    is_within("Kubernetes", sum(&variables), limit << 10);
    // Probes ask the listener that is for them.
    let (_, admin) = variables
        .iter()
        .find(|(name, _)| name == "DKVS_ADMIN_LISTEN")
        .expect("a listener");
    let ports = container["ports"].as_sequence().expect("ports");
    let port = ports
        .iter()
        .find(|it| it["name"] == "admin")
        .expect("its port");
    assert!(admin.ends_with(&format!(
        ":{}",
        port["containerPort"].as_u64().expect("a number")
    )));
    for probe in ["livenessProbe", "readinessProbe"] {
        assert_eq!(container[probe]["httpGet"]["port"], "admin");
    }
}

#[test]
fn the_compose_file_allows_what_a_gateway_takes_at_most() {
    let compose: Value = serde_norway::from_str(COMPOSE).expect("YAML");
    let gateway = &compose["x-gateway"];
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let variables = gateway["environment"].as_mapping().expect("variables");
    let variables: Vec<_> = variables
        .iter()
        .map(|(name, value)| (text(name), text(value)))
        .collect();
    assert_eq!(gateway["mem_limit"], "1g");
    is_within("compose", sum(&variables), 1 << 10);
    let (_, admin) = variables
        .iter()
        .find(|(name, _)| name == "DKVS_ADMIN_LISTEN")
        .expect("a listener");
    let asked = gateway["healthcheck"]["test"]
        .as_sequence()
        .expect("a command");
    assert_eq!(asked.last().and_then(Value::as_str), Some(&**admin));
}

#[test]
fn the_unit_allows_what_a_gateway_takes_at_most() {
    let variables = UNIT_SETTINGS.lines().filter(|line| !line.starts_with('#'));
    let variables = variables.filter_map(|line| line.split_once('='));
    let variables: Vec<_> = variables
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    assert!(UNIT.lines().any(|line| line == "MemoryMax=1G"));
    is_within("the unit", sum(&variables), 1 << 10);
}
