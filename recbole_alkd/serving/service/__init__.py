"""The HTTP service on a bundle: plain ASGI and msgspec on uvicorn, several processes on one memory map,
metrics and one page.

It needs the extra ``serve`` and neither torch nor RecBole. ``workers.py`` starts the processes,
``connection.py`` guards their connections, ``app.py`` answers, ``messages.py`` has what is read and written
and the OpenAPI document.
"""
