"""`regbundles benchmark`: what the collection costs and what it is worth, measured; a module a subject."""
