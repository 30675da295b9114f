"""Files into a guest and out of it, by commands that run in it, wherever the guest is."""
