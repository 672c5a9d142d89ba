"""How bytes reach the daemon and leave it: bodies, connections, requests, the threads that move them."""
