"""Shared by the daemon and its client: addresses, messages, TLS, shared memory."""
