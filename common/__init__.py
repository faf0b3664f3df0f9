"""What both sides share: the wire, the keys and the operations on Redis. Imports neither side, no torch."""
