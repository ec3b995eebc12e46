//! The state of a connection as one who sees only the client's half can know it.
//!
//! In direct routing the real server answers the client past the director. IPVS has a table of
//! transitions for that case (the input-only direction of `ip_vs_proto_tcp.c`); these are the
//! same. Those of SCTP are in [`super::sctp`]. Not known here: what the timeouts are set to, and who counts connections.

use core::time::Duration;

use serde::{Deserialize, Serialize};

use super::Eviction;
use crate::config::snapshot::{Protocol, Timeouts};
use crate::wire::packet::TcpFlags;

/// IPVS's states, by the names `ipvsadm -Lnc` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[repr(u8)]
pub enum ConnectionState {
    None,
    Established,
    SynSent,
    SynRecv,
    FinWait,
    TimeWait,
    Close,
    CloseWait,
    LastAck,
    Listen,
    Synack,
    Udp,
    /// A persistence template: no connection, but remembered where one would go.
    Template,
    // From here on those of SCTP: `sctp` goes by their order.
    SctpNone,
    SctpInit1,
    SctpInit,
    SctpCookieSent,
    SctpCookieReplied,
    SctpCookieWait,
    SctpCookie,
    SctpCookieEchoed,
    SctpEstablished,
    SctpShutdownSent,
    SctpShutdownReceived,
    SctpShutdownAckSent,
    SctpRejected,
    SctpClosed,
}

/// The class of a TCP segment, by precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpEvent {
    Rst,
    Syn,
    Fin,
    Ack,
    /// None of the four.
    Other,
}

/// States of TCP come first in [`ConnectionState`], so that they index [`TRANSITIONS`].
const TCP_STATES: usize = 11;

/// The state after SYN, FIN, ACK, RST, in the order of the states they are seen in.
const TRANSITIONS: [[ConnectionState; TCP_STATES]; 4] = {
    use ConnectionState::{
        Close as Cl, CloseWait as Cw, Established as Es, FinWait as Fw, LastAck as La,
        Listen as Li, SynRecv as Sr, SynSent as Ss, TimeWait as Tw,
    };
    [
        //None Est SynS SynR FinW TimW Clos CloW LasA List Synack
        [Sr, Es, Es, Sr, Sr, Sr, Sr, Sr, Sr, Sr, Sr],
        [Cl, Fw, Ss, Tw, Fw, Tw, Cl, Cw, La, Li, Tw],
        [Es, Es, Ss, Es, Fw, Tw, Cl, Cw, Cl, Li, Es],
        [Cl, Cl, Cl, Sr, Cl, Cl, Cl, Cl, La, Li, Cl],
    ]
};

impl From<TcpFlags> for TcpEvent {
    #[inline]
    fn from(flags: TcpFlags) -> TcpEvent {
        if flags.rst() {
            TcpEvent::Rst
        } else if flags.syn() {
            TcpEvent::Syn
        } else if flags.fin() {
            TcpEvent::Fin
        } else if flags.ack() {
            TcpEvent::Ack
        } else {
            TcpEvent::Other
        }
    }
}

impl ConnectionState {
    /// The state after a segment from the client (IPVS's input-only transitions).
    ///
    /// A segment that is none of the four closes. States that are not TCP's stay as they are.
    #[inline]
    pub const fn after(self, event: TcpEvent) -> ConnectionState {
        let row = match event {
            TcpEvent::Syn => 0,
            TcpEvent::Fin => 1,
            TcpEvent::Ack => 2,
            TcpEvent::Rst => 3,
            TcpEvent::Other => return if self.is_tcp() { ConnectionState::Close } else { self },
        };
        if self.is_tcp() { TRANSITIONS[row][self as usize] } else { self }
    }

    /// How long a connection in this state lives without a packet.
    ///
    /// A template's is its service's persistence timeout, not known here; it counts as zero.
    #[inline]
    pub const fn timeout(self, timeouts: &Timeouts) -> Duration {
        match self {
            ConnectionState::None => timeouts.tcp_none,
            ConnectionState::Established => timeouts.tcp_established,
            ConnectionState::SynSent => timeouts.tcp_syn_sent,
            ConnectionState::SynRecv => timeouts.tcp_syn_recv,
            ConnectionState::FinWait => timeouts.tcp_fin_wait,
            ConnectionState::TimeWait => timeouts.tcp_time_wait,
            ConnectionState::Close => timeouts.tcp_close,
            ConnectionState::CloseWait => timeouts.tcp_close_wait,
            ConnectionState::LastAck => timeouts.tcp_last_ack,
            ConnectionState::Listen => timeouts.tcp_listen,
            ConnectionState::Synack => timeouts.tcp_synack,
            ConnectionState::Udp => timeouts.udp,
            ConnectionState::Template => Duration::ZERO,
            ConnectionState::SctpNone => timeouts.sctp_none,
            ConnectionState::SctpInit1 => timeouts.sctp_init1,
            ConnectionState::SctpInit => timeouts.sctp_init,
            ConnectionState::SctpCookieSent => timeouts.sctp_cookie_sent,
            ConnectionState::SctpCookieReplied => timeouts.sctp_cookie_replied,
            ConnectionState::SctpCookieWait => timeouts.sctp_cookie_wait,
            ConnectionState::SctpCookie => timeouts.sctp_cookie,
            ConnectionState::SctpCookieEchoed => timeouts.sctp_cookie_echoed,
            ConnectionState::SctpEstablished => timeouts.sctp_established,
            ConnectionState::SctpShutdownSent => timeouts.sctp_shutdown_sent,
            ConnectionState::SctpShutdownReceived => timeouts.sctp_shutdown_received,
            ConnectionState::SctpShutdownAckSent => timeouts.sctp_shutdown_ack_sent,
            ConnectionState::SctpRejected => timeouts.sctp_rejected,
            ConnectionState::SctpClosed => timeouts.sctp_closed,
        }
    }

    /// Whether a connection of this transport, or a template for it, can be in this state.
    pub const fn fits(self, protocol: Protocol) -> bool {
        match self {
            ConnectionState::Template => true,
            ConnectionState::Udp => matches!(protocol, Protocol::Udp),
            _ if self.is_sctp() => matches!(protocol, Protocol::Sctp),
            _ => matches!(protocol, Protocol::Tcp),
        }
    }

    /// Whether it counts as an *active* connection of its real server.
    #[inline]
    pub const fn is_active(self) -> bool {
        matches!(
            self,
            ConnectionState::Established
                | ConnectionState::SynSent
                | ConnectionState::SynRecv
                | ConnectionState::Synack
                | ConnectionState::SctpEstablished
        )
    }

    /// Whether a SYN may start over in its place: closing, as far as one side shows (IPVS's
    /// `conn_reuse_mode` 2 and one-sided flows: FIN_WAIT, TIME_WAIT, CLOSE). Of SCTP, whether an
    /// INIT may.
    #[inline]
    pub const fn is_reusable(self) -> bool {
        matches!(
            self,
            ConnectionState::FinWait
                | ConnectionState::TimeWait
                | ConnectionState::Close
                | ConnectionState::SctpClosed
        )
    }

    /// Whether the client has done nothing but ask for a connection: another real server would do
    /// as well.
    pub const fn is_opening(self) -> bool {
        matches!(
            self,
            ConnectionState::SynRecv | ConnectionState::SctpInit1 | ConnectionState::SctpInit
        )
    }

    /// Who goes first when the table is full.
    #[inline]
    pub const fn eviction(self) -> Eviction {
        match self {
            ConnectionState::None
            | ConnectionState::SynSent
            | ConnectionState::SynRecv
            | ConnectionState::Synack
            | ConnectionState::SctpNone
            | ConnectionState::SctpInit1
            | ConnectionState::SctpInit
            | ConnectionState::SctpCookieSent
            | ConnectionState::SctpCookieReplied
            | ConnectionState::SctpCookieWait
            | ConnectionState::SctpCookie
            | ConnectionState::SctpCookieEchoed => Eviction::HalfOpen,
            ConnectionState::FinWait
            | ConnectionState::TimeWait
            | ConnectionState::Close
            | ConnectionState::CloseWait
            | ConnectionState::LastAck
            | ConnectionState::SctpShutdownSent
            | ConnectionState::SctpShutdownReceived
            | ConnectionState::SctpShutdownAckSent
            | ConnectionState::SctpRejected
            | ConnectionState::SctpClosed => Eviction::Closing,
            ConnectionState::Template => Eviction::Template,
            ConnectionState::Established
            | ConnectionState::Listen
            | ConnectionState::Udp
            | ConnectionState::SctpEstablished => Eviction::Kept,
        }
    }

    /// The same of a connection that has had one packet only. Without a handshake (other
    /// protocols; a connection met in its middle) nothing shows the client to be there: a second
    /// packet must do.
    pub const fn eviction_at_first(self) -> Eviction {
        match self {
            ConnectionState::Udp
            | ConnectionState::Established
            | ConnectionState::SctpEstablished => Eviction::HalfOpen,
            other => other.eviction(),
        }
    }

    /// The classes that make room for it in a full table, in this order. A template takes the
    /// place of another one only: with each new client bringing one, templates would in time
    /// leave no room for the connections themselves.
    pub const fn displaces(self) -> &'static [Eviction] {
        match self {
            ConnectionState::Template => &[Eviction::Template],
            _ => &[Eviction::HalfOpen, Eviction::Closing, Eviction::Template],
        }
    }

    /// As `ipvsadm -Lnc` prints it.
    pub const fn name(self) -> &'static str {
        match self {
            // IPVS has no state of its own for templates.
            ConnectionState::None | ConnectionState::Template | ConnectionState::SctpNone => "NONE",
            ConnectionState::Established | ConnectionState::SctpEstablished => "ESTABLISHED",
            ConnectionState::SynSent => "SYN_SENT",
            ConnectionState::SynRecv => "SYN_RECV",
            ConnectionState::FinWait => "FIN_WAIT",
            ConnectionState::TimeWait => "TIME_WAIT",
            ConnectionState::Close => "CLOSE",
            ConnectionState::CloseWait => "CLOSE_WAIT",
            ConnectionState::LastAck => "LAST_ACK",
            ConnectionState::Listen => "LISTEN",
            ConnectionState::Synack => "SYNACK",
            ConnectionState::Udp => "UDP",
            ConnectionState::SctpInit1 => "INIT1",
            ConnectionState::SctpInit => "INIT",
            ConnectionState::SctpCookieSent => "C-SENT",
            ConnectionState::SctpCookieReplied => "C-REPLIED",
            ConnectionState::SctpCookieWait => "C-WAIT",
            ConnectionState::SctpCookie => "COOKIE",
            ConnectionState::SctpCookieEchoed => "C-ECHOED",
            ConnectionState::SctpShutdownSent => "S-SENT",
            ConnectionState::SctpShutdownReceived => "S-RECEIVED",
            ConnectionState::SctpShutdownAckSent => "S-ACK-SENT",
            ConnectionState::SctpRejected => "REJECTED",
            ConnectionState::SctpClosed => "CLOSED",
        }
    }

    const fn is_tcp(self) -> bool {
        (self as usize) < TCP_STATES
    }
}

#[cfg(test)]
mod tests {
    use super::ConnectionState::*;
    use super::*;

    const ALL: [ConnectionState; 27] = [
        None,
        Established,
        SynSent,
        SynRecv,
        FinWait,
        TimeWait,
        Close,
        CloseWait,
        LastAck,
        Listen,
        Synack,
        Udp,
        Template,
        SctpNone,
        SctpInit1,
        SctpInit,
        SctpCookieSent,
        SctpCookieReplied,
        SctpCookieWait,
        SctpCookie,
        SctpCookieEchoed,
        SctpEstablished,
        SctpShutdownSent,
        SctpShutdownReceived,
        SctpShutdownAckSent,
        SctpRejected,
        SctpClosed,
    ];

    #[test]
    fn segments_move_a_connection_as_in_ipvs() {
        // State, then the state after SYN, FIN, ACK, RST, and a segment with none of them.
        let rows = [
            (None, [SynRecv, Close, Established, Close, Close]),
            (Established, [Established, FinWait, Established, Close, Close]),
            (SynSent, [Established, SynSent, SynSent, Close, Close]),
            (SynRecv, [SynRecv, TimeWait, Established, SynRecv, Close]),
            (FinWait, [SynRecv, FinWait, FinWait, Close, Close]),
            (TimeWait, [SynRecv, TimeWait, TimeWait, Close, Close]),
            (Close, [SynRecv, Close, Close, Close, Close]),
            (CloseWait, [SynRecv, CloseWait, CloseWait, Close, Close]),
            (LastAck, [SynRecv, LastAck, Close, LastAck, Close]),
            (Listen, [SynRecv, Listen, Listen, Listen, Close]),
            (Synack, [SynRecv, TimeWait, Established, Close, Close]),
            (Udp, [Udp; 5]),
            (Template, [Template; 5]),
        ];
        let (ours, sctp) = ALL.split_at(rows.len());
        assert_eq!(rows.map(|(state, _)| state), ours, "a row for every state but SCTP's");
        for state in sctp {
            assert_eq!(state.after(TcpEvent::Syn), *state);
        }
        let events = [TcpEvent::Syn, TcpEvent::Fin, TcpEvent::Ack, TcpEvent::Rst, TcpEvent::Other];
        for (state, after) in rows {
            assert_eq!(events.map(|event| state.after(event)), after, "from {state:?}");
        }
    }

    #[test]
    fn the_class_of_a_segment_goes_by_precedence() {
        const FIN: u8 = TcpFlags::FIN;
        const SYN: u8 = TcpFlags::SYN;
        const RST: u8 = TcpFlags::RST;
        const PSH: u8 = TcpFlags::PSH;
        const ACK: u8 = TcpFlags::ACK;
        for (flags, event) in [
            (FIN | SYN | RST | PSH | ACK, TcpEvent::Rst),
            (RST | ACK, TcpEvent::Rst),
            (FIN | SYN | PSH | ACK, TcpEvent::Syn),
            (SYN, TcpEvent::Syn),
            (FIN | PSH | ACK, TcpEvent::Fin),
            (PSH | ACK, TcpEvent::Ack),
            (PSH, TcpEvent::Other),
            (0, TcpEvent::Other),
        ] {
            assert_eq!(TcpEvent::from(TcpFlags(flags)), event, "flags {flags:#04x}");
        }
    }

    #[test]
    fn each_state_has_its_properties() {
        use Eviction::{Closing, HalfOpen, Kept};
        // State, default timeout in seconds, active, reusable, eviction, name.
        let rows = [
            (None, 2, false, false, HalfOpen, "NONE"),
            (Established, 900, true, false, Kept, "ESTABLISHED"),
            (SynSent, 120, true, false, HalfOpen, "SYN_SENT"),
            (SynRecv, 60, true, false, HalfOpen, "SYN_RECV"),
            (FinWait, 120, false, true, Closing, "FIN_WAIT"),
            (TimeWait, 120, false, true, Closing, "TIME_WAIT"),
            (Close, 10, false, true, Closing, "CLOSE"),
            (CloseWait, 60, false, false, Closing, "CLOSE_WAIT"),
            (LastAck, 30, false, false, Closing, "LAST_ACK"),
            (Listen, 120, false, false, Kept, "LISTEN"),
            (Synack, 120, true, false, HalfOpen, "SYNACK"),
            (Udp, 300, false, false, Kept, "UDP"),
            (Template, 0, false, false, Eviction::Template, "NONE"),
            (SctpNone, 2, false, false, HalfOpen, "NONE"),
            (SctpInit1, 4, false, false, HalfOpen, "INIT1"),
            (SctpInit, 61, false, false, HalfOpen, "INIT"),
            (SctpCookieSent, 61, false, false, HalfOpen, "C-SENT"),
            (SctpCookieReplied, 61, false, false, HalfOpen, "C-REPLIED"),
            (SctpCookieWait, 61, false, false, HalfOpen, "C-WAIT"),
            (SctpCookie, 61, false, false, HalfOpen, "COOKIE"),
            (SctpCookieEchoed, 61, false, false, HalfOpen, "C-ECHOED"),
            (SctpEstablished, 900, true, false, Kept, "ESTABLISHED"),
            (SctpShutdownSent, 61, false, false, Closing, "S-SENT"),
            (SctpShutdownReceived, 61, false, false, Closing, "S-RECEIVED"),
            (SctpShutdownAckSent, 61, false, false, Closing, "S-ACK-SENT"),
            (SctpRejected, 4, false, false, Closing, "REJECTED"),
            (SctpClosed, 61, false, true, Closing, "CLOSED"),
        ];
        assert_eq!(rows.map(|row| row.0), ALL, "a row for every state");
        let timeouts = Timeouts::default();
        for (state, seconds, active, reusable, eviction, name) in rows {
            assert_eq!(state.timeout(&timeouts), Duration::from_secs(seconds), "{state:?}");
            assert_eq!(state.is_active(), active, "{state:?}");
            assert_eq!(state.is_reusable(), reusable, "{state:?}");
            assert_eq!(state.eviction(), eviction, "{state:?}");
            let alone = matches!(state, Udp | Established | SctpEstablished);
            let at_first = if alone { HalfOpen } else { eviction };
            assert_eq!(state.eviction_at_first(), at_first, "{state:?}");
            assert_eq!(state.displaces().contains(&HalfOpen), state != Template, "{state:?}");
            assert!(!state.displaces().contains(&Kept), "{state:?}");
            assert_eq!(state.name(), name, "{state:?}");
            let fits = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].map(|of| state.fits(of));
            let expected = match state {
                Template => [true, true, true],
                Udp => [false, true, false],
                _ if state.is_sctp() => [false, false, true],
                _ => [true, false, false],
            };
            assert_eq!(fits, expected, "{state:?}");
        }
    }
}
