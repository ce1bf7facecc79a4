//! Who may do what: what each operation needs, and what a caller's token is good for.
//!
//! Every [`Operation`](super::Operation) has an [`Access`]. That there is a token at all is asked
//! before a request is routed ([`gate`](super::gate)); what it is good for is asked here, once the
//! route is known and before the handler sees anything of the request. Nothing here knows how
//! tokens are written down ([`tokens`](crate::tokens)).

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::{Request, Response, request};
use axum::response::IntoResponse as _;
use dkvs_common::kv::Key;
use futures_util::future::Either;
use percent_encoding::percent_decode_str;
use tower::{Layer, Service};

use super::App;
use super::body::linger_in;
use super::problem::Problem;
pub use crate::tokens::Scope;
use crate::tokens::Token;

/// What an operation asks of its caller, where there are tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing, not even a token.
    Open,
    /// A token, whatever its scopes. The handler asks [`Caller::may`] or [`Caller::may_list`] for
    /// whatever it is told to do.
    Token,
    /// A token with this scope, for the key in the path.
    Key(Scope),
    /// A token with this scope. No key is involved, so its prefixes do not matter.
    Cluster(Scope),
}

/// Who sent a request, as far as it matters for what they may do.
#[derive(Clone)]
pub struct Caller(Option<Arc<Token>>);

impl Caller {
    /// Anyone at all, where there are no tokens.
    pub(super) fn anyone() -> Self {
        Self(None)
    }

    /// Who has a token.
    pub(super) fn with(token: &Arc<Token>) -> Self {
        Self(Some(Arc::clone(token)))
    }

    /// Whether the caller's token has a scope and is for a key, if one is involved.
    pub fn may(&self, scope: Scope, key: Option<&Key>) -> Result<(), Problem> {
        let token = self.having(scope)?;
        match (token, key) {
            (Some(token), Some(key)) if !token.covers(key.as_bytes().iter().copied()) => {
                Err(Problem::forbidden_key(token.name()))
            }
            _ => Ok(()),
        }
    }

    /// Whether the caller may list all keys that begin with `prefix`: they have to lie within one
    /// of the token's prefixes.
    pub fn may_list(&self, prefix: &[u8]) -> Result<(), Problem> {
        match self.having(Scope::Read)? {
            Some(token) if !token.covers(prefix.iter().copied()) => {
                Err(Problem::forbidden_listing(token.name()))
            }
            _ => Ok(()),
        }
    }

    /// The token, if there are tokens, which has this scope.
    fn having(&self, scope: Scope) -> Result<Option<&Token>, Problem> {
        match &self.0 {
            Some(token) if !token.has(scope) => {
                Err(Problem::forbidden_scope(token.name(), scope.word()))
            }
            token => Ok(token.as_deref()),
        }
    }

    /// Whether the caller may carry out an operation whose path, `prefix` taken off, is `rest`.
    fn may_use(&self, access: Access, rest: &str) -> Result<(), Problem> {
        match access {
            Access::Open | Access::Token => Ok(()),
            Access::Cluster(scope) => self.may(scope, None),
            Access::Key(scope) => match self.having(scope)? {
                // An escape that is broken is left as it is here, and refused by the handler.
                Some(token) if !token.covers(percent_decode_str(rest)) => {
                    Err(Problem::forbidden_key(token.name()))
                }
                _ => Ok(()),
            },
        }
    }
}

/// For handlers that ask for themselves. Where there are tokens, a request that got here without
/// one has no caller.
impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut request::Parts, app: &App) -> Result<Self, Problem> {
        match parts.extensions.get::<Self>() {
            Some(caller) => Ok(caller.clone()),
            None if app.0.gate.has_tokens() => Err(Problem::no_token()),
            None => Ok(Self::anyone()),
        }
    }
}

/// Puts a [`Guard`] before the handler of an operation.
#[derive(Clone, Copy)]
pub(super) struct GuardLayer {
    pub(super) access: Access,
    /// What precedes the key in the path; none where there is no key.
    pub(super) key_prefix: &'static str,
}

impl<S> Layer<S> for GuardLayer {
    type Service = Guard<S>;

    fn layer(&self, handler: S) -> Guard<S> {
        Guard {
            layer: *self,
            handler,
        }
    }
}

/// Lets a request through to its handler if its caller may do this. Only where there are tokens.
#[derive(Clone)]
pub(super) struct Guard<S> {
    layer: GuardLayer,
    handler: S,
}

impl<S> Guard<S> {
    fn check(&self, request: &Request<Body>) -> Result<(), Problem> {
        let GuardLayer { access, key_prefix } = self.layer;
        if access == Access::Open {
            return Ok(());
        }
        let caller = request.extensions().get::<Caller>();
        let caller = caller.ok_or_else(Problem::no_token)?;
        let rest = request.uri().path().strip_prefix(key_prefix);
        caller.may_use(access, rest.unwrap_or_default())
    }
}

impl<S> Service<Request<Body>> for Guard<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<Result<Response<Body>, Infallible>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.handler.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match self.check(&request) {
            Ok(()) => Either::Left(self.handler.call(request)),
            Err(problem) => {
                linger_in(request);
                Either::Right(ready(Ok(problem.into_response())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::{Scopes, Tokens, mint};

    /// One whose token's line ends so.
    fn caller(end: &str) -> Caller {
        let minted = mint("name", Scopes::parse("read").unwrap(), &[]).unwrap();
        let line = minted.line.replace("read", end);
        let tokens = Tokens::parse("tokens", line.as_bytes()).unwrap();
        Caller::with(tokens.find(minted.token.as_bytes()).unwrap())
    }

    fn key(bytes: &[u8]) -> Key {
        Key::new(bytes.to_vec()).unwrap()
    }

    #[test]
    fn without_tokens_anyone_may_do_anything() {
        let anyone = Caller::anyone();
        for scope in Scope::ALL {
            assert!(anyone.may(scope, None).is_ok());
            assert!(anyone.may(scope, Some(&key(b"k"))).is_ok());
            assert!(anyone.may_use(Access::Key(scope), "k").is_ok());
        }
        assert!(anyone.may_list(b"").is_ok());
    }

    #[test]
    fn no_scope_includes_another() {
        for scope in Scope::ALL {
            let caller = caller(scope.word());
            for asked in Scope::ALL {
                assert_eq!(caller.may(asked, None).is_ok(), asked == scope);
                let access = Access::Cluster(asked);
                assert_eq!(caller.may_use(access, "").is_ok(), asked == scope);
                let access = Access::Key(asked);
                assert_eq!(caller.may_use(access, "k").is_ok(), asked == scope);
            }
            assert_eq!(caller.may_list(b"").is_ok(), scope == Scope::Read);
            assert!(caller.may_use(Access::Token, "").is_ok());
        }
    }

    #[test]
    fn a_prefix_is_one_of_the_decoded_key() {
        let caller = caller("read,admin prefix=a%2Fb prefix=%ff");
        for (encoded, decoded, covered) in [
            ("a/b", &b"a/b"[..], true),
            ("a%2fb", b"a/b", true),
            ("%61/%62c", b"a/bc", true),
            ("%FF%00", b"\xff\0", true),
            ("a", b"a", false),
            ("a/", b"a/", false),
            ("A/b", b"A/b", false),
            ("a%252Fb", b"a%2Fb", false),
            ("x/../a/b", b"x/../a/b", false),
        ] {
            let access = Access::Key(Scope::Read);
            assert_eq!(
                caller.may_use(access, encoded).is_ok(),
                covered,
                "{encoded}"
            );
            let may = caller.may(Scope::Read, Some(&key(decoded)));
            assert_eq!(may.is_ok(), covered, "{encoded}");
            assert_eq!(caller.may_list(decoded).is_ok(), covered, "{encoded}");
        }
        assert!(caller.may_list(b"").is_err());
        assert!(caller.may_use(Access::Key(Scope::Read), "").is_err());
        assert!(caller.may(Scope::Admin, None).is_ok(), "it is about no key");
    }
}
