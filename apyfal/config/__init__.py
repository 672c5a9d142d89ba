"""The configuration file: layers of sections, typed values, and which keys need the user's trust."""
