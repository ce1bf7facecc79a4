//! The files in packaging/ against the programs that they run, and against what docs/packaging.md
//! says of them. What takes a service manager or an image to see is for `.ci/packaging`.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use dkvs_tests::keys::{key_file, set_mode};
use dkvs_tests::process::{Programs, ServersFile};
use dkvs_tests::programs;
use serde_norway::Value as Yaml;

const PROGRAMS: Programs = programs!();

fn read(path: &str) -> String {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The objects of a manifest, by kind and name.
fn object(file: &str, kind: &str, name: &str) -> Yaml {
    let text = read(&format!("packaging/kubernetes/{file}"));
    let documents = text.split("\n---\n");
    let mut objects = documents.map(|it| serde_norway::from_str::<Yaml>(it).expect("YAML"));
    let is_meant = |it: &Yaml| it["kind"] == kind && it["metadata"]["name"] == name;
    objects
        .find(is_meant)
        .unwrap_or_else(|| panic!("{kind} {name} in {file}"))
}

fn text(value: &Yaml) -> String {
    value.as_str().expect("a text").to_owned()
}

fn texts(list: &Yaml) -> Vec<String> {
    list.as_sequence()
        .expect("a list")
        .iter()
        .map(text)
        .collect()
}

/// Files as a cluster has them, and where the settings look for each.
struct Files {
    servers: ServersFile,
    keys: ServersFile,
    tokens: ServersFile,
}

impl Files {
    fn new(servers: &str) -> Self {
        let tokens = ServersFile::with_text(format!("me sha256:{} read\n", "0a".repeat(32)));
        set_mode(&tokens, 0o600);
        let servers = ServersFile::with_text(servers);
        let keys = key_file(&[1]);
        Self {
            servers,
            keys,
            tokens,
        }
    }

    /// A setting with these files in place of those that it names.
    fn here(&self, setting: &str) -> String {
        let files = [
            ("servers.txt", &self.servers),
            ("/servers", &self.servers),
            ("keys", &self.keys),
            ("tokens", &self.tokens),
        ];
        let path = setting.rsplit_once('=').map_or(setting, |(_, path)| path);
        match files
            .iter()
            .find(|(name, _)| path.starts_with('/') && path.ends_with(name))
        {
            Some((_, file)) => setting.replace(path, file.path()),
            None => setting.to_owned(),
        }
    }
}

/// Fails unless a program takes the arguments and variables with which it is to be started.
fn assert_taken(files: &Files, command: &[String], variables: &[(String, String)]) {
    let mut run = match &*command[0] {
        "/usr/bin/dkvs-storage-node" => Command::new(PROGRAMS.storage_node),
        "/usr/bin/dkvs-gateway" => PROGRAMS.gateway_command(),
        other => panic!("{other} is no program of ours"),
    };
    run.args(command[1..].iter().map(|argument| files.here(argument)));
    run.envs(
        variables
            .iter()
            .map(|(name, value)| (name, files.here(value))),
    );
    run.arg("--check-config");
    let (status, _, said) = PROGRAMS.run_to_end(run);
    assert!(status.success(), "{command:?} {variables:?}: {said}");
}

#[test]
fn the_programs_take_what_the_manifests_start_them_with() {
    let config = &object("2-servers.yaml", "ConfigMap", "dkvs")["data"];
    let files = Files::new(&text(&config["servers.txt"]));
    let server = &object("2-servers.yaml", "StatefulSet", "dkvs-server")["spec"];
    let command = texts(&server["template"]["spec"]["containers"][0]["command"]);
    let first_start = text(&config["first-start"]);
    for number in 0..server["replicas"].as_u64().expect("a number") {
        for first_start in [&*first_start, "--declare=new"] {
            let command = command.iter().map(|word| {
                word.replace("$(INDEX)", &number.to_string())
                    .replace("$(POD_IP)", "10.244.1.7")
                    .replace("$(FIRST_START)", first_start)
            });
            assert_taken(&files, &command.collect::<Vec<_>>(), &[]);
        }
    }
    let gateway = &object("3-gateways.yaml", "Deployment", "dkvs-gateway")["spec"];
    let container = &gateway["template"]["spec"]["containers"][0];
    let variables = container["env"].as_sequence().expect("variables");
    let variables = variables
        .iter()
        .map(|it| (text(&it["name"]), text(&it["value"])));
    let variables: Vec<_> = variables.collect();
    assert_taken(&files, &texts(&container["command"]), &variables);
    // That it would be noticed.
    let unknown = [("DKVS_SERVER".to_owned(), "x".to_owned())];
    let noticed = std::panic::catch_unwind(|| {
        assert_taken(
            &files,
            &texts(&container["command"]),
            &[&variables[..], &unknown].concat(),
        );
    });
    assert!(noticed.is_err());
}

#[test]
fn the_programs_take_what_compose_starts_them_with() {
    let mut compose: Yaml =
        serde_norway::from_str(&read("packaging/compose/compose.yaml")).unwrap();
    compose.apply_merge().expect("what services share");
    let files = Files::new(&read("packaging/compose/servers.txt"));
    let dockerfile = read("packaging/docker/Dockerfile");
    let by_default = dockerfile
        .lines()
        .find_map(|line| line.strip_prefix("CMD "));
    let by_default: Vec<String> = serde_json::from_str(by_default.expect("a command")).unwrap();
    let mut count = 0;
    for (name, service) in compose["services"].as_mapping().expect("services") {
        let command = match service["command"].is_null() {
            true => by_default.clone(),
            false => texts(&service["command"]),
        };
        let variables: Vec<_> = match service["environment"].as_mapping() {
            Some(variables) => variables
                .iter()
                .map(|(name, value)| (text(name), text(value)))
                .collect(),
            None => Vec::new(),
        };
        for first_start in ["--log=info", "--declare=new"] {
            let command = command
                .iter()
                .map(|word| word.replace("${DKVS_FIRST_START:---log=info}", first_start));
            assert_taken(&files, &command.collect::<Vec<_>>(), &variables);
        }
        assert_eq!(service["read_only"], true, "{name:?}");
        count += 1;
    }
    assert_eq!(count, 7);
}

/// The value of a setting of a unit that has one.
fn of_unit<'a>(unit: &'a str, setting: &str) -> &'a str {
    let mut values = unit
        .lines()
        .filter_map(|line| line.strip_prefix(setting)?.strip_prefix('='));
    let value = values.next().unwrap_or_else(|| panic!("{setting} is set"));
    assert_eq!(values.next(), None, "{setting} is set once");
    value
}

#[test]
fn the_units_do_what_is_written_of_them() {
    let page = read("docs/packaging.md");
    let says = |text: &str| assert!(page.contains(text), "docs/packaging.md: {text}");
    let gateway = read("packaging/systemd/dkvs-gateway.service");
    let server = read("packaging/systemd/dkvs-storage-node@.service");
    says("What fails is started again after a second, servers after five.");
    assert_eq!(of_unit(&gateway, "RestartSec"), "1s");
    assert_eq!(of_unit(&server, "RestartSec"), "5s");
    says("The data directory of a server is `/var/lib/dkvs/PORT`.");
    assert_eq!(of_unit(&server, "StateDirectory"), "dkvs/%i");
    assert!(of_unit(&server, "ExecStart").contains(" --data-dir %S/dkvs/%i "));
    says("`LimitNOFILE=4096` is for 480 workers and 96 servers");
    assert_eq!(of_unit(&server, "LimitNOFILE"), "4096");
    assert_eq!(dkvs_runtime::open_files::wanted_by_server(480, 96), 4_096);
    says("| `keys` |\n| `dkvs-gateway.service`");
    says("| `keys`, `servers.txt` |\n\nSet `ADDRESS`");
    for (unit, files) in [
        (&gateway, &["keys", "servers.txt"][..]),
        (&server, &["keys"]),
    ] {
        let conditions = unit
            .lines()
            .filter_map(|it| it.strip_prefix("ConditionPathExists="));
        let expected = files.iter().map(|file| format!("/etc/dkvs/{file}"));
        let expected: BTreeSet<String> = expected.collect();
        assert_eq!(
            conditions.map(str::to_owned).collect::<BTreeSet<_>>(),
            expected
        );
    }
    says("A file to read that is in `/home` is not seen by the units.");
    for unit in [&gateway, &server] {
        assert_eq!(of_unit(unit, "ProtectHome"), "yes");
        assert_eq!(of_unit(unit, "ExecReload"), "/bin/kill -HUP $MAINPID");
        assert_eq!(of_unit(unit, "User"), "dkvs");
    }
}

#[test]
fn the_manifests_do_what_is_written_of_them() {
    let page = read("docs/packaging.md");
    let says = |text: &str| assert!(page.contains(text), "docs/packaging.md: {text}");
    let servers = &object("2-servers.yaml", "StatefulSet", "dkvs-server")["spec"];
    let gateways = &object("3-gateways.yaml", "Deployment", "dkvs-gateway")["spec"];
    says("each 10 s after the one before was ready");
    assert_eq!(servers["minReadySeconds"], 10);
    assert_eq!(servers["updateStrategy"]["type"], "RollingUpdate");
    says("`maxUnavailable: 1` keeps evictions of nodes to that");
    for (file, name) in [
        ("2-servers.yaml", "dkvs-server"),
        ("3-gateways.yaml", "dkvs-gateway"),
    ] {
        let budget = object(file, "PodDisruptionBudget", name);
        assert_eq!(budget["spec"]["maxUnavailable"], 1);
    }
    says("five servers, two gateways, and who may speak to whom");
    assert_eq!(
        (&servers["replicas"], &gateways["replicas"]),
        (&Yaml::from(5), &Yaml::from(2))
    );
    says("It runs as the user 65532");
    let dockerfile = read("packaging/docker/Dockerfile");
    assert!(dockerfile.contains("\nUSER 65532:65532\n"));
    for pods in [servers, gateways] {
        let pod = &pods["template"]["spec"];
        let context = &pod["securityContext"];
        assert_eq!(context["runAsNonRoot"], true);
        assert_eq!(
            (&context["runAsUser"], &context["fsGroup"]),
            (&Yaml::from(65_532), &Yaml::from(65_532))
        );
        let container = &pod["containers"][0]["securityContext"];
        assert_eq!(container["readOnlyRootFilesystem"], true);
        assert_eq!(container["allowPrivilegeEscalation"], false);
        assert_eq!(texts(&container["capabilities"]["drop"]), ["ALL"]);
    }
    says("The manifests for Kubernetes\nhave it at ten seconds");
    let container = &gateways["template"]["spec"]["containers"][0];
    let variables = container["env"].as_sequence().expect("variables");
    let notice = variables
        .iter()
        .find(|it| it["name"] == "DKVS_SHUTDOWN_NOTICE");
    assert_eq!(notice.expect("it is set")["value"], "10000");
    // The notice, and what is then under way.
    let grace = gateways["template"]["spec"]["terminationGracePeriodSeconds"].as_u64();
    assert!(grace.expect("it is set") >= 10 + 10);
    says("Datagrams reach a server whether its probe is answered or not");
    for number in 0..servers["replicas"].as_u64().expect("a number") {
        let name = format!("dkvs-server-{number}");
        let service = object("2-servers.yaml", "Service", &name);
        assert_eq!(service["spec"]["publishNotReadyAddresses"], true, "{name}");
    }
    says("the namespace that may read the\nservers' metrics (`monitoring`)");
    let policy = object("4-network-policies.yaml", "NetworkPolicy", "dkvs-server");
    let from = &policy["spec"]["ingress"][1];
    let namespace = &from["from"][0]["namespaceSelector"]["matchLabels"];
    assert_eq!(namespace["kubernetes.io/metadata.name"], "monitoring");
    let command = texts(&servers["template"]["spec"]["containers"][0]["command"]);
    let port = from["ports"][0]["port"].as_u64().expect("a port");
    assert!(command.contains(&format!("--metrics=0.0.0.0:{port}")));
}

#[test]
fn the_alerts_are_rules_about_metrics_that_there_are() {
    let page = read("docs/packaging.md");
    let (_, alerts) = page.split_once("## Alerts").expect("a section");
    let (_, rules) = alerts.split_once("```yaml\n").expect("the rules");
    let (rules, _) = rules.split_once("```").expect("their end");
    let rules: Yaml = serde_norway::from_str(rules).expect("the rules are YAML");
    let rules = rules["groups"][0]["rules"].as_sequence().expect("rules");
    assert!(rules.len() >= 7, "{rules:?}");
    // A test of metrics holds this page to what the programs show.
    let metrics = read("docs/metrics.md");
    for rule in rules {
        let expression = text(&rule["expr"]);
        let words = expression.split(|it: char| !it.is_ascii_alphanumeric() && it != '_');
        let names: Vec<&str> = words.filter(|word| word.starts_with("dkvs_")).collect();
        assert!(!names.is_empty(), "{expression}");
        for name in names {
            assert!(
                metrics.contains(&format!("\n| `{name}` |")),
                "{name} in {expression}"
            );
        }
    }
}
