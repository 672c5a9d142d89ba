"""Dynamic batching: small jobs that travel to the device together."""
