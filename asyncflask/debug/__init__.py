"""The debugger: a page for every unhandled exception, with a console in it.

``app.run(debug=True)`` puts it around the application. Under another server one
line does::

    app.asgi_app = Debugger(app)

Nothing of it answers unless ``app.debug`` is on.
"""

from .debugger import Debugger

__all__ = ["Debugger"]
