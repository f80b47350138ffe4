"""The store on disk: journal, chunks, manifest, and reading them."""
