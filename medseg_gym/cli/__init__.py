"""The command line `medseg`, one module per group of commands."""
