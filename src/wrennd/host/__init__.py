"""What a sandbox holds on this machine, and when it is made and unmade."""
