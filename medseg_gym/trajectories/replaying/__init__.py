"""Play stored episodes again, or score them with another reward."""
