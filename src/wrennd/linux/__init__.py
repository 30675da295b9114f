"""One module for each kernel interface: thin, complete, no policy; raises OSError."""
