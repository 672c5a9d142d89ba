"""Commands about this machine: its devices, their speed, what it lacks."""
