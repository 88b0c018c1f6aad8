//! Every kernel against a slow plain twin, on random shapes. One binary: on a machine with a GPU it runs
//! there, elsewhere on the software GPU; where that could not be built, each test says that it tested
//! nothing.

mod adamw;
mod causal_attention;
mod gather;
mod int8;
mod lora;
mod memory;
mod paged_attention;
mod products;
mod rms_norm;
mod rope_kv;
mod sample;
mod support;
mod swiglu;
mod training;
