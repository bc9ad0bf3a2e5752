"""Benchmarks: a plan of many runs, their results, comparisons with intervals, and the report."""
