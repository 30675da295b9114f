"""Where everything lies on the host, and the disks of sandboxes."""
