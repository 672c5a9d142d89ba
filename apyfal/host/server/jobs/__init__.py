"""Jobs of the daemon: the fair queue, the journal, execution, sessions, outputs."""
