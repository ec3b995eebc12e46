//! SCTP as one who sees only the client's half can know it.
//!
//! The transitions are IPVS's for that case (the input-only direction of `ip_vs_proto_sctp.c`).
//! States are named by what the real server is in (RFC 9260, section 4), as far as the client's
//! packets show: after a COOKIE ECHO the association is taken for established, since the COOKIE
//! ACK goes past the director.

use super::ConnectionState::{
    self, SctpClosed as Cl, SctpCookie as Co, SctpCookieEchoed as Ce, SctpCookieReplied as Cr,
    SctpCookieSent as Cs, SctpCookieWait as Cw, SctpEstablished as Es, SctpInit as In,
    SctpInit1 as I1, SctpRejected as Rj, SctpShutdownAckSent as Sa, SctpShutdownReceived as Sr,
    SctpShutdownSent as Ss,
};
use crate::wire::sctp;

/// What an SCTP packet means for its association: the chunk that governs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SctpEvent {
    /// DATA, and every chunk without a row of its own.
    Data,
    Init,
    InitAck,
    CookieEcho,
    CookieAck,
    Shutdown,
    ShutdownAck,
    ShutdownComplete,
    Error,
    Abort,
}

impl SctpEvent {
    /// By the type of a chunk (RFC 9260, section 3.2). What SACK, HEARTBEAT and those that nobody
    /// has heard of mean is that there is an association, as with DATA.
    pub const fn of(chunk: u8) -> SctpEvent {
        match chunk {
            sctp::INIT => SctpEvent::Init,
            sctp::INIT_ACK => SctpEvent::InitAck,
            sctp::ABORT => SctpEvent::Abort,
            sctp::SHUTDOWN => SctpEvent::Shutdown,
            sctp::SHUTDOWN_ACK => SctpEvent::ShutdownAck,
            sctp::ERROR => SctpEvent::Error,
            sctp::COOKIE_ECHO => SctpEvent::CookieEcho,
            sctp::COOKIE_ACK => SctpEvent::CookieAck,
            sctp::SHUTDOWN_COMPLETE => SctpEvent::ShutdownComplete,
            _ => SctpEvent::Data,
        }
    }
}

/// States of SCTP, in the order of [`ConnectionState`].
const STATES: usize = 14;

/// By event, then by state.
#[rustfmt::skip]
const TRANSITIONS: [[ConnectionState; STATES]; 10] = [
    // None I1  In  Cs  Cr  Cw  Co  Ce  Es  Ss  Sr  Sa  Rj  Cl
    [Es, I1, In, Cs, Cr, Es, Co, Ce, Es, Ss, Sr, Sa, Rj, Cl], // DATA
    [I1, In, In, In, In, In, Co, Ce, Es, Ss, Sr, Sa, In, In], // INIT
    [Ce, Ce, Ce, Ce, Ce, Ce, Co, Ce, Es, Ss, Sr, Sa, Rj, Cl], // INIT ACK
    [Es, Es, Es, Es, Es, Es, Co, Ce, Es, Ss, Sr, Sa, Rj, Cl], // COOKIE ECHO
    [Es, I1, In, Es, Es, Cw, Es, Es, Es, Ss, Sr, Sa, Rj, Cl], // COOKIE ACK
    [Sr, I1, In, Cs, Cr, Cw, Co, Ce, Sr, Ss, Sr, Sa, Rj, Cl], // SHUTDOWN
    [Cl, In, In, Cs, Cr, Cw, Co, Ce, Cl, Cl, Sr, Cl, Rj, Cl], // SHUTDOWN ACK
    [Cl, Cl, Cl, Cl, Cl, Cw, Co, Ce, Es, Ss, Cl, Cl, Rj, Cl], // SHUTDOWN COMPLETE
    [Cl, I1, In, Cs, Cr, Cw, Co, Ce, Es, Ss, Sr, Sa, Rj, Cl], // ERROR
    [Cl, Cl, Cl, Cl, Cl, Rj, Cl, Cl, Cl, Cl, Cl, Cl, Cl, Cl], // ABORT
];

impl ConnectionState {
    /// The state after a packet of the client's. States that are not SCTP's stay as they are.
    #[inline]
    pub const fn after_chunk(self, event: SctpEvent) -> ConnectionState {
        if self.is_sctp() {
            TRANSITIONS[event as usize][self as usize - ConnectionState::SctpNone as usize]
        } else {
            self
        }
    }

    pub(super) const fn is_sctp(self) -> bool {
        self as usize >= ConnectionState::SctpNone as usize
    }
}

#[cfg(test)]
mod tests {
    use super::SctpEvent::*;
    use super::*;

    const NONE: ConnectionState = ConnectionState::SctpNone;

    const ALL: [ConnectionState; STATES] =
        [NONE, I1, In, Cs, Cr, Cw, Co, Ce, Es, Ss, Sr, Sa, Rj, Cl];

    #[test]
    fn the_states_are_in_the_order_of_the_table() {
        for (number, state) in ALL.into_iter().enumerate() {
            assert_eq!(state as usize - NONE as usize, number, "{state:?}");
            assert!(state.is_sctp());
        }
        assert!(!ConnectionState::Template.is_sctp() && !ConnectionState::Udp.is_sctp());
        assert_eq!(ConnectionState::Udp.after_chunk(Abort), ConnectionState::Udp);
    }

    /// What RFC 9260 has associations go through, as the client's packets show it.
    #[test]
    fn associations_go_their_way() {
        let rows: &[(&str, &[(SctpEvent, ConnectionState)])] = &[
            (
                "set up, used, and shut down by the client",
                &[(Init, I1), (CookieEcho, Es), (Data, Es), (Shutdown, Sr), (ShutdownComplete, Cl)],
            ),
            ("shut down by the server", &[(Init, I1), (CookieEcho, Es), (ShutdownAck, Cl)]),
            ("an INIT that is repeated", &[(Init, I1), (Init, In), (Init, In), (CookieEcho, Es)]),
            ("an INIT does not disturb an association", &[(CookieEcho, Es), (Init, Es)]),
            ("aborted", &[(Init, I1), (CookieEcho, Es), (Abort, Cl), (Data, Cl), (Init, In)]),
            ("aborted before it was one", &[(Init, I1), (Abort, Cl)]),
            ("met in the middle (sloppy)", &[(Data, Es), (Shutdown, Sr)]),
            ("an ERROR closes what is none yet", &[(Error, Cl)]),
            ("and nothing else", &[(Init, I1), (Error, I1), (CookieEcho, Es), (Error, Es)]),
        ];
        for (what, steps) in rows {
            let mut state = NONE;
            for (event, expected) in *steps {
                state = state.after_chunk(*event);
                assert_eq!(state, *expected, "{what}: {event:?}");
            }
        }
    }

    /// Cells that IPVS has filled in another way than the neighbouring ones.
    #[test]
    fn the_odd_cells_are_those_of_ipvs() {
        for (state, event, expected) in [
            (Cw, Data, Es),
            (Co, Data, Co),
            (Cw, Abort, Rj),
            (Rj, Init, In),
            (Co, CookieEcho, Co),
            (Co, CookieAck, Es),
            (I1, CookieAck, I1),
            (I1, ShutdownAck, In),
            (Es, ShutdownComplete, Es),
            (Sr, ShutdownAck, Sr),
            (Sr, ShutdownComplete, Cl),
            (Ss, ShutdownAck, Cl),
        ] {
            assert_eq!(state.after_chunk(event), expected, "{state:?} {event:?}");
        }
    }
}
