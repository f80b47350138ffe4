"""A network that finds all targets of an image at once, trained before anything is played.

Playing teaches where a target is one state at a time, and every state is a pass of the network.
Here one pass of an image learns from all the targets that are known in it, cell by cell.
"""
