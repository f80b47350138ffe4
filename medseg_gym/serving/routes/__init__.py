"""The HTTP routes, and the bodies of their requests and answers."""
