//! What a program does with dkvs, by the client that openapi-generator makes for Rust.

use std::env;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use dkvs_client::apis::configuration::Configuration;
use dkvs_client::apis::values_api::{delete_value, get_value, list_keys, put_value, run_batch};
use dkvs_client::apis::Error;
use dkvs_client::models::batch_operation::Op;
use dkvs_client::models::problem::Type;
use dkvs_client::models::{Batch, BatchOperation, ListedKey, Problem, Value, WriteResult};
use reqwest::blocking::Client;
use reqwest::header::{HeaderMap, HeaderValue, CONTENT_TYPE};

const ATTEMPTS: u32 = 3;

fn main() -> ExitCode {
    let address = env::args().nth(1);
    let mut configuration = Configuration::new();
    configuration.base_path = address.unwrap_or("http://127.0.0.1:8080".to_owned());
    // The generated client has no parameter for the content type of a value: it is the client's.
    let text = HeaderValue::from_static("text/plain");
    let client = Client::builder().default_headers(HeaderMap::from_iter([(CONTENT_TYPE, text)]));
    configuration.client = client.build().expect("an HTTP client");

    match run(&configuration) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("gave up: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(dkvs: &Configuration) -> Result<(), Failure> {
    put_and_get(dkvs)?;
    put_more_and_list(dkvs)?;
    delete(dkvs)?;
    do_a_batch(dkvs)
}

fn put_and_get(dkvs: &Configuration) -> Result<(), Failure> {
    let written = put(dkvs, "fruit/apple", "red", Some("all"))?;
    let confirmed = written.quorum.confirmed;
    println!(
        "put fruit/apple: {} by {confirmed} servers",
        word(&written.outcome)
    );

    let read = get(dkvs, "fruit/apple", Some("all"))?;
    let content_type = read.content_type.as_deref().unwrap_or("no content type");
    let consistency = word(&read.consistency);
    println!(
        "get fruit/apple: {}, {content_type}, {consistency}",
        read.value
    );
    // `server` and `latency_us` say which server it was, and how long it took.
    for replica in &read.replicas {
        println!("  a server says: {}", word(&replica.status));
    }
    Ok(())
}

fn put_more_and_list(dkvs: &Configuration) -> Result<(), Failure> {
    for (key, value) in [
        ("pear", "green"),
        ("plum", "blue"),
        ("fig", "violet"),
        ("lime", "green"),
    ] {
        put(dkvs, &format!("fruit/{key}"), value, None)?;
    }

    let mut keys = Vec::new();
    let mut pages = 0;
    let mut cursor = None;
    while cursor.is_some() || pages == 0 {
        let page = list_keys(
            dkvs,
            Some("fruit/"),
            Some(2),
            cursor.as_deref(),
            None,
            None,
            None,
            None,
            None,
        )?;
        keys.extend(page.keys.into_iter().map(|key| match key {
            ListedKey::String(key) => key,
            // A key whose bytes are not UTF-8.
            ListedKey::BinaryKey(key) => format!("{:?}", key.key_base64),
        }));
        pages += 1;
        cursor = page.cursor;
    }
    let number = if pages > 1 {
        "several pages"
    } else {
        "one page"
    };
    println!("list fruit/: {}; {number}", keys.join(", "));
    Ok(())
}

fn delete(dkvs: &Configuration) -> Result<(), Failure> {
    let deleted = delete_value(dkvs, "fruit/apple", None, None, None, None, None, None)?;
    println!("delete fruit/apple: {}", word(&deleted.outcome));
    match get(dkvs, "fruit/apple", None) {
        Ok(read) => println!("get fruit/apple: {}", read.value),
        Err(Failure::Problem(problem)) if problem.r#type == Type::KeyNotFound => {
            let why = if problem.deleted == Some(true) {
                "deleted"
            } else {
                "never put"
            };
            println!("get fruit/apple: {}, {why}", word(&problem.r#type));
        }
        Err(failure) => return Err(failure),
    }
    Ok(())
}

fn do_a_batch(dkvs: &Configuration) -> Result<(), Failure> {
    let operation = |op, key: &str| BatchOperation {
        key: Some(key.to_owned()),
        ..BatchOperation::new(op)
    };
    let operations = vec![
        operation(Op::Get, "fruit/pear"),
        operation(Op::Get, "fruit/apple"),
        BatchOperation {
            value: Some("yellow".to_owned()),
            content_type: Some("text/plain".to_owned()),
            ..operation(Op::Put, "fruit/lime")
        },
        operation(Op::Delete, "fruit/plum"),
    ];
    let results = run_batch(dkvs, Batch::new(operations.clone()))?.results;
    for (operation, result) in operations.iter().zip(results) {
        // Each has a fate of its own: one of them is there.
        let came_to = match (result.problem, result.read, result.write) {
            (Some(problem), ..) => word(&problem.r#type),
            (_, Some(read), _) => read.value,
            (.., write) => write.map(|write| word(&write.outcome)).unwrap_or_default(),
        };
        let key = operation.key.as_deref().unwrap_or_default();
        println!(
            "batch {} {key}: {} {came_to}",
            word(&operation.op),
            result.status
        );
    }
    Ok(())
}

/// Stores text, and tries again, but not forever, when too few servers can be reached.
fn put(
    dkvs: &Configuration,
    key: &str,
    value: &str,
    wait: Option<&str>,
) -> Result<WriteResult, Failure> {
    let mut tag: Option<String> = None;
    let mut attempt = 1;
    loop {
        let value = value.as_bytes().to_vec();
        let written = put_value(
            dkvs,
            key,
            value,
            None,
            None,
            None,
            None,
            wait,
            tag.as_deref(),
        );
        let problem = match written.map_err(Failure::from) {
            Err(Failure::Problem(problem)) => problem,
            other => return other,
        };
        eprintln!("put {key}: {}, attempt {attempt}", word(&problem.r#type));
        if problem.r#type != Type::QuorumUnreachable || attempt == ATTEMPTS {
            return Err(Failure::Problem(problem));
        }
        // With its tag, the same write is sent again, and not another one.
        tag = problem.tag.flatten();
        attempt += 1;
        // The generated client does not tell what `Retry-After` says, which is a second.
        thread::sleep(Duration::from_secs(1));
    }
}

fn get(dkvs: &Configuration, key: &str, wait: Option<&str>) -> Result<Value, Failure> {
    // What is None has a default: n, r, consistency, timeout_ms; raw, and the conditions.
    let read = get_value(
        dkvs, key, None, None, None, None, wait, None, None, None, None, None, None,
    );
    Ok(read?)
}

/// Why a request failed: by what the gateway said, or for a reason of another kind.
enum Failure {
    Problem(Box<Problem>),
    Other(String),
}

impl<T: std::fmt::Debug> From<Error<T>> for Failure {
    fn from(error: Error<T>) -> Self {
        let problem = match &error {
            Error::ResponseError(response) => serde_json::from_str(&response.content).ok(),
            _ => None,
        };
        problem.map_or(Self::Other(error.to_string()), Self::Problem)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Problem(problem) => write!(f, "{} {}", problem.status, word(&problem.r#type)),
            Self::Other(reason) => f.write_str(reason),
        }
    }
}

/// An enumeration's word as the contract has it, such as `committed`.
fn word(it: &impl serde::Serialize) -> String {
    let word = serde_json::to_value(it).expect("a word");
    word.as_str().unwrap_or_default().to_owned()
}
