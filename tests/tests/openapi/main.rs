//! openapi.yaml against the gateway: neither promises what the other does not keep.
//!
//! * here: the file itself, and the table that the router is made of
//! * [`parameters`]: every parameter in the file and in that table
//! * [`router`]: the paths, methods and parameters that a gateway takes
//! * [`replies`], [`console`], [`listing`] and [`versions`]: what it answers; [`contract`] judges, and [`spoilt`] judges the
//!   judge

mod console;
mod contract;
mod levels;
mod listing;
mod parameters;
mod replies;
mod router;
mod spoilt;
mod versions;

use std::collections::BTreeSet;

use contract::{Contract, Operation};
use dkvs_gateway::http::OPERATIONS;
use dkvs_gateway::http::operations::Location;
use serde_json::Value as Json;

#[test]
fn the_file_and_the_router_have_the_same_operations() {
    let contract = Contract::read();
    let mut declared = BTreeSet::new();
    for it in &contract.operations {
        let (method, path, id) = (&it.method, &it.path, &it.id);
        declared.insert(format!("{method} {path} is {id}"));
        declared.extend(it.parameter_names().map(|it| format!("{id} takes {it}")));
        declared.extend(it.statuses().map(|it| format!("{id} answers {it}")));
    }
    let mut served = BTreeSet::new();
    for it in OPERATIONS {
        let (method, path, id) = (&it.method, it.path, it.id);
        served.insert(format!("{method} {path} is {id}"));
        let parameters = it.parameters.iter();
        let in_query = parameters.filter(|it| it.location == Location::Query);
        served.extend(in_query.map(|it| format!("{id} takes {}", it.name)));
        served.extend(it.statuses.iter().map(|it| format!("{id} answers {it}")));
    }
    let only_declared: Vec<_> = declared.difference(&served).collect();
    let only_served: Vec<_> = served.difference(&declared).collect();
    assert!(
        only_declared.is_empty() && only_served.is_empty(),
        "only in openapi.yaml: {only_declared:#?}\nonly in the router: {only_served:#?}"
    );
}

#[test]
fn every_operation_has_an_id_of_its_own_the_wildcards_and_request_ids() {
    let contract = Contract::read();
    let ids: BTreeSet<_> = contract.operations.iter().map(|it| &it.id).collect();
    assert_eq!(ids.len(), contract.operations.len());
    for Operation { id, responses, .. } in &contract.operations {
        assert!(responses.contains_key("4XX"), "{id}");
        assert!(responses.contains_key("5XX"), "{id}");
        assert!(!responses.contains_key("default"), "{id}");
        for (code, response) in responses {
            let request_id = &response["headers"]["X-Request-Id"];
            let request_id = contract.resolve(request_id);
            assert_eq!(request_id["required"], true, "{id} {code}");
        }
    }
}

#[test]
fn the_file_has_the_version_of_the_programs() {
    let version = &Contract::read().document["info"]["version"];
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
}

#[test]
fn generated_clients_call_each_problem_type_by_its_name() {
    let document = Contract::read().document;
    let kind = &document["components"]["schemas"]["Problem"]["properties"]["type"];
    let capitalised = |word: &str| word[..1].to_uppercase() + &word[1..];
    let urns = kind["enum"].as_array().unwrap().iter();
    let names: Vec<String> = urns
        .map(|urn| urn.as_str().unwrap().rsplit(':').next().unwrap())
        .map(|name| name.split('-').map(capitalised).collect())
        .collect();
    assert_eq!(kind["x-enum-varnames"], serde_json::json!(names));
}

#[test]
fn every_reference_leads_somewhere_and_every_component_is_referred_to() {
    let contract = Contract::read();
    let mut references = BTreeSet::new();
    each_node(&contract.document, &mut |node| {
        references.extend(node["$ref"].as_str().map(str::to_owned));
    });
    for reference in &references {
        assert!(contract.target(reference).is_some(), "{reference}");
    }
    let kinds = contract.document["components"].as_object().unwrap();
    // Schemes are referred to by their names alone.
    for (kind, components) in kinds.iter().filter(|(kind, _)| *kind != "securitySchemes") {
        for name in components.as_object().unwrap().keys() {
            let reference = format!("#/components/{kind}/{name}");
            assert!(references.contains(&reference), "{reference} is not used");
        }
    }
}

#[test]
fn every_object_is_closed_and_requires_members_that_it_has() {
    let mut objects = 0;
    each_node(&Contract::read().document, &mut |schema| {
        let or_null = serde_json::json!(["object", "null"]);
        if schema["type"] != "object" && schema["type"] != or_null {
            return;
        }
        objects += 1;
        assert_eq!(schema["additionalProperties"], false, "{schema}");
        let members = &schema["properties"];
        for name in schema["required"].as_array().expect("required members") {
            assert!(members.get(name.as_str().unwrap()).is_some(), "{name}");
        }
    });
    assert!(objects > 10, "{objects}");
}

#[test]
fn every_example_keeps_to_its_schema() {
    let contract = Contract::read();
    let mut examples = 0;
    each_node(&contract.document, &mut |node| {
        if let (Some(schema), Some(example)) = (node.get("schema"), node.get("example")) {
            examples += 1;
            assert_eq!(contract.violations(schema, example), [""; 0], "{example}");
        }
    });
    assert!(examples > 3, "{examples}");
}

fn each_node(node: &Json, visit: &mut impl FnMut(&Json)) {
    visit(node);
    let members = node.as_object().into_iter().flatten().map(|(_, it)| it);
    let elements = node.as_array().into_iter().flatten();
    members.chain(elements).for_each(|it| each_node(it, visit));
}
