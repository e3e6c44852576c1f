"""Benchmarks: ours and a baseline, alternating on the same servers. See docs/performance.md."""
