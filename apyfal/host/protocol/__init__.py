"""What the daemon and its client share: addresses, messages, TLS, shared memory."""
