//! The whole system through its three programs, as processes, over real sockets and files. Below
//! `process`, `replay`, `server` and `world`, which the tests are written with, each module is one promise.
//!
//! Nothing sleeps for a fixed time: tests wait for conditions, with a deadline. Everything is
//! written below temporary folders, and no process outlives its test.

mod process;
mod replay;
mod server;
mod world;

mod bootstrapping;
mod crash;
mod errors;
mod gpu;
mod loops;
mod loss;
mod python;
mod shared_data;
mod tidy;
mod training;
mod turns;
