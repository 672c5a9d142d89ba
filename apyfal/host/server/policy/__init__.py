"""What a client may do: tokens, directories, addresses, references."""
