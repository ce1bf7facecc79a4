//! What a list is of, as its query says.

use std::time::Duration;

use axum::http::Uri;
use bytes::Bytes;
use dkvs_client::CallerId;
use dkvs_common::model::{Direction, KeyPosition};
use dkvs_common::quorum::list::Listing;
use dkvs_common::quorum::params::majority;

use super::cursor::{self, CursorError, Listed};
use crate::http::app::App;
use crate::http::operations::parameter::{
    CURSOR, DELIMITER, LIMIT, PREFIX, R, REVERSE, START, VALUES,
};
use crate::http::operations::{GET_PARAMETERS, LIST_PARAMETERS};
use crate::http::parameters::{KeyParameters, Query, timeout};
use crate::http::problem::Problem;

/// What a list is of.
pub(super) struct ListQuery {
    pub(super) listed: Listed,
    pub(super) listing: Listing,
    pub(super) timeout: Duration,
    /// How its values are read, if it is to have them.
    pub(super) values: Option<KeyParameters>,
}

impl ListQuery {
    pub(super) fn parse(app: &App, uri: &Uri, caller: CallerId) -> Result<Self, Problem> {
        let defaults = app.defaults();
        let mut query = Query::new(uri, LIST_PARAMETERS);
        let mut bytes = |parameter| query.bytes(parameter).map(Bytes::from);
        let listed = Listed {
            prefix: bytes(&PREFIX).unwrap_or_default(),
            start: bytes(&START),
            delimiter: bytes(&DELIMITER).unwrap_or_default(),
            direction: match query.flag(&REVERSE) {
                true => Direction::Descending,
                false => Direction::Ascending,
            },
        };
        let limit = query.number(&LIMIT);
        let place = query.text(&CURSOR).map(|cursor| {
            let cursors = &app.gateway.cursors;
            cursor::open(cursors, &app.client.view(), &listed, &cursor)
        });
        if let Some(Err(error)) = place {
            query.refuse(&CURSOR, reason(error));
        }
        let has_values = query.flag(&VALUES);
        let timeout = timeout(&mut query, &defaults);
        query.finish()?;
        let listing = Listing {
            prefix: listed.prefix.clone(),
            start: place.and_then(Result::ok).unwrap_or_else(|| listed.first()),
            direction: listed.direction,
            delimiter: listed.delimiter.clone(),
            items_max: limit.unwrap_or(LIMIT.schema.max) as usize,
            silent_max: usize::from(defaults.replication - majority(defaults.replication)),
        };
        let mut values = None;
        if has_values {
            let query = Query::of_values([], GET_PARAMETERS);
            let mut parameters = KeyParameters::parse(&defaults, query, &R)?;
            parameters.options.caller = caller;
            parameters.options.timeout = timeout;
            values = Some(parameters);
        }
        Ok(Self {
            listed,
            listing,
            timeout,
            values,
        })
    }
}

impl Listed {
    /// Where its first page begins.
    fn first(&self) -> KeyPosition {
        match &self.start {
            Some(start) => KeyPosition::at(start.clone(), self.direction),
            None => KeyPosition::first_of(&self.prefix, self.direction),
        }
    }
}

fn reason(error: CursorError) -> &'static str {
    match error {
        CursorError::OfOtherOrder => {
            "it is from a gateway of a version before, whose lists had another order; begin the list \
             anew, without a cursor"
        }
        CursorError::Unknown => {
            "it is none that a list with this very `prefix`, `start`, `delimiter` and `reverse` gave, or \
             the keys by which gateways seal cursors have changed since; begin the list anew, without a \
             cursor"
        }
    }
}
