"""Programs that the benchmarks run by exec, each in a fresh process with a home of its own."""
