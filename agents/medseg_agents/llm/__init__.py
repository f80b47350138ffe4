"""Language models as policies: on this machine, behind an API, and a tiny one to start with."""
