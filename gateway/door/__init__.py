"""What every door does, whichever protocol it speaks: set up, admit, limit, ask, count, keep jobs."""
