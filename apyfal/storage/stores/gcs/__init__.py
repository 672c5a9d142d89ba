"""Google Cloud Storage, by its JSON interface or by its XML interface with HMAC keys."""
