"""The page of `tfnvp explore`: a model to play with in a browser, on this machine alone.

`images` and `layers` compute what the page shows, and `figures` draws it: they need no Gradio.
`page` lays it out, and `server` hands it to the browser: they need the extra `explore`.
"""
