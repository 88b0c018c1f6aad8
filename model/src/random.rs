//! Model folders with random weights: for tests, benchmarks and trying the tools without a
//! download.
