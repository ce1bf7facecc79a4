//! The web console's files. The page needs nothing from elsewhere, and has no data of a cluster in it:
//! it requests them like any other client.

use std::sync::LazyLock;

use axum::body::Body;
use axum::http::{Response, Uri, header};
use axum::response::IntoResponse;
use dkvs_common::hex::Digits;
use include_dir::{Dir, include_dir};
use sha2::{Digest, Sha256};

use super::no_such_path::no_such_path;
use super::parameters;
use super::problem::Problem;

/// The folder of the files, built into the program.
static FOLDER: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/src/console");

const PAGE: &str = "index.html";

/// The files, with the entity tag of each.
static FILES: LazyLock<Vec<File>> =
    LazyLock::new(|| FOLDER.files().filter_map(File::new).collect());

/// The page may load from this gateway only, and has no script or style that is not a file.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

/// A browser asks each time whether a file is still the same, so that the files of one version are
/// never mixed with those of another.
const CACHING: &str = "no-cache";

struct File {
    name: &'static str,
    content_type: &'static str,
    /// In quotes.
    etag: String,
    bytes: &'static [u8],
}

impl File {
    /// None for files that are not meant for browsers.
    fn new(file: &'static include_dir::File<'static>) -> Option<Self> {
        let name = file.path().to_str()?;
        let content_type = match file.path().extension()?.to_str()? {
            "html" => "text/html; charset=utf-8",
            "js" => "text/javascript; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            "svg" => "image/svg+xml",
            _ => return None,
        };
        let hash = Sha256::digest(file.contents());
        let digits = Digits::<32>::new(&hash[..16]);
        Some(Self {
            name,
            content_type,
            etag: format!("\"{}\"", digits.as_str()),
            bytes: file.contents(),
        })
    }
}

pub(super) async fn page(uri: Uri) -> Result<Response<Body>, Problem> {
    file_named(PAGE, &uri)
}

pub(super) async fn file(uri: Uri) -> Result<Response<Body>, Problem> {
    // The page itself is at one path only.
    let name = uri.path().strip_prefix("/console/");
    let name = name.filter(|name| *name != PAGE).unwrap_or_default();
    file_named(name, &uri)
}

fn file_named(name: &str, uri: &Uri) -> Result<Response<Body>, Problem> {
    parameters::none(uri)?;
    let mut files = FILES.iter();
    let file = files.find(|file| file.name == name);
    let file = file.ok_or_else(|| no_such_path(uri.path()))?;
    let of_any = [
        (header::ETAG, file.etag.as_str()),
        (header::CACHE_CONTROL, CACHING),
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ];
    let content_type = [(header::CONTENT_TYPE, file.content_type)];
    Ok((of_any, content_type, file.bytes).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_flat_and_every_file_has_a_name_and_a_type() {
        assert_eq!(FOLDER.dirs().count(), 0);
        assert_eq!(FILES.len(), FOLDER.files().count());
        assert!(FILES.iter().any(|file| file.name == PAGE));
    }

    #[test]
    fn every_file_that_another_names_is_there() {
        for file in FILES.iter() {
            let text = std::str::from_utf8(file.bytes).unwrap();
            for before in ["\"/console/", "from \"./"] {
                for (at, _) in text.match_indices(before) {
                    let name = text[at + before.len()..].split('"').next().unwrap();
                    let is_there = FILES.iter().any(|file| file.name == name);
                    assert!(is_there, "{} names {name}", file.name);
                }
            }
        }
    }
}
