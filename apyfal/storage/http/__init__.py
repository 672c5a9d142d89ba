"""HTTP/1.1 whose bodies are received at their final address: connections, their pool, responses, proxies."""
