"""The daemon's access rules and limits: tokens, directories, addresses, URLs, quotas."""
