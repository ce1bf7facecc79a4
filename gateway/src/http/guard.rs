//! The check of a request's caller between its route and its handler, before the handler sees
//! anything of the request.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::{Request, Response, request};
use axum::response::IntoResponse as _;
use futures_util::future::Either;
use tower::{Layer, Service};

use super::access::{Caller, no_token};
use super::app::App;
use super::operations::Access;
use super::problem::Problem;

/// For handlers that check the caller themselves. The gate names the caller of each request.
impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut request::Parts, _: &App) -> Result<Self, Problem> {
        Self::of(&parts.extensions).cloned()
    }
}

/// Puts a [`Guard`] before the handler of an operation.
#[derive(Clone, Copy)]
pub(super) struct GuardLayer {
    pub(super) access: Access,
    /// What precedes the key in the path; empty where there is no key.
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

/// Passes a request on to its handler if its caller may do this. Only where there are tokens.
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
        let caller = caller.ok_or_else(no_token)?;
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
            Err(problem) => Either::Right(ready(Ok(problem.into_response()))),
        }
    }
}
