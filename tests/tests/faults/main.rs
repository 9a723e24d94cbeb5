//! Faults that nobody asks for: kills at any moment, system calls that fail. One target, so that all of it is linked once.

mod crash;
mod syscalls;
