"""Figures about this project, each beside a floor measured in the same run. `python -m benchmarks` runs all."""
