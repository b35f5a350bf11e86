"""The atlas and its pages: a file a page, found through `registry`."""
