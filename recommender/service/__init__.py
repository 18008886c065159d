"""The prediction service: an engine behind HTTP, in a process of its own without Django."""
