"""Repositories of models behind a URL: fetched once for each host, verified, and kept in a bounded cache.

A URL is a Location; its Store is asked for the index, a tuple of entries; these make a Snapshot in the Cache, whose
files come by Download. The cache holds a file's content once, and a lease keeps what a process uses.
"""
