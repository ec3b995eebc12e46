//! What is left of [`super::https`] in a build without the feature `https`: the configuration refuses
//! such checks, and nothing here is ever run.

use core::convert::Infallible;
use core::net::IpAddr;
use core::time::Duration;

use super::http::Verdict;
use super::{Fault, Stage};
use crate::config::check::{HttpsCheck, WITHOUT_HTTPS};

#[derive(Default)]
pub(super) struct Preparation {}

impl Preparation {
    pub fn set_time(&self, _: Duration) {}

    pub fn session(&mut self, _: &HttpsCheck, _: IpAddr) -> Result<Session, Fault> {
        Err(Fault::Other(WITHOUT_HTTPS.to_owned()))
    }
}

/// Whether a text is a list of certificates that others can be signed by.
///
/// # Errors
/// Always: who could tell is not there.
pub fn examine(_: &str) -> Result<(), String> {
    Err(WITHOUT_HTTPS.to_owned())
}

/// There is none.
pub(super) struct Session(Infallible);

impl Session {
    pub fn to_send(&self) -> &[u8] {
        match self.0 {}
    }

    pub fn sent(&mut self, _: usize) {
        match self.0 {}
    }

    pub fn stage(&self) -> Stage {
        match self.0 {}
    }

    pub fn feed(&mut self, _: &[u8]) -> Verdict {
        match self.0 {}
    }

    pub fn end(&mut self) -> Result<(), Fault> {
        match self.0 {}
    }
}
