"""The worker protocol: messages, the proxy (client) and the handler, and their transports."""
