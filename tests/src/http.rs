//! HTTP as a user's client does it.

use reqwest::{Client, Method, StatusCode};
use serde_json::Value;

/// What came back, as JSON where it is any.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub body: Vec<u8>,
    /// The body, or null where it is no JSON.
    pub json: Value,
}

impl Reply {
    /// The name of the problem's type, without its prefix.
    pub fn problem(&self) -> &str {
        assert_eq!(
            self.header("content-type"),
            "application/problem+json",
            "{self:?}"
        );
        assert_eq!(self.json["status"], self.status.as_u16(), "{self:?}");
        let name = self.json["type"]
            .as_str()
            .and_then(|name| name.strip_prefix("urn:dkvs:problem:"));
        name.unwrap_or_else(|| panic!("no problem in {self:?}"))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// The statuses of the replicas, in their order.
    pub fn statuses(&self) -> Vec<&str> {
        let replicas = self.json["replicas"].as_array().expect("replicas");
        replicas
            .iter()
            .map(|replica| replica["status"].as_str().unwrap())
            .collect()
    }

    /// How many replicas have a status.
    pub fn count(&self, status: &str) -> usize {
        self.statuses().iter().filter(|is| **is == status).count()
    }

    /// The replicas' addresses, in preference order.
    pub fn servers(&self) -> Vec<std::net::SocketAddr> {
        let replicas = self.json["replicas"].as_array().expect("replicas");
        let addr = |replica: &Value| replica["server"].as_str().unwrap().parse().unwrap();
        replicas.iter().map(addr).collect()
    }
}

/// A client that uses no proxy and follows nothing.
pub fn client() -> Client {
    Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .expect("a client")
}

/// Sends a request and takes the whole reply.
pub async fn send(request: reqwest::RequestBuilder) -> Reply {
    let response = request.send().await.expect("a reply");
    let (status, headers) = (response.status(), response.headers().clone());
    let body = response.bytes().await.expect("a whole body").to_vec();
    let json = serde_json::from_slice(&body).unwrap_or_default();
    Reply {
        status,
        headers,
        body,
        json,
    }
}

pub async fn get(client: &Client, url: String) -> Reply {
    send(client.get(url)).await
}

pub async fn put(client: &Client, url: String, value: impl Into<reqwest::Body>) -> Reply {
    send(client.request(Method::PUT, url).body(value)).await
}
