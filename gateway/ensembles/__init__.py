"""Models chained into one: a graph of steps in TOML, run as requests that follow each other."""
