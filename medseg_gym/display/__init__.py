"""Results for people: terminal tables and plots."""
