"""The server as one thing: what `wrenn up` starts and watches, and what the others know of it."""
