"""The HTTP routes and the public JSON."""
