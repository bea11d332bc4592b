"""What the benchmarks are made of: no module here is a command."""
