"""Cards of data sets: `medseg cases card SPEC` and its page, figures and numbers."""
