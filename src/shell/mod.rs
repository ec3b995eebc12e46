//! Everything around the core that does I/O: the event loop, the control socket, signals, the
//! watch on the configuration file, the log.
