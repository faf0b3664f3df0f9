"""Which requests run together: composition by learned cost, limits, padding, splitting a batch that failed."""
