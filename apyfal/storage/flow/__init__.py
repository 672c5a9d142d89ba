"""What every transfer obeys: cancellation, retries, concurrency, options, worker threads."""
