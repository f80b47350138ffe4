"""Load, faults and latency of the service and the page."""
