"""One file that holds many: snapshots on their way to another machine, and backups."""
