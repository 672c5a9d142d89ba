"""What a job did: the times of its stages, its bytes and copies, and its result together with them."""
