"""The wrenn command: one file for each command group."""
