"""The page's routes `/api/...`; programs use `/session/...` and `/v1/...` instead."""
