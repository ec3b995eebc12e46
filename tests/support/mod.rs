//! What tests of the whole program share beside the frames of the harness.

pub mod capture;
