//! Ports on real devices. Each test runs itself again in network and mount namespaces of its
//! own (unshare(1)), so that it needs no clean-up and disturbs nobody; what is true of the
//! devices is asked of ip(8), not of the code under test.

#[macro_use]
mod support;

mod offload;
mod packet;
mod qemu;
mod tap;
mod xdp;
