"""What we are compared with in `benchmarks.serving`."""
