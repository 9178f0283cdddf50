"""Each figure of the design, measured against a ceiling or a peer in the same run: `python -m benchmarks`."""
