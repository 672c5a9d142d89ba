"""Many jobs on one accelerator: the queue they wait in, the threads that run them, results in order."""
