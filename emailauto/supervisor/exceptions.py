"""Why a start ends before anything is served."""


class StartError(Exception):
    """The stack cannot start; the message, shown as it is, names the fix."""


class StopRequested(Exception):
    """Somebody asked us to stop."""
