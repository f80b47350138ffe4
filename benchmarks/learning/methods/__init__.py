"""Methods of the paper index, trained alike from one small start and compared on held-out cases."""
