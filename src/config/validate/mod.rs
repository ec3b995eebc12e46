//! What the values of a document get wrong together, and the [`Snapshot`] they make if nothing is.
//!
//! Every check runs on what could be read, so that one mistake does not hide the next.

mod checks;
mod claims;
mod listen;
mod options;
mod placement;
mod real_servers;
mod scheduling;
mod segments;
mod services;

pub use scheduling::MH_SLOTS_MAX;
pub use segments::SEGMENTS_MAX;
pub use services::{REAL_SERVERS_MAX, SERVICES_MAX};

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use super::diagnostics::{Mistakes, Read, Span};
use super::document::{Document, RouterSection};
use super::snapshot::{Router, Snapshot};

/// Checks the document as a whole.
pub(super) fn validate(document: &Document, mistakes: &mut Mistakes) -> Read<Snapshot> {
    let segments = segments::validate(document, mistakes);
    let services = services::validate(document, segments.as_deref().unwrap_or(&[]), mistakes);
    document.complete.and(document.segments_complete)?;
    Ok(Snapshot {
        router: router(&document.router)?,
        announce: document.announce?,
        timeouts: document.timeouts?,
        segments: segments?,
        services: services?.into_iter().map(Arc::new).collect(),
    })
}

fn router(section: &RouterSection) -> Read<Router> {
    Ok(Router {
        name: section.name.clone()?,
        control_socket: section.control_socket.clone()?,
        metrics: section.metrics?,
        connections_max: section.connections_max?,
        unmatched: section.unmatched?,
        state: section.state.clone()?,
        state_max_age: section.state_max_age?,
    })
}

/// Where each of many things that may occur once was seen first.
struct Seen<K>(HashMap<K, Span>);

impl<K: Eq + Hash> Seen<K> {
    fn new() -> Seen<K> {
        Seen(HashMap::new())
    }

    /// Notes the place; the first one, if there was one already.
    fn note(&mut self, key: K, span: Span) -> Option<Span> {
        let first = *self.0.entry(key).or_insert(span);
        (first != span).then_some(first)
    }
}
