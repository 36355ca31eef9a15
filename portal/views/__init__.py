"""Pages that show keys and usage together, and those that everyone may read.

Views only parse, ask `portal.pages` or `keys.lifecycle`, and answer.
"""
