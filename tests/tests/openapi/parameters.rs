//! Every parameter of openapi.yaml against the table by which the gateway parses and refuses them.

use std::collections::BTreeSet;

use dkvs_gateway::http::OPERATIONS;
use dkvs_gateway::http::operations::{Integer, Location, Parameter, Schema, Text};
use serde_json::Value as Json;

use crate::contract::Contract;

#[test]
fn the_file_and_the_table_declare_the_same_of_every_parameter() {
    let contract = Contract::read();
    let mut declared = BTreeSet::new();
    for operation in &contract.operations {
        for parameter in &operation.all_parameters {
            declared.insert(format!(
                "{} {}",
                operation.id,
                of_file(&contract, parameter)
            ));
        }
    }
    let mut served = BTreeSet::new();
    for operation in OPERATIONS {
        for parameter in operation.parameters {
            served.insert(format!("{} {}", operation.id, of_table(parameter)));
        }
    }
    let only_declared: Vec<_> = declared.difference(&served).collect();
    let only_served: Vec<_> = served.difference(&declared).collect();
    assert!(
        only_declared.is_empty() && only_served.is_empty(),
        "only in openapi.yaml: {only_declared:#?}\nonly in the table: {only_served:#?}"
    );
    assert!(declared.len() > 30, "{declared:#?}");
}

#[test]
fn the_file_begins_the_description_of_each_parameter_as_the_table_does() {
    let contract = Contract::read();
    for operation in OPERATIONS {
        let id = operation.id.as_str();
        for parameter in operation.parameters {
            let mut all = contract.operation(id).all_parameters.iter();
            let found = all.find(|it| it["name"] == parameter.name);
            let description = found.unwrap()["description"].as_str().unwrap();
            let words: Vec<_> = description.split_whitespace().collect();
            let begins = words.join(" ").starts_with(parameter.description);
            assert!(begins, "{id} {}: {description}", parameter.name);
        }
    }
}

#[test]
fn the_path_of_an_operation_has_exactly_the_parameters_that_are_in_it() {
    for operation in OPERATIONS {
        let parts = operation.path.split('{').skip(1);
        let named: Vec<_> = parts.filter_map(|part| part.split('}').next()).collect();
        let parameters = operation.parameters.iter();
        let in_path = parameters.filter(|it| it.location == Location::Path);
        let in_path: Vec<_> = in_path.map(|it| it.name).collect();
        assert_eq!(in_path, named, "{}", operation.id);
    }
}

/// Where a parameter stands, whether it is required, which values it takes, and its default.
fn of_table(parameter: &Parameter) -> String {
    let location = match parameter.location {
        Location::Path => "path",
        Location::Query => "query",
        Location::Header => "header",
    };
    let (values, default) = match parameter.schema {
        Schema::Integer(Integer { min, max, default }) => {
            (integer(min, max), default.map(Json::from))
        }
        Schema::Choice { choices, default } => (one_of(choices), default.map(Json::from)),
        Schema::Boolean(it) => ("true or false".to_owned(), Some(it.default.into())),
        Schema::Text(Text {
            bytes_min,
            bytes_max,
        }) => (
            text(bytes_min as u64, bytes_max.map(|bytes| bytes as u64)),
            None,
        ),
    };
    line(
        location,
        parameter.name,
        parameter.is_required(),
        &values,
        &default.unwrap_or_default(),
    )
}

/// The same of a parameter in the file.
fn of_file(contract: &Contract, parameter: &Json) -> String {
    let schema = contract.resolve(&parameter["schema"]);
    let whole = |name: &str| schema[name].as_u64();
    let values = match (schema["type"].as_str(), schema["enum"].as_array()) {
        (Some("integer"), None) => integer(
            whole("minimum").expect("a least number"),
            whole("maximum").expect("a greatest number"),
        ),
        (Some("string"), Some(words)) => {
            one_of(&words.iter().filter_map(Json::as_str).collect::<Vec<_>>())
        }
        (Some("string"), None) => text(whole("minLength").unwrap_or(0), whole("maxLength")),
        (Some("boolean"), None) => "true or false".to_owned(),
        _ => panic!("the table has no such schema: {schema}"),
    };
    let is_required = parameter["required"] == true;
    let [location, name] = ["in", "name"].map(|member| parameter[member].as_str().unwrap());
    line(location, name, is_required, &values, &schema["default"])
}

fn integer(min: u64, max: u64) -> String {
    format!("a whole number from {min} to {max}")
}

fn one_of(words: &[&str]) -> String {
    let words: BTreeSet<_> = words.iter().collect();
    format!("one of {words:?}")
}

fn text(min: u64, max: Option<u64>) -> String {
    format!("text of {min} to {max:?} bytes")
}

fn line(location: &str, name: &str, is_required: bool, values: &str, default: &Json) -> String {
    let required = if is_required { "required" } else { "optional" };
    format!("{location} {name}, {required}: {values}, else {default}")
}
