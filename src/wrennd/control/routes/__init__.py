"""The REST API's routes: they read a request, call what does it, and shape the answer."""
