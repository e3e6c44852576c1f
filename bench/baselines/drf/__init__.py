"""Event intake as it is usually written: a DRF serializer and the ORM, in a project of its own."""
