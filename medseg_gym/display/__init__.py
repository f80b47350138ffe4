"""What people see of results: terminal tables and plots."""
