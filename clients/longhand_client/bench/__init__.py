"""The benchmark's parts: load, statistics, report, plots."""
