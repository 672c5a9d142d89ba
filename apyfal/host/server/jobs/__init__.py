"""Jobs of the daemon: the fair queue, execution, sessions, outputs."""
