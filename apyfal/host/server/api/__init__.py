"""The daemon's HTTP interface: routes, requests, bodies, OpenAPI."""
