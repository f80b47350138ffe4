"""Steps and images a second, beside the families' own predictors."""
