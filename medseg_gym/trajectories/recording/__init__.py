"""Write every step of an environment into a store."""
