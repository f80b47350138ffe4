"""The HTTP routes, and the bodies that they read and answer with."""
