//! The contract, and a page to read and try it. The page needs nothing from elsewhere.

use std::sync::LazyLock;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Response, Uri, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED;

use super::archive;
use super::no_such_path::no_such_path;
use super::parameters;
use super::problem::Problem;

/// The contract of this API, as served at `/openapi.yaml`.
const OPENAPI_YAML: &str = include_str!("../../../openapi.yaml");

/// The contract as JSON.
static OPENAPI_JSON: LazyLock<Bytes> = LazyLock::new(|| {
    let contract: serde_json::Value =
        serde_norway::from_str(OPENAPI_YAML).expect("the contract is YAML, as the tests have it");
    format!("{contract:#}\n").into()
});

const PAGE: &str = include_str!("docs/page.html");

/// The files of the page: the viewer, Swagger UI, which comes with a crate, and its start script.
static FILES: LazyLock<[(&str, &str, Bytes); 3]> = LazyLock::new(|| {
    let start = Bytes::from_static(include_bytes!("docs/page.js"));
    [
        ("page.js", "text/javascript", start),
        (
            "swagger-ui-bundle.js",
            "text/javascript",
            viewer("/dist/swagger-ui-bundle.js"),
        ),
        ("swagger-ui.css", "text/css", viewer("/dist/swagger-ui.css")),
    ]
});

/// The page may load from this gateway only. The viewer sets styles on its elements.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

/// Another version of the gateway has another contract.
const CACHING: &str = "no-cache";

/// How long a browser may keep the viewer.
const FILE_CACHING: &str = "public, max-age=3600";

/// A file of the viewer. Its crate has a packed release of it.
fn viewer(name: &str) -> Bytes {
    // A test has seen each file in the program.
    archive::file(SWAGGER_UI_VENDORED, name)
        .unwrap_or_default()
        .into()
}

fn of_contract(content_type: &'static str) -> [(HeaderName, &'static str); 2] {
    [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, CACHING),
    ]
}

pub(super) async fn openapi_yaml(uri: Uri) -> Result<Response<Body>, Problem> {
    parameters::none(&uri)?;
    Ok((of_contract("application/yaml"), OPENAPI_YAML).into_response())
}

pub(super) async fn openapi_json(uri: Uri) -> Result<Response<Body>, Problem> {
    parameters::none(&uri)?;
    Ok((of_contract("application/json"), OPENAPI_JSON.clone()).into_response())
}

pub(super) async fn page(uri: Uri) -> Result<Response<Body>, Problem> {
    parameters::none(&uri)?;
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, PAGE_POLICY),
        (header::CACHE_CONTROL, CACHING),
    ];
    Ok((headers, PAGE).into_response())
}

pub(super) async fn file(uri: Uri) -> Result<Response<Body>, Problem> {
    parameters::none(&uri)?;
    let name = uri.path().strip_prefix("/docs/");
    let mut files = FILES.iter();
    let Some((_, content_type, file)) = files.find(|(known, ..)| Some(*known) == name) else {
        return Err(no_such_path(uri.path()));
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (
            header::CACHE_CONTROL,
            HeaderValue::from_static(FILE_CACHING),
        ),
    ];
    Ok((headers, file.clone()).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_that_the_page_names_is_there() {
        for (name, _, file) in FILES.iter() {
            assert!(PAGE.contains(&format!("\"/docs/{name}\"")), "{name}");
            assert!(!file.is_empty(), "{name}");
        }
        assert_eq!(PAGE.matches("/docs/").count(), FILES.len());
        assert!(FILES[1].2.len() > 1 << 20);
    }
}
