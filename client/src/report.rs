//! Reports: plots, the page, the numbers.

pub mod plots;
