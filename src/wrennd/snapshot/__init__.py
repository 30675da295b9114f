"""Snapshots on disk: which page lies where, and directories that appear in one step."""
