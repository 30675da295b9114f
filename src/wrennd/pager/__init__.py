"""The pager: serves one VM's page faults from a snapshot's files. Standard library only."""
