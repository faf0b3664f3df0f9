"""What a worker measures where `--metrics` is on. Nothing here is imported, nor measured, where it is off."""
