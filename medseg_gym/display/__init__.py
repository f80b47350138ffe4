"""Results for people and programs: terminal tables, JSON, progress bars and plots."""
