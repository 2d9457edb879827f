"""The networks of the method, one a file (torch)."""
