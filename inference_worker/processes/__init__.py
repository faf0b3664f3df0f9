"""What a process has beside its work: its supervisor's lines, threads, a title, an exit code, and orders of its own."""
