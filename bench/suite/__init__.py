"""The parts of `bench/run`: workloads, checkpoints, the systems that are measured, and the report."""
