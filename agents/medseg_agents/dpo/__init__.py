"""Direct preference optimisation of chat policies on pairs of calls from one state, with TRL."""
