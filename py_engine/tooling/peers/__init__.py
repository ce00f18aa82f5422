"""Other engines for browsers, measured beside ours."""
