"""Sessions: named episodes of clients, their lifetime, and each owner's share of what all use."""
