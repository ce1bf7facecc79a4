//! docs/metrics.md and the dashboard, against what is really there.

use std::collections::{BTreeMap, BTreeSet};

use dkvs_tests::exposition::{Family, Page};
use dkvs_tests::http::{client, get, put};
use dkvs_tests::process::DataDir;
use serde_json::Value as Json;

use crate::{PROGRAMS, measured_node, scrape, scrape_at};

const DOCUMENT: &str = include_str!("../../../docs/metrics.md");
const DASHBOARD: &str = include_str!("../../../docs/grafana-dashboard.json");

/// What the document says of a metric.
#[derive(Debug, PartialEq, Eq)]
struct Documented {
    kind: String,
    labels: BTreeSet<String>,
    unit: String,
}

/// By the name by which it is asked for.
fn documented() -> BTreeMap<String, Documented> {
    let mut metrics = BTreeMap::new();
    let header = "| metric | type | labels | unit | meaning | what to watch |";
    let mut is_table = false;
    for line in DOCUMENT.lines() {
        is_table = line == header || (is_table && line.starts_with('|'));
        if !is_table || !line.starts_with("| `") {
            continue;
        }
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["", name, kind, labels, unit, meaning, _, ""] = cells[..] else {
            panic!("a row of six cells: {line}");
        };
        assert!(!meaning.is_empty(), "{line}");
        let labels = labels.split(", ").filter(|it| !it.is_empty());
        let metric = Documented {
            kind: kind.to_owned(),
            labels: labels.map(|it| it.trim_matches('`').to_owned()).collect(),
            unit: unit.to_owned(),
        };
        let twice = metrics.insert(name.trim_matches('`').to_owned(), metric);
        assert_eq!(twice, None, "{name} stands twice");
    }
    metrics
}

fn shown(page: &Page) -> BTreeMap<String, Documented> {
    let metric = |(name, family): (&String, &Family)| {
        let name = match &*family.kind {
            "counter" => format!("{name}_total"),
            _ => name.clone(),
        };
        let documented = Documented {
            kind: family.kind.clone(),
            labels: family.labels().into_iter().map(str::to_owned).collect(),
            unit: family.unit.clone().unwrap_or_default(),
        };
        (name, documented)
    };
    page.families.iter().map(metric).collect()
}

/// A page that has everything: of servers with disks that were written to.
async fn full_page() -> Page {
    let directory = DataDir::new();
    let gateway = PROGRAMS.gateway(&["--embedded", "3", "--data-dir", directory.path()]);
    let client = client();
    put(&client, gateway.url("/kv/k?wait=all"), "v").await;
    get(&client, gateway.url("/kv/k")).await;
    scrape(&client, &gateway).await;
    scrape(&client, &gateway).await
}

#[tokio::test]
async fn every_metric_is_documented_and_every_documented_one_is_there() {
    let (documented, page) = (documented(), full_page().await);
    let (_node, addr) = measured_node(&[]);
    let mut shown = shown(&page);
    for (name, metric) in self::shown(&scrape_at(&client(), addr).await) {
        shown.entry(name).or_insert(metric);
    }
    assert!(documented.len() > 40, "{}", documented.len());
    for (name, metric) in &documented {
        let there = shown.get(name);
        let there = there.unwrap_or_else(|| panic!("{name} is documented and not there"));
        assert_eq!(there, metric, "{name}: what is there, what is documented");
    }
    for name in shown.keys() {
        assert!(documented.contains_key(name), "{name} is not documented");
    }
}

#[tokio::test]
async fn a_server_shows_what_is_documented_of_servers_and_no_more() {
    let (_node, addr) = measured_node(&[]);
    let page = scrape_at(&client(), addr).await;
    let shown = shown(&page);
    let documented = documented();
    let of_servers = |name: &&String| name.starts_with("dkvs_server_");
    let expected: Vec<_> = documented.keys().filter(of_servers).collect();
    assert_eq!(shown.keys().collect::<Vec<_>>(), expected);
    for (name, metric) in shown {
        // What is about the disk has no series, for there is none.
        if !metric.labels.is_empty() {
            assert_eq!(metric, documented[&name], "{name}");
        }
    }
}

#[tokio::test]
async fn every_metric_of_the_dashboard_is_there() {
    let page = full_page().await;
    let (_node, addr) = measured_node(&[]);
    let of_server = scrape_at(&client(), addr).await;
    let mut names = page.sample_names();
    names.extend(of_server.sample_names());
    let dashboard: Json = serde_json::from_str(DASHBOARD).expect("the dashboard is JSON");
    let mut expressions = Vec::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().into_iter().flatten() {
            expressions.push(target["expr"].as_str().expect("an expression"));
        }
    }
    assert!(expressions.len() > 20, "{expressions:?}");
    let text = DOCUMENT.lines().filter(|line| line.starts_with("| `"));
    let watched = text.map(|line| line.split("` ").next().unwrap_or_default());
    for expression in expressions.into_iter().chain(watched) {
        let mut used = names_in(expression).peekable();
        assert!(used.peek().is_some(), "no metric in {expression}");
        for name in used {
            let is_histogram = page
                .families
                .get(name)
                .is_some_and(|it| it.kind == "histogram");
            assert!(
                names.contains(name) || is_histogram,
                "{name} in {expression} is not there"
            );
        }
    }
}

/// The names of metrics in an expression.
fn names_in(expression: &str) -> impl Iterator<Item = &str> {
    let words = expression.split(|it: char| !it.is_ascii_alphanumeric() && it != '_');
    words.filter(|word| word.starts_with("dkvs_"))
}
