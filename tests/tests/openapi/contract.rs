//! openapi.yaml as the judge of replies.

use std::collections::BTreeSet;

use dkvs_tests::http::Reply;
use reqwest::Method;
use serde_json::{Map, Value as Json, json};

/// The file.
pub const TEXT: &str = include_str!("../../../openapi.yaml");

/// Headers that need no mention: HTTP itself, or what is said to caches and browsers, has them on any
/// reply.
const PLAIN_HEADERS: [&str; 10] = [
    "cache-control",
    "content-length",
    "content-security-policy",
    "content-type",
    "cross-origin-resource-policy",
    "date",
    "referrer-policy",
    "transfer-encoding",
    "vary",
    "x-content-type-options",
];

/// What the file declares, or what a reply has shown of it, a line each: `getValue 404`,
/// `getValue 200 DKVS-Quorum`, `Ring.points`, `Value.encoding is "base64"`.
pub type Facts = BTreeSet<String>;

/// The file, read.
pub struct Contract {
    /// The whole document, with each `nullable` said as JSON Schema says it.
    pub document: Json,
    pub operations: Vec<Operation>,
}

/// An operation, with all references but those inside schemas replaced by what they name.
pub struct Operation {
    pub method: Method,
    pub path: String,
    pub id: String,
    /// Its query parameters.
    pub parameters: Vec<Json>,
    /// Those in the path and in headers as well.
    pub all_parameters: Vec<Json>,
    /// The schema of its body in JSON; null without any.
    pub body: Json,
    /// The example of it.
    pub body_example: Json,
    /// By status code, in digits or as `4XX`.
    pub responses: Map<String, Json>,
}

impl Operation {
    /// The names of its query parameters.
    pub fn parameter_names(&self) -> impl Iterator<Item = &str> {
        self.parameters.iter().filter_map(|it| it["name"].as_str())
    }

    /// The status codes that it lists, wildcards aside.
    pub fn statuses(&self) -> impl Iterator<Item = u16> {
        self.responses.keys().filter_map(|code| code.parse().ok())
    }
}

impl Contract {
    pub fn read() -> Self {
        let mut document: Json = serde_norway::from_str(TEXT).expect("openapi.yaml is YAML");
        unite_nullable_types(&mut document);
        let mut contract = Self {
            document,
            operations: Vec::new(),
        };
        let paths = contract.document["paths"].as_object().unwrap();
        contract.operations = paths
            .iter()
            .flat_map(|(path, item)| contract.operations_of(path, item))
            .collect();
        contract
    }

    fn operations_of(&self, path: &str, item: &Json) -> Vec<Operation> {
        let fields = item.as_object().unwrap().iter();
        let operations = fields.filter(|(field, _)| *field != "parameters");
        let operation = |(method, operation): (&String, &Json)| {
            let shared = item["parameters"].as_array().into_iter().flatten();
            let own = operation["parameters"].as_array().into_iter().flatten();
            let parameters = shared.chain(own).map(|parameter| self.resolve(parameter));
            let responses = operation["responses"].as_object().unwrap().iter();
            let all_parameters: Vec<Json> = parameters.cloned().collect();
            let body = &operation["requestBody"]["content"]["application/json"];
            Operation {
                method: method.to_uppercase().parse().unwrap(),
                path: path.to_owned(),
                id: operation["operationId"].as_str().unwrap().to_owned(),
                parameters: all_parameters
                    .iter()
                    .filter(|parameter| parameter["in"] == "query")
                    .cloned()
                    .collect(),
                all_parameters,
                body: body["schema"].clone(),
                body_example: body["example"].clone(),
                responses: responses
                    .map(|(code, response)| (code.clone(), self.resolve(response).clone()))
                    .collect(),
            }
        };
        operations.map(operation).collect()
    }

    pub fn operation(&self, id: &str) -> &Operation {
        let mut operations = self.operations.iter();
        operations
            .find(|operation| operation.id == id)
            .unwrap_or_else(|| panic!("openapi.yaml has no operation {id}"))
    }

    /// What a node is, or what it refers to.
    pub fn resolve<'a>(&'a self, node: &'a Json) -> &'a Json {
        match node["$ref"].as_str() {
            Some(reference) => self
                .target(reference)
                .unwrap_or_else(|| panic!("{reference} leads nowhere")),
            None => node,
        }
    }

    /// What a reference leads to.
    pub fn target(&self, reference: &str) -> Option<&Json> {
        self.document.pointer(reference.strip_prefix('#')?)
    }

    /// What is wrong with an instance of a schema.
    pub fn violations(&self, schema: &Json, instance: &Json) -> Vec<String> {
        let schemas = &self.document["components"]["schemas"];
        let root = json!({ "allOf": [schema], "components": { "schemas": schemas } });
        let validator = jsonschema::draft4::new(&root).expect("a schema");
        let errors = validator.iter_errors(instance);
        errors
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect()
    }

    /// Whether a reply is one that an operation declares: what it has shown, or what is wrong.
    pub fn judge(&self, id: &str, reply: &Reply) -> Result<Facts, String> {
        let operation = self.operation(id);
        let status = reply.status.as_u16();
        // Any other status is to be declared by itself.
        let code = match status {
            405 | 417 => "4XX".to_owned(),
            _ => status.to_string(),
        };
        let response = operation.responses.get(&code);
        let response = response.ok_or_else(|| format!("{id} does not declare {status}"))?;
        let name = format!("{id} {status}");
        let mut facts = self.judge_headers(&name, response, reply)?;
        facts.extend(self.judge_body(response, reply)?);
        if reply.header("content-type") == "application/problem+json" && !reply.body.is_empty() {
            facts.extend(self.judge_problem(&operation.method, reply)?);
        }
        facts.insert(name);
        Ok(facts)
    }

    /// What the body of a request shows, or what is wrong with it.
    pub fn judge_request(&self, id: &str, body: &Json) -> Result<Facts, String> {
        let schema = &self.operation(id).body;
        no_more(self.violations(schema, body))?;
        Ok(self.facts("", schema, body))
    }

    /// What the data of an event shows, or what is wrong with them.
    pub fn judge_event(&self, id: &str, data: &Json) -> Result<Facts, String> {
        let content = &self.operation(id).responses["200"]["content"];
        let schema = &content["text/event-stream"]["schema"];
        no_more(self.violations(schema, data))?;
        Ok(self.facts("", schema, data))
    }

    fn judge_headers(&self, name: &str, response: &Json, reply: &Reply) -> Result<Facts, String> {
        let empty = Map::new();
        let declared = response["headers"].as_object().unwrap_or(&empty);
        let mut facts = Facts::new();
        for (header, declaration) in declared {
            let declaration = self.resolve(declaration);
            let Some(text) = reply.headers.get(header) else {
                if declaration["required"] == true {
                    return Err(format!("{name} comes without {header}"));
                }
                continue;
            };
            let schema = &declaration["schema"];
            let value = as_json(text.to_str().unwrap(), self.resolve(schema));
            no_more(self.violations(schema, &value))?;
            facts.insert(format!("{name} {header}"));
        }
        for header in reply.headers.keys().map(|header| header.as_str()) {
            let mut known = declared.keys().map(String::as_str).chain(PLAIN_HEADERS);
            if !known.any(|known| known.eq_ignore_ascii_case(header)) {
                return Err(format!("{name} comes with {header}, which is not declared"));
            }
        }
        Ok(facts)
    }

    fn judge_body(&self, response: &Json, reply: &Reply) -> Result<Facts, String> {
        let Some(content) = response["content"].as_object() else {
            let empty = reply.body.is_empty();
            return empty.then(Facts::new).ok_or("there is a body".into());
        };
        let content_type = reply.header("content-type");
        // A value given as it is has the type that it was stored with, which may be any.
        let media = content.get(content_type).or_else(|| content.get("*/*"));
        let media = media.ok_or_else(|| format!("{content_type:?} is not declared"))?;
        if !content_type.ends_with("json") || content_type.ends_with("ndjson") {
            return Ok(Facts::new());
        }
        no_more(self.violations(&media["schema"], &reply.json))?;
        Ok(self.facts("", &media["schema"], &reply.json))
    }

    /// What the schema of problems leaves open: that the document names its request, and that
    /// replicas and quorum are those of what was asked.
    fn judge_problem(&self, method: &Method, reply: &Reply) -> Result<Facts, String> {
        let problem = &reply.json;
        let instance = format!("urn:dkvs:request:{}", reply.header("x-request-id"));
        if problem["status"] != reply.status.as_u16() || problem["instance"] != instance {
            return Err(format!("{problem} is not about {instance}"));
        }
        let (quorum, replica) = match *method {
            Method::PUT | Method::DELETE => ("WriteQuorum", "WriteReplica"),
            _ => ("ReadQuorum", "ReadReplica"),
        };
        let quorums = problem.get("quorum").into_iter().map(|it| (quorum, it));
        let replicas = problem.get("replicas").and_then(Json::as_array);
        let replicas = replicas.into_iter().flatten().map(|it| (replica, it));
        let mut facts = Facts::new();
        for (schema, instance) in quorums.chain(replicas) {
            let schema = reference(schema);
            no_more(self.violations(&schema, instance))?;
            facts.extend(self.facts("", &schema, instance));
        }
        Ok(facts)
    }

    /// The members and the words of enumerations that an instance of a schema shows.
    fn facts(&self, name: &str, schema: &Json, instance: &Json) -> Facts {
        let (name, schema) = match schema["$ref"].as_str() {
            Some(reference) => (component(reference), self.resolve(schema)),
            None => (name, schema),
        };
        let mut facts = Facts::new();
        let alternatives = schema["oneOf"].as_array().into_iter().flatten();
        for alternative in alternatives {
            if self.violations(alternative, instance).is_empty() {
                facts.extend(self.facts(name, alternative, instance));
            }
        }
        if schema["enum"].is_array() {
            facts.insert(format!("{name} is {instance}"));
        }
        for element in instance.as_array().into_iter().flatten() {
            facts.extend(self.facts(name, &schema["items"], element));
        }
        for (member, instance) in instance.as_object().into_iter().flatten() {
            let name = format!("{name}.{member}");
            facts.extend(self.facts(&name, &schema["properties"][member], instance));
            facts.insert(name);
        }
        facts
    }

    /// Everything that the file says may be seen in replies.
    pub fn declared_facts(&self) -> Facts {
        let mut facts = Facts::new();
        for Operation { id, responses, .. } in &self.operations {
            for (code, response) in responses {
                if code.ends_with("XX") {
                    continue;
                }
                facts.insert(format!("{id} {code}"));
                let headers = response["headers"].as_object().into_iter().flatten();
                facts.extend(headers.map(|(header, _)| format!("{id} {code} {header}")));
            }
        }
        let schemas = self.document["components"]["schemas"].as_object().unwrap();
        for (name, schema) in schemas {
            declare(name, schema, &mut facts);
        }
        facts
    }
}

/// The facts of a schema, up to its references: what they name is a schema of its own.
fn declare(name: &str, schema: &Json, facts: &mut Facts) {
    let words = schema["enum"].as_array().into_iter().flatten();
    facts.extend(words.map(|word| format!("{name} is {word}")));
    if schema["items"].is_object() {
        declare(name, &schema["items"], facts);
    }
    for (member, schema) in schema["properties"].as_object().into_iter().flatten() {
        let name = format!("{name}.{member}");
        declare(&name, schema, facts);
        facts.insert(name);
    }
}

/// A reference to a schema by its name.
pub fn reference(schema: &str) -> Json {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

fn component(reference: &str) -> &str {
    reference.rsplit('/').next().unwrap_or(reference)
}

/// A header's text as the type that its schema gives it.
fn as_json(text: &str, schema: &Json) -> Json {
    match schema["type"].as_str() {
        Some("integer") => text.parse::<i64>().map_or(Json::Null, Json::from),
        _ => text.into(),
    }
}

fn no_more(violations: Vec<String>) -> Result<(), String> {
    match violations[..] {
        [] => Ok(()),
        _ => Err(violations.join("\n")),
    }
}

/// OpenAPI 3.0 says `nullable: true` where JSON Schema has a union with null.
fn unite_nullable_types(node: &mut Json) {
    if node["nullable"] == true {
        node["type"] = json!([node["type"], "null"]);
    }
    match node {
        Json::Object(members) => members.values_mut().for_each(unite_nullable_types),
        Json::Array(elements) => elements.iter_mut().for_each(unite_nullable_types),
        _ => {}
    }
}
