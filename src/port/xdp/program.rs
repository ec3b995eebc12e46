//! The program that tells the director's frames from the host's, in the kernel's instructions.
//!
//! Frames to the director's MAC go to the socket of the queue they came by. Everything else goes on
//! to the host as if the program were not there; and so do frames too long for a slot of the
//! socket's memory (super-frames of local senders), and those of a queue without a socket. A packet
//! socket beside hears them, with broadcasts, of which host and director must both have a copy: a
//! program of this kind cannot make one.
//!
//! In C it would be:
//!
//! ```c
//! if (data + 14 > data_end || data_end > data + longest) return XDP_PASS;
//! if (*(u32 *)data != mac_0_3 || *(u16 *)(data + 4) != mac_4_5) return XDP_PASS;
//! return bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_PASS);
//! ```

use crate::wire::MacAddr;
use crate::wire::frame::ETHERNET_HEADER_LEN;

/// `struct bpf_insn` of `linux/bpf.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instruction {
    code: u8,
    /// Destination and source.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// Operation codes, as `linux/bpf.h` puts them together.
const LOAD_WORD: u8 = 0x61;
const LOAD_HALF: u8 = 0x69;
const LOAD_MAP: u8 = 0x18;
const MOVE: u8 = 0xbf;
const SET: u8 = 0xb7;
const ADD: u8 = 0x07;
const IF_GREATER: u8 = 0x2d;
const IF_NOT_EQUAL: u8 = 0x56;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;

/// Where `struct xdp_md` has what we read of it.
const DATA: i16 = 0;
const DATA_END: i16 = 4;
const RX_QUEUE: i16 = 16;
/// The source register that makes an immediate the descriptor of a map.
const MAP_DESCRIPTOR: u8 = 1;
/// The helper `bpf_redirect_map`.
const REDIRECT_MAP: i32 = 51;
const XDP_PASS: i32 = 2;

/// The last two instructions: on to the host.
const PASS_AT: usize = 18;
const LEN: usize = 20;

const fn instruction(
    code: u8,
    destination: u8,
    source: u8,
    offset: i16,
    immediate: i32,
) -> Instruction {
    let registers = if cfg!(target_endian = "little") {
        destination | source << 4
    } else {
        destination << 4 | source
    };
    Instruction { code, registers, offset, immediate }
}

/// The program for a director's MAC, frames up to `longest` bytes, and the map with this
/// descriptor.
pub(super) fn assemble(mac: MacAddr, longest: u16, map: i32) -> [Instruction; LEN] {
    let MacAddr([a, b, c, d, e, f]) = mac;
    // As the loads below find them: in the byte order of the machine.
    let first = i32::from_ne_bytes([a, b, c, d]);
    let last = i32::from(u16::from_ne_bytes([e, f]));
    let to_pass = |at: usize| (PASS_AT - at - 1) as i16;
    let header = ETHERNET_HEADER_LEN as i32;
    [
        // r2 = data, r3 = data_end; r1 stays the context.
        instruction(LOAD_WORD, 2, 1, DATA, 0),
        instruction(LOAD_WORD, 3, 1, DATA_END, 0),
        instruction(MOVE, 4, 2, 0, 0),
        instruction(ADD, 4, 0, 0, header),
        instruction(IF_GREATER, 4, 3, to_pass(4), 0),
        instruction(MOVE, 4, 2, 0, 0),
        instruction(ADD, 4, 0, 0, i32::from(longest)),
        instruction(IF_GREATER, 3, 4, to_pass(7), 0),
        instruction(LOAD_WORD, 4, 2, 0, 0),
        instruction(IF_NOT_EQUAL, 4, 0, to_pass(9), first),
        instruction(LOAD_HALF, 4, 2, 4, 0),
        instruction(IF_NOT_EQUAL, 4, 0, to_pass(11), last),
        // bpf_redirect_map(map, queue, XDP_PASS)
        instruction(LOAD_WORD, 2, 1, RX_QUEUE, 0),
        instruction(LOAD_MAP, 1, MAP_DESCRIPTOR, 0, map),
        instruction(0, 0, 0, 0, 0),
        instruction(SET, 3, 0, 0, XDP_PASS),
        instruction(CALL, 0, 0, 0, REDIRECT_MAP),
        instruction(EXIT, 0, 0, 0, 0),
        instruction(SET, 0, 0, 0, XDP_PASS),
        instruction(EXIT, 0, 0, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_on_to_the_host_leads_to_its_two_instructions() {
        let program = assemble(MacAddr([2, 0xf0, 0, 0xff, 1, 0xfe]), 1792, 7);
        assert_eq!(program[PASS_AT], instruction(SET, 0, 0, 0, XDP_PASS));
        assert_eq!(program[PASS_AT + 1].code, EXIT);
        let mut jumps = 0;
        for (at, step) in program.iter().enumerate() {
            if matches!(step.code, IF_GREATER | IF_NOT_EQUAL) {
                assert_eq!(at + 1 + step.offset as usize, PASS_AT, "from {at}");
                jumps += 1;
            }
        }
        assert_eq!(jumps, 4);
    }

    #[test]
    fn an_instruction_is_eight_bytes_as_the_kernel_has_it() {
        assert_eq!(size_of::<Instruction>(), 8);
    }
}
