"""The daemon's data channel: connections that carry frames instead of requests, and the jobs on them."""
