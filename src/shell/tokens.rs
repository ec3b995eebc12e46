//! Who is who in mio's events: every token of the event loop, in one place.

use mio::Token;

use super::control::CLIENTS_MAX as CONTROL_CLIENTS_MAX;
use super::metrics::CLIENTS_MAX as METRICS_CLIENTS_MAX;
use crate::director::SegmentId;

pub(super) const WAKER: Token = Token(0);
pub(super) const SIGNALS: Token = Token(1);
pub(super) const CONTROL: Token = Token(2);
pub(super) const METRICS: Token = Token(3);
pub(super) const COMMANDS: Token = Token(4);
const CONTROL_CLIENTS: usize = 16;
const METRICS_CLIENTS: usize = CONTROL_CLIENTS + CONTROL_CLIENTS_MAX;
const PORTS: usize = METRICS_CLIENTS + METRICS_CLIENTS_MAX;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    Waker,
    Signals,
    Control,
    Metrics,
    Commands,
    /// By its key in the slab of clients.
    ControlClient(usize),
    /// By its key in the slab of clients.
    MetricsClient(usize),
    /// By [`SegmentId::index`].
    Port(usize),
}

impl From<Token> for Subject {
    fn from(token: Token) -> Subject {
        match token {
            WAKER => Subject::Waker,
            SIGNALS => Subject::Signals,
            CONTROL => Subject::Control,
            METRICS => Subject::Metrics,
            COMMANDS => Subject::Commands,
            Token(number) if number < METRICS_CLIENTS => {
                Subject::ControlClient(number.saturating_sub(CONTROL_CLIENTS))
            }
            Token(number) if number < PORTS => Subject::MetricsClient(number - METRICS_CLIENTS),
            Token(number) => Subject::Port(number - PORTS),
        }
    }
}

pub(super) const fn control_client(key: usize) -> Token {
    Token(CONTROL_CLIENTS + key)
}

pub(super) const fn metrics_client(key: usize) -> Token {
    Token(METRICS_CLIENTS + key)
}

pub(super) const fn port(segment: SegmentId) -> Token {
    Token(PORTS + segment.index())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_comes_back_as_its_subject() {
        assert_eq!(Subject::from(WAKER), Subject::Waker);
        assert_eq!(Subject::from(SIGNALS), Subject::Signals);
        assert_eq!(Subject::from(CONTROL), Subject::Control);
        assert_eq!(Subject::from(METRICS), Subject::Metrics);
        assert_eq!(Subject::from(COMMANDS), Subject::Commands);
        for key in 0..CONTROL_CLIENTS_MAX {
            assert_eq!(Subject::from(control_client(key)), Subject::ControlClient(key));
        }
        for key in 0..METRICS_CLIENTS_MAX {
            assert_eq!(Subject::from(metrics_client(key)), Subject::MetricsClient(key));
        }
        assert_eq!(Subject::from(port(SegmentId::default())), Subject::Port(0));
    }
}
