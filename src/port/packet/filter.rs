//! Which frames of an interface come up to the director: a program for the kernel's classic
//! packet filter, run before anything is copied.
//!
//! What the host says and hears on the interface for itself is none of our business, and most of
//! the traffic; it costs these few instructions a frame.

use libc::{BPF_ABS, BPF_B, BPF_H, BPF_JEQ, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W};

use crate::wire::MacAddr;

/// `struct sock_filter`.
pub(super) type Instruction = libc::sock_filter;

/// More than any frame has.
const WHOLE: u32 = u32::MAX;
const ETHERTYPE_ARP: u32 = 0x0806;
const ETHERTYPE_IPV6: u32 = 0x86dd;
const NEXT_HEADER_ICMPV6: u32 = 58;
/// Multicast listener discovery comes after hop-by-hop options.
const NEXT_HEADER_HOP_BY_HOP: u32 = 0;

const fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> Instruction {
    Instruction { code: code as u16, jt, jf, k }
}

/// Loads from the frame.
const fn load(size: u32, offset: u32) -> Instruction {
    instruction(BPF_LD | size | BPF_ABS, 0, 0, offset)
}

/// Compares, and skips so many instructions if equal and if not.
const fn if_equal(value: u32, equal: u8, otherwise: u8) -> Instruction {
    instruction(BPF_JMP | BPF_JEQ | BPF_K, equal, otherwise, value)
}

const fn give(bytes: u32) -> Instruction {
    instruction(BPF_RET | BPF_K, 0, 0, bytes)
}

/// The program. A load beyond the end of a frame ends it with nothing.
pub(super) fn program(mac: MacAddr) -> [Instruction; 15] {
    let MacAddr([a, b, c, d, e, f]) = mac;
    [
        load(BPF_W, 0),
        if_equal(u32::from_be_bytes([a, b, c, d]), 0, 3),
        load(BPF_H, 4),
        if_equal(u32::from_be_bytes([0, 0, e, f]), 0, 1),
        give(WHOLE),
        // To many: broadcast or multicast.
        load(BPF_B, 0),
        instruction(BPF_JMP | BPF_JSET | BPF_K, 0, 6, 1),
        load(BPF_H, 12),
        if_equal(ETHERTYPE_ARP, 5, 0),
        if_equal(ETHERTYPE_IPV6, 0, 3),
        load(BPF_B, 20),
        if_equal(NEXT_HEADER_ICMPV6, 2, 0),
        if_equal(NEXT_HEADER_HOP_BY_HOP, 1, 0),
        give(0),
        give(WHOLE),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel does: the instructions used here, no others.
    fn accepts(program: &[Instruction], frame: &[u8]) -> bool {
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let Instruction { code, jt, jf, k } = program[at];
            at += 1;
            let (code, k_at) = (u32::from(code), k as usize);
            let len = match code & 0x18 {
                BPF_W => 4,
                BPF_H => 2,
                _ => 1,
            };
            match code & 0x07 {
                BPF_LD => match frame.get(k_at..k_at + len) {
                    Some(bytes) => {
                        accumulator = bytes.iter().fold(0, |sum, &byte| sum << 8 | u32::from(byte));
                    }
                    None => return false,
                },
                BPF_JMP => {
                    let is_true = match code & 0xf0 {
                        BPF_JEQ => accumulator == k,
                        _ => accumulator & k != 0,
                    };
                    at += usize::from(if is_true { jt } else { jf });
                }
                BPF_RET => return k != 0,
                other => panic!("{other}"),
            }
        }
    }

    #[test]
    fn only_what_the_director_has_to_do_with_is_heard() {
        let mac = MacAddr([2, 0, 0, 0, 1, 1]);
        let frame = |to: [u8; 6], ethertype: [u8; 2], next_header: u8| {
            let mut bytes = [0; 60];
            bytes[..6].copy_from_slice(&to);
            bytes[12..14].copy_from_slice(&ethertype);
            bytes[20] = next_header;
            bytes
        };
        let (ip, arp, ipv6) = ([8, 0], [8, 6], [0x86, 0xdd]);
        let (all, group) = ([0xff; 6], [0x33, 0x33, 0xff, 0, 0, 1]);
        // To whom, what; whether it is heard.
        let rows = [
            (frame(mac.0, ip, 6), true),
            (frame(mac.0, arp, 0), true),
            (frame([2, 0, 0, 0, 1, 2], ip, 6), false),
            (frame([2, 0, 0, 1, 1, 1], ip, 6), false),
            (frame([2, 0, 0, 0, 1, 2], arp, 6), false),
            (frame(all, arp, 0), true),
            (frame(all, ip, 17), false),
            (frame(group, ipv6, 58), true),
            (frame(group, ipv6, 0), true),
            (frame(group, ipv6, 17), false),
            (frame([1, 0, 0x5e, 0, 0, 1], ip, 2), false),
        ];
        for (frame, expected) in rows {
            assert_eq!(accepts(&program(mac), &frame), expected, "{frame:x?}");
        }
    }

    #[test]
    fn a_frame_cut_short_is_not_heard_and_harms_nobody() {
        let mac = MacAddr([2, 0, 0, 0, 1, 1]);
        let mut frame = [0xff; 60];
        frame[12..14].copy_from_slice(&[0x86, 0xdd]);
        frame[20] = 58;
        for len in 0..frame.len() {
            assert_eq!(accepts(&program(mac), &frame[..len]), len > 20, "{len}");
        }
    }
}
