"""What can go wrong with the embedded servers. Each message is shown to the operator as it is."""


class EmbeddedError(Exception):
    """An embedded server cannot be placed or started; the message says what to do."""
