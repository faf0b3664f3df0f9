"""The same models inside distributed engines, in their processes: without Redis, and without workers of ours."""
